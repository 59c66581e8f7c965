"""Rolling back: to exactly what was, under the uids that were, or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mesh import state as state_module
from mesh.arn import parse_spelled, spelled
from mesh.commands import Create, Delete, Rollback, TagResource
from mesh.decide import Decision
from mesh.errors import BadRequest, Conflict, NotFound
from mesh.frozen import thaw
from mesh.kinds import ResourceKey, mesh_key
from mesh.rollback import plan_rollback
from mesh.state import State
from tests.mesh.worlds import (
    ACCOUNT,
    MESH,
    World,
    gateway_route_spec,
    key,
    node_provider,
    node_spec,
    route_spec,
    router_spec,
    shop,
)

ROUTE = key("route", "all", parent="cart")


def roll_back(world: World, position: int, **fields: Any) -> Decision:
    return world.do(Rollback(ACCOUNT, "shop", world.states[position], **fields))


def contents(state: State) -> dict[Any, Any]:
    return {
        each.key: (thaw(each.spec), thaw(each.tags), each.uid, each.owner, each.created_us)
        for each in state.in_mesh(ACCOUNT, "shop")
    }


def test_a_bad_change_is_taken_back() -> None:
    world = shop()
    good = len(world.events)
    world.update(ROUTE, route_spec({"cart-v1": 0, "cart-v2": 100}))
    (event,) = roll_back(world, good).events
    route = world.at(ROUTE)
    assert thaw(route.spec) == route_spec({"cart-v1": 90, "cart-v2": 10})
    assert (route.version, route.uid) == (3, "uid-5")
    assert route.updated_us == world.state.time_us
    assert [change["key"] for change in event.data["changes"]] == [list(ROUTE)], "only what differs"
    assert event.data["to"] == [1, good]


def test_every_earlier_state_can_be_had_again() -> None:
    world = shop()
    world.do(TagResource(ROUTE, {"who": "ann"}))
    world.update(ROUTE, route_spec({"cart-v2": 1}))
    world.delete(key("virtualService", "v1.shop.local"))
    world.delete(key("virtualNode", "cart-v1"))
    world.create(key("virtualNode", "cart-v3"), node_spec())
    for position in range(len(world.events), 0, -1):
        roll_back(world, position)
        assert contents(world.state) == contents(world.states[position]), position


def test_a_rollback_can_be_rolled_back() -> None:
    world = shop()
    world.update(ROUTE, route_spec({"cart-v2": 1}))
    changed = len(world.events)
    roll_back(world, changed - 1)
    roll_back(world, changed)
    assert contents(world.state) == contents(world.states[changed])
    assert world.at(ROUTE).version == 4


def test_what_was_deleted_comes_back_under_its_uid_with_a_version_of_its_own() -> None:
    world = shop()
    node = key("virtualNode", "extra")
    made = world.create(node, node_spec())
    alive = len(world.events)
    world.update(node, node_spec(port=1))
    world.update(node, node_spec(port=2))
    world.delete(node)
    roll_back(world, alive)
    back = world.at(node)
    assert (back.uid, back.created_us, thaw(back.spec)) == (made.uid, made.created_us, node_spec())
    assert back.version == 4, "versions 1 to 3 of this uid were somebody's already"


def test_versions_never_repeat_even_when_the_deletion_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "TOMBSTONES_KEPT", 1)
    world = shop()
    node, other = key("virtualNode", "extra"), key("virtualNode", "other")
    world.create(node, node_spec())
    alive = len(world.events)
    for port in (1, 2, 3):
        last = world.update(node, node_spec(port=port)).version
    world.create(other, {})
    world.delete(node)
    world.delete(other)
    assert "uid-10" not in world.state.deleted
    roll_back(world, alive)
    assert world.at(node).version > last


def test_what_came_later_goes_and_can_come_back() -> None:
    world = shop()
    before = len(world.events)
    made = world.create(key("virtualNode", "extra"), node_spec())
    roll_back(world, before)
    assert world.state.get(made.key) is None
    roll_back(world, before + 1)
    assert (world.at(made.key).uid, world.at(made.key).version) == (made.uid, 2)


def test_a_name_with_a_new_owner_of_its_uid_is_refused_and_listed() -> None:
    world = shop()
    gateway_route, service = key("gatewayRoute", "cart", parent="edge"), key("virtualService", "v1.shop.local")
    before = len(world.events)
    for each, spec in ((gateway_route, gateway_route_spec("cart.shop.local")), (service, node_provider("cart-v1"))):
        world.delete(each)
        world.create(each, spec)
    now = world.state
    with pytest.raises(Conflict) as caught:
        roll_back(world, before)
    assert world.state is now
    assert "GatewayRoute cart was deleted and made anew since (uid uid-9 then, uid-11 now)" in caught.value.message
    assert "VirtualService v1.shop.local was deleted and made anew" in caught.value.message


def test_tags_are_rolled_back_with_specs() -> None:
    world = shop()
    world.do(TagResource(MESH, {"a": "1"}))
    tagged = len(world.events)
    world.do(TagResource(MESH, {"a": "2", "b": "3"}))
    roll_back(world, tagged)
    assert dict(world.at(MESH).tags) == {"a": "1"}


def test_other_meshes_stay_as_they_are() -> None:
    world = shop()
    before = len(world.events)
    other = world.create(mesh_key(ACCOUNT, "other"), {})
    world.update(ROUTE, route_spec({"cart-v2": 1}))
    roll_back(world, before)
    assert world.at(other.key) == other


def test_nothing_to_change_writes_nothing() -> None:
    world = shop()
    assert roll_back(world, len(world.events)).events == ()
    world.create(mesh_key(ACCOUNT, "other"), {})
    assert roll_back(world, len(world.events) - 1).events == ()


def test_a_mesh_is_deleted_only_when_that_is_said() -> None:
    world = shop()
    with pytest.raises(Conflict, match=r"did not exist after position 1\.0: .* deletes it with all 8 resources"):
        roll_back(world, 0)
    (event,) = roll_back(world, 0, allow_mesh_deletion=True).events
    assert not world.state.resources
    assert event.data["changes"][-1]["key"] == list(MESH), "the mesh goes last"
    roll_back(world, 9)
    assert contents(world.state) == contents(world.states[9]), "and all of it comes back"


def test_changes_come_in_an_order_in_which_they_could_be_made_one_by_one() -> None:
    world = shop()
    whole = len(world.events)
    roll_back(world, 0, allow_mesh_deletion=True)
    for then in (world.states[whole], world.states[4]):
        plan = plan_rollback(world.state, then, ACCOUNT, "shop")
        assert [change.action for change in plan.changes] == ["created"] * len(list(then.in_mesh(ACCOUNT, "shop")))
        alone = World()
        for change in plan.changes:
            alone.do(Create(change.key, change.spec))
    alone = shop()
    for change in plan_rollback(alone.state, State(), ACCOUNT, "shop").changes:
        assert change.action == "deleted"
        alone.do(Delete(change.key))


def test_the_future_cannot_be_rolled_back_to() -> None:
    world = shop()
    behind = World()
    behind.create(MESH, {})
    with pytest.raises(BadRequest, match=r"the log is at 1\.1 and has no position 1\.9"):
        behind.do(Rollback(ACCOUNT, "shop", world.state))


def test_a_result_that_does_not_hold_together_is_refused() -> None:
    world = shop()
    # No log leads to such a state: a route without the node it names, and one without the port match it needs.
    torn = world.state.without_resource(key("virtualNode", "cart-v2"), world.state.position)
    router = world.at(key("virtualRouter", "cart"))
    broken = plan_rollback(world.state, torn, ACCOUNT, "shop").refusals
    assert broken == (
        "mesh/shop/virtualRouter/cart/route/all would refer to mesh/shop/virtualNode/cart-v2, which would not exist",
    )
    several = world.state.with_resource(replace(router, spec=router_spec(80, 81)))
    (said,) = plan_rollback(world.state, several, ACCOUNT, "shop").refusals
    assert said == (
        "mesh/shop/virtualRouter/cart/route/all would match on no port, and its parent would have several listeners"
    )


def only(*keys: ResourceKey) -> dict[str, Any]:
    return {"only": frozenset(keys)}


def spoilt() -> tuple[World, int]:
    """The shop after a bad day: a node too many, a route to it, a node and a service gone. And where it was good."""
    world = shop()
    good = len(world.events)
    extra = key("virtualNode", "extra")
    world.create(extra, node_spec())
    world.update(ROUTE, route_spec({"extra": 1}))
    world.delete(key("virtualService", "v1.shop.local"))
    world.delete(key("virtualNode", "cart-v1"))
    return world, good


def test_one_resource_is_taken_back_and_the_others_stay() -> None:
    world = shop()
    good = len(world.events)
    node = key("virtualNode", "cart-v2")
    world.update(node, node_spec(port=1))
    world.update(ROUTE, route_spec({"cart-v1": 1}))
    (event,) = roll_back(world, good, **only(node)).events
    assert thaw(world.at(node).spec) == thaw(world.states[good].resources[node].spec)
    assert thaw(world.at(ROUTE).spec) == route_spec({"cart-v1": 1})
    assert ([change["key"] for change in event.data["changes"]], event.data["only"]) == ([list(node)], [list(node)])


def test_a_part_that_cannot_stand_alone_names_all_that_must_come_along() -> None:
    world, good = spoilt()
    plan = plan_rollback(world.state, world.states[good], ACCOUNT, "shop", {ROUTE})
    assert plan.refusals == ("route/cart/all needs virtualNode/cart-v1, which is not in --only: add it",)
    assert plan.needs == (key("virtualNode", "cart-v1"),)
    with pytest.raises(Conflict, match="needs virtualNode/cart-v1, which is not in --only: add it"):
        roll_back(world, good, **only(ROUTE))
    roll_back(world, good, **only(ROUTE, *plan.needs))
    assert thaw(world.at(ROUTE).spec) == route_spec({"cart-v1": 90, "cart-v2": 10})
    assert world.at(key("virtualNode", "extra")), "it stays: nobody named it"


def test_what_would_go_while_something_still_needs_it_is_refused() -> None:
    world, good = spoilt()
    extra = key("virtualNode", "extra")
    plan = plan_rollback(world.state, world.states[good], ACCOUNT, "shop", {extra})
    assert plan.refusals == (
        "route/cart/all needs virtualNode/extra as it is now, and is not in --only: add it",
        "route/cart/all needs virtualNode/cart-v1, which is not in --only: add it",
    ), "also what the route in its turn would need"
    assert plan.needs == (ROUTE, key("virtualNode", "cart-v1"))
    roll_back(world, good, **only(extra, *plan.needs))
    assert world.state.get(extra) is None


def test_a_parent_and_its_routes_go_back_together_where_ports_demand_it() -> None:
    world = shop()
    world.delete(key("gatewayRoute", "cart", parent="edge"))
    one = len(world.events)
    router = key("virtualRouter", "cart")
    world.update(ROUTE, route_spec({"cart-v1": 1}, port=80))
    world.update(router, router_spec(80, 81))
    then = world.states[one]
    assert plan_rollback(world.state, then, ACCOUNT, "shop", {router}).refusals == ()
    alone = plan_rollback(world.state, then, ACCOUNT, "shop", {ROUTE})
    assert alone.needs == (router,)
    assert "route/cart/all needs virtualRouter/cart" in alone.refusals[0]


def test_a_name_that_never_was_is_not_found() -> None:
    world, good = spoilt()
    with pytest.raises(NotFound, match=r"VirtualNode with name ghost .*neither now nor after position 1\.9"):
        roll_back(world, good, **only(key("virtualNode", "ghost")))


def test_a_part_of_which_the_name_was_made_anew_is_refused_too() -> None:
    world, good = spoilt()
    node = key("virtualNode", "cart-v1")
    world.create(node, {})
    with pytest.raises(Conflict, match="VirtualNode cart-v1 was deleted and made anew since"):
        roll_back(world, good, **only(node))
    plan = plan_rollback(world.state, world.states[good], ACCOUNT, "shop", {ROUTE})
    assert plan.refusals == (), "the new one serves as well"


def test_what_was_shown_is_what_happens_or_nothing() -> None:
    world, good = spoilt()
    seen = world.state.position
    world.create(mesh_key(ACCOUNT, "other"), {})
    assert world.decide(Rollback(ACCOUNT, "shop", world.states[good], seen=seen)).events
    world.do(TagResource(ROUTE, {"a": "b"}))
    shown_first = r"mesh shop was changed at 1\.15, after what would change was shown \(at 1\.13\)"
    with pytest.raises(Conflict, match=shown_first):
        roll_back(world, good, seen=seen)


def test_resources_are_spelled_and_read_back() -> None:
    world = shop()
    for each in world.state.resources:
        assert parse_spelled(ACCOUNT, "shop", spelled(each)) == each
        assert parse_spelled(ACCOUNT, "shop", each.path) == each
    assert parse_spelled(ACCOUNT, "shop", "vn/a") == parse_spelled(ACCOUNT, "shop", "VirtualNodes/a")
    assert parse_spelled(ACCOUNT, "shop", "gr/edge/cart").parent == "edge"


@pytest.mark.parametrize("text", ["", "x", "vn", "vn/", "vn/a/b", "route/x", "cat/x", "mesh/other", "mesh/other/vn/a"])
def test_what_names_nothing_says_how_to_write_it(text: str) -> None:
    with pytest.raises(BadRequest, match="route/<router>/<name>"):
        parse_spelled(ACCOUNT, "shop", text)
