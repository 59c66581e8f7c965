"""A sidecar: inbound to the application, outbound to backends, and what leaves the mesh."""

from __future__ import annotations

from typing import Any

import pytest

from projector.snapshot import TYPE_CLUSTER, TYPE_LISTENER, TYPE_ROUTE
from tests.projector.envoy.meshes import (
    Log,
    by_node,
    by_router,
    canary,
    compiled,
    gateway_id,
    gateway_route,
    key,
    listener,
    node,
    node_id,
    route,
    router,
)
from tests.projector.envoy.readable import of_type, vhosts

INGRESS, EGRESS = "lds_ingress_0.0.0.0_15000", "lds_egress_0.0.0.0_15001"


def chains(log: Log, of: str, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = of_type(compiled(log, node_id(of)), TYPE_LISTENER)[name]["filterChains"]
    return found


def test_a_sidecar_has_app_meshs_listeners_clusters_and_routes_and_no_others() -> None:
    snapshot = compiled(canary(), node_id("cart-v2"))
    assert set(snapshot.resources) == {
        (TYPE_LISTENER, INGRESS),
        (TYPE_LISTENER, EGRESS),
        (TYPE_ROUTE, "rds_ingress_http_8080"),
        (TYPE_ROUTE, "rds_egress_http_8080"),
        (TYPE_CLUSTER, "cds_ingress_shop_cart-v2_http_8080"),
        (TYPE_CLUSTER, "cds_egress_shop_stock_http_8080"),
        (TYPE_CLUSTER, "cds_egress_shop_amazonaws"),
    }


def test_both_listeners_restore_the_original_destination_before_they_look_at_tls() -> None:
    for found in of_type(compiled(canary(), node_id("cart-v2")), TYPE_LISTENER).values():
        assert [each["name"] for each in found["listenerFilters"]] == [
            "envoy.filters.listener.original_dst",
            "envoy.filters.listener.tls_inspector",
        ]


def test_a_node_without_listeners_has_no_ingress_listener() -> None:
    backend = {"virtualService": {"virtualServiceName": "cart.shop.local"}}
    log = canary((key("virtualNode", "job"), {"backends": [backend]}))
    snapshot = compiled(log, node_id("job"))
    assert set(of_type(snapshot, TYPE_LISTENER)) == {EGRESS}
    assert "cart.shop.local" in vhosts(snapshot, "rds_egress_http_8080")


def test_the_application_gets_every_host_and_15_seconds_unless_the_listener_says_otherwise() -> None:
    log = canary()
    (vhost,) = vhosts(compiled(log, node_id("cart-v1")), "rds_ingress_http_8080").values()
    assert vhost["domains"] == ["*"]
    assert vhost["routes"][0]["route"] == {"cluster": "cds_ingress_shop_cart-v1_http_8080", "timeout": "15s"}
    unlimited = {"http": {"perRequest": {"unit": "ms", "value": 0}}}
    log.update(key("virtualNode", "cart-v1"), node(listener(timeout=unlimited)))
    (vhost,) = vhosts(compiled(log, node_id("cart-v1")), "rds_ingress_http_8080").values()
    assert vhost["routes"][0]["route"]["timeout"] == "0s"


@pytest.mark.parametrize("value", [0, 5, 60])
def test_a_service_of_a_node_takes_15_seconds_whatever_the_nodes_own_listener_says(value: int) -> None:
    log = canary()
    own = {"http": {"perRequest": {"unit": "s", "value": value}, "idle": {"unit": "s", "value": value}}}
    log.update(key("virtualNode", "stock"), node(listener(timeout=own)))
    (vhost,) = vhosts(compiled(log, node_id("cart-v2")), "rds_egress_http_8080").values()
    assert vhost["routes"][0]["route"]["timeout"] == "15s"
    assert "idleTimeout" not in vhost["routes"][0]["route"]
    log.create(key("gatewayRoute", "stock", "edge"), gateway_route("stock.shop.local", {"prefix": "/stock"}))
    (redirects,) = vhosts(compiled(log, gateway_id()), "rds_ingress_http_8088").values()
    of_stock = next(each for each in redirects["routes"] if each["match"]["prefix"] == "/stock")
    assert of_stock["route"]["timeout"] == "15s"


@pytest.mark.parametrize(
    ("of_node", "of_mesh", "address", "dual"),
    [
        (None, None, "127.0.0.1", False),
        ("IPv6_PREFERRED", None, "::1", True),
        ("IPv4_ONLY", "IPv6_ONLY", "127.0.0.1", True),
        (None, "IPv6_ONLY", "::1", True),
        (None, "IPv4_PREFERRED", "127.0.0.1", True),
    ],
)
def test_ip_preference_picks_the_applications_address_and_what_is_bound(
    of_node: str | None, of_mesh: str | None, address: str, dual: bool
) -> None:
    log = canary()
    own: dict[str, Any] = {"ipPreference": of_node} if of_node else {}
    log.update(key("virtualNode", "stock"), node(**own))
    log.update(key("mesh", "shop"), {"serviceDiscovery": {"ipPreference": of_mesh}} if of_mesh else {})
    snapshot = compiled(log, node_id("stock"))
    app = of_type(snapshot, TYPE_CLUSTER)["cds_ingress_shop_stock_http_8080"]
    endpoint = app["loadAssignment"]["endpoints"][0]["lbEndpoints"][0]["endpoint"]
    assert endpoint["address"]["socketAddress"]["address"] == address
    bound = {
        name: found["address"]["socketAddress"]["address"] for name, found in of_type(snapshot, TYPE_LISTENER).items()
    }
    directions = ("ingress_{}_15000", "egress_{}_15001")
    wanted = {f"lds_{direction.format('0.0.0.0')}": "0.0.0.0" for direction in directions}
    if dual:
        wanted |= {f"lds_{direction.format('[::]')}": "::" for direction in directions}
    assert bound == wanted


def test_with_allow_all_a_backends_port_is_still_the_backends_and_443_is_open() -> None:
    # App Mesh: whoever names a backend must name all that is on its port (API reference, EgressFilter).
    log = canary()
    log.update(key("mesh", "shop"), {"egressFilter": {"type": "ALLOW_ALL"}})
    chains = of_type(compiled(log, node_id("cart-v2")), TYPE_LISTENER)[EGRESS]["filterChains"]
    wanted = [
        {"destinationPort": 8080},
        {"destinationPort": 443, "serverNames": ["*.amazonaws.com"]},
        {"prefixRanges": [{"addressPrefix": "0.0.0.0", "prefixLen": 0}]},
        {"destinationPort": 443},
    ]
    assert [each["filterChainMatch"] for each in chains] == wanted
    (only,) = vhosts(compiled(log, node_id("cart-v2")), "rds_egress_http_8080").values()
    assert "*" not in only["domains"]


def test_allow_all_lets_both_families_out_where_both_are_bound() -> None:
    log = canary()
    log.update(
        key("mesh", "shop"),
        {"egressFilter": {"type": "ALLOW_ALL"}, "serviceDiscovery": {"ipPreference": "IPv4_PREFERRED"}},
    )
    listeners = of_type(compiled(log, node_id("stock")), TYPE_LISTENER)
    ranges = {
        name: [
            each["filterChainMatch"]["prefixRanges"]
            for each in found["filterChains"]
            if "prefixRanges" in each["filterChainMatch"]
        ]
        for name, found in listeners.items()
    }
    assert ranges["lds_egress_0.0.0.0_15001"] == [[{"addressPrefix": "0.0.0.0", "prefixLen": 0}]]
    assert ranges["lds_egress_[::]_15001"] == [[{"addressPrefix": "::", "prefixLen": 0}]]


def test_a_virtual_service_with_a_node_is_routed_with_the_default_retries() -> None:
    (vhost,) = vhosts(compiled(canary(), node_id("cart-v2")), "rds_egress_http_8080").values()
    assert vhost["domains"] == ["stock.shop.local", "stock.shop.local:8080"]
    (only,) = vhost["routes"]
    assert only["route"]["cluster"] == "cds_egress_shop_stock_http_8080"
    retries = only["route"]["retryPolicy"]
    assert set(retries["retryOn"].split(",")) == {
        "reset",
        "unavailable",
        "connect-failure",
        "refused-stream",
        "retriable-status-codes",
    }
    assert (retries["numRetries"], retries["retriableStatusCodes"]) == (2, [503])
    tags = only["metadata"]["filterMetadata"]["aws.appmesh.aggregate_stats"]
    assert tags == {"config": '{"tags":[{"key":"TargetVirtualService","value":"stock.shop.local"}]}'}


def test_backends_that_share_a_port_share_a_chain_whatever_their_http_version() -> None:
    log = canary(
        (key("virtualNode", "grpc"), node(listener(8080, "grpc"), host="grpc.internal")),
        (key("virtualService", "grpc.shop.local"), by_node("grpc")),
        (key("virtualNode", "caller"), node(backends=("stock.shop.local", "grpc.shop.local"))),
    )
    snapshot = compiled(log, node_id("caller"))
    assert [chain["filterChainMatch"]["destinationPort"] for chain in chains(log, "caller", EGRESS)] == [8080, 443]
    assert set(vhosts(snapshot, "rds_egress_http_8080")) == {"stock.shop.local", "grpc.shop.local"}
    http2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    clusters = of_type(snapshot, TYPE_CLUSTER)
    assert http2 in clusters["cds_egress_shop_grpc_grpc_8080"]["typedExtensionProtocolOptions"]
    assert "typedExtensionProtocolOptions" not in clusters["cds_egress_shop_stock_http_8080"]


def test_a_router_with_two_listeners_shows_on_each_port_the_routes_of_that_port() -> None:
    log = canary(
        (key("virtualRouter", "two"), router(81, 82)),
        (key("route", "a", "two"), route({"stock": 1}, {"prefix": "/a", "port": 81})),
        (key("route", "b", "two"), route({"stock": 1}, {"prefix": "/b", "port": 82})),
        (key("virtualService", "two.shop.local"), by_router("two")),
        (key("virtualNode", "caller"), node(backends=("two.shop.local",))),
    )
    snapshot = compiled(log, node_id("caller"))
    for port, prefix in ((81, "/a"), (82, "/b")):
        (vhost,) = vhosts(snapshot, f"rds_egress_http_{port}").values()
        assert [each["match"] for each in vhost["routes"]] == [{"prefix": prefix}]


def test_drop_all_lets_only_aws_out_by_server_name() -> None:
    (amazon,) = chains(canary(), "stock", EGRESS)
    assert amazon["filterChainMatch"] == {"destinationPort": 443, "serverNames": ["*.amazonaws.com"]}
    assert amazon["filters"][0]["typedConfig"]["cluster"] == "cds_egress_shop_amazonaws"


def test_allow_all_lets_everything_else_out_too() -> None:
    log = canary()
    log.update(key("mesh", "shop"), {"egressFilter": {"type": "ALLOW_ALL"}})
    _, anywhere, tls = chains(log, "stock", EGRESS)
    assert anywhere["filterChainMatch"] == {"prefixRanges": [{"addressPrefix": "0.0.0.0", "prefixLen": 0}]}
    assert tls["filterChainMatch"] == {"destinationPort": 443}
    for chain in (anywhere, tls):
        assert chain["filters"][0]["typedConfig"]["cluster"] == "cds_egress_shop_mesh-allow-all"


def test_a_backend_on_443_takes_the_place_of_the_open_way_out_on_that_port() -> None:
    log = canary(
        (key("virtualNode", "tls"), node(listener(443), host="tls.internal")),
        (key("virtualService", "tls.shop.local"), by_node("tls")),
        (key("virtualNode", "caller"), node(backends=("tls.shop.local",))),
    )
    log.update(key("mesh", "shop"), {"egressFilter": {"type": "ALLOW_ALL"}})
    matches = [str(chain["filterChainMatch"]) for chain in chains(log, "caller", EGRESS)]
    assert len(set(matches)) == len(matches) == 3


def test_a_backend_that_does_not_exist_yet_is_an_alarm_and_nothing_else() -> None:
    log = canary((key("virtualNode", "caller"), node(backends=("later.shop.local", "stock.shop.local"))))
    snapshot = compiled(log, node_id("caller"))
    assert set(vhosts(snapshot, "rds_egress_http_8080")) == {"stock.shop.local"}
    (alarm,) = snapshot.alarms
    assert alarm.startswith("mesh/shop/virtualNode/caller: spec.backends name later.shop.local")


def test_a_listener_that_cannot_be_compiled_accepts_nothing_and_is_named() -> None:
    held = listener(9000, tls={"mode": "PERMISSIVE", "certificate": {"acm": {"certificateArn": "arn:aws:acm:::c"}}})
    log = canary((key("virtualNode", "mixed"), node(listener(8080), held)))
    (chain,) = chains(log, "mixed", INGRESS)
    assert chain["filterChainMatch"] == {"destinationPort": 8080}
    (alarm,) = compiled(log, node_id("mixed")).alarms
    assert alarm.startswith("mesh/shop/virtualNode/mixed: spec.listeners[1].")


def test_a_listener_with_tls_disabled_is_an_ordinary_one() -> None:
    log = canary((key("virtualNode", "plain"), node(listener(8080, tls={"mode": "DISABLED"}))))
    assert len(chains(log, "plain", INGRESS)) == 1


def test_a_connection_pool_limits_what_reaches_the_application() -> None:
    pool = {"http": {"maxConnections": 3, "maxPendingRequests": 4}}
    log = canary((key("virtualNode", "small"), node(listener(8080, connectionPool=pool))))
    app = of_type(compiled(log, node_id("small")), TYPE_CLUSTER)["cds_ingress_shop_small_http_8080"]
    (limits,) = app["circuitBreakers"]["thresholds"]
    assert limits == {
        "maxConnections": 3,
        "maxPendingRequests": 4,
        "maxRequests": 2147483647,
        "maxRetries": 2147483647,
    }
