"""Where a node's servers are: what DNS answers, how many of it are used, and of which IP family."""

from __future__ import annotations

from typing import Any

from tests.traffic.fields import proves
from tests.traffic.namespaces import EXTERNAL_V4, EXTERNAL_V6, VIRTUAL_V6
from tests.traffic.proofs.routes import shop
from tests.traffic.specs import listener, node, route, service
from tests.traffic.world import World

PAIR = EXTERNAL_V4[:2]
V4, V6 = EXTERNAL_V4[0], EXTERNAL_V6[0]


def outside(world: World, label: str, spec: dict[str, Any] | None = None, **dns: Any) -> None:
    """The service `orders` is a server without a sidecar."""
    world.mesh(
        node("front", backends=["orders"]),
        node("store", listener(8080), host=world.host(label), dns=dns),
        service("orders", node="store"),
        spec=spec,
    )


def addresses(world: World, times: int = 12) -> set[str]:
    """Which of its addresses the server was reached at."""
    return {str(world.ask("orders").saw.get("at", "")) for _ in range(times)}


@proves("virtualNode.serviceDiscovery.dns.responseType")
def endpoints_are_all_used(world: World) -> None:
    world.dns.set("pair", *PAIR)
    outside(world, "pair", responseType="ENDPOINTS")
    assert addresses(world) == set(PAIR)


@proves()
def a_load_balancer_is_one_address(world: World) -> None:
    world.dns.set("pair", *PAIR)
    outside(world, "pair", responseType="LOADBALANCER")
    assert len(addresses(world)) == 1
    outside(world, "pair")
    assert len(addresses(world)) == 1


@proves()
def a_changed_answer_is_followed(world: World) -> None:
    for response in ("ENDPOINTS", "LOADBALANCER"):
        world.dns.set("moving", EXTERNAL_V4[0])
        outside(world, "moving", responseType=response)
        assert addresses(world, 3) == {EXTERNAL_V4[0]}
        world.dns.set("moving", EXTERNAL_V4[2])
        world.eventually(lambda: addresses(world, 1) == {EXTERNAL_V4[2]}, "the new address")


@proves("virtualNode.serviceDiscovery.dns.ipPreference")
def a_node_has_its_family(world: World) -> None:
    for preference, label, found in FAMILIES:
        outside(world, label, None, **({"ipPreference": preference} if preference else {}))
        assert addresses(world, 3) == {found}, (preference, label)


@proves("mesh.serviceDiscovery.ipPreference")
def a_mesh_has_a_family_for_all(world: World) -> None:
    for preference, label, found in FAMILIES:
        outside(world, label, {"serviceDiscovery": {"ipPreference": preference}} if preference else None)
        assert addresses(world, 3) == {found}, (preference, label)
    outside(world, "ext1-dual", {"serviceDiscovery": {"ipPreference": "IPv4_ONLY"}}, ipPreference="IPv6_PREFERRED")
    assert addresses(world, 3) == {V6}, "a node's own word counts more"


FAMILIES = (
    ("", "ext1-dual", V6),
    ("", "ext1", V4),
    ("IPv6_PREFERRED", "ext1-dual", V6),
    ("IPv6_PREFERRED", "ext1", V4),
    ("IPv4_PREFERRED", "ext1-dual", V4),
    ("IPv4_PREFERRED", "ext1-v6", V6),
    ("IPv4_ONLY", "ext1-dual", V4),
    ("IPv4_ONLY", "ext1-v6", ""),
    ("IPv6_ONLY", "ext1-dual", V6),
    ("IPv6_ONLY", "ext1", ""),
)
"""A preference, what DNS answers, and where the server is reached."""


@proves("virtualNode.serviceDiscovery.dns.ipPreference", "mesh.serviceDiscovery.ipPreference")
def a_preference_opens_both_families_and_says_where_the_application_is(world: World) -> None:
    spec = {"serviceDiscovery": {"ipPreference": "IPv6_PREFERRED"}}
    own = {"ipPreference": "IPv4_ONLY"}
    world.mesh(
        *shop(world, route("orders", "red"), caller={"dns": own}),
        node("red", listener(8080), host=world.host("red-v6")),
        spec=spec,
    )
    # Front's listeners are bound in both families, since it has a preference.
    saw = world.ask("orders", to=VIRTUAL_V6).saw
    assert (saw["app"], saw["at"]) == ("red", "::1")
    world.mesh(
        *shop(world, route("orders", "red"), caller={"dns": own}),
        node("red", listener(8080), host=world.host("red-v6"), dns={"ipPreference": "IPv4_PREFERRED"}),
        spec=spec,
    )
    saw = world.ask("orders", to=VIRTUAL_V6).saw
    assert (saw["app"], saw["at"]) == ("red", "127.0.0.1")


@proves()
def without_a_preference_listeners_have_one_family(world: World) -> None:
    world.mesh(*shop(world, route("orders", "red")))
    assert world.ask("orders").saw["at"] == "127.0.0.1"
    assert world.ask("orders", to=VIRTUAL_V6).status == 0
