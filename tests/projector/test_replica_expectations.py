"""A replica that is told beforehand what an append will fold to takes that, for that very frame and no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventlog.records import Head
from mesh.events import Event
from mesh.position import Position
from mesh.state import State
from projector.replica import event_of
from tests.mesh.worlds import MESH, SHOP
from tests.projector.logs import MemoryLog


@pytest.fixture
async def log(tmp_path: Path) -> MemoryLog:
    return await MemoryLog.create(tmp_path)


async def test_an_expected_frame_is_not_folded_again_and_is_told_to_listeners(log: MemoryLog) -> None:
    replica, told = log.replica(), list[tuple[State, State, tuple[Event, ...]]]()
    replica.subscribe(lambda before, after, events: told.append((before, after, tuple(events))))
    base = replica.state
    appended = await log.create_resource(MESH, {})
    events = [event_of(record) for record in appended.records]
    replica.expect(appended.head.head, base, events, log.state)
    assert replica.advance(appended.records, appended.head)
    assert replica.state is log.state
    assert replica.head_ref == appended.head
    assert told == [(base, log.state, tuple(events))]
    assert replica.advance(appended.records, appended.head)
    assert len(told) == 1


@pytest.mark.parametrize("wrong", ["head", "base"])
async def test_any_other_frame_is_folded(log: MemoryLog, wrong: str) -> None:
    replica = log.replica()
    base = replica.state
    appended = await log.create_resource(MESH, {})
    head: Head = appended.head.head
    if wrong == "head":
        head = head._replace(hash=bytes(32))  # the same position, but what another server wrote there
    else:
        base = State(position=Position(1, 7))
    false = State(position=head.at, time_us=1)
    replica.expect(head, base, [], false)
    assert replica.advance(appended.records, appended.head)
    assert replica.state is not false
    assert MESH in replica.state.resources
    later = await log.create_resource(*SHOP[1])
    assert replica.advance(later.records, later.head)
    assert replica.position == Position(1, 2)
