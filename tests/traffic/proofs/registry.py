"""Cloud Map: servers that registered themselves, chosen by attributes."""

from __future__ import annotations

from typing import Any

from tests.traffic.fields import proves
from tests.traffic.namespaces import EXTERNAL_V4, EXTERNAL_V6
from tests.traffic.proofs.discovery import addresses
from tests.traffic.specs import listener, node, service
from tests.traffic.world import World, key

NAMESPACE = "shop.internal"
ONE, TWO, THREE = EXTERNAL_V4[:3]


def registered(world: World, *instances: dict[str, str]) -> str:
    """A service with these instances, by their attributes."""
    name = world.fresh("store")
    for number, attributes in enumerate(instances):
        world.control.register(NAMESPACE, name, f"i-{number}", **attributes)
    return name


def found_by(world: World, name: str, **more: Any) -> None:
    """Front calls `orders`, which Cloud Map finds."""
    discovery = {"awsCloudMap": {"namespaceName": NAMESPACE, "serviceName": name, **more}}
    store = key("virtualNode", "store"), {"listeners": [listener(8080)], "serviceDiscovery": discovery}
    world.mesh(node("front", backends=["orders"]), store, service("orders", node="store"))


def at(v4: str, **attributes: str) -> dict[str, str]:
    return {"AWS_INSTANCE_IPV4": v4, **attributes}


@proves(
    "virtualNode.serviceDiscovery.awsCloudMap.namespaceName",
    "virtualNode.serviceDiscovery.awsCloudMap.serviceName",
)
def registered_servers_are_found_and_followed(world: World) -> None:
    name = registered(world, at(ONE), at(TWO))
    found_by(world, name)
    assert addresses(world) == {ONE, TWO}
    world.control.register(NAMESPACE, name, "i-3", **at(THREE))
    world.eventually(lambda: addresses(world) == {ONE, TWO, THREE}, "the new server")
    world.control.deregister(NAMESPACE, name, "i-0")
    world.eventually(lambda: addresses(world) == {TWO, THREE}, "the end of the first")
    assert addresses(world) == {TWO, THREE}


@proves(
    "virtualNode.serviceDiscovery.awsCloudMap.attributes[].key",
    "virtualNode.serviceDiscovery.awsCloudMap.attributes[].value",
)
def servers_with_all_attributes_count(world: World) -> None:
    name = registered(
        world, at(ONE, stage="beta", size="big"), at(TWO, stage="beta", size="small"), at(THREE, stage="gamma")
    )
    found_by(world, name, attributes=[{"key": "stage", "value": "beta"}])
    assert addresses(world) == {ONE, TWO}
    both = [{"key": "stage", "value": "beta"}, {"key": "size", "value": "big"}]
    found_by(world, name, attributes=both)
    assert addresses(world) == {ONE}


@proves("virtualNode.serviceDiscovery.awsCloudMap.ipPreference")
def a_server_of_both_families_is_reached_by_the_preferred_one(world: World) -> None:
    v6 = EXTERNAL_V6[0]
    name = registered(world, at(ONE, AWS_INSTANCE_IPV6=v6))
    found_by(world, name)
    assert addresses(world, 3) == {ONE}
    for preference, found in (("IPv6_PREFERRED", v6), ("IPv6_ONLY", v6), ("IPv4_PREFERRED", ONE), ("IPv4_ONLY", ONE)):
        found_by(world, name, ipPreference=preference)
        assert addresses(world, 3) == {found}, preference
