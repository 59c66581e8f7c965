"""Every moment of a long history can be had again: from etcd, from the archive, over a restore, equal to the fold."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import Any, cast

import pytest

from api.calls import Call
from api.past import PastStates
from api.ports import ApiPorts
from api.recent import RecentEvents
from api.rewind import RewindApi
from eventlog.append import new_head
from eventlog.driver import AppendTxn, Committed
from eventlog.frames import encode_frame
from eventlog.quarantine import Operator, Quarantined, quarantine, stand_in
from eventlog.records import HeadRef, KeyClass, NewRecord
from eventlog.sealing import place_record, seal_record
from identity.caller import Caller
from identity.sigv4 import SignedRequest
from mesh.documents import resource_document
from mesh.errors import BadRequest, Damaged, NotFound, Poison
from mesh.events import Event
from mesh.evolve import evolve
from mesh.iam.evaluate import Circumstances
from mesh.position import ORIGIN, Position
from mesh.state import State, state_hash
from projector.replica import event_of
from tests.api.conftest import REGION
from tests.api.pasts import MESHES, Past, long_past
from tests.eventlog.archive.archives import make_archived
from tests.mesh.worlds import ACCOUNT, PRINCIPAL

EVENTS = 2_000
EVERY = int(os.environ.get("MESHLOG_EVERY_MOMENT", "97"))
"""Each so many-th moment is looked at; 1 looks at all of them, for a few minutes."""


@pytest.fixture(scope="module")
def past() -> Past:
    return asyncio.run(long_past(EVENTS))


async def read(past: Past, after: int, upto: int) -> list[Event]:
    now = past.now
    return [event async for events in past.history().read(now.at(after), now.at(upto)) for event in events]


async def test_the_history_is_what_the_tests_below_are_about(past: Past) -> None:
    assert len(past.states) == EVENTS + 1
    assert past.now.position == Position(2, EVENTS)
    in_etcd = past.archived.frames()
    assert in_etcd[0].last.position > EVENTS * 0.7, "most of it is in the archive alone"
    assert await past.history().begins() == ORIGIN
    assert len({len(state.resources) for state in past.states}) > 10


async def test_every_kth_moment_equals_an_oracle_fold(past: Past) -> None:
    states, numbers = past.past(), list(range(0, EVENTS + 1, EVERY))
    past.random.shuffle(numbers)
    for number in numbers:
        found = await states.at(past.now.at(number), past.now)
        expected = past.states[number]
        assert state_hash(found) == state_hash(expected), number
        assert (found.resources, found.of_mesh, found.deleted) == (
            expected.resources, expected.of_mesh, expected.deleted,
        ), number  # fmt: skip


async def test_a_cold_reader_has_every_moment_too(past: Past) -> None:
    for number in (1, EVENTS // 4, EVENTS // 2, EVENTS // 2 + 1, EVENTS - 1):
        assert state_hash(await past.past().at(past.now.at(number), past.now)) == state_hash(past.states[number])


async def test_get_at_through_the_api_equals_the_oracle(past: Past) -> None:
    api = Asked(past)
    numbers = list(range(0, EVENTS + 1, 3 * EVERY))
    past.random.shuffle(numbers)
    for number in numbers:
        state = past.states[number]
        found = await api.ask("resources", kind="mesh", at=str(number))
        assert [document["meshName"] for document in found["resources"]] == [
            mesh.key.name for mesh in state.meshes(ACCOUNT)
        ]
        for mesh in state.meshes(ACCOUNT):
            found = await api.ask("resources", mesh=mesh.key.name, at=str(number))
            told = {document["metadata"]["arn"].split(":")[-1]: shape(document) for document in found["resources"]}
            inside = state.in_mesh(ACCOUNT, mesh.key.name)
            assert told == {each.key.path: resource_document(each, REGION) for each in inside}
            assert found["at"]["position"] == number
            for document in found["resources"]:
                assert document["last_change"]["position"] <= number


async def test_diff_through_the_api_is_the_difference_of_the_folds(past: Past) -> None:
    api = Asked(past)
    for _ in range(6):
        one, other = (past.random.randint(1, EVENTS) for _ in range(2))
        mesh = past.random.choice(MESHES)
        answer = await api.ask("diff", **{"from": str(one), "to": str(other), "mesh": mesh})
        before, after = (contents(past.states[number], mesh) for number in (one, other))
        told = {change["resource"]: (change["before"], change["after"]) for change in answer["changes"]}
        assert {path: (bare(old), bare(new)) for path, (old, new) in told.items()} == {
            path: (before.get(path), after.get(path))
            for path in before.keys() | after.keys()
            if before.get(path) != after.get(path)
        }
        events = {event.position.position: event for event in await read(past, min(one, other), max(one, other))}
        for change in answer["changes"]:
            event = events[change["last_change"]["position"]]
            assert (change["last_change"]["actor"], change["last_change"]["type"]) == (event.actor, event.type)


async def test_a_time_is_the_last_event_at_or_before_it(past: Past) -> None:
    history, times = past.history(), [state.time_us for state in past.states]
    for number in range(1, EVENTS + 1, 5 * EVERY):
        for time_us in (times[number], times[number] - 1):
            last = max(n for n in range(EVENTS + 1) if times[n] <= time_us)
            assert (await history.position_at(time_us, past.now)).position == last
    assert await history.position_at(times[1] - 1, past.now) == ORIGIN
    assert await history.position_at(times[-1] + 10**12, past.now) == past.now.position


async def test_a_position_that_a_restore_left_behind_is_not_taken_for_the_one_in_its_place(past: Past) -> None:
    api, left = Asked(past), EVENTS // 2
    assert past.now.lineage == (Position(1, left),)
    assert (await api.ask("resources", kind="mesh", at=f"1.{left}"))["at"]["epoch"] == 1
    assert (await api.ask("resources", kind="mesh", at=str(left + 1)))["at"]["epoch"] == 2
    with pytest.raises(BadRequest, match=rf"position 1.{left + 1} was left behind by a restore; .* has 2.{left + 1}"):
        await api.ask("resources", kind="mesh", at=f"1.{left + 1}")


async def test_any_stretch_is_read_whole_and_in_order(past: Past) -> None:
    for _ in range(15):
        low = past.random.randint(0, EVENTS)
        high = past.random.randint(low, EVENTS)
        assert [event.position.position for event in await read(past, low, high)] == list(range(low + 1, high + 1))


async def test_what_is_kept_nowhere_is_said() -> None:
    past = Past(await make_archived())
    await past.grow(60)
    past.archived.etcd.trim(past.archived.frames()[5].last)
    begins = (await past.history().begins()).position
    with pytest.raises(NotFound, match="neither in etcd nor in an archive"):
        await past.past().at(Position(1, begins + 1), past.now)
    with pytest.raises(NotFound, match="is before 1"):
        await past.history().position_at(past.states[1].time_us - 1, past.now)


def shape(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in ("tags", "last_change")}


def bare(side: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if side is None else {"spec": side["spec"], "tags": side["tags"]}


def contents(state: State, mesh: str) -> dict[str, Any]:
    return {
        each.key.path: {"spec": resource_document(each, REGION)["spec"], "tags": dict(each.tags)}
        for each in state.in_mesh(ACCOUNT, mesh)
    }


NOW = Circumstances(source_ip="", time_us=0, secure=False, region=REGION)


class Asked:
    """The handlers, asked without HTTP."""

    def __init__(self, past: Past) -> None:
        ports = cast(ApiPorts, _Ports(past))
        self._router = RewindApi(ports, cast(Any, None), PastStates(ports.history, ports.checkpoints)).router()

    async def ask(self, name: str, **members: Any) -> Any:
        """The whole answer, all its pages together."""
        found = self._router.find(SignedRequest("GET", f"/meshlog/v1/{name}", "", (), b""))
        assert found is not None
        caller = Caller(ACCOUNT, PRINCIPAL, PRINCIPAL, "key", True, REGION)
        document: Any = (await found.route.handle(Call("request", "", caller, members, NOW, lambda _: None))).document
        assert document["next"] is None
        return document


class _Ports:
    """Of `ApiPorts`, what looking back needs."""

    def __init__(self, past: Past) -> None:
        self.replica = _Still(past.now)
        self.history, self.checkpoints, self.recent = past.history(), past.checkpoints(), RecentEvents()
        self.clock, self.region, self.read_deadline_s = past.archived.log.clock, REGION, 10.0


class _Still:
    def __init__(self, state: State) -> None:
        self.state = state

    async def confirmed(self, timeout_s: float) -> Position:
        return self.state.position


async def test_past_a_record_that_nobody_can_fold_once_it_is_quarantined() -> None:
    past = Past(await make_archived())
    await past.grow(50)
    poison = await append_unfoldable(past)
    with pytest.raises(Poison):
        await past.past().at(poison, replace(past.now, position=Position(1, 90)))
    time_us = past.now.time_us
    await set_aside(past, poison, time_us)
    after = past.states[-1]
    for number in range(40, len(past.states) - 1):
        found = await past.past().at(Position(1, number), after)
        assert state_hash(found) == state_hash(past.states[number]), number
    assert [event.type for event in await read(past, 50, 52)] == ["NeverHeardOf", "RecordQuarantined"]


async def test_past_a_record_that_no_longer_opens_once_it_is_quarantined() -> None:
    past = Past(await make_archived())
    await past.grow(50)
    broken = await append_unopenable(past)
    with pytest.raises(Damaged):
        await past.past().at(broken, replace(past.now, position=Position(1, 90)))
    await set_aside(past, broken, past.now.time_us)
    found = await past.past().at(broken, past.now)
    assert (found.position, found.resources) == (broken, past.states[50].resources)
    assert [event.position.position for event in await read(past, 49, 52)] == [50, 51, 52]


async def test_a_change_that_was_quarantined_counts_until_then_and_no_longer() -> None:
    past = Past(await make_archived())
    await past.grow(30)
    bad = past.now.position
    before, counted = past.states[-2], past.states[-1]
    await set_aside(past, bad, counted.time_us, fold=False)
    with_it = evolve(before, event_of(stand_in(Quarantined(bad, counted.time_us, past.archived.log.head.head.at))))
    states, head = past.past(), past.archived.log.head.head.at
    now = replace(with_it, position=Position(1, head.position + 1))
    at_bad, at_word = await states.at(bad, now), await states.at(head, now)
    assert at_bad.resources == counted.resources, "as it was then"
    assert at_word.resources == before.resources
    assert (await states.at(bad, now)).resources == counted.resources, "whatever was asked for before"
    assert (await past.past().at(head, now)).resources == before.resources


async def append_unfoldable(past: Past) -> Position:
    log = past.archived.log
    record = NewRecord("NeverHeardOf", 1, ACCOUNT, PRINCIPAL, "", "r", None, {"x": 1})
    appended = await log.append(record, previous_time_us=past.now.time_us)
    return appended.head.head.at


async def append_unopenable(past: Past) -> Position:
    """Sealed for another place: nobody can open it, and the chain is sound."""
    log = past.archived.log
    head = log.head.head
    keys = await log.keyring.sealing_keys(head.log_id, KeyClass.CONFIG)
    new = NewRecord("ResourceDeleted", 1, ACCOUNT, PRINCIPAL, "", "r", None, {})
    elsewhere = head._replace(position=head.position + 7)
    stored = seal_record(place_record(new, elsewhere, 1, 1), elsewhere, keys, (b"s" * 32, b"t" * 32))
    made = new_head(head, [stored])
    result = await log.driver.append(AppendTxn(log.head, encode_frame([stored]), made))
    assert isinstance(result, Committed)
    log.head = HeadRef(made, result.mod_revision)
    return made.at


async def set_aside(past: Past, position: Position, time_us: int, *, fold: bool = True) -> None:
    log = past.archived.log
    appended = await quarantine(
        log.driver,
        log.keyring,
        log.writer,
        position=position,
        time_us=time_us,
        reason="a test",
        operator=Operator(ACCOUNT, PRINCIPAL, "r"),
    )
    log.head = appended.head
    named = Quarantined(position, time_us, appended.head.head.at)
    if fold:
        past.states.append(evolve(past.now, event_of(stand_in(named))))
        for record in appended.records:
            past.states.append(evolve(past.now, event_of(record)))
        await past.grow(5)
