"""Whatever answers get lost and however appenders interleave: each call's token is in the log once (I1), and nothing
that was called lost is in it.

Appenders work as API servers do: follow to the head, look whether the token is there, else append; catch up and decide
again after a lost race; begin anew with the same token after an unknown outcome. Faults, their order, and how calls
interleave are drawn; sendings that "land later" land at drawn moments, also after everybody has gone home.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventlog.append import AppendAction, AppendMachine, Lost
from eventlog.driver import AppendResult, AppendTxn, FramePage, HeadMoved, Unknown
from eventlog.drivers.memory import Fault, MemoryDriver, MemoryStore
from eventlog.fsck import fsck
from eventlog.keys.keyring import Keyring
from eventlog.records import HeadRef, encode_head
from eventlog.writer import Appended, LogWriter
from mesh.errors import NoQuorum, OutcomeUnknown, TimelineMoved
from mesh.position import Position
from tests.eventlog.logs import BOTH, Log, SeededEntropy, ToldClock, make_log, new_record

FAULTS = st.lists(st.sampled_from([Fault.NONE, Fault.NONE, *Fault]), max_size=24)
YIELDS = st.lists(st.integers(0, 3), min_size=1, max_size=12)


class InterleavedDriver(MemoryDriver):
    """Gives way to others a drawn number of times around each call, and lets late sendings land now and then."""

    def __init__(self, store: MemoryStore, yields: list[int]) -> None:
        super().__init__(store)
        self._inner = store
        self._yields = yields
        self._calls = 0

    async def _give_way(self) -> None:
        self._calls += 1
        count = self._yields[self._calls % len(self._yields)]
        for _ in range(count):
            await asyncio.sleep(0)
        if count == 3:
            self._inner.deliver()

    async def read_head(self) -> HeadRef | None:
        await self._give_way()
        return await super().read_head()

    async def read_frames(self, after: Position, limit: int, revision: int | None = None) -> FramePage:
        await self._give_way()
        return await super().read_frames(after, limit, revision)

    async def append(self, txn: AppendTxn) -> AppendResult:
        await self._give_way()
        result = await super().append(txn)
        await self._give_way()
        return result


class OvertakenClock(ToldClock):
    """While one sleeps between two sendings, others get far enough to append."""

    def __init__(self, turns: int) -> None:
        super().__init__()
        self._turns = turns

    async def sleep(self, delay_s: float) -> None:
        await super().sleep(delay_s)
        for _ in range(self._turns):
            await asyncio.sleep(0)


async def call(log: Log, number: int, disowned: set[str]) -> int:
    """One caller's mutation, repeated with its token until it is certain; gives its position.

    `disowned` gets the attempts of which the writer said that they are not in the log and never will be.
    """
    for _ in range(60):
        records = await log.read()
        found = [record.position.position for record in records if record.request_id == f"rq-{number}"]
        if found:
            return found[0]
        head = await log.driver.read_head()
        assert head is not None
        if head.head.position != len(records):
            continue
        try:
            attempt = log.entropy.uuid()
            new = new_record(number)._replace(data={"attempt": attempt})
            done = await log.writer.append(head, [new], records[-1].time_us if records else 0)
        except OutcomeUnknown:
            continue
        except NoQuorum:
            disowned.add(attempt)
            continue
        if isinstance(done, Appended):
            return done.records[0].position.position
        disowned.add(attempt)
    raise AssertionError("no certain answer in 60 tries")


async def scenario(faults: list[Fault], yields: list[int], callers: int) -> tuple[Counter[str], dict[int, int], Log]:
    store = MemoryStore()
    log = await make_log(MemoryDriver(store))
    waiting = iter(faults)
    store.fault_of = lambda _: next(waiting, Fault.NONE)

    def server(number: int) -> Log:
        driver = InterleavedDriver(store, yields[number % len(yields) :] + yields)
        keyring, clock = Keyring(driver, BOTH), OvertakenClock(20 * yields[number % len(yields)])
        entropy = SeededEntropy(f"server {number}")
        writer = LogWriter(driver, keyring, clock, entropy, deadline_s=0.3)
        return Log(driver, keyring, writer, clock, entropy, log.head)

    numbers = [number % max(1, callers - 1) for number in range(callers)]  # one token comes twice, at two servers
    disowned: set[str] = set()
    positions = await asyncio.gather(*(call(server(each), number, disowned) for each, number in enumerate(numbers)))
    store.deliver()
    records = await log.read()
    assert not disowned & {record.data["attempt"] for record in records if record.data}, "disowned, yet in the log"
    answered = dict(zip(numbers, positions, strict=True))
    for number, position in zip(numbers, positions, strict=True):
        assert answered[number] == position, "two answers for one token"
        assert records[position - 1].request_id == f"rq-{number}", "answered before it was in the log"
    return Counter(record.request_id for record in records), answered, log


@settings(max_examples=100)
@given(FAULTS, YIELDS, st.integers(1, 5))
def test_each_token_is_appended_once(faults: list[Fault], yields: list[int], callers: int) -> None:
    async def run() -> None:
        counts, answered, log = await scenario(faults, yields, callers)
        assert set(counts) == {f"rq-{number}" for number in answered}
        assert set(counts.values()) == {1}, counts
        assert (await fsck(log.driver, Keyring(log.driver, BOTH))).clean

    asyncio.run(run())


def _unknown_means_failed(machine: AppendMachine, result: AppendResult, now_s: float) -> AppendAction:
    if isinstance(result, Unknown):
        return Lost(machine._txn.expected)  # the mutant: a timeout taken for a failure
    return REAL_ON_RESULT(machine, result, now_s)


def _moved_means_lost(machine: AppendMachine, result: AppendResult, now_s: float) -> AppendAction:
    if isinstance(result, HeadMoved) and result.current is not None:
        return Lost(result.current)  # the mutant: whatever happened before, somebody else must have been first
    return REAL_ON_RESULT(machine, result, now_s)


REAL_ON_RESULT = AppendMachine.on_result


@pytest.mark.parametrize("mutant", [_unknown_means_failed, _moved_means_lost])
async def test_the_machine_is_what_makes_an_answer_certain(
    mutant: Callable[[AppendMachine, AppendResult, float], AppendAction], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mutant's claim of a lost race is false: its record is, or comes, in the log."""
    store = MemoryStore()
    log = await make_log(MemoryDriver(store))
    faults = iter([Fault.LANDED])
    store.fault_of = lambda _: next(faults, Fault.NONE)
    assert isinstance(await log.writer.append(log.head, [new_record(1)], 0), Appended)

    monkeypatch.setattr(AppendMachine, "on_result", mutant)
    faults = iter([Fault.LANDED])
    head = store.head_ref()
    assert head is not None
    claimed = await log.writer.append(head, [new_record(2)], 0)
    assert not isinstance(claimed, Appended)
    assert [record.request_id for record in await log.read()] == ["rq-1", "rq-2"]


def _compares_the_revision_alone(store: MemoryStore, txn: AppendTxn) -> AppendResult:
    head = store.head
    if head is not None and head.mod_revision == txn.expected.mod_revision:
        store.head = head._replace(value=encode_head(txn.expected.head))
    return REAL_COMMIT(store, txn)


REAL_COMMIT = MemoryStore.commit


@pytest.mark.parametrize("mutant", [None, _compares_the_revision_alone])
async def test_the_heads_value_keeps_writers_of_a_lost_tail_out(
    mutant: Callable[[MemoryStore, AppendTxn], AppendResult] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that was brought back from a copy counts the same revisions again, for other records."""
    if mutant is not None:
        monkeypatch.setattr(MemoryStore, "commit", mutant)
    store = MemoryStore()
    log = await make_log(MemoryDriver(store))
    await log.append(new_record(1))
    copy = (store.revision, store.head, dict(store.frames), list(store.names))
    await log.append(new_record(2))  # the tail that is lost
    sleeper = log.head
    store.revision, store.head, store.frames, store.names = copy
    present = store.head_ref()
    assert present is not None
    assert isinstance(await log.writer.append(present, [new_record(3)], 0), Appended)
    here = store.head_ref()
    assert here is not None
    assert (here.mod_revision, here.head.position) == (sleeper.mod_revision, sleeper.head.position)
    if mutant is None:
        with pytest.raises(TimelineMoved):
            await log.writer.append(sleeper, [new_record(4)], 0)
    else:
        await log.writer.append(sleeper, [new_record(4)], 0)
    assert (await fsck(log.driver, Keyring(log.driver, BOTH))).clean == (mutant is None)
