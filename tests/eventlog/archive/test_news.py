"""What is proven of a listing's page, and the times that go into a segment."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventlog.archive.news import prove, read_news, timed
from eventlog.archive.segments import cut_frames, position_at
from eventlog.driver import FramePage, StoredFrame
from eventlog.frames import decode_frame
from eventlog.keys.wrapping import draw_data_key, wrap_data_key
from eventlog.records import KeyClass, genesis_head
from mesh.errors import Damaged
from mesh.position import Position
from tests.eventlog.archive.archives import Archived, make_archived
from tests.eventlog.logs import BOTH


@settings(max_examples=25)
@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=7), limit=st.integers(1, 3))
def test_page_by_page_every_frame_is_proven_once_and_whole(sizes: list[int], limit: int) -> None:
    async def scenario() -> None:
        archived = await make_archived()
        for size in sizes:
            await archived.append(records=size)
        await archived.log.keyring.load(archived.log.head.head.log_id)
        at, found, time_us = genesis_head(archived.log.head.head.log_id), list[StoredFrame](), 0
        while True:
            # One frame more than is wanted, since the last one of a page that goes on waits for the next page.
            page = await archived.log.driver.read_frames(at.at, limit + 1)
            records, at, behind = prove(at, page)
            frames = timed(page, records, archived.log.keyring, time_us)
            time_us = frames[-1].time_us
            found += [StoredFrame(Position(1, frame.last), frame.value, 0) for frame in frames]
            assert at.at == found[-1].last
            if not behind:
                break
        assert found == archived.frames()
        assert at == archived.log.head.head

    asyncio.run(scenario())


async def test_a_frame_that_does_not_follow_is_damage_and_nothing_is_shipped() -> None:
    archived = await make_archived()
    await archived.append(frames=4)
    page = await archived.log.driver.read_frames(Position(1, 0), 10)
    genesis = genesis_head(archived.log.head.head.log_id)
    without_second = page._replace(frames=(page.frames[0], *page.frames[2:]))
    swapped = page._replace(frames=(page.frames[1], page.frames[0], *page.frames[2:]))
    other_end = page._replace(frames=page.frames[:-1])
    for broken in (without_second, swapped, other_end):
        with pytest.raises(Damaged):
            prove(genesis, broken)


async def opened_times(archived: Archived) -> dict[int, int]:
    return {record.position.position: record.time_us for record in await archived.open(archived.frames())}


async def test_a_moment_is_found_to_the_record_without_a_key() -> None:
    archived = await make_archived()
    await archived.append(records=3, frames=4)
    await archived.ship()
    times = await opened_times(archived)
    reader = await archived.reader()
    for position, time_us in times.items():
        last = max(at for at, each in times.items() if each <= time_us)
        assert await reader.position_at(time_us) == Position(1, last)
        before = [at for at, each in times.items() if each <= time_us - 1]
        assert await reader.position_at(time_us - 1) == Position(1, max(before, default=0)), position


async def test_frames_whose_records_differ_in_time_are_found_and_cut_to_the_record() -> None:
    archived = await make_archived()
    await archived.append(records=4)
    page = await archived.log.driver.read_frames(Position(1, 0), 1)
    frame = timed(page, prove(genesis_head(archived.log.head.head.log_id), page)[0], archived.log.keyring, 0)[0]
    spread = frame._replace(times_us=(10, 20, 20, 30))
    assert [position_at([spread], 1, at) for at in (9, 10, 15, 20, 29, 30, 31)] == [None, 1, 1, 3, 3, 4, 4]
    (cut,) = cut_frames([spread], 1, 1, 3)
    assert (cut.last, cut.times_us) == (3, (20, 20))
    assert decode_frame(cut.value, Position(1, 3)) == decode_frame(frame.value, Position(1, 4))[1:3]


async def test_a_record_that_does_not_open_is_archived_all_the_same() -> None:
    archived = await make_archived()
    await archived.append(frames=2)
    for name in [name for name in archived.etcd.entries if name.startswith("datakey/config")]:
        del archived.etcd.entries[name]
    archived.log.keyring._keys.clear()
    page: FramePage = await archived.log.driver.read_frames(Position(1, 0), 10)
    records, _, _ = prove(genesis_head(archived.log.head.head.log_id), page)
    frames = timed(page, records, archived.log.keyring, 77)
    assert [frame.value for frame in frames] == [frame.value for frame in page.frames]
    assert {frame.times_us for frame in frames} == {(77,)}


async def test_a_data_key_that_is_gone_from_etcd_stays_in_the_archive() -> None:
    archived = await make_archived()
    await archived.append()
    await archived.ship()
    before = dict(await (await archived.reader()).data_keys())
    gone = next(name for name in archived.etcd.entries if name.startswith("datakey/secrets"))
    del archived.etcd.entries[gone]
    drawn = draw_data_key(KeyClass.CONFIG, archived.log.clock.wall_us, archived.log.entropy)
    wrapped = await archived.log.keyring.wrap(drawn, archived.log.head.head.log_id)
    await archived.log.driver.put_data_key(drawn.key_id, wrapped, 0)
    await archived.append()
    await archived.ship()
    assert await (await archived.reader()).data_keys() == before | {drawn.key_id: wrapped}


async def test_a_rewrapped_data_key_takes_the_old_ones_place_and_a_damaged_one_does_not() -> None:
    archived = await make_archived()
    log = archived.log
    await archived.append()
    await archived.ship()
    reader = await archived.reader()
    known = await archived.known(reader)
    await log.keyring.load(log.head.head.log_id)
    key = log.keyring.held(KeyClass.CONFIG)[0]
    name = f"datakey/{key.key_id}"
    good = archived.etcd.entries[name].value

    async def seen() -> Mapping[str, bytes] | None:
        await archived.append()
        return (await read_news(log.driver, log.keyring, reader.index, known, thorough=True)).keys

    await log.driver.write_entries({name: good[:-1] + bytes((good[-1] ^ 1,))})
    assert await seen() is None
    rewrapped = await log.keyring.wrap(key, log.head.head.log_id)
    assert rewrapped != good
    await log.driver.write_entries({name: rewrapped})
    assert await seen() == {**known.keys, key.key_id: rewrapped}
    await archived.ship()
    assert (await (await archived.reader()).data_keys())[key.key_id] == rewrapped
    drawn = draw_data_key(KeyClass.CONFIG, 0, log.entropy)._replace(key_id=key.key_id)
    await log.driver.write_entries({name: await wrap_data_key(drawn, log.head.head.log_id, BOTH[KeyClass.CONFIG])})
    assert await seen() is None


async def test_nothing_new_is_no_news() -> None:
    archived = await make_archived()
    await archived.append()
    await archived.ship()
    reader = await archived.reader()
    known = await archived.known(reader)
    assert (await read_news(archived.log.driver, archived.log.keyring, reader.index, known, thorough=True)).empty
