"""The bulk fold gives, wherever a history is cut, the state that folding one by one gives; and refuses the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import msgpack
import pytest
from hypothesis import HealthCheck, given, settings

from mesh.commands import Command, Create, CreateAccessKey, Delete, IssueProxyIdentity, Rollback, TagResource, Update
from mesh.draft import Draft
from mesh.errors import MeshlogError, Poison
from mesh.events import RESOURCE_CREATED, RESOURCE_UPDATED, Event
from mesh.evolve import evolve
from mesh.kinds import ResourceKey, mesh_key
from mesh.limits import TOKEN_WINDOW_US
from mesh.position import Position
from mesh.state import State, computed_fingerprint, pack, state_hash
from tests.mesh.test_fold_properties import Wanted, wanted
from tests.mesh.worlds import ACCOUNT, MESH, PRINCIPAL, World, key, node_spec, route_spec, shop, token

Step = tuple[str, Wanted, int]

steps = st.lists(
    st.tuples(
        st.sampled_from(["create", "create", "update", "update", "delete", "tag", "rollback", "key", "identity"]),
        wanted(),
        st.integers(0, 5),
    ),
    min_size=4,
    max_size=22,
)


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("mesh.state", "mesh.draft"):
        monkeypatch.setattr(f"{module}.TOKENS_KEPT", 4)
        monkeypatch.setattr(f"{module}.TOMBSTONES_KEPT", 2)


def plain(event: Event) -> Event:
    """As it comes out of a record."""
    return dataclasses.replace(event, data=msgpack.unpackb(msgpack.packb(event.data, default=dict)))


def command_of(step: Step, world: World) -> Command:
    what, (there, spec, _), number = step
    commands: dict[str, Command] = {
        "create": Create(there, spec, {"number": str(number)}),
        "update": Update(there, spec),
        "delete": Delete(there),
        "tag": TagResource(there, {"tag": str(number)}),
        "key": CreateAccessKey(f"AKID{number}", "a secret", ACCOUNT, PRINCIPAL, admin=False),
        "identity": IssueProxyIdentity(there, "0a", 1),
        "rollback": Rollback(ACCOUNT, "m1", world.states[len(world.states) // 2], allow_mesh_deletion=True),
    }
    return commands[what]


def history(script: list[Step]) -> World:
    world = World()
    for name in ("m1", "m2"):
        world.do(Create(mesh_key(ACCOUNT, name), {}, {}))
    for number, step in enumerate(script):
        try:
            # Some calls repeat an earlier token under another operation's name, as far as the fold can tell.
            world.do(command_of(step, world), token(f"t{number % 7}", operation=f"{step[0]}{number % 3}"))
        except MeshlogError:
            continue
    return world


def check_same(drafted: State, folded: State) -> None:
    for each in dataclasses.fields(State):
        assert getattr(drafted, each.name) == getattr(folded, each.name), each.name
    assert state_hash(drafted) == state_hash(folded)
    assert drafted.fingerprint == computed_fingerprint(drafted)
    for digest, entry in folded.tokens.items():
        answer = drafted.tokens[digest].outcome
        assert (answer and pack(answer)) == (entry.outcome and pack(entry.outcome)), "to the order of members"


def cuts(events: list[Event], states: list[State]) -> Iterator[tuple[State, list[Event], State]]:
    for start in range(len(states)):
        for end in range(start, len(states)):
            yield states[start], events[start:end], states[end]


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(script=steps, slow=st.booleans())
def test_a_bulk_fold_is_the_fold_at_every_cut(script: list[Step], slow: bool, small_windows: None) -> None:
    world = history(script)
    stretch = TOKEN_WINDOW_US // 3 if slow else 0
    events = [
        plain(dataclasses.replace(event, time_us=event.time_us + number * stretch))
        for number, event in enumerate(world.events)
    ]
    states = [State()]
    for event in events:
        states.append(evolve(states[-1], event))
    for base, between, expected in cuts(events, states):
        draft = Draft(base)
        for event in between:
            draft.fold(event)
        check_same(draft.state(), expected)
    whole = Draft(State())
    for event, expected in zip(events, states[1:], strict=True):
        whole.fold(event)
        assert state_hash(whole.state()) == state_hash(expected), "a look in between changes nothing"


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = {"in": [value]}
    return value


JUNK: tuple[Any, ...] = (None, 7, "x", [], {}, {"a": 1}, [["x"]], 1.5, {"weightedTargets": 7}, nested(60))
"""JSON-like, as the data of every record that opens."""


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(script=steps, data=st.data())
def test_what_one_fold_refuses_the_other_refuses_and_leaves_no_trace(script: list[Step], data: st.DataObject) -> None:
    events = [plain(event) for event in history(script).events]
    at = data.draw(st.integers(0, len(events) - 1))
    odd = dict(events[at].data or {})
    member = data.draw(st.sampled_from(sorted(odd)))
    odd[member] = JUNK[data.draw(st.integers(0, len(JUNK) - 1))]
    events[at] = dataclasses.replace(events[at], data=odd)
    draft, state = Draft(State()), State()
    for event in events:
        refusal: str | None = None
        try:
            state = evolve(state, event)
        except Poison as poison:
            refusal = poison.message
        if refusal is None:
            draft.fold(event)
            continue
        with pytest.raises(Poison) as refused:
            draft.fold(event)
        assert refused.value.message == refusal
    check_same(draft.state(), state)


@pytest.mark.parametrize(
    "change",
    [
        {"type": "CakeBaked"},
        {"schema": 2},
        {"position": Position(1, 1)},
        {"data": None},
        {"data": {"key": list(MESH), "specification": {}}},
        {"data": {"key": ["a", "b"], "spec": {}}},
        {"data": {"key": list(key("virtualNode", "nobody")), "spec": {}}},
    ],
)
def test_poison_in_the_middle_is_named_and_all_before_it_stays(change: dict[str, Any]) -> None:
    world = shop()
    draft = Draft(State())
    for event in world.events:
        draft.fold(plain(event))
    world.update(key("virtualNode", "cart-v1"), node_spec(8081))
    poison = dataclasses.replace(plain(world.events[-1]), **change)
    with pytest.raises(Poison) as bulk:
        draft.fold(poison)
    with pytest.raises(Poison) as single:
        evolve(world.states[-2], poison)
    assert bulk.value.message == single.value.message
    assert state_hash(draft.state()) == state_hash(world.states[-2])
    draft.fold(plain(world.events[-1]))
    assert state_hash(draft.state()) == state_hash(world.state)


def test_only_what_is_still_there_is_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A route that changes a thousand times with a window of ten tokens: eleven answers are packed, not a thousand."""
    monkeypatch.setattr("mesh.draft.TOKENS_KEPT", 10)
    route: ResourceKey = key("route", "all", parent="cart")
    world = shop()
    draft = Draft(world.state)
    for number in range(1000):
        spec = route_spec({"cart-v1": number % 100, "cart-v2": 1})
        kind = RESOURCE_UPDATED if number else RESOURCE_CREATED
        other = key("route", "other", parent="cart")
        created = {"uid": "u", "owner": ACCOUNT, "tags": {}}
        event = dataclasses.replace(
            world.events[-1],
            position=Position(1, len(world.events) + 1 + number),
            type=kind,
            token=token(f"t{number}"),
            data={"key": list(other), "spec": spec, **({} if number else created)},
        )
        draft.fold(event)
    state = draft.state()
    assert len(state.tokens) == 10
    assert state.resources[key("route", "other", parent="cart")].version == 1000
    assert state.resources[route] is world.at(route)
    assert state.fingerprint == computed_fingerprint(state)
