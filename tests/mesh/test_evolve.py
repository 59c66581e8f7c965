"""The fold: one function an event type, deterministic, and stopping where it would have to guess."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mesh.commands import CreateAccessKey, Delete, DisableAccessKey, IssueProxyIdentity, RaiseLevel, TagResource
from mesh.errors import Poison
from mesh.events import EVENT_TYPES, LEVEL, RESTRICTING_TYPES, SCHEMAS, SECRET_TYPES, Event, NewEvent, subject
from mesh.evolve import FOLDS, evolve
from mesh.kinds import mesh_key
from mesh.position import ORIGIN, Position
from mesh.state import TABLES, State, state_hash
from tests.mesh.worlds import ACCOUNT, MESH, START_US, STEP_US, World, key, node_spec, placed, shop, token

NOTHING = '{"Version": "2012-10-17", "Statement": []}'


def poisoned(state: State, event: Event) -> str:
    with pytest.raises(Poison) as caught:
        evolve(state, event)
    assert str(event.position) in caught.value.message
    return caught.value.message


def after(world: World, event_type: str, data: Any, **fields: Any) -> Event:
    at = Position(1, world.state.position.position + 1)
    return placed(NewEvent(event_type, data), at, **fields)


def test_every_type_of_event_has_its_fold_and_its_schema() -> None:
    assert set(FOLDS) == set(EVENT_TYPES) == set(SCHEMAS)
    assert set(EVENT_TYPES) > SECRET_TYPES


def test_a_resource_keeps_its_birth_and_counts_its_versions() -> None:
    world = shop()
    node = key("virtualNode", "cart-v1")
    born = world.at(node)
    changed = world.update(node, node_spec(port=9090))
    assert (born.version, born.created_us, born.updated_us) == (1, START_US + 2 * STEP_US, START_US + 2 * STEP_US)
    assert (changed.version, changed.created_us, changed.uid) == (2, born.created_us, born.uid)
    assert (changed.updated_us, changed.changed_at) == (START_US + 10 * STEP_US, Position(1, 10))


def test_a_name_made_again_is_another_resource() -> None:
    world = World()
    first = world.create(MESH, {})
    world.delete(MESH)
    second = world.create(MESH, {})
    assert second.uid != first.uid
    assert second.version == 1


def test_containers_know_the_last_change_in_them_deletions_included() -> None:
    world = shop()
    router, gateway = key("virtualRouter", "cart"), key("virtualGateway", "edge")
    assert world.state.changed_in[router] == Position(1, 5), "its route was made after it"
    assert world.state.changed_in[MESH] == Position(1, 9)
    world.delete(key("gatewayRoute", "cart", parent="edge"))
    assert world.state.changed_in[gateway] == world.state.changed_in[MESH] == Position(1, 10)
    assert world.state.changed_in[router] == Position(1, 5)
    world.delete(gateway)
    assert gateway not in world.state.changed_in


def test_log_time_never_goes_back() -> None:
    world = shop()
    late = after(world, "ResourceUpdated", {"key": list(MESH), "spec": {}}, time_us=START_US)
    assert evolve(world.state, late).time_us == world.state.time_us


def test_specs_are_kept_verbatim_and_cannot_be_changed() -> None:
    world = World()
    world.create(MESH, {})
    spec: dict[str, Any] = {"listeners": [], "backends": []}
    kept = world.create(key("virtualNode", "n"), spec).spec
    assert dict(kept) == {"listeners": (), "backends": ()}
    assert list(kept) == list(spec)
    with pytest.raises(TypeError):
        kept["x"] = 1


def test_a_secret_that_a_role_cannot_open_moves_the_same_hash() -> None:
    world = shop()
    world.do(CreateAccessKey("AKID", "secret", ACCOUNT, "arn", True), token=token("k"))
    closed = evolve(world.states[-2], replace(world.events[-1], data=None))
    assert not closed.access_keys
    assert closed.position == world.state.position
    assert state_hash(closed) == state_hash(world.state)
    assert closed.tokens == world.state.tokens


def test_what_takes_access_away_can_be_applied_where_it_has_nothing_to_take() -> None:
    """In a role without secrets, and again after a restore to a moment before."""
    world = shop()
    world.do(CreateAccessKey("ROOT", "secret", ACCOUNT, "arn", True))
    world.do(CreateAccessKey("AKID", "secret", ACCOUNT, "arn", True))
    world.do(DisableAccessKey("AKID", ACCOUNT))
    ann, own, deny = f"arn:aws:iam::{ACCOUNT}:user/ann", f"arn:aws:iam::{ACCOUNT}:policy/p", NOTHING
    data: dict[str, dict[str, Any]] = {
        "AccessKeyDisabled": {"access_key_id": "AKID"},
        "AccessKeyDeleted": {"access_key_id": "GONE"},
        "PrincipalDeleted": {"principal": ann},
        "PolicyDeleted": {"policy": own},
        "PolicyAttached": {"principal": ann, "policy": own, "within": True},
        "PolicyDetached": {"principal": ann, "policy": own, "within": True},
        "InlinePolicyPut": {"principal": ann, "name": "p", "document": deny, "within": True},
        "InlinePolicyDeleted": {"principal": ann, "name": "p", "within": True},
        "TrustPolicyPut": {"principal": ann, "document": deny, "within": True},
        "PolicyPut": {"policy": own, "account": ACCOUNT, "document": deny, "within": True},
        "MeshUnshared": {"account": ACCOUNT, "mesh": "gone", "with": ["999999999999"]},
    }
    assert data.keys() == RESTRICTING_TYPES
    for event_type in RESTRICTING_TYPES:
        early = evolve(shop().state, after(shop(), event_type, data[event_type]))
        assert not early.access_keys
        again = evolve(world.state, after(world, event_type, data[event_type]))
        for table in ("access_keys", *TABLES):
            assert getattr(again, table) == getattr(world.state, table), event_type


def test_an_audit_fact_changes_nothing_but_the_position() -> None:
    world = shop()
    before = world.state
    world.do(IssueProxyIdentity(key("virtualNode", "cart-v1"), "01", 5))
    assert replace(before, position=world.state.position, time_us=world.state.time_us) == world.state


def test_a_level_is_raised_and_never_lowered() -> None:
    world = World()
    world.create(MESH, {})
    world.do(RaiseLevel(LEVEL))
    assert world.state.level == LEVEL
    assert evolve(world.state, after(world, "LevelRaised", {"level": 1})).level == LEVEL


def restored(from_epoch: int, position: int) -> dict[str, Any]:
    hash_hex = "ab" * 32
    return {"from_epoch": from_epoch, "position": position, "hash": hash_hex, "to": "latest", "known": 12, "reason": ""}


def test_a_restored_log_goes_on_counting_and_knows_where_each_number_lies() -> None:
    world = shop()
    first = evolve(world.state, placed(NewEvent("LogRestored", restored(1, 9)), Position(2, 10)))
    again = evolve(first, placed(NewEvent("LogRestored", restored(2, 10)), Position(3, 11)))
    assert (first.lineage, again.lineage) == ((Position(1, 9),), (Position(1, 9), Position(2, 10)))
    assert [again.at(number) for number in (1, 9, 10, 11, 12)] == [
        Position(1, 1), Position(1, 9), Position(2, 10), Position(3, 11), Position(3, 12),
    ]  # fmt: skip
    assert replace(first, position=ORIGIN, time_us=0, lineage=()) == replace(world.state, position=ORIGIN, time_us=0)
    assert state_hash(first) != state_hash(replace(first, lineage=()))


@pytest.mark.parametrize(("at", "data"), [(Position(2, 11), restored(1, 9)), (Position(1, 10), restored(1, 9))])
def test_a_timeline_begins_right_after_its_base_in_a_later_epoch(at: Position, data: dict[str, Any]) -> None:
    poisoned(shop().state, placed(NewEvent("LogRestored", data), at))


POISON: list[tuple[str, Any, dict[str, Any]]] = [
    ("NeverHeardOf", {}, {"schema": 1}),
    ("ResourceDeleted", {"key": list(MESH)}, {"schema": SCHEMAS["ResourceDeleted"] + 1}),
    ("LevelRaised", {"level": LEVEL + 1}, {}),
    ("ResourceCreated", None, {}),
    ("ResourceCreated", {"key": list(MESH), "uid": "u", "owner": ACCOUNT, "spec": {}, "tags": {}}, {}),
    ("ResourceCreated", {"key": ["too", "short"]}, {}),
    ("ResourceUpdated", {"key": list(mesh_key(ACCOUNT, "none")), "spec": {}}, {}),
    ("ResourceDeleted", {"key": [ACCOUNT, "shop", "noSuchKind", "", "x"]}, {}),
    ("ResourceDeleted", {"key": list(key("virtualNode", "none"))}, {}),
    ("TagsChanged", {"key": list(key("virtualNode", "none")), "set": {}, "unset": []}, {}),
    ("TagsChanged", {"key": list(MESH), "set": {}}, {}),
    ("MeshRolledBack", {"changes": [{"key": list(key("virtualNode", "none")), "spec": None}]}, {}),
    ("AccessKeyCreated", {"access_key_id": "x"}, {}),
    ("AccessKeyDisabled", {}, {}),
    ("AccountCreated", {"account": "short", "name": ""}, {}),
    ("MeshShared", {"account": ACCOUNT, "mesh": "none", "with": ["999999999999"]}, {}),
    ("MeshShared", {"account": ACCOUNT, "mesh": "shop", "with": ["everybody"]}, {}),
    ("MeshUnshared", {"account": ACCOUNT, "mesh": "shop"}, {}),
    ("ProxyIdentityIssued", {"node": None}, {}),
    ("DataKeysDrawn", {}, {}),
    ("DataKeysRewrapped", {"keys": [1]}, {}),
]


@pytest.mark.parametrize(("event_type", "data", "fields"), POISON)
def test_what_cannot_be_folded_stops_the_fold(event_type: str, data: Any, fields: dict[str, Any]) -> None:
    world = shop()
    schema = fields.get("schema", 1)
    base = after(world, "ResourceDeleted", data, schema=schema)
    poisoned(world.state, replace(base, type=event_type))


def test_an_event_is_folded_once() -> None:
    world = shop()
    assert "read twice" in poisoned(world.state, world.events[-1])
    assert "read twice" in poisoned(world.state, world.events[0])


def test_a_later_epoch_is_later() -> None:
    world = shop()
    event = replace(after(world, "ResourceUpdated", {"key": list(MESH), "spec": {}}), position=Position(2, 4))
    assert evolve(world.state, event).position == Position(2, 4)


def test_replay_equals_the_incremental_fold() -> None:
    world = shop()
    world.do(TagResource(MESH, {"a": "b"}), token=token("t"))
    world.do(Delete(key("gatewayRoute", "cart", parent="edge")))
    for _ in range(2):
        state = State()
        for event, expected in zip(world.events, world.states[1:], strict=True):
            state = evolve(state, event)
            assert state == expected
            assert state_hash(state) == state_hash(expected)
    assert world.states[0] == State(position=ORIGIN)


def test_events_name_what_they_are_about() -> None:
    world = shop()
    assert subject(world.events[1].type, world.events[1].data) == key("virtualNode", "cart-v1")
    assert subject("MeshRolledBack", {"account": ACCOUNT, "mesh": "shop"}) == MESH
    assert subject("ProxyIdentityIssued", {"node": list(key("virtualNode", "n"))}) == key("virtualNode", "n")
    assert subject("AccessKeyCreated", None) is None
    assert subject("LevelRaised", {"level": 1}) is None
