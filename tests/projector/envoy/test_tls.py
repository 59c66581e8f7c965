"""TLS as plans and bytes: what a listener takes, and what a caller speaks and believes."""

from __future__ import annotations

from typing import Any

import pytest

from projector.snapshot import TYPE_CLUSTER, TYPE_LISTENER, NodeSnapshot
from tests.projector.envoy.meshes import (
    Spec,
    by_node,
    canary,
    compiled,
    gateway,
    gateway_id,
    key,
    listener,
    node,
    node_id,
)
from tests.projector.envoy.readable import cluster_references, of_type, vhosts

INGRESS = "lds_ingress_0.0.0.0_15000"
STOCK = "cds_egress_shop_stock_http_8080"
FILES = {"file": {"certificateChain": "/c", "privateKey": "/k"}}
SECRET = {"sds": {"secretName": "mine"}}
ACM = {"acm": {"certificateArn": "arn:aws:acm:::c"}}
BY_FILE = {"trust": {"file": {"certificateChain": "/ca"}}}
BY_SECRET = {"trust": {"sds": {"secretName": "ca"}}}
COMPILED_FILES = [{"certificateChain": {"filename": "/c"}, "privateKey": {"filename": "/k"}}]


def compiled_secret(name: str) -> dict[str, Any]:
    service = {"envoyGrpc": {"clusterName": "static_cluster_sds_unix_socket"}}
    source = {"apiType": "GRPC", "transportApiVersion": "V3", "grpcServices": [service]}
    return {"name": name, "sdsConfig": {"apiConfigSource": source, "resourceApiVersion": "V3"}}


def named(*names: str) -> dict[str, Any]:
    return {"subjectAlternativeNames": {"match": {"exact": list(names)}}}


def server(mode: str, certificate: Spec, port: int = 8080, protocol: str = "http", **tls: Any) -> dict[str, Any]:
    return listener(port, protocol, tls={"mode": mode, "certificate": certificate, **tls})


def taken(*listeners: Spec) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The inbound listener of a node with these, and the alarms."""
    snapshot = compiled(canary((key("virtualNode", "safe"), node(*listeners))), node_id("safe"))
    return of_type(snapshot, TYPE_LISTENER).get(INGRESS, {}), snapshot.alarms


def context(socket: dict[str, Any]) -> dict[str, Any]:
    assert socket["name"] == "envoy.transport_sockets.tls"
    found: dict[str, Any] = socket["typedConfig"]
    return found


def inspected(found: dict[str, Any]) -> str:
    (inspector,) = (each for each in found["listenerFilters"] if each["name"].endswith("tls_inspector"))
    return str(inspector.get("filterDisabled"))


# --- listeners


def test_a_strict_listener_takes_tls_alone_and_waits_for_no_inspector() -> None:
    found, alarms = taken(server("STRICT", FILES))
    (chain,) = found["filterChains"]
    assert chain["filterChainMatch"] == {"destinationPort": 8080}
    tls = context(chain["transportSocket"])
    assert tls["@type"].endswith(".DownstreamTlsContext")
    assert tls["commonTlsContext"] == {"tlsCertificates": COMPILED_FILES, "alpnProtocols": ["http/1.1"]}
    assert "requireClientCertificate" not in tls
    assert inspected(found) == "{'anyMatch': True}"
    assert alarms == ()


def test_a_permissive_listener_has_tls_and_plain_text_side_by_side_and_looks_on_its_port_alone() -> None:
    found, _ = taken(server("PERMISSIVE", SECRET), listener(9000))
    secure, plain, other = found["filterChains"]
    assert secure["filterChainMatch"] == {"destinationPort": 8080, "transportProtocol": "tls"}
    assert plain["filterChainMatch"] == {"destinationPort": 8080, "transportProtocol": "raw_buffer"}
    assert "transportSocket" in secure
    assert "transportSocket" not in plain
    assert secure["filters"] == plain["filters"]
    assert other["filterChainMatch"] == {"destinationPort": 9000}
    assert inspected(found) == "{'notMatch': {'destinationPortRange': {'start': 8080, 'end': 8081}}}"
    assert "continueOnListenerFiltersTimeout" not in found


def test_a_server_that_speaks_first_is_not_waited_for_long_on_a_permissive_tcp_port() -> None:
    found, _ = taken(server("PERMISSIVE", FILES, 5432, "tcp"))
    assert found["continueOnListenerFiltersTimeout"] is True
    assert found["listenerFiltersTimeout"] == "1s"
    assert "alpnProtocols" not in context(found["filterChains"][0]["transportSocket"])["commonTlsContext"]


def test_a_disabled_listener_needs_no_certificate() -> None:
    found, alarms = taken(listener(8080, tls={"mode": "DISABLED", "certificate": ACM}))
    assert "transportSocket" not in found["filterChains"][0]
    assert alarms == ()


def test_certificates_come_from_the_proxys_own_secret_socket() -> None:
    found, _ = taken(server("STRICT", SECRET, protocol="grpc"))
    common = context(found["filterChains"][0]["transportSocket"])["commonTlsContext"]
    assert common == {"tlsCertificateSdsSecretConfigs": [compiled_secret("mine")], "alpnProtocols": ["h2", "http/1.1"]}


@pytest.mark.parametrize(
    ("name", "matchers"),
    [
        ("cart.shop.local", [{"sanType": "DNS", "matcher": {"exact": "cart.shop.local"}}]),
        ("spiffe://shop/cart", [{"sanType": "URI", "matcher": {"exact": "spiffe://shop/cart"}}]),
        ("ann@shop.local", [{"sanType": "EMAIL", "matcher": {"exact": "ann@shop.local"}}]),
        (
            "2001:DB8::0:1",
            [
                {"sanType": "IP_ADDRESS", "matcher": {"exact": "2001:db8::1"}},
                {"sanType": "DNS", "matcher": {"exact": "2001:DB8::0:1"}},
            ],
        ),
    ],
)
def test_who_validates_clients_requires_a_certificate_with_one_of_the_names(
    name: str, matchers: list[dict[str, Any]]
) -> None:
    found, _ = taken(server("STRICT", FILES, validation={**BY_FILE, **named(name)}))
    tls = context(found["filterChains"][0]["transportSocket"])
    assert tls["requireClientCertificate"] is True
    validation = tls["commonTlsContext"]["validationContext"]
    assert validation == {"trustedCa": {"filename": "/ca"}, "matchTypedSubjectAltNames": matchers}


def test_without_names_every_client_of_the_authority_is_welcome() -> None:
    found, _ = taken(server("STRICT", FILES, validation=BY_SECRET))
    combined = context(found["filterChains"][0]["transportSocket"])["commonTlsContext"]["combinedValidationContext"]
    assert combined == {"defaultValidationContext": {}, "validationContextSdsSecretConfig": compiled_secret("ca")}


@pytest.mark.parametrize(
    ("tls", "field"),
    [
        ({"certificate": ACM}, "certificate"),
        ({}, "certificate"),
        ({"certificate": {"sds": {"secretName": ""}}}, "certificate"),
        ({"certificate": FILES, "validation": {"trust": {}}}, "validation.trust"),
    ],
)
@pytest.mark.parametrize("mode", ["STRICT", "PERMISSIVE"])
def test_what_cannot_be_had_closes_the_port_to_plain_text_too(tls: dict[str, Any], field: str, mode: str) -> None:
    # A second listener on the port is no way in either.
    found, alarms = taken(listener(8080, tls={"mode": mode, **tls}), listener(8080))
    assert found == {}
    assert [alarm for alarm in alarms if f"virtualNode/safe: spec.listeners[0].tls.{field} " in alarm]


def test_a_gateways_listener_is_like_a_nodes() -> None:
    log = canary()
    strict, either = server("STRICT", FILES, 443, validation=BY_FILE), server("PERMISSIVE", SECRET, 8443, "http2")
    log.update(key("virtualGateway", "edge"), gateway(strict, either))
    listeners = of_type(compiled(log, gateway_id()), TYPE_LISTENER)
    (chain,) = listeners["lds_ingress_0.0.0.0_443"]["filterChains"]
    assert context(chain["transportSocket"])["requireClientCertificate"] is True
    transports = [
        chain["filterChainMatch"]["transportProtocol"]
        for chain in listeners["lds_ingress_0.0.0.0_8443"]["filterChains"]
    ]
    assert transports == ["tls", "raw_buffer"]


# --- callers


def called(target: Spec, policy: Spec | None = None, default: Spec | None = None) -> NodeSnapshot:
    """A node with one backend, of these client policies, whose provider has the one listener `target`."""
    spec = node(backends=("stock.shop.local",))
    if policy is not None:
        spec["backends"][0]["virtualService"]["clientPolicy"] = policy
    if default is not None:
        spec["backendDefaults"] = {"clientPolicy": default}
    log = canary((key("virtualNode", "caller"), spec))
    log.update(key("virtualNode", "stock"), node(target, host="stock.shop.internal."))
    return compiled(log, node_id("caller"))


def spoken(snapshot: NodeSnapshot) -> dict[str, Any] | None:
    """The TLS context of the backend's cluster; None for plain text."""
    cluster = of_type(snapshot, TYPE_CLUSTER)[STOCK]
    return context(cluster["transportSocket"]) if "transportSocket" in cluster else None


@pytest.mark.parametrize("mode", ["STRICT", "PERMISSIVE"])
@pytest.mark.parametrize(
    "policy", [None, {}, {"tls": {"ports": [1], "validation": BY_FILE}}], ids=["none", "empty", "another-port"]
)
def test_without_a_policy_for_the_port_the_server_decides_and_anybody_is_believed(
    mode: str, policy: Spec | None
) -> None:
    tls = spoken(called(server(mode, SECRET), policy))
    assert tls is not None
    assert tls["@type"].endswith(".UpstreamTlsContext")
    assert tls["commonTlsContext"] == {"alpnProtocols": ["http/1.1"]}
    assert tls["sni"] == "stock.shop.internal"
    assert spoken(called(listener(8080), policy)) is None


def test_without_names_of_its_own_a_policy_believes_the_name_of_discovery() -> None:
    tls = spoken(called(server("STRICT", FILES), {"tls": {"validation": BY_FILE}}))
    assert tls is not None
    (matcher,) = tls["commonTlsContext"]["validationContext"]["matchTypedSubjectAltNames"]
    assert matcher == {"sanType": "DNS", "matcher": {"exact": "stock.shop.internal"}}


def test_names_of_a_policy_stand_instead_and_go_with_a_fetched_authority() -> None:
    policy = {"tls": {"validation": {**BY_SECRET, **named("a", "b")}, "certificate": SECRET}}
    tls = spoken(called(server("STRICT", FILES), policy))
    assert tls is not None
    combined = tls["commonTlsContext"]["combinedValidationContext"]
    matchers = combined["defaultValidationContext"]["matchTypedSubjectAltNames"]
    assert [each["matcher"]["exact"] for each in matchers] == ["a", "b"]
    assert combined["validationContextSdsSecretConfig"] == compiled_secret("ca")
    assert tls["commonTlsContext"]["tlsCertificateSdsSecretConfigs"] == [compiled_secret("mine")]


def test_a_client_certificate_may_be_files() -> None:
    tls = spoken(called(server("STRICT", FILES), {"tls": {"validation": BY_FILE, "certificate": FILES}}))
    assert tls is not None
    assert tls["commonTlsContext"]["tlsCertificates"] == COMPILED_FILES


def test_an_enforced_policy_speaks_tls_to_a_server_that_offers_none_and_another_does_not() -> None:
    for enforced in ({}, {"enforce": True}, {"ports": [8080]}):
        assert spoken(called(listener(8080), {"tls": {"validation": BY_FILE, **enforced}})) is not None
    optional = {"tls": {"validation": BY_FILE, "enforce": False}}
    assert spoken(called(listener(8080), optional)) is None
    assert spoken(called(server("STRICT", FILES), optional)) == spoken(
        called(server("STRICT", FILES), {"tls": {"validation": BY_FILE}})
    )


def test_a_backends_policy_stands_instead_of_the_default() -> None:
    default = {"tls": {"validation": {**BY_FILE, **named("default")}}}
    own = {"tls": {"validation": {**BY_FILE, **named("own")}}}
    assert "'default'" in str(spoken(called(listener(8080), None, default)))
    assert "'own'" in str(spoken(called(listener(8080), own, default)))
    assert spoken(called(listener(8080), {}, default)) is None


def test_a_gateways_default_policy_is_for_all_its_targets() -> None:
    log = canary()
    defaults = {"clientPolicy": {"tls": {"validation": BY_FILE}}}
    log.update(key("virtualGateway", "edge"), gateway(backendDefaults=defaults))
    clusters = of_type(compiled(log, gateway_id()), TYPE_CLUSTER)
    for version in ("cart-v1", "cart-v2"):
        assert f"'{version}.shop.internal'" in str(clusters[f"cds_egress_shop_{version}_http_8080"]["transportSocket"])
    assert "transportSocket" not in clusters["cds_ingress_shop_edge_self_redirect_http_15001"]


def test_grpc_and_tcp_say_what_they_speak() -> None:
    for protocol, offered in (("http2", ["h2"]), ("grpc", ["h2"]), ("tcp", None)):
        clusters = of_type(called(server("STRICT", FILES, protocol=protocol)), TYPE_CLUSTER)
        tls = context(clusters[f"cds_egress_shop_stock_{protocol}_8080"]["transportSocket"])
        assert tls.get("commonTlsContext", {}).get("alpnProtocols") == offered


@pytest.mark.parametrize("host", ["127.0.0.1", "h" * 300 + ".example", "ünïcode.example"])
def test_what_is_no_server_name_is_not_asked_for(host: str) -> None:
    log = canary((key("virtualNode", "caller"), node(backends=("stock.shop.local",))))
    log.update(key("virtualNode", "stock"), node(server("STRICT", FILES), host=host))
    tls = spoken(compiled(log, node_id("caller")))
    assert tls is not None
    assert "sni" not in tls


@pytest.mark.parametrize(
    ("target", "policy", "alarm"),
    [
        (server("STRICT", ACM), None, "virtualNode/stock: spec.listeners[].tls.certificate "),
        (server("PERMISSIVE", ACM), {}, "virtualNode/stock: spec.listeners[].tls.certificate "),
        (
            server("STRICT", FILES),
            {"tls": {"validation": {"trust": {"acm": {"certificateAuthorityArns": ["arn:ca"]}}}}},
            "virtualNode/caller: spec.backends[0].virtualService.clientPolicy.tls.validation.trust ",
        ),
        (
            listener(8080),
            {"tls": {"validation": BY_FILE, "certificate": {}}},
            "virtualNode/caller: spec.backends[0].virtualService.clientPolicy.tls.certificate ",
        ),
    ],
)
def test_a_target_that_cannot_be_believed_as_asked_is_answered_503(
    target: Spec, policy: Spec | None, alarm: str
) -> None:
    snapshot = called(target, policy)
    assert STOCK not in of_type(snapshot, TYPE_CLUSTER)
    assert "cds_egress_shop_stock_unavailable" in cluster_references(snapshot)
    assert [each for each in snapshot.alarms if alarm in each]


def test_two_client_policies_for_one_target_are_never_mixed() -> None:
    log = canary((key("virtualService", "depot.shop.local"), by_node("stock")))
    spec = node(backends=("stock.shop.local", "depot.shop.local", "cart.shop.local"))
    spec["backends"][1]["virtualService"]["clientPolicy"] = {"tls": {"validation": BY_FILE}}
    log.create(key("virtualNode", "caller"), spec)
    snapshot = compiled(log, node_id("caller"))
    clusters = of_type(snapshot, TYPE_CLUSTER)
    assert "transportSocket" not in clusters[STOCK]
    assert "transportSocket" in clusters[f"{STOCK}_policy2"]
    routed = vhosts(snapshot, "rds_egress_http_8080")
    assert routed["stock.shop.local"]["routes"][0]["route"]["cluster"] == STOCK
    assert routed["depot.shop.local"]["routes"][0]["route"]["cluster"] == f"{STOCK}_policy2"
    assert cluster_references(snapshot) <= set(clusters)


def test_a_server_that_begins_to_take_tls_is_spoken_to_with_it_by_all_who_call() -> None:
    log = canary((key("virtualNode", "caller"), node(backends=("stock.shop.local",))))
    before = compiled(log, node_id("caller"))
    log.update(key("virtualNode", "stock"), node(server("STRICT", FILES), host="stock.shop.internal"))
    assert spoken(before) is None
    assert spoken(compiled(log, node_id("caller"), before)) is not None
