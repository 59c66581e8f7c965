"""The state as a value: hashes, indexes, and memories that stay bounded."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from mesh import state as state_module
from mesh.commands import Create, TagResource
from mesh.fingerprint import canonical_json
from mesh.kinds import ResourceKey, mesh_key
from mesh.limits import TOKEN_WINDOW_US
from mesh.position import Position
from mesh.state import Resource, State, TokenEntry, computed_fingerprint, state_hash
from tests.mesh.worlds import ACCOUNT, MESH, OTHER_ACCOUNT, World, key, shop, token


def resource(key: ResourceKey, version: int = 1) -> Resource:
    return Resource(key, {}, {}, f"uid {key.path}", version, ACCOUNT, 1, 1, Position(1, 1))


MESHES = [resource(mesh_key(ACCOUNT, f"m{number}")) for number in range(12)]


@given(st.permutations(MESHES))
def test_the_hash_does_not_depend_on_the_order_of_insertion(shuffled: list[Resource]) -> None:
    one, other = State(), State()
    for first, second in zip(MESHES, shuffled, strict=True):
        one, other = one.with_resource(first), other.with_resource(second)
    assert state_hash(one) == state_hash(other)
    assert one == other


def test_the_hash_moves_with_everything_that_counts() -> None:
    world = shop()
    world.do(TagResource(MESH, {"a": "b"}), token=token("t"))
    world.delete(key("gatewayRoute", "cart", parent="edge"))
    base, mesh = world.state, world.at(MESH)
    variants = [
        base,
        replace(base, position=Position(2, 11)),
        replace(base, time_us=base.time_us + 1),
        replace(base, level=2),
        base.with_resource(replace(mesh, version=9)),
        base.with_resource(replace(mesh, tags={"a": "c"})),
        base.with_resource(replace(mesh, uid="another")),
        base.with_resource(replace(mesh, owner=OTHER_ACCOUNT)),
        base.with_resource(replace(mesh, updated_us=1)),
        base.with_resource(replace(mesh, changed_at=Position(1, 12))),
        base.without_tombstone("uid-9"),
        base.with_token(b"new", TokenEntry(b"", base.position, base.time_us, None)),
    ]
    assert len({state_hash(state) for state in variants}) == len(variants)


def test_the_hash_does_not_move_with_access_keys() -> None:
    assert state_hash(replace(State(), access_keys=State().access_keys.insert("a", None))) == state_hash(State())  # type: ignore[arg-type]


def test_taking_out_what_was_put_in_gives_the_same_items() -> None:
    before = shop().state
    extra = resource(key("virtualNode", "extra"))
    after = before.with_resource(extra).without_resource(extra.key, Position(1, 10))
    assert after.resources == before.resources
    assert after.of_mesh == before.of_mesh
    assert after.referrers == before.referrers
    assert after.fingerprint == computed_fingerprint(after)


def test_a_digest_is_of_the_whole_resource_and_not_of_the_order_of_its_members() -> None:
    one = replace(resource(MESH), spec={"a": 1, "b": (2,)})
    assert one.digest == replace(resource(MESH), spec={"b": [2], "a": 1}).digest
    assert one.digest != replace(one, spec={"a": 1, "b": (3,)}).digest
    assert one.digest != replace(one, version=2).digest
    assert hash(one) == hash(replace(one))


def test_canonical_json_is_one_text_for_one_value() -> None:
    assert canonical_json({"b": ("é", 1), "a": None}) == '{"a":null,"b":["é",1]}'.encode()


def test_a_mesh_lists_its_resources_in_order() -> None:
    state = shop().state
    assert [each.key.name for each in state.in_mesh(ACCOUNT, "shop", "virtualNode")] == ["cart-v1", "cart-v2"]
    assert len(list(state.in_mesh(ACCOUNT, "shop"))) == 9
    assert list(state.in_mesh(OTHER_ACCOUNT, "shop")) == []
    assert [mesh.key for mesh in state.meshes(ACCOUNT)] == [MESH]
    assert list(state.meshes(OTHER_ACCOUNT)) == []


def test_hard_references_are_found_from_their_target() -> None:
    state = shop().state
    route = key("route", "all", parent="cart")
    assert state.referring_to(key("virtualNode", "cart-v1")) == [route, key("virtualService", "v1.shop.local")]
    assert state.referring_to(key("virtualNode", "cart-v1"), "route") == [route]
    assert state.referring_to(key("virtualRouter", "cart")) == [route, key("virtualService", "cart.shop.local")]
    assert state.referring_to(key("virtualService", "stock.shop.local")) == [], "backends are soft"


def test_a_changed_reference_leaves_the_old_target() -> None:
    world = shop()
    world.update(key("virtualService", "v1.shop.local"), {})
    assert world.state.referring_to(key("virtualNode", "cart-v1"), "virtualService") == []


def test_tokens_are_forgotten_by_log_time() -> None:
    entry = TokenEntry(b"", Position(1, 1), 1_000, None)
    state = State().with_token(b"old", entry)
    on_the_edge = entry._replace(position=Position(1, 2), time_us=1_000 + TOKEN_WINDOW_US)
    assert b"old" in state.with_token(b"new", on_the_edge).tokens
    beyond = state.with_token(b"new", on_the_edge._replace(time_us=on_the_edge.time_us + 1))
    assert set(beyond.tokens) == {b"new"}
    assert beyond.fingerprint == computed_fingerprint(beyond)


def test_tokens_are_forgotten_by_count_eldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "TOKENS_KEPT", 3)
    state = State()
    for number in range(1, 6):
        state = state.with_token(b"%d" % number, TokenEntry(b"", Position(1, number), number, None))
    assert set(state.tokens) == {b"3", b"4", b"5"}
    assert state.fingerprint == computed_fingerprint(state)


def test_a_token_written_again_counts_from_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "TOKENS_KEPT", 2)
    state = State()
    for number, digest in enumerate([b"a", b"b", b"a", b"c"], start=1):
        state = state.with_token(digest, TokenEntry(b"", Position(1, number), number, None))
    assert set(state.tokens) == {b"a", b"c"}
    assert state.fingerprint == computed_fingerprint(state)


def test_tombstones_are_forgotten_by_count_eldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "TOMBSTONES_KEPT", 2)
    world = World()
    for number in range(4):
        mesh = mesh_key(ACCOUNT, f"m{number}")
        world.do(Create(mesh, {}))
        world.delete(mesh)
    assert [stone.key.mesh for stone in sorted(world.state.deleted.values())] == ["m2", "m3"]
    assert world.state.fingerprint == computed_fingerprint(world.state)
