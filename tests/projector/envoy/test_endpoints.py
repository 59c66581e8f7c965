"""Virtual nodes that Cloud Map finds: from the registry's instances to what Envoy is told of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.frozen import freeze
from mesh.registry.state import Health, Instance, RegistryState, ServiceKey
from projector.envoy.compiler import Compiler
from projector.snapshot import TYPE_CLUSTER, TYPE_ENDPOINT, NodeSnapshot
from tests.projector.envoy.meshes import (
    ACCOUNT,
    RENDERER,
    Log,
    by_node,
    canary,
    cloud_map_node,
    compiled,
    gateway_id,
    key,
    listener,
    node,
    node_id,
    route,
)
from tests.projector.envoy.readable import of_type

CART = ServiceKey(ACCOUNT, "shop.internal", "cart")
V1 = "cds_egress_shop_cart-v1_http_8080"


def registry(*instances: Instance, service: ServiceKey = CART, onto: RegistryState | None = None) -> RegistryState:
    state = onto or RegistryState()
    for each in instances:
        state = state.with_instance(service, each.id, each)
    return state


def instance(name: str, v4: str | None = None, *, health: str = "HEALTHY", **attributes: str) -> Instance:
    """An instance; underscores in names of attributes stand for themselves."""
    found = {"AWS_INSTANCE_IPV4": v4, **attributes}
    return Instance(name, freeze({k: v for k, v in found.items() if v is not None}), Health(health))


def found_by(spec: dict[str, Any]) -> Log:
    """The canary mesh, with v1 found by Cloud Map."""
    log = canary()
    log.update(key("virtualNode", "cart-v1"), spec)
    return log


def assignment(snapshot: NodeSnapshot, name: str = V1) -> list[tuple[str, str, str, int]]:
    """(region, zone, address, port) of every endpoint, in order."""
    found = of_type(snapshot, TYPE_ENDPOINT)[name]
    assert found["clusterName"] == name
    return [
        (
            group.get("locality", {}).get("region", ""),
            group.get("locality", {}).get("zone", ""),
            each["endpoint"]["address"]["socketAddress"]["address"],
            each["endpoint"]["address"]["socketAddress"]["portValue"],
        )
        for group in found.get("endpoints", [])
        for each in group["lbEndpoints"]
    ]


def addresses(spec: dict[str, Any], *instances: Instance) -> list[str]:
    return [found[2] for found in assignment(compiled(found_by(spec), gateway_id(), registry=registry(*instances)))]


def test_the_cluster_asks_for_its_endpoints_over_ads_by_its_own_name() -> None:
    snapshot = compiled(found_by(cloud_map_node()), gateway_id(), registry=registry(instance("a", "10.0.0.1")))
    cluster = of_type(snapshot, TYPE_CLUSTER)[V1]
    assert cluster["type"] == "EDS"
    assert cluster["connectTimeout"] == "1s"
    assert cluster["edsClusterConfig"] == {
        "edsConfig": {"ads": {}, "initialFetchTimeout": "0s", "resourceApiVersion": "V3"},
        "serviceName": V1,
    }
    assert cluster["ignoreHealthOnHostRemoval"] is True
    assert "loadAssignment" not in cluster
    assert set(of_type(snapshot, TYPE_ENDPOINT)) == {V1}
    assert snapshot.alarms == ()


def test_every_attribute_must_be_equal() -> None:
    instances = (
        instance("both", "10.0.0.1", version="v1", stage="prod"),
        instance("one", "10.0.0.2", version="v1"),
        instance("other", "10.0.0.3", version="v1", stage="test"),
        instance("case", "10.0.0.4", version="V1", stage="prod"),
    )
    assert addresses(cloud_map_node(attributes={"version": "v1", "stage": "prod"}), *instances) == ["10.0.0.1"]
    assert addresses(cloud_map_node(attributes={"version": "v1"}), *instances) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert len(addresses(cloud_map_node(attributes={}), *instances)) == 4


def test_the_unhealthy_are_left_out() -> None:
    well, ill = instance("well", "10.0.0.1"), instance("ill", "10.0.0.2", health="UNHEALTHY")
    assert addresses(cloud_map_node(), well, ill) == ["10.0.0.1"]


@pytest.mark.parametrize(
    ("preference", "of_both", "of_v4", "of_v6"),
    [
        (None, "10.0.0.1", ["10.0.0.2"], ["2001:db8::3"]),
        ("IPv4_PREFERRED", "10.0.0.1", ["10.0.0.2"], ["2001:db8::3"]),
        ("IPv6_PREFERRED", "2001:db8::1", ["10.0.0.2"], ["2001:db8::3"]),
        ("IPv4_ONLY", "10.0.0.1", ["10.0.0.2"], []),
        ("IPv6_ONLY", "2001:db8::1", [], ["2001:db8::3"]),
    ],
)
@pytest.mark.parametrize("said_by", ["node", "mesh"])
def test_ip_preference_picks_the_address(
    said_by: str, preference: str | None, of_both: str, of_v4: list[str], of_v6: list[str]
) -> None:
    given_by_node: dict[str, Any] = {} if preference is None or said_by == "mesh" else {"ipPreference": preference}
    log = found_by(cloud_map_node(**given_by_node))
    if preference is not None and said_by == "mesh":
        log.update(key("mesh", "shop"), {"serviceDiscovery": {"ipPreference": preference}})
    instances = registry(
        instance("both", "10.0.0.1", AWS_INSTANCE_IPV6="2001:db8::1"),
        instance("v4", "10.0.0.2"),
        instance("v6", AWS_INSTANCE_IPV6="2001:0db8::0003"),
    )
    snapshot = compiled(log, gateway_id(), registry=instances)
    assert sorted(found[2] for found in assignment(snapshot)) == sorted([of_both, *of_v4, *of_v6])


def test_the_port_is_the_listeners_whatever_the_instance_was_registered_with() -> None:
    log = canary(
        (key("virtualNode", "two"), cloud_map_node(listener(8080), listener(9090, "grpc"))),
        (key("virtualRouter", "two"), {"listeners": [listener(8080), listener(9090, "grpc")]}),
        (key("route", "http", "two"), route({"two": 1}, {"prefix": "/", "port": 8080})),
        (key("route", "grpc", "two"), route({"two": 1}, {"prefix": "/", "port": 9090})),
        (key("virtualService", "two.shop.local"), {"provider": {"virtualRouter": {"virtualRouterName": "two"}}}),
        (key("virtualNode", "caller"), node(backends=("two.shop.local",))),
    )
    state = registry(instance("a", "10.0.0.1", AWS_INSTANCE_PORT="1234"))
    snapshot = compiled(log, node_id("caller"), registry=state)
    assert assignment(snapshot, "cds_egress_shop_two_http_8080") == [("", "", "10.0.0.1", 8080)]
    assert assignment(snapshot, "cds_egress_shop_two_grpc_9090") == [("", "", "10.0.0.1", 9090)]


@pytest.mark.parametrize(
    ("attributes", "place"),
    [
        ({}, ("", "")),
        ({"AVAILABILITY_ZONE": "eu-west-1a"}, ("eu-west-1", "eu-west-1a")),
        ({"AVAILABILITY_ZONE": "us-gov-west-1b"}, ("us-gov-west-1", "us-gov-west-1b")),
        ({"AVAILABILITY_ZONE": "us-west-2-lax-1a"}, ("us-west-2", "us-west-2-lax-1a")),
        ({"AVAILABILITY_ZONE": "rack 7"}, ("", "rack 7")),
        ({"AVAILABILITY_ZONE": "rack 7", "REGION": "cellar"}, ("cellar", "rack 7")),
    ],
)
def test_locality_comes_from_the_zone(attributes: dict[str, str], place: tuple[str, str]) -> None:
    state = registry(instance("a", "10.0.0.1", **attributes))
    snapshot = compiled(found_by(cloud_map_node()), gateway_id(), registry=state)
    assert assignment(snapshot) == [(*place, "10.0.0.1", 8080)]


@pytest.mark.parametrize(
    ("spec", "instances", "why"),
    [
        (cloud_map_node(), (), "the registry has no instance of it"),
        (cloud_map_node(service="unheard-of"), (instance("a", "10.0.0.1"),), "the registry has no instance of it"),
        (cloud_map_node(attributes={"a": "b"}), (instance("a", "10.0.0.1"),), "has the attributes asked for"),
        (cloud_map_node(), (instance("a", "10.0.0.1", health="UNHEALTHY"),), "is healthy"),
        (
            cloud_map_node(),
            (instance("a", "fe80::1%eth0"),),
            "in AWS_INSTANCE_IPV4 or AWS_INSTANCE_IPV6",
        ),
        (cloud_map_node(), (instance("a", AWS_INSTANCE_CNAME="a.example"),), "has an address"),
    ],
)
def test_where_nobody_is_found_the_assignment_is_empty_and_an_alarm_says_why(
    spec: dict[str, Any], instances: tuple[Instance, ...], why: str
) -> None:
    snapshot = compiled(found_by(spec), gateway_id(), registry=registry(*instances))
    assert assignment(snapshot) == []
    (alarm,) = snapshot.alarms
    assert alarm.startswith("mesh/shop/virtualNode/cart-v1: spec.serviceDiscovery.awsCloudMap finds nobody for ")
    assert why in alarm


def test_an_address_stands_once_and_the_unreadable_not_at_all() -> None:
    instances = (
        instance("a", "10.0.0.1", AVAILABILITY_ZONE="eu-west-1a"),
        instance("b", "10.0.0.1", AVAILABILITY_ZONE="eu-west-1b"),
        instance("c", "10.0.0.256"),
        instance("d", "a.example"),
        instance("e", AWS_INSTANCE_IPV6="fe80::1%eth0"),
        instance("f", AWS_INSTANCE_IPV6="2001:db8::1"),
        instance("g", AWS_INSTANCE_IPV6="2001:0db8:0::1"),
    )
    assert addresses(cloud_map_node(), *instances) == ["2001:db8::1", "10.0.0.1"]


@given(order=st.permutations(range(12)))
def test_the_order_of_registration_leaves_no_trace(order: list[int]) -> None:
    def made(number: int) -> Instance:
        return instance(f"i{number}", f"10.0.{number % 3}.{number}", AVAILABILITY_ZONE=f"eu-west-1{'abc'[number % 3]}")

    log = found_by(cloud_map_node())
    straight = compiled(log, gateway_id(), registry=registry(*map(made, range(12))))
    shuffled = compiled(log, gateway_id(), registry=registry(*map(made, order)))
    assert straight.resources == shuffled.resources


def test_certificates_are_asked_for_the_name_by_which_cloud_map_knows_the_service() -> None:
    policy = {"tls": {"validation": {"trust": {"file": {"certificateChain": "/ca.pem"}}}}}
    backend = {"virtualService": {"virtualServiceName": "stock.shop.local", "clientPolicy": policy}}
    log = canary((key("virtualNode", "caller"), {**node(), "backends": [backend]}))
    log.update(key("virtualNode", "stock"), cloud_map_node(service="stock"))
    cluster = of_type(compiled(log, node_id("caller")), TYPE_CLUSTER)["cds_egress_shop_stock_http_8080"]
    socket = cluster["transportSocket"]["typedConfig"]
    assert socket["sni"] == "stock.shop.internal"
    assert "stock.shop.internal" in str(socket["commonTlsContext"]["validationContext"])


def test_a_change_of_instances_concerns_those_who_call_the_service_and_moves_nothing_but_its_assignment() -> None:
    log, compiler = found_by(cloud_map_node()), Compiler(RENDERER)
    log.create(key("virtualNode", "caller"), node(backends=("cart.shop.local",)))
    log.create(key("virtualNode", "other"), node())
    one, two = registry(instance("a", "10.0.0.1")), registry(instance("a", "10.0.0.1"), instance("b", "10.0.0.2"))
    before = {
        of: compiler.compile(log.state, of, registry=one) for of in (gateway_id(), node_id("caller"), node_id("other"))
    }
    assert compiler.affected((), services={CART}) == {gateway_id(), node_id("caller")}
    assert compiler.affected((), services={ServiceKey(ACCOUNT, "shop.internal", "stock")}) == set()
    after = compiler.compile(log.state, gateway_id(), registry=two)
    earlier = before[gateway_id()]
    assert earlier is not None
    assert after is not None
    changed = {name for name, found in after.resources.items() if earlier.resources[name] != found}
    assert changed == {(TYPE_ENDPOINT, V1)}


def test_another_accounts_service_of_the_same_name_is_another_service() -> None:
    theirs = ServiceKey("999999999999", "shop.internal", "cart")
    log = found_by(cloud_map_node())
    state = registry(instance("a", "10.0.0.9"), service=theirs)
    assert assignment(compiled(log, gateway_id(), registry=state)) == []


def test_what_a_kept_virtual_host_names_keeps_its_endpoints_too() -> None:
    log = found_by(cloud_map_node())
    state = registry(instance("a", "10.0.0.1"))
    before = compiled(log, gateway_id(), registry=state)
    log.delete(key("virtualNode", "cart-v1"))
    after = compiled(log, gateway_id(), before, registry=state)
    assert after.resources[TYPE_ENDPOINT, V1] == before.resources[TYPE_ENDPOINT, V1]
    assert (TYPE_CLUSTER, V1) in after.resources


def test_a_thousand_endpoints_are_written_as_envoys_own_api_reads_them() -> None:
    instances = [
        instance(f"i{n}", f"10.0.{n // 250}.{n % 250 + 1}", AVAILABILITY_ZONE=f"eu-west-1{'abc'[n % 3]}")
        for n in range(1_000)
    ]
    snapshot = compiled(found_by(cloud_map_node()), gateway_id(), registry=registry(*instances))
    found = assignment(snapshot)
    assert len(found) == 1_000
    assert found == sorted(found)
    assert {place for _, place, _, _ in found} == {"eu-west-1a", "eu-west-1b", "eu-west-1c"}


def test_a_service_provided_by_a_node_of_cloud_map_is_reached_too() -> None:
    log = canary((key("virtualNode", "caller"), node(backends=("direct.shop.local",))))
    log.create(key("virtualNode", "direct"), cloud_map_node(listener(5000, "tcp"), service="direct"))
    log.create(key("virtualService", "direct.shop.local"), by_node("direct"))
    state = registry(instance("a", "10.0.0.1"), service=ServiceKey(ACCOUNT, "shop.internal", "direct"))
    snapshot = compiled(log, node_id("caller"), registry=state)
    assert assignment(snapshot, "cds_egress_shop_direct_tcp_5000") == [("", "", "10.0.0.1", 5000)]
