"""The append machine: nothing definite before it is certain."""

from __future__ import annotations

import pytest

from eventlog.append import AppendMachine, Done, Lost, NotWritten, ReadNext, Send, Unresolved, new_head
from eventlog.driver import AppendTxn, Committed, HeadMoved, Refused, StoredFrame, Unknown
from eventlog.frames import encode_frame
from eventlog.records import Head, HeadRef, KeyClass, genesis_head
from eventlog.sealing import DataKey, place_record, seal_record
from mesh.errors import TimelineMoved
from mesh.position import Position
from tests.eventlog.logs import SeededEntropy, new_record

START = HeadRef(genesis_head("a-log"), 5)
KEY = DataKey("config-1", KeyClass.CONFIG, b"c" * 32, 1)
ENTROPY = SeededEntropy()


def sealed(after: Head) -> bytes:
    salts = (ENTROPY.token_bytes(32), ENTROPY.token_bytes(32))
    return seal_record(place_record(new_record(), after, 1, 1), after, (KEY, None), salts)


def txn(expected: HeadRef = START) -> AppendTxn:
    stored = sealed(expected.head)
    return AppendTxn(expected, encode_frame([stored]), new_head(expected.head, [stored]))


OURS, THEIRS = txn(), txn()
BEYOND = HeadRef(Head("a-log", 1, 9, b"z" * 32), 44)


def machine() -> AppendMachine:
    started = AppendMachine(OURS, deadline_s=10.0)
    assert started.start() == Send(OURS, 0.0)
    return started


def frame_of(sent: AppendTxn) -> StoredFrame:
    return StoredFrame(sent.head.at, sent.frame, 6)


def test_committed_is_done() -> None:
    assert machine().on_result(Committed(6), 0.0) == Done(HeadRef(OURS.head, 6))


def test_another_head_at_the_first_sending_is_a_lost_race() -> None:
    other = HeadRef(THEIRS.head, 6)
    assert machine().on_result(HeadMoved(other), 0.0) == Lost(other)


def test_a_lost_answer_repeats_the_very_same_txn_with_growing_pauses() -> None:
    running = machine()
    pauses: list[float] = []
    for _ in range(8):
        action = running.on_result(Unknown("timeout"), 0.0)
        assert isinstance(action, Send)
        assert action.txn is OURS
        pauses.append(action.pause_s)
    assert pauses == sorted(pauses)
    assert 0 < pauses[0] < pauses[-1] <= 0.5


def test_our_own_head_after_a_lost_answer_is_done() -> None:
    running = machine()
    running.on_result(Unknown("timeout"), 0.0)
    assert running.on_result(HeadMoved(HeadRef(OURS.head, 6)), 0.1) == Done(HeadRef(OURS.head, 6))


def test_a_later_head_after_a_lost_answer_is_looked_into() -> None:
    running = machine()
    running.on_result(Unknown("timeout"), 0.0)
    assert running.on_result(HeadMoved(BEYOND), 0.1) == ReadNext(START.head, 0.0)
    assert running.on_next_frame([frame_of(OURS)]) == Done(HeadRef(OURS.head, 6))


def test_another_frame_in_our_place_is_a_lost_race() -> None:
    running = machine()
    running.on_result(Unknown("timeout"), 0.0)
    running.on_result(HeadMoved(BEYOND), 0.1)
    assert running.on_next_frame([frame_of(THEIRS)]) == Lost(BEYOND)


def test_a_longer_frame_over_our_place_is_a_lost_race() -> None:
    first = sealed(START.head)
    point = new_head(START.head, [first])
    second = sealed(point)
    running = machine()
    running.on_result(Unknown("timeout"), 0.0)
    running.on_result(HeadMoved(BEYOND), 0.1)
    assert running.on_next_frame([StoredFrame(Position(1, 2), encode_frame([first, second]), 6)]) == Lost(BEYOND)


def test_a_place_that_was_trimmed_away_leaves_it_unresolved() -> None:
    for remaining in ([], [frame_of(txn(BEYOND))]):
        running = machine()
        running.on_result(Unknown("timeout"), 0.0)
        running.on_result(HeadMoved(BEYOND), 0.1)
        assert isinstance(running.on_next_frame(remaining), Unresolved)


def test_a_failed_look_is_repeated_until_the_deadline() -> None:
    running = machine()
    running.on_result(Unknown("timeout"), 0.0)
    running.on_result(HeadMoved(BEYOND), 0.1)
    action = running.on_read_failed("no quorum", 0.2)
    assert isinstance(action, ReadNext)
    assert action.pause_s > 0
    assert running.on_read_failed("no quorum", 10.0) == Unresolved("no quorum")


def test_lost_answers_up_to_the_deadline_are_unresolved() -> None:
    running = machine()
    assert isinstance(running.on_result(Unknown("timeout"), 9.0), Send)
    assert running.on_result(Unknown("timeout again"), 9.99) == Unresolved("timeout again")


def test_refusals_up_to_the_deadline_are_certainly_not_written() -> None:
    running = machine()
    assert isinstance(running.on_result(Refused("too many requests"), 0.0), Send)
    assert running.on_result(Refused("too many requests"), 9.99) == NotWritten("too many requests")


def test_a_refusal_settles_nothing_after_a_lost_answer() -> None:
    running = machine()
    running.on_result(Unknown("timeout"), 0.0)
    assert isinstance(running.on_result(Refused("too many requests"), 9.99), Unresolved)


def test_the_same_head_under_another_revision_is_a_lost_race_also_after_a_lost_answer() -> None:
    again = HeadRef(START.head, 77)
    assert machine().on_result(HeadMoved(again), 0.0) == Lost(again)
    running = machine()
    running.on_result(Unknown("timeout"), 0.0)
    assert running.on_result(HeadMoved(again), 0.0) == Lost(again)


@pytest.mark.parametrize(
    "current",
    [
        None,
        HeadRef(Head("another", 1, 1, bytes(32)), 9),
        HeadRef(Head("a-log", 2, 1, bytes(32)), 9),
        HeadRef(Head("a-log", 1, 0, bytes(32)), 9),
    ],
    ids=["gone", "another log", "later epoch", "same place, other hash"],
)
def test_another_history_stops_the_writer(current: HeadRef | None) -> None:
    with pytest.raises(TimelineMoved):
        machine().on_result(HeadMoved(current), 0.0)
