"""A virtual gateway's listeners, its self-redirect, rewrites and the virtual services behind it."""

from __future__ import annotations

from typing import Any

import pytest

from projector.snapshot import TYPE_CLUSTER, TYPE_LISTENER, TYPE_ROUTE
from tests.projector.envoy.meshes import (
    by_node,
    by_router,
    canary,
    compiled,
    gateway,
    gateway_id,
    gateway_route,
    key,
    listener,
    node,
    route,
    router,
)
from tests.projector.envoy.readable import of_type, vhosts

SELF_REDIRECT = "cds_ingress_shop_edge_self_redirect_http_15001"
KEEP_HOST = {"hostname": {"defaultTargetHostname": "DISABLED"}}


def redirects(*routes: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The self-redirect routes of the canary mesh's gateway with these gateway routes only."""
    log = canary(*((key("gatewayRoute", name, "edge"), spec) for name, spec in routes))
    log.delete(key("gatewayRoute", "cart", "edge"))
    vhost = vhosts(compiled(log, gateway_id()), "rds_ingress_http_8088")["self_redirect"]
    found: list[dict[str, Any]] = vhost["routes"]
    return found


def test_a_gateway_has_app_meshs_listeners_clusters_and_routes_and_no_others() -> None:
    snapshot = compiled(canary(), gateway_id())
    assert set(snapshot.resources) == {
        (TYPE_LISTENER, "lds_ingress_0.0.0.0_8088"),
        (TYPE_LISTENER, "lds_egress_0.0.0.0_15001"),
        (TYPE_ROUTE, "rds_ingress_http_8088"),
        (TYPE_ROUTE, "rds_egress_http_15001"),
        (TYPE_CLUSTER, SELF_REDIRECT),
        (TYPE_CLUSTER, "cds_egress_shop_cart-v1_http_8080"),
        (TYPE_CLUSTER, "cds_egress_shop_cart-v2_http_8080"),
    }
    assert snapshot.alarms == ()


def test_the_self_redirect_goes_to_15001_of_this_host_within_a_quarter_of_a_second() -> None:
    cluster = of_type(compiled(canary(), gateway_id()), TYPE_CLUSTER)[SELF_REDIRECT]
    endpoint = cluster["loadAssignment"]["endpoints"][0]["lbEndpoints"][0]["endpoint"]
    assert endpoint["address"]["socketAddress"] == {"address": "127.0.0.1", "portValue": 15001}
    assert cluster["connectTimeout"] == "0.250s"
    assert "metadata" not in cluster


def test_with_several_listeners_names_and_stat_prefixes_carry_port_and_protocol() -> None:
    log = canary()
    log.update(key("virtualGateway", "edge"), gateway(listener(8088), listener(9099, "http2")))
    snapshot = compiled(log, gateway_id())
    assert "cds_ingress_shop_edge_self_redirect_8088_http_15001" in of_type(snapshot, TYPE_CLUSTER)
    assert "cds_ingress_shop_edge_self_redirect_9099_http2_15001" in of_type(snapshot, TYPE_CLUSTER)
    chain = of_type(snapshot, TYPE_LISTENER)["lds_ingress_0.0.0.0_9099"]["filterChains"][0]
    assert chain["filters"][0]["typedConfig"]["statPrefix"] == "ingress.http2.9099"
    assert chain["filters"][0]["typedConfig"]["rds"]["routeConfigName"] == "rds_ingress_http2_9099"


def test_a_gateway_route_with_a_port_is_on_that_listener_only() -> None:
    log = canary()
    log.update(key("virtualGateway", "edge"), gateway(listener(8088), listener(9099)))
    log.update(key("gatewayRoute", "cart", "edge"), gateway_route("cart.shop.local", {"prefix": "/cart", "port": 9099}))
    snapshot = compiled(log, gateway_id())
    assert "routes" not in vhosts(snapshot, "rds_ingress_http_8088")["self_redirect"]
    assert len(vhosts(snapshot, "rds_ingress_http_9099")["self_redirect"]["routes"]) == 2


def test_a_prefix_is_matched_with_and_without_its_slash_and_rewritten_to_the_root() -> None:
    first, second = redirects(("a", gateway_route("cart.shop.local", {"prefix": "/p"})))
    assert [first["match"], second["match"]] == [{"prefix": "/p/"}, {"prefix": "/p"}]
    for each in (first, second):
        assert each["route"]["prefixRewrite"] == "/"
        assert each["route"]["hostRewriteLiteral"] == "cart.shop.local"
        assert each["route"]["cluster"] == SELF_REDIRECT


@pytest.mark.parametrize("prefix", ["/", "/p/"])
def test_a_prefix_that_ends_with_a_slash_is_matched_once(prefix: str) -> None:
    (only,) = redirects(("a", gateway_route("cart.shop.local", {"prefix": prefix})))
    assert only["match"] == {"prefix": prefix}
    assert only["route"]["prefixRewrite"] == "/"


def test_with_default_prefix_disabled_the_path_stays_as_it_came() -> None:
    disabled = {"prefix": {"defaultPrefix": "DISABLED"}}
    (only,) = redirects(("a", gateway_route("cart.shop.local", {"prefix": "/p"}, disabled)))
    assert only["match"] == {"prefix": "/p"}
    assert only["route"]["prefixRewrite"] == "/p"


def test_a_rewrite_value_replaces_the_prefix() -> None:
    value = {"prefix": {"value": "/v2"}}
    (only,) = redirects(("a", gateway_route("cart.shop.local", {"prefix": "/p"}, value)))
    assert only["match"] == {"prefix": "/p"}
    assert only["route"]["prefixRewrite"] == "/v2"


def test_an_exact_path_is_not_rewritten_unless_asked() -> None:
    (only,) = redirects(("a", gateway_route("cart.shop.local", {"path": {"exact": "/p"}})))
    assert only["match"] == {"path": "/p"}
    assert "prefixRewrite" not in only["route"]


def test_priority_comes_before_length_and_the_longest_prefix_before_the_others() -> None:
    found = redirects(
        ("a", gateway_route("cart.shop.local", {"prefix": "/longer"})),
        ("b", gateway_route("cart.shop.local", {"prefix": "/b"}, priority=3)),
        ("c", gateway_route("cart.shop.local", {"prefix": "/"})),
    )
    assert [each["match"]["prefix"] for each in found] == ["/b/", "/b", "/longer/", "/longer", "/"]


def test_with_the_host_name_kept_the_service_travels_in_a_header_that_a_client_cannot_set() -> None:
    log = canary()
    log.update(key("gatewayRoute", "cart", "edge"), gateway_route("cart.shop.local", {"prefix": "/cart"}, KEEP_HOST))
    snapshot = compiled(log, gateway_id())
    added = vhosts(snapshot, "rds_ingress_http_8088")["self_redirect"]["routes"][0]["requestHeadersToAdd"]
    assert added == [
        {
            "header": {"key": "x-app-mesh-virtual-service", "value": "cart.shop.local"},
            "appendAction": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
    ]
    egress = vhosts(snapshot, "rds_egress_http_15001")
    assert set(egress) == {"default_backend"}
    (behind,) = egress["default_backend"]["routes"]
    assert behind["match"]["headers"] == [
        {"name": "x-app-mesh-virtual-service", "stringMatch": {"exact": "cart.shop.local"}}
    ]
    assert behind["responseHeadersToRemove"] == ["x-app-mesh-virtual-service"]


def test_a_percent_sign_in_a_service_name_begins_no_command_in_the_header() -> None:
    log = canary()
    log.create(key("virtualService", "50%off"), {})
    log.update(key("gatewayRoute", "cart", "edge"), gateway_route("50%off", {"prefix": "/cart"}, KEEP_HOST))
    snapshot = compiled(log, gateway_id())
    first = vhosts(snapshot, "rds_ingress_http_8088")["self_redirect"]["routes"][0]
    assert first["requestHeadersToAdd"][0]["header"]["value"] == "50%%off"


def test_the_redirect_waits_as_long_as_the_slowest_route_of_the_service() -> None:
    log = canary()
    slow = {"perRequest": {"unit": "s", "value": 60}, "idle": {"unit": "s", "value": 900}}
    log.create(key("route", "slow", "cart"), route({"cart-v1": 1}, {"prefix": "/slow"}, timeout=slow))
    action = vhosts(compiled(log, gateway_id()), "rds_ingress_http_8088")["self_redirect"]["routes"][0]["route"]
    assert (action["timeout"], action["idleTimeout"]) == ("60s", "900s")


def test_a_service_without_provider_or_routes_is_a_virtual_host_without_routes() -> None:
    for spec in ({}, by_router("bare")):
        log = canary((key("virtualRouter", "bare"), router()))
        log.update(key("virtualService", "cart.shop.local"), spec)
        snapshot = compiled(log, gateway_id())
        assert vhosts(snapshot, "rds_egress_http_15001")["cart.shop.local"] == {
            "name": "cart.shop.local",
            "domains": ["cart.shop.local", "cart.shop.local:15001"],
        }
        action = vhosts(snapshot, "rds_ingress_http_8088")["self_redirect"]["routes"][0]["route"]
        assert "timeout" not in action
        assert snapshot.alarms == ()


def test_a_target_port_picks_the_listener_of_a_provider_with_several() -> None:
    log = canary()
    log.update(key("virtualNode", "stock"), node(listener(1000), listener(2000), host="stock.internal"))
    spec = gateway_route("stock.shop.local", {"prefix": "/stock"})
    spec["httpRoute"]["action"]["target"]["port"] = 2000
    log.create(key("gatewayRoute", "stock", "edge"), spec)
    action = vhosts(compiled(log, gateway_id()), "rds_egress_http_15001")["stock.shop.local"]["routes"][0]["route"]
    assert action["cluster"] == "cds_egress_shop_stock_http_2000"


def test_gateway_routes_to_several_ports_of_one_service_stand_beside_each_other() -> None:
    log = canary()
    log.update(key("virtualNode", "stock"), node(listener(1000), listener(2000), host="stock.internal"))
    for port in (1000, 2000):
        spec = gateway_route("stock.shop.local", {"prefix": f"/stock{port}"})
        spec["httpRoute"]["action"]["target"]["port"] = port
        log.create(key("gatewayRoute", f"stock-{port}", "edge"), spec)
    snapshot = compiled(log, gateway_id())
    assert snapshot.alarms == ()
    found = vhosts(snapshot, "rds_egress_http_15001")
    for port in (1000, 2000):
        called = f"stock.shop.local:{port}"
        assert found[called]["domains"] == [called]
        action = found[called]["routes"][0]["route"]
        assert action["hostRewriteLiteral"] == "stock.shop.local", "the application sees no port"
        assert (action.get("cluster") or action["weightedClusters"]) == f"cds_egress_shop_stock_http_{port}"
    (redirects,) = vhosts(snapshot, "rds_ingress_http_8088").values()
    assert {
        each["route"]["hostRewriteLiteral"] for each in redirects["routes"] if "stock" in each["match"]["prefix"]
    } == {
        "stock.shop.local:1000",
        "stock.shop.local:2000",
    }


def test_without_a_target_port_nobody_guesses_between_several_listeners() -> None:
    log = canary((key("gatewayRoute", "stock", "edge"), gateway_route("stock.shop.local", {"prefix": "/stock"})))
    log.update(key("virtualNode", "stock"), node(listener(1000), listener(2000), host="stock.internal"))
    snapshot = compiled(log, gateway_id())
    assert "routes" not in vhosts(snapshot, "rds_egress_http_15001")["stock.shop.local"]
    assert [alarm for alarm in snapshot.alarms if "action.target.port" in alarm]


def test_a_certificate_of_acm_holds_the_listener_back_rather_than_accept_plaintext() -> None:
    log = canary()
    tls = {"mode": "STRICT", "certificate": {"acm": {"certificateArn": "arn:aws:acm:::c"}}}
    log.update(key("virtualGateway", "edge"), gateway(listener(8088, tls=tls), listener(8089)))
    snapshot = compiled(log, gateway_id())
    assert set(of_type(snapshot, TYPE_LISTENER)) == {"lds_ingress_0.0.0.0_8089", "lds_egress_0.0.0.0_15001"}
    (alarm,) = snapshot.alarms
    assert "mesh/shop/virtualGateway/edge: spec.listeners[0].tls" in alarm


@pytest.mark.parametrize(
    ("match", "compiled_to"),
    [
        (
            {"prefix": "/x/", "headers": [{"name": "x-canary"}], "method": "GET"},
            {
                "prefix": "/x/",
                "headers": [
                    {"name": ":method", "stringMatch": {"exact": "GET"}},
                    {"name": "x-canary", "presentMatch": True},
                ],
            },
        ),
        (
            {"prefix": "/x/", "queryParameters": [{"name": "q", "match": {"exact": "1"}}]},
            {"prefix": "/x/", "queryParameters": [{"name": "q", "stringMatch": {"exact": "1"}}]},
        ),
        ({"path": {"regex": "/x.*"}}, {"safeRegex": {"regex": "/x.*"}}),
        (
            {"hostname": {"exact": "a.example"}},
            {
                "prefix": "/",
                "headers": [
                    {"name": ":authority", "stringMatch": {"safeRegex": {"regex": "(?i)a\\.example(:[0-9]+)?"}}}
                ],
            },
        ),
        (
            {"prefix": "/x/", "hostname": {"suffix": ".example"}},
            {
                "prefix": "/x/",
                "headers": [
                    {"name": ":authority", "stringMatch": {"safeRegex": {"regex": "(?i).*\\.example(:[0-9]+)?"}}}
                ],
            },
        ),
    ],
)
def test_every_condition_of_a_gateway_route_is_compiled(match: dict[str, Any], compiled_to: dict[str, Any]) -> None:
    (only,) = redirects(("a", gateway_route("cart.shop.local", match)))
    assert only["match"] == compiled_to


def test_a_regex_path_is_rewritten_as_a_whole() -> None:
    rewrite = {"path": {"exact": "/new\\1"}}
    (only,) = redirects(("a", gateway_route("cart.shop.local", {"path": {"regex": "/x.*"}}, rewrite)))
    assert only["route"]["regexRewrite"] == {"pattern": {"regex": "^.+$"}, "substitution": "/new\\\\1"}
    (only,) = redirects(("a", gateway_route("cart.shop.local", {"path": {"regex": "/x.*"}})))
    assert "regexRewrite" not in only["route"]


def test_a_grpc_gateway_route_matches_its_service_and_rewrites_the_host_alone() -> None:
    action = {"target": {"virtualService": {"virtualServiceName": "cart.shop.local"}}}
    (only,) = redirects(("a", {"grpcRoute": {"match": {"serviceName": "shop.Cart"}, "action": action}}))
    assert only["match"] == {"prefix": "/shop.Cart/", "grpc": {}}
    assert only["route"]["hostRewriteLiteral"] == "cart.shop.local"
    assert "prefixRewrite" not in only["route"]


def test_a_gateway_route_that_envoy_would_refuse_is_held_back_and_named() -> None:
    log = canary((key("gatewayRoute", "odd", "edge"), gateway_route("stock.shop.local", {"path": {"regex": "("}})))
    snapshot = compiled(log, gateway_id())
    matches = [each["match"] for each in vhosts(snapshot, "rds_ingress_http_8088")["self_redirect"]["routes"]]
    assert matches == [{"prefix": "/cart/"}, {"prefix": "/cart"}]
    (alarm,) = snapshot.alarms
    assert alarm.startswith("mesh/shop/virtualGateway/edge/gatewayRoute/odd: match")


def test_two_services_that_envoy_cannot_tell_apart_do_not_take_the_others_down() -> None:
    log = canary(
        (key("virtualService", "CART.shop.local"), by_node("stock")),
        (key("virtualService", "*.shop.local"), by_node("stock")),
        (key("virtualService", "default_backend"), by_node("stock")),
        (key("gatewayRoute", "upper", "edge"), gateway_route("CART.shop.local", {"prefix": "/upper"})),
        (key("gatewayRoute", "star", "edge"), gateway_route("*.shop.local", {"prefix": "/star"})),
        (key("gatewayRoute", "named", "edge"), gateway_route("default_backend", {"prefix": "/named"})),
        (key("gatewayRoute", "kept", "edge"), gateway_route("stock.shop.local", {"prefix": "/kept"}, KEEP_HOST)),
    )
    snapshot = compiled(log, gateway_id())
    domains = [vhost["domains"] for vhost in vhosts(snapshot, "rds_egress_http_15001").values()]
    assert domains == [["cart.shop.local", "cart.shop.local:15001"], ["*"]]
    assert len(snapshot.alarms) == 3


def test_an_access_log_is_written_on_both_passes() -> None:
    log = canary()
    logging = {"accessLog": {"file": {"path": "/dev/stdout"}}}
    log.update(key("virtualGateway", "edge"), gateway(listener(8088), logging=logging))
    for plan in of_type(compiled(log, gateway_id()), TYPE_LISTENER).values():
        (entry,) = plan["filterChains"][0]["filters"][0]["typedConfig"]["accessLog"]
        assert entry["typedConfig"]["path"] == "/dev/stdout"


def logged(form: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What is compiled of an access log's format, and the alarms."""
    log = canary()
    logging = {"accessLog": {"file": {"path": "/dev/stdout", "format": form}}}
    log.update(key("virtualGateway", "edge"), gateway(listener(8088), logging=logging))
    snapshot = compiled(log, gateway_id())
    plan = of_type(snapshot, TYPE_LISTENER)["lds_ingress_0.0.0.0_8088"]
    (entry,) = plan["filterChains"][0]["filters"][0]["typedConfig"]["accessLog"]
    return entry["typedConfig"].get("logFormat", {}), snapshot.alarms


def test_an_access_log_has_the_format_that_is_asked_for() -> None:
    text = "%START_TIME% %REQ(:PATH)%\n"
    assert logged({"text": text}) == ({"textFormatSource": {"inlineString": text}}, ())
    members = [{"key": "status", "value": "%RESPONSE_CODE%"}, {"key": "at", "value": "%START_TIME(%s)%"}]
    assert logged({"json": members}) == ({"jsonFormat": {"at": "%START_TIME(%s)%", "status": "%RESPONSE_CODE%"}}, ())


def test_an_access_log_format_that_envoy_would_refuse_is_reported_not_dropped_in_silence() -> None:
    found, (alarm,) = logged({"text": "%NO_SUCH_COMMAND%"})
    assert found == {}
    assert alarm.startswith("mesh/shop/virtualGateway/edge: spec.logging.accessLog.file.format")


CHECK = {
    "protocol": "http",
    "path": "/ready",
    "healthyThreshold": 2,
    "unhealthyThreshold": 3,
    "intervalMillis": 5000,
    "timeoutMillis": 2000,
    "port": 8088,
}


def test_a_listeners_health_check_asks_the_gateway_itself_whether_it_takes_requests() -> None:
    log = canary()
    grpc = {**CHECK, "protocol": "grpc", "port": 8089}
    listeners = (listener(8088, healthCheck=CHECK), listener(8089, "grpc", healthCheck=grpc), listener(8090))
    log.update(key("virtualGateway", "edge"), gateway(*listeners))
    snapshot = compiled(log, gateway_id())
    clusters = of_type(snapshot, TYPE_CLUSTER)
    http, http2, none = (
        clusters[f"cds_ingress_shop_edge_self_redirect_{port}_15001"]
        for port in ("8088_http", "8089_grpc", "8090_http")
    )
    times: dict[str, Any] = {"timeout": "2s", "interval": "5s", "noTrafficInterval": "5s"}
    times |= {"healthyThreshold": 2, "unhealthyThreshold": 3, "reuseConnection": False}
    assert http["healthChecks"] == [{**times, "httpHealthCheck": {"path": "/ready"}}]
    asked = {"path": "/grpc.health.v1.Health/Check", "codecClientType": "HTTP2"}
    assert http2["healthChecks"] == [{**times, "httpHealthCheck": asked}]
    assert "healthChecks" not in none
    (chain,) = of_type(snapshot, TYPE_LISTENER)["lds_egress_0.0.0.0_15001"]["filterChains"]
    *checks, router = chain["filters"][0]["typedConfig"]["httpFilters"]
    assert router["name"] == "envoy.filters.http.router"
    answered = [
        {header["name"]: header["stringMatch"]["exact"] for header in each["typedConfig"]["headers"]} for each in checks
    ]
    assert answered == [
        {":path": "/ready", ":authority": http["name"]},
        {":path": "/grpc.health.v1.Health/Check", ":authority": http2["name"]},
    ]
    assert snapshot.alarms == ()
