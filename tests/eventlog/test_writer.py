"""The writer over a store that loses answers: one record for one call, or no claim at all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from eventlog.driver import AppendTxn
from eventlog.drivers.memory import Fault
from eventlog.keys.keyring import Keyring
from eventlog.records import KeyClass
from eventlog.writer import Appended, LogWriter, LostRace
from mesh.errors import LimitExceeded, MissingKey, NoQuorum, OutcomeUnknown, TimelineMoved
from tests.eventlog.logs import CONFIG_ONLY, START_US, MemoryLog, make_memory_log, new_record


@pytest.fixture
async def made() -> MemoryLog:
    return await make_memory_log()


def faults(made: MemoryLog, *sequence: Fault) -> None:
    waiting: Iterator[Fault] = iter(sequence)
    made.store.fault_of = lambda _: next(waiting, Fault.NONE)


async def numbers(made: MemoryLog) -> list[str]:
    return [record.request_id for record in await made.log.read()]


async def test_an_append_gives_what_a_reader_gets(made: MemoryLog) -> None:
    done = await made.log.append(new_record(1), new_record(2, KeyClass.SECRETS))
    assert list(done.records) == await made.log.read()
    assert done.head == made.store.head_ref()


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.LANDED, Fault.REFUSED])
async def test_one_bad_answer_is_got_over(made: MemoryLog, fault: Fault) -> None:
    faults(made, fault, fault)
    done = await made.log.append(new_record(1))
    assert done.head == made.store.head_ref()
    assert await numbers(made) == ["rq-1"]


async def test_a_late_landing_is_found_not_repeated(made: MemoryLog) -> None:
    sent: list[AppendTxn] = []

    def late_then_delivered(txn: AppendTxn) -> Fault:
        sent.append(txn)
        if len(sent) == 2:
            made.store.deliver()
        return Fault.LATE if len(sent) == 1 else Fault.NONE

    made.store.fault_of = late_then_delivered
    done = await made.log.append(new_record(1))
    assert sent == [sent[0], sent[0]]
    assert done.head == made.store.head_ref()
    assert await numbers(made) == ["rq-1"]


async def test_a_landed_write_that_others_went_on_from_is_still_found(made: MemoryLog) -> None:
    start = made.log.head

    def landed_then_overtaken(txn: AppendTxn) -> Fault:
        made.store.fault_of = overtake
        return Fault.LANDED

    def overtake(txn: AppendTxn) -> Fault:
        made.store.fault_of = lambda _: Fault.NONE
        present = made.store.head_ref()
        assert present is not None
        overtaker.append(asyncio.ensure_future(made.log.writer.append(present, [new_record(2)], 0)))
        return Fault.LOST

    overtaker: list[asyncio.Future[Appended | LostRace]] = []
    made.store.fault_of = landed_then_overtaken
    done = await made.log.writer.append(start, [new_record(1)], 0)
    assert isinstance(done, Appended)
    assert done.head.head.position == 1
    await overtaker[0]
    assert await numbers(made) == ["rq-1", "rq-2"]


async def test_a_lost_race_gives_the_present_head(made: MemoryLog) -> None:
    start = made.log.head
    first = await made.log.append(new_record(1))
    assert await made.log.writer.append(start, [new_record(2)], 0) == LostRace(first.head)
    assert await numbers(made) == ["rq-1"]


async def test_answers_lost_for_good_are_unknown_and_say_what_to_do(made: MemoryLog) -> None:
    made.store.fault_of = lambda _: Fault.LOST
    with pytest.raises(OutcomeUnknown, match="same clientToken"):
        await made.log.append(new_record(1))
    assert made.log.clock.time_s <= 11


async def test_refusals_for_good_are_certainly_not_written(made: MemoryLog) -> None:
    made.store.fault_of = lambda _: Fault.REFUSED
    with pytest.raises(NoQuorum, match="nothing was written"):
        await made.log.append(new_record(1))


async def test_log_time_never_goes_back(made: MemoryLog) -> None:
    ahead_us = START_US + 5_000_000
    done = await made.log.append(new_record(1), previous_time_us=ahead_us)
    assert (done.records[0].time_us, done.records[0].wall_us) == (ahead_us, START_US)
    made.log.clock.wall_us = ahead_us + 1
    done = await made.log.append(new_record(2), previous_time_us=ahead_us)
    assert done.records[0].time_us == ahead_us + 1


async def test_one_frame_holds_at_most_256_kib(made: MemoryLog) -> None:
    noise = new_record(1)._replace(data={"noise": made.log.entropy.token_bytes(150_000)})
    with pytest.raises(LimitExceeded):
        await made.log.append(noise, noise)
    assert await numbers(made) == []


async def test_a_head_that_went_elsewhere_stops_the_writer(made: MemoryLog) -> None:
    await made.log.append(new_record(1))
    stale = made.log.head
    other = await make_memory_log(new_record(1), seed="other")
    made.store.head = other.store.head
    with pytest.raises(TimelineMoved):
        await made.log.writer.append(stale, [new_record(2)], 0)


async def test_a_role_without_the_secrets_class_cannot_write_secrets(made: MemoryLog) -> None:
    log = made.log
    writer = LogWriter(log.driver, Keyring(log.driver, CONFIG_ONLY), log.clock, log.entropy)
    with pytest.raises(MissingKey):
        await writer.append(log.head, [new_record(1, KeyClass.SECRETS)], 0)
    assert isinstance(await writer.append(log.head, [new_record(2)], 0), Appended)
