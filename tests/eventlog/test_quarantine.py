"""Quarantine in the log: a record that names another, written with the head alone, and what readers get instead."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import pytest

from eventlog.append import new_head
from eventlog.driver import AppendTxn, Committed
from eventlog.drivers.memory import MemoryDriver, MemoryStore
from eventlog.frames import encode_frame
from eventlog.quarantine import (
    RECORD_QUARANTINED,
    Operator,
    Quarantined,
    last_time_us,
    quarantine,
    quarantined_by,
    read_stored,
    stand_in,
)
from eventlog.records import HeadRef, KeyClass, Record
from eventlog.sealing import place_record, seal_record
from eventlog.writer import Appended
from mesh.errors import Damaged, NotFound
from mesh.position import Position
from tests.eventlog.logs import Log, make_log, new_record

OPERATOR = Operator("123456789012", "arn:aws:iam::123456789012:root", "q-1")


@pytest.fixture
async def made() -> Log:
    return await make_log(MemoryDriver(MemoryStore()))


async def append_unopenable(log: Log) -> Position:
    keys = await log.keyring.sealing_keys(log.head.head.log_id, KeyClass.CONFIG)
    record = place_record(new_record(), log.head.head, 1, 1)
    stored = seal_record(record, log.head.head, keys, (b"1" * 32, b"2" * 32))
    broken = stored[:-1] + bytes([stored[-1] ^ 1])
    head = new_head(log.head.head, [broken])
    committed = await log.driver.append(AppendTxn(log.head, encode_frame([broken]), head))
    assert isinstance(committed, Committed)
    log.head = HeadRef(head, committed.mod_revision)
    return head.at


class Overtaken(MemoryDriver):
    """Somebody appends right after the head was read, twice."""

    def __init__(self, log: Log) -> None:
        assert isinstance(log.driver, MemoryDriver)
        super().__init__(log.driver._store)
        self.races, self._log = 2, log

    async def read_head(self) -> HeadRef | None:
        head = await super().read_head()
        if self.races:
            self.races -= 1
            await self._log.append(new_record(9))
        return head


async def put(log: Log, position: Position, time_us: int = 7) -> Appended:
    done = await quarantine(
        log.driver, log.keyring, log.writer, position=position, time_us=time_us, reason="a test", operator=OPERATOR
    )
    log.head = done.head
    return done


async def test_it_needs_nothing_but_the_head(made: Log) -> None:
    await made.append(new_record(1))
    at = await append_unopenable(made)
    assert await last_time_us(made.driver, made.keyring, made.head.head) == 0
    by = await put(made, at)
    (record,) = by.records
    assert (record.type, record.actor, record.token) == (RECORD_QUARANTINED, OPERATOR.actor, None)
    assert quarantined_by(record) == Quarantined(at, 7, record.position)
    assert await last_time_us(made.driver, made.keyring, made.head.head) == record.time_us


async def test_a_follower_finds_it_beyond_what_does_not_open_and_gives_the_stand_in(made: Log) -> None:
    first = await made.append(new_record(1))
    at = await append_unopenable(made)
    by = await put(made, at)
    await made.append(new_record(2))
    found: list[Quarantined | None] = []
    async with aclosing(made.follower().quarantines(first.head.head)) as quarantines:
        async for named in quarantines:
            found.append(named)
            if named is None:
                break
    (named, _) = found
    assert named == Quarantined(at, 7, by.head.head.at)
    got: list[Record] = []
    async with aclosing(made.follower().follow(first.head.head, {at: named})) as batches:
        async for batch in batches:
            got += batch.records
            if batch.caught_up:
                break
    assert [record.position.position for record in got] == [2, 3, 4]
    assert got[0] == stand_in(named)
    assert got[0].time_us == 7
    with pytest.raises(Damaged):
        await made.read()


async def test_other_writers_may_win_meanwhile(made: Log) -> None:
    await made.append(new_record(1))
    driver = Overtaken(made)
    done = await quarantine(
        driver, made.keyring, made.writer, position=Position(1, 1), time_us=7, reason="a test", operator=OPERATOR
    )
    assert done.head.head.position == 4, "after two others"
    assert driver.races == 0


async def test_stored_records_are_found_within_their_frames(made: Log) -> None:
    await made.append(new_record(1), new_record(2), new_record(3))
    await made.append(new_record(4))
    stored = [await read_stored(made.driver, Position(1, number)) for number in (1, 2, 3, 4)]
    assert len(set(stored)) == 4
    for number in (0, 5):
        with pytest.raises(NotFound):
            await read_stored(made.driver, Position(1, number))


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"position": [1], "time_us": 1},
        {"position": [1, "2"], "time_us": 1},
        {"position": [1, 5], "time_us": 1},
        {"position": [1, 9], "time_us": 1},
        {"position": [1, 2], "time_us": None},
    ],
)
def test_a_word_that_names_nothing_before_it_is_damage(data: Any) -> None:
    record = stand_in(Quarantined(Position(1, 5), 0, Position(1, 6)))._replace(data=data)
    with pytest.raises(Damaged, match=r"1\.5"):
        quarantined_by(record)


def test_what_is_void() -> None:
    named = Quarantined(Position(1, 10), 0, Position(1, 20))
    assert [at for at in range(8, 23) if named.voids(Position(1, at))] == list(range(10, 20))
    assert not named.voids(Position(2, 20))
    assert Quarantined(Position(1, 10), 0, Position(2, 5)).voids(Position(1, 99))
