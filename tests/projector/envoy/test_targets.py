"""Virtual nodes as upstreams: discovery, and what becomes of a target that cannot be compiled."""

from __future__ import annotations

from typing import Any

import pytest

from projector.envoy.specs import dns_name
from projector.snapshot import TYPE_CLUSTER, NodeSnapshot
from tests.projector.envoy.meshes import Log, canary, compiled, gateway_id, key, listener, node, node_id, route
from tests.projector.envoy.readable import cluster_references, of_type, vhosts

V1 = "cds_egress_shop_cart-v1_http_8080"
HOLE = "cds_egress_shop_cart-v1_unavailable"


def with_v1(spec: dict[str, Any]) -> Log:
    log = canary()
    log.update(key("virtualNode", "cart-v1"), spec)
    return log


def weights(snapshot: NodeSnapshot) -> dict[str, int]:
    (only,) = vhosts(snapshot, "rds_egress_http_15001")["cart.shop.local"]["routes"]
    return {each["name"]: each["weight"] for each in only["route"]["weightedClusters"]["clusters"]}


@pytest.mark.parametrize(
    ("hostname", "resolved"),
    [
        ("cart.shop.internal", "cart.shop.internal."),
        ("cart.shop.internal.", "cart.shop.internal."),
        ("localhost", "localhost"),
        ("cart", "cart"),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
    ],
)
def test_only_names_of_several_labels_get_a_trailing_dot(hostname: str, resolved: str) -> None:
    assert dns_name(hostname) == resolved


@pytest.mark.parametrize(
    ("response_type", "discovery"),
    [
        ({}, "LOGICAL_DNS"),
        ({"responseType": "LOADBALANCER"}, "LOGICAL_DNS"),
        ({"responseType": "ENDPOINTS"}, "STRICT_DNS"),
    ],
)
def test_dns_discovery_follows_the_response_type(response_type: dict[str, Any], discovery: str) -> None:
    cluster = of_type(compiled(with_v1(node(**response_type)), gateway_id()), TYPE_CLUSTER)[V1]
    assert cluster["type"] == discovery
    assert cluster["connectTimeout"] == "1s"


@pytest.mark.parametrize(
    ("of_node", "of_mesh", "family"),
    [
        (None, None, "AUTO"),
        ("IPv6_PREFERRED", None, "AUTO"),
        ("IPv4_PREFERRED", "IPv6_ONLY", "V4_PREFERRED"),
        ("IPv4_ONLY", None, "V4_ONLY"),
        (None, "IPv6_ONLY", "V6_ONLY"),
    ],
)
def test_ip_preference_of_the_target_else_of_the_mesh_picks_the_family(
    of_node: str | None, of_mesh: str | None, family: str
) -> None:
    own: dict[str, Any] = {"ipPreference": of_node} if of_node else {}
    log = with_v1(node(**own))
    log.update(key("mesh", "shop"), {"serviceDiscovery": {"ipPreference": of_mesh}} if of_mesh else {})
    cluster = of_type(compiled(log, gateway_id()), TYPE_CLUSTER)[V1]
    assert cluster.get("dnsLookupFamily", "AUTO") == family


def test_circuit_breakers_are_wide_open_and_the_target_is_tagged() -> None:
    cluster = of_type(compiled(canary(), gateway_id()), TYPE_CLUSTER)[V1]
    (limits,) = cluster["circuitBreakers"]["thresholds"]
    assert set(limits.values()) == {2147483647}
    assert len(limits) == 4
    tags = cluster["metadata"]["filterMetadata"]["aws.appmesh.aggregate_stats"]
    assert tags == {"config": '{"tags":[{"key":"TargetVirtualNode","value":"cart-v1"}]}'}


ACM = {"mode": "STRICT", "certificate": {"acm": {"certificateArn": "arn:aws:acm:::c"}}}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, "spec.listeners"),
        ({"listeners": [listener()]}, "spec.serviceDiscovery"),
        (node(listener(8080, tls=ACM)), "spec.listeners[].tls.certificate"),
        (node(listener(8080, "tcp")), "spec.listeners[].portMapping.protocol"),
        (node(listener(1), listener(2)), "spec.listeners"),
        (node(host="bad\nname"), "spec.serviceDiscovery.dns.hostname"),
    ],
)
def test_a_target_that_cannot_be_compiled_keeps_its_share_and_answers_503(spec: dict[str, Any], field: str) -> None:
    snapshot = compiled(with_v1(spec), gateway_id())
    assert weights(snapshot) == {HOLE: 90, "cds_egress_shop_cart-v2_http_8080": 10}
    hole = of_type(snapshot, TYPE_CLUSTER)[HOLE]
    assert "endpoints" not in hole["loadAssignment"]
    assert any(alarm.startswith(f"mesh/shop/virtualNode/cart-v1: {field} ") for alarm in snapshot.alarms)
    assert cluster_references(snapshot) <= set(of_type(snapshot, TYPE_CLUSTER))


def test_a_client_policy_that_cannot_be_compiled_is_never_answered_with_plaintext() -> None:
    log = canary((key("virtualNode", "caller"), node(backends=("stock.shop.local",))))
    policy = {"tls": {"enforce": True, "validation": {"trust": {"acm": {"certificateAuthorityArns": ["arn:ca"]}}}}}
    spec = node(backends=("stock.shop.local",))
    spec["backends"][0]["virtualService"]["clientPolicy"] = policy
    for secured in (spec, {**node(backends=("stock.shop.local",)), "backendDefaults": {"clientPolicy": policy}}):
        log.update(key("virtualNode", "caller"), secured)
        snapshot = compiled(log, node_id("caller"))
        assert "cds_egress_shop_stock_http_8080" not in of_type(snapshot, TYPE_CLUSTER)
        assert "cds_egress_shop_stock_unavailable" in cluster_references(snapshot)
        (alarm,) = snapshot.alarms
        assert "clientPolicy.tls" in alarm


def test_a_client_policy_for_other_ports_does_not_matter_here() -> None:
    log = canary((key("virtualNode", "caller"), node(backends=("stock.shop.local",))))
    policy = {"tls": {"ports": [443], "validation": {"trust": {"file": {"certificateChain": "/ca"}}}}}
    log.update(
        key("virtualNode", "caller"),
        {
            **node(backends=("stock.shop.local",)),
            "backendDefaults": {"clientPolicy": policy},
        },
    )
    snapshot = compiled(log, node_id("caller"))
    assert "cds_egress_shop_stock_http_8080" in cluster_references(snapshot)
    assert snapshot.alarms == ()


def test_a_weighted_target_may_name_the_port() -> None:
    log = with_v1(node(listener(8080), listener(9090)))
    spec = route({"cart-v1": 1})
    spec["httpRoute"]["action"]["weightedTargets"][0]["port"] = 9090
    log.update(key("route", "all", "cart"), spec)
    assert weights(compiled(log, gateway_id())) == {"cds_egress_shop_cart-v1_http_9090": 1}


def test_a_health_check_is_the_callers_and_detectors_that_app_mesh_had_not_are_off() -> None:
    check = {
        "protocol": "http",
        "path": "/ping",
        "healthyThreshold": 2,
        "unhealthyThreshold": 3,
        "intervalMillis": 5000,
        "timeoutMillis": 2000,
        "port": 8080,
    }
    outlier = {
        "maxServerErrors": 5,
        "interval": {"unit": "s", "value": 0},
        "maxEjectionPercent": 50,
        "baseEjectionDuration": {"unit": "s", "value": 30},
    }
    cluster = of_type(
        compiled(with_v1(node(listener(healthCheck=check, outlierDetection=outlier))), gateway_id()), TYPE_CLUSTER
    )[V1]
    assert cluster["healthChecks"] == [
        {
            "timeout": "2s",
            "interval": "5s",
            "healthyThreshold": 2,
            "unhealthyThreshold": 3,
            "altPort": 8080,
            "httpHealthCheck": {"path": "/ping"},
        }
    ]
    assert cluster["outlierDetection"]["consecutive5xx"] == 5
    assert cluster["outlierDetection"]["enforcingSuccessRate"] == 0
    assert cluster["outlierDetection"]["interval"] == "0.001s"
