"""The timeline: etcd trimmed at any point and the archive together give exactly what was written, over epochs too."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventlog.archive.reader import ArchiveReader
from eventlog.driver import StoredFrame
from eventlog.frames import decode_frame
from eventlog.records import Head, Record
from eventlog.timeline import Timeline
from mesh.errors import Damaged, NotFound, TimelineMoved
from mesh.position import ORIGIN, Position
from tests.eventlog.archive.archives import Archived, make_archived, restored
from tests.eventlog.logs import new_record


def timeline(archived: Archived) -> Timeline:
    return Timeline(archived.log.driver, ArchiveReader(archived.store))


async def frames(line: Timeline, after: Position = ORIGIN, upto: Position | None = None) -> list[StoredFrame]:
    async with aclosing(line.frames(after, upto)) as found:
        return [frame._replace(mod_revision=0) async for frame in found]


async def records(archived: Archived, after: Head | None = None, upto: Position | None = None) -> list[Record]:
    async with aclosing(timeline(archived).records(archived.log.keyring, after, upto)) as found:
        return [record async for record in found]


def stored_records(found: list[StoredFrame]) -> list[bytes]:
    return [record for frame in found for record in decode_frame(frame.value, frame.last)]


@settings(max_examples=30)
@given(data=st.data())
def test_whatever_is_trimmed_and_archived_the_records_are_those_that_were_written(data: st.DataObject) -> None:
    async def scenario() -> None:
        archived = await make_archived()
        for size in data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=12), label="frames"):
            await archived.append(records=size)
            if data.draw(st.booleans(), label="ship"):
                await archived.ship()
        written = archived.frames()
        mark = archived.mark()
        if mark is not None:
            fit = [frame.last for frame in written if frame.last <= mark.head.at]
            archived.etcd.trim(data.draw(st.sampled_from(fit), label="trim"))
        line = timeline(archived)
        assert await frames(line) == written
        last = written[-1].last.position
        low = data.draw(st.integers(0, last), label="after")
        high = data.draw(st.integers(low, last), label="upto")
        part = await frames(line, Position(1, low), Position(1, high))
        assert stored_records(part) == stored_records(written)[low:high]
        assert (await line.begins()) == ORIGIN

    asyncio.run(scenario())


@settings(max_examples=20)
@given(data=st.data())
def test_over_restores_the_timeline_is_what_each_epoch_was_based_on(data: st.DataObject) -> None:
    async def scenario() -> None:
        archived = await make_archived()
        expected: list[bytes] = []
        for _ in range(data.draw(st.integers(1, 3), label="restores")):
            for size in data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=6), label="frames"):
                await archived.append(records=size)
                if data.draw(st.booleans(), label="ship between"):
                    await archived.ship()
            await archived.ship()
            expected += stored_records(archived.frames())
            first = (
                archived.frames()[0].last.position
                - len(decode_frame(archived.frames()[0].value, ORIGIN._replace(position=99)))
                + 1
            )
            at = data.draw(st.integers(first, len(expected)), label="base")
            reader = await archived.reader()
            base = await base_at(archived, Position(reader.index.epoch_at(at), at))
            expected = expected[:at]
            archived = await restored(archived, base)
            if data.draw(st.booleans(), label="ship at once"):
                await archived.ship()
        await archived.append(records=2)
        expected += stored_records(archived.frames())
        assert stored_records(await frames(timeline(archived))) == expected
        await archived.ship()
        assert stored_records(await archived.archived()) == expected
        archived.etcd.trim(archived.log.head.head.at)
        assert stored_records(await frames(timeline(archived))) == expected
        assert [record.position.position for record in await records(archived)] == list(range(1, len(expected) + 1))

    asyncio.run(scenario())


async def base_at(archived: Archived, at: Position) -> Head:
    """The point of the timeline right after the record at `at`."""
    found = stored_records(await frames(timeline(archived), at._replace(position=at.position - 1), at))
    return Head(archived.log.head.head.log_id, at.epoch, at.position, hashlib.sha256(found[-1]).digest())


async def test_a_position_of_a_lost_tail_is_refused() -> None:
    archived = await make_archived()
    await archived.append(frames=6)
    await archived.ship()
    again = await restored(archived, await base_at(archived, Position(1, 4)))
    await again.append(frames=3)
    await again.ship()
    line = timeline(again)
    with pytest.raises(TimelineMoved, match=r"1\.5 is not on the current timeline"):
        await frames(line, Position(1, 5))
    assert [frame.last for frame in await frames(line, Position(1, 3))] == [
        Position(1, 4),
        *(Position(2, n) for n in (5, 6, 7)),
    ]


async def test_without_an_archive_what_was_trimmed_is_named_as_missing() -> None:
    archived = await make_archived()
    await archived.append(frames=6)
    archived.etcd.trim(Position(1, 3))
    line = Timeline(archived.log.driver, None)
    assert await line.begins() == Position(1, 3)
    with pytest.raises(NotFound, match="Position 1 of the log is neither in etcd nor in an archive"):
        await frames(line)
    assert len(await frames(line, Position(1, 3))) == 3


async def test_an_archive_of_other_records_does_not_fit_on() -> None:
    archived, other = await make_archived(), await make_archived()
    for each in (archived, other):
        await each.append(frames=2)
    other.log.clock.wall_us += 1
    await other.append(frames=2)
    await other.ship()
    await archived.append(frames=4)
    archived.etcd.trim(Position(1, 3))
    with pytest.raises(Damaged, match=r"chain is broken before 1\.4"):
        await frames(timeline(Archived(archived.log, archived.etcd, other.store)))


async def test_a_record_too_large_for_a_frame_is_whole_again_from_the_archive_alone() -> None:
    archived = await make_archived()
    await archived.append()
    large = {"spec": [hashlib.sha256(b"%d" % number).hexdigest() for number in range(12_000)]}
    await archived.log.append(new_record(2)._replace(data=large))
    await archived.append()
    await archived.ship()
    archived.etcd.trim(Position(1, 2))
    for name in [name for name in archived.etcd.entries if name.startswith("blob/")]:
        del archived.etcd.entries[name]
    assert [record.data for record in await records(archived)][1] == large
