"""Quotas: App Mesh's numbers unless an account has its own; asked about where something grows, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.commands import Command, Context, Create, RaiseLevel, SetQuota, Update
from mesh.decide import decide
from mesh.errors import BadRequest, Forbidden, LevelTooLow, LimitExceeded, MeshlogError
from mesh.events import LEVEL
from mesh.kinds import mesh_key
from mesh.quotas import QUOTAS, quota_value
from tests.mesh.worlds import (
    ACCOUNT,
    MESH,
    OTHER_ACCOUNT,
    World,
    gateway_route_spec,
    gateway_spec,
    key,
    node_spec,
    route_spec,
    router_spec,
)

MESHES, NODES, SERVICES, ROUTERS, GATEWAYS, ROUTES, GATEWAY_ROUTES, BACKENDS = (
    "L-AC861A39", "L-E043DFB4", "L-DA7495A7", "L-50F6C35A", "L-87E74146", "L-BB90B7FF", "L-F6F26D09", "L-8775AB18",
)  # fmt: skip


def refusal(world: World, command: Command, error: type[MeshlogError], **fields: Any) -> str:
    with pytest.raises(error) as caught:
        world.do(command, **fields)
    assert type(caught.value) is error
    return caught.value.message


def world_at_level_2() -> World:
    world = World()
    world.do(RaiseLevel(LEVEL))
    world.create(MESH, {})
    return world


def set_quota(world: World, code: str, value: int | None) -> None:
    world.do(SetQuota(ACCOUNT, code, value))


def test_the_defaults_are_app_meshs() -> None:
    assert {code: quota.default for code, quota in QUOTAS.items()} == {
        MESHES: 15,
        NODES: 200,
        SERVICES: 200,
        ROUTERS: 200,
        GATEWAYS: 3,
        ROUTES: 50,
        GATEWAY_ROUTES: 10,
        BACKENDS: 50,
        "L-AE1D9567": 10,
        "L-606A910B": 50,
        "L-33E8F9C9": 50,
    }


def test_an_account_has_fifteen_meshes() -> None:
    world = World()
    for number in range(15):
        world.create(mesh_key(ACCOUNT, f"m{number}"), {})
    message = refusal(world, Create(mesh_key(ACCOUNT, "one-more"), {}), LimitExceeded)
    assert message == (
        f"Account {ACCOUNT} has 15 meshes, and its quota allows no more (L-AC861A39, Meshes per account): "
        "delete some, or raise it with `meshlog quotas set L-AC861A39 NUMBER`"
    )
    world.do(Create(mesh_key(OTHER_ACCOUNT, "theirs"), {}), account=OTHER_ACCOUNT)
    world.delete(mesh_key(ACCOUNT, "m0"))
    world.create(mesh_key(ACCOUNT, "one-more"), {})


CASES: list[tuple[str, str, str, dict[str, Any], str]] = [
    (NODES, "virtualNode", "", {}, "Mesh shop has 2 virtualNodes"),
    (SERVICES, "virtualService", "", {}, "Mesh shop has 2 virtualServices"),
    (ROUTERS, "virtualRouter", "", router_spec(), "Mesh shop has 2 virtualRouters"),
    (GATEWAYS, "virtualGateway", "", gateway_spec(), "Mesh shop has 2 virtualGateways"),
    (ROUTES, "route", "r", route_spec({"n": 1}), "VirtualRouter r of mesh shop has 2 routes"),
    (GATEWAY_ROUTES, "gatewayRoute", "g", gateway_route_spec("s"), "VirtualGateway g of mesh shop has 2 gatewayRoutes"),
]


@pytest.mark.parametrize(("code", "kind", "parent", "spec", "said"), CASES, ids=[case[1] for case in CASES])
def test_each_kind_has_its_quota_where_it_counts(
    code: str, kind: str, parent: str, spec: dict[str, Any], said: str
) -> None:
    world = world_at_level_2()
    if parent:
        world.create(key("virtualNode", "n"), {})
        world.create(key("virtualService", "s"), {})
        for name in (parent, "other"):
            world.create(key("virtualRouter" if kind == "route" else "virtualGateway", name), router_spec())
        world.create(key(kind, "elsewhere", parent="other"), spec)
    set_quota(world, code, 2)
    for number in range(2):
        world.create(key(kind, f"x{number}", parent=parent), spec)
    one_more = key(kind, "one-more", parent=parent)
    message = refusal(world, Create(one_more, spec), LimitExceeded)
    assert message.startswith(f"{said}, and its quota allows no more ({code}, {QUOTAS[code].name})")
    set_quota(world, code, 3)
    world.create(one_more, spec)
    world.update(one_more, spec)


def test_a_virtual_gateway_quota_holds_without_being_set() -> None:
    world = World()
    world.create(MESH, {})
    for number in range(3):
        world.create(key("virtualGateway", f"g{number}"), gateway_spec())
    assert "has 3 virtualGateways" in refusal(world, Create(key("virtualGateway", "g3"), gateway_spec()), LimitExceeded)


def test_backends_are_counted_in_create_and_update() -> None:
    world = world_at_level_2()
    node = key("virtualNode", "n")
    many = node_spec(backends=tuple(f"s{number}" for number in range(51)))
    message = refusal(world, Create(node, many), LimitExceeded)
    assert message.startswith(f"spec.backends: a list of 51 is more than the 50 that the quota of account {ACCOUNT} ")
    world.create(node, node_spec(backends=("a", "b")))
    assert "L-8775AB18" in refusal(world, Update(node, many), LimitExceeded)
    set_quota(world, BACKENDS, 1)
    world.update(node, node_spec(backends=("c", "d")))  # no more than before
    refusal(world, Update(node, node_spec(backends=("c", "d", "e"))), LimitExceeded)


def test_what_is_over_a_lowered_quota_stays_and_can_be_changed() -> None:
    world = world_at_level_2()
    for number in range(3):
        world.create(key("virtualNode", f"n{number}"), {})
    set_quota(world, NODES, 1)
    world.update(key("virtualNode", "n0"), node_spec())
    world.delete(key("virtualNode", "n1"))
    refusal(world, Create(key("virtualNode", "n3"), {}), LimitExceeded)


def test_a_quota_is_set_and_goes_back_to_its_default() -> None:
    world = world_at_level_2()
    for value in (7, None):
        before = len(world.events)
        set_quota(world, NODES, value)
        set_quota(world, NODES, value)
        assert [event.type for event in world.events[before:]] == ["QuotaChanged"]
        assert quota_value(world.state, ACCOUNT, NODES) == (value or 200)
    assert quota_value(world.state, OTHER_ACCOUNT, NODES) == 200


def test_what_cannot_be_a_quota_is_refused() -> None:
    world = world_at_level_2()
    assert "is no quota's code" in refusal(world, SetQuota(ACCOUNT, "L-0", 1), BadRequest)
    assert "fixed at 10" in refusal(world, SetQuota(ACCOUNT, "L-AE1D9567", 20), BadRequest)
    assert "must be from 0" in refusal(world, SetQuota(ACCOUNT, NODES, -1), BadRequest)
    assert "must be from 0" in refusal(world, SetQuota(ACCOUNT, NODES, 100_001), BadRequest)
    refusal(world, SetQuota(ACCOUNT, NODES, 1), Forbidden, account=OTHER_ACCOUNT)


def test_a_quota_needs_every_server_to_understand_it() -> None:
    world = World()
    context = Context(ACCOUNT, "arn", "SetQuota", level=1)
    with pytest.raises(LevelTooLow, match="level 2"):
        decide(world.state, SetQuota(ACCOUNT, NODES, 1), context)
