"""What every log driver must do. Subclass `DriverConformance` with the fixtures `drivers`, `compact` and `grant`.

`drivers` makes any number of drivers of one, empty store; `compact` makes the store forget its history; `grant` lets
somebody hold a duty, and fences off whoever held it before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import pytest

from eventlog.append import new_head
from eventlog.driver import (
    AppendTxn,
    Committed,
    Compacted,
    Fence,
    HeadMoved,
    LogDriver,
    StoredFrame,
    Unknown,
    WatchBatch,
)
from eventlog.frames import encode_frame
from eventlog.records import HeadRef, genesis_head
from mesh.position import Position
from tests.conditions import PATIENCE_S

Drivers = Callable[[], LogDriver]
Compact = Callable[[], Awaitable[None]]
Grant = Callable[[str], Awaitable[Fence]]

LOG_ID = "a-log"
ORIGIN = Position(1, 0)


async def begin(driver: LogDriver) -> HeadRef:
    made = await driver.create(genesis_head(LOG_ID), {"config-1": b"wrapped", "secrets-1": b"too"})
    if isinstance(made, Unknown):  # a store that has just started may lose an answer; the head tells
        found = await driver.read_head()
        assert found is not None, made
        assert found.head == genesis_head(LOG_ID)
        return found
    assert isinstance(made, Committed), made
    return HeadRef(genesis_head(LOG_ID), made.mod_revision)


def txn_on(expected: HeadRef, *stored: bytes) -> AppendTxn:
    return AppendTxn(expected, encode_frame(stored), new_head(expected.head, stored))


async def commit(driver: LogDriver, expected: HeadRef, *stored: bytes) -> HeadRef:
    txn = txn_on(expected, *stored)
    done = await driver.append(txn)
    assert isinstance(done, Committed), done
    return HeadRef(txn.head, done.mod_revision)


async def take(driver: LogDriver, from_revision: int, count: int) -> list[WatchBatch]:
    """The next `count` changes (signs of life left out)."""
    taken: list[WatchBatch] = []
    async with asyncio.timeout(PATIENCE_S), aclosing(driver.watch(from_revision)) as changes:
        async for change in changes:
            if change.frames or change.head or change.head_deleted:
                taken.append(change)
            if len(taken) == count:
                break
    return taken


class DriverConformance:
    async def test_an_empty_store_has_no_head_no_frames_and_no_data_keys(self, drivers: Drivers) -> None:
        driver = drivers()
        assert await driver.read_head() is None
        page = await driver.read_frames(ORIGIN, 10)
        assert (page.frames, page.more, page.head) == ((), False, None)
        assert await driver.list_data_keys() == {}

    async def test_create_writes_head_and_keys_once(self, drivers: Drivers) -> None:
        driver = drivers()
        head = await begin(driver)
        other = await drivers().create(genesis_head("another"), {"config-2": b"never"})
        assert other == HeadMoved(head)
        assert await driver.read_head() == head
        keys = await driver.list_data_keys()
        assert {key: entry.value for key, entry in keys.items()} == {"config-1": b"wrapped", "secrets-1": b"too"}

    async def test_an_append_moves_the_head_and_puts_the_frame_in_one_revision(self, drivers: Drivers) -> None:
        driver = drivers()
        head = await commit(driver, await begin(driver), b"one", b"two")
        assert head.head.position == 2
        assert await driver.read_head() == head
        page = await driver.read_frames(ORIGIN, 10)
        assert page.head == head
        frame = encode_frame([b"one", b"two"])
        assert page.frames == (StoredFrame(Position(1, 2), frame, head.mod_revision),)

    async def test_an_append_on_an_old_head_is_refused_with_the_present_one(self, drivers: Drivers) -> None:
        driver = drivers()
        old = await begin(driver)
        new = await commit(driver, old, b"one")
        assert await driver.append(txn_on(old, b"other")) == HeadMoved(new)
        assert len((await driver.read_frames(ORIGIN, 10)).frames) == 1

    async def test_the_same_txn_again_finds_its_own_head(self, drivers: Drivers) -> None:
        driver = drivers()
        txn = txn_on(await begin(driver), b"one")
        first = await driver.append(txn)
        assert isinstance(first, Committed)
        assert await driver.append(txn) == HeadMoved(HeadRef(txn.head, first.mod_revision))

    @pytest.mark.parametrize("wrong", ["hash", "position", "epoch", "log", "revision"])
    async def test_the_whole_head_is_compared(self, drivers: Drivers, wrong: str) -> None:
        driver = drivers()
        head = await begin(driver)
        claims = {
            "hash": HeadRef(head.head._replace(hash=b"\1" * 32), head.mod_revision),
            "position": HeadRef(head.head._replace(position=1), head.mod_revision),
            "epoch": HeadRef(head.head._replace(epoch=2), head.mod_revision),
            "log": HeadRef(head.head._replace(log_id="another"), head.mod_revision),
            "revision": HeadRef(head.head, head.mod_revision + 1),
        }
        assert await driver.append(txn_on(claims[wrong], b"one")) == HeadMoved(head)
        assert (await driver.read_frames(ORIGIN, 10)).frames == ()

    async def test_one_of_many_racing_appends_wins(self, drivers: Drivers) -> None:
        head = await begin(drivers())
        results = await asyncio.gather(*(drivers().append(txn_on(head, bytes((number,)))) for number in range(8)))
        assert sum(isinstance(result, Committed) for result in results) == 1
        assert sum(isinstance(result, HeadMoved) for result in results) == 7
        assert len((await drivers().read_frames(ORIGIN, 10)).frames) == 1

    async def test_listing_goes_on_in_pages_as_of_one_moment(self, drivers: Drivers) -> None:
        driver = drivers()
        head = await begin(driver)
        for number in range(5):
            head = await commit(driver, head, b"record %d" % number)
        first = await driver.read_frames(ORIGIN, 2)
        await commit(driver, head, b"later")
        second = await driver.read_frames(first.frames[-1].last, 2, first.revision)
        third = await driver.read_frames(second.frames[-1].last, 2, first.revision)
        frames = [*first.frames, *second.frames, *third.frames]
        assert [frame.last.position for frame in frames] == [1, 2, 3, 4, 5]
        assert [first.more, second.more, third.more] == [True, True, False]
        assert (first.head, second.head) == (head, None)

    async def test_listing_begins_after_a_position_and_stays_in_its_epoch(self, drivers: Drivers) -> None:
        driver = drivers()
        head = await begin(driver)
        for number in range(3):
            head = await commit(driver, head, b"%d" % number)
        assert [frame.last.position for frame in (await driver.read_frames(Position(1, 1), 10)).frames] == [2, 3]
        assert (await driver.read_frames(Position(10, 0), 10)).frames == ()
        assert (await driver.read_frames(Position(2, 0), 10)).frames == ()

    async def test_a_compacted_moment_cannot_be_listed_and_the_log_is_untouched(
        self, drivers: Drivers, compact: Compact
    ) -> None:
        driver = drivers()
        head = await begin(driver)
        for number in range(3):
            head = await commit(driver, head, b"%d" % number)
        first = await driver.read_frames(ORIGIN, 1)
        head = await commit(driver, head, b"more")
        await compact()
        with pytest.raises(Compacted):
            await driver.read_frames(first.frames[-1].last, 1, first.revision)
        assert [frame.last.position for frame in (await driver.read_frames(ORIGIN, 10)).frames] == [1, 2, 3, 4]
        assert await driver.read_head() == head

    async def test_a_scan_gives_every_key_by_name(self, drivers: Drivers) -> None:
        driver = drivers()
        head = await commit(driver, await commit(driver, await begin(driver), b"one"), b"two")
        first = await driver.scan("", 1)
        assert ([entry.name for entry in first.entries], first.more, first.head) == (
            ["1/00000000000000000001"],
            True,
            head,
        )
        rest = await driver.scan(first.entries[-1].name, 10, first.revision)
        assert ([entry.name for entry in rest.entries], rest.more) == (["1/00000000000000000002"], False)

    async def test_a_watch_replays_and_then_follows(self, drivers: Drivers) -> None:
        driver = drivers()
        start = await begin(driver)
        first = await commit(driver, start, b"one")
        watching = asyncio.ensure_future(take(drivers(), start.mod_revision + 1, 3))
        second = await commit(driver, first, b"two", b"three")
        third = await commit(driver, second, b"four")
        batches = await watching
        assert [batch.head for batch in batches] == [first, second, third]
        assert [batch.revision for batch in batches] == [head.mod_revision for head in (first, second, third)]
        assert [frame.last.position for batch in batches for frame in batch.frames] == [1, 3, 4]
        assert all(frame.mod_revision == batch.revision for batch in batches for frame in batch.frames)

    async def test_a_watch_from_a_compacted_revision_says_so(self, drivers: Drivers, compact: Compact) -> None:
        driver = drivers()
        start = await begin(driver)
        await commit(driver, await commit(driver, start, b"one"), b"two")
        await compact()
        with pytest.raises(Compacted):
            await take(driver, start.mod_revision, 1)

    async def test_many_watches_see_the_same(self, drivers: Drivers) -> None:
        head = await begin(drivers())
        watching = [asyncio.ensure_future(take(drivers(), head.mod_revision + 1, 20)) for _ in range(3)]
        for number in range(20):
            head = await commit(drivers(), head, b"%d" % number)
        seen = await asyncio.gather(*watching)
        assert seen[0] == seen[1] == seen[2]
        assert [batch.frames[0].last.position for batch in seen[0]] == list(range(1, 21))

    async def test_a_data_key_is_written_only_over_the_one_that_was_read(self, drivers: Drivers) -> None:
        driver = drivers()
        await begin(driver)
        assert isinstance(await driver.put_data_key("config-2", b"new", 0), Committed)
        assert isinstance(await driver.put_data_key("config-2", b"newer", 0), HeadMoved)
        read = (await driver.list_data_keys())["config-2"]
        assert read.value == b"new"
        assert isinstance(await driver.put_data_key("config-2", b"rewrapped", read.mod_revision), Committed)
        assert isinstance(await driver.put_data_key("config-2", b"late", read.mod_revision), HeadMoved)
        assert (await driver.list_data_keys())["config-2"].value == b"rewrapped"

    async def test_entries_are_read_and_listed_by_name(self, drivers: Drivers) -> None:
        driver = drivers()
        await begin(driver)
        assert await driver.read_entry("blob/a") is None
        names = [f"blob/{number:03d}" for number in range(300)]
        for first in range(0, len(names), 100):
            done = await driver.write_entries({name: name.encode() for name in names[first : first + 100]})
            assert isinstance(done, Committed)
        await driver.write_entries({"blob": b"?", "blob0": b"?", "blos/": b"?"})
        found = await driver.list_entries("blob/")
        assert list(found) == names
        assert all(entry.value == name.encode() for name, entry in found.items())
        assert await driver.read_entry("blob/007") == found["blob/007"]
        assert await driver.list_entries("blob/", keys_only=True) == {
            name: entry._replace(value=b"") for name, entry in found.items()
        }

    async def test_entries_are_written_all_or_none_and_only_over_what_was_expected(self, drivers: Drivers) -> None:
        driver = drivers()
        await begin(driver)
        both = await driver.write_entries({"archive": b"1", "blob/a": b"x"}, expected={"archive": 0})
        assert isinstance(both, Committed)
        late = await driver.write_entries({"archive": b"2", "blob/b": b"y"}, expected={"archive": 0})
        assert late == HeadMoved(None)
        archive = await driver.read_entry("archive")
        assert archive == (b"1", both.mod_revision)
        assert await driver.read_entry("blob/b") is None
        gone = await driver.write_entries({"archive": None, "blob/c": b"z"}, expected={"archive": both.mod_revision})
        assert isinstance(gone, Committed)
        assert {"archive", "blob/a", "blob/c"} & set(await driver.list_entries("")) == {"blob/a", "blob/c"}
        assert await driver.read_entry("archive") is None
        assert isinstance(await driver.write_entries({"archive": None}), Committed), "deleting nothing is done"

    async def test_a_write_under_a_fence_that_fell_is_refused(self, drivers: Drivers, grant: Grant) -> None:
        driver = drivers()
        await begin(driver)
        old = await grant("archive")
        assert isinstance(await driver.write_entries({"archive": b"1"}, fence=old), Committed)
        new = await grant("archive")
        assert await driver.write_entries({"archive": b"late"}, fence=old) == HeadMoved(None)
        assert await driver.write_entries({"archive": b"never"}, fence=Fence("other", new.token)) == HeadMoved(None)
        assert isinstance(await driver.write_entries({"archive": b"2"}, fence=new), Committed)
        entry = await driver.read_entry("archive")
        assert entry is not None
        assert entry.value == b"2"

    async def test_a_trim_takes_frames_up_to_a_position_and_nothing_else(self, drivers: Drivers, grant: Grant) -> None:
        driver = drivers()
        head = await commit(driver, await commit(driver, await begin(driver), b"one", b"two"), b"three")
        for text in (b"four", b"five"):
            head = await commit(driver, head, text)
        marked = await driver.write_entries({"archive": b"1"})
        assert isinstance(marked, Committed)
        fence, expected = await grant("trim"), {"archive": marked.mod_revision}
        assert await driver.trim(Position(1, 4), expected={"archive": 1}, fence=fence) == HeadMoved(None)
        assert await driver.trim(Position(1, 4), expected=expected, fence=Fence("trim", 1)) == HeadMoved(None)
        assert isinstance(await driver.trim(Position(2, 4), expected=expected, fence=fence), Committed)
        assert len((await driver.read_frames(ORIGIN, 10)).frames) == 4
        watching = asyncio.ensure_future(take(drivers(), head.mod_revision + 1, 1))
        assert isinstance(await driver.trim(Position(1, 4), expected=expected, fence=fence), Committed)
        assert [frame.last.position for frame in (await driver.read_frames(ORIGIN, 10)).frames] == [5]
        assert await driver.read_head() == head
        assert len(await driver.list_data_keys()) == 2
        head = await commit(driver, head, b"six")
        assert [batch.head for batch in await watching] == [head], "a watch goes on over a trim"

    async def test_a_trim_leaves_a_frame_that_reaches_beyond(self, drivers: Drivers, grant: Grant) -> None:
        driver = drivers()
        await commit(driver, await commit(driver, await begin(driver), b"one"), b"two", b"three")
        assert isinstance(await driver.trim(Position(1, 2), expected={}, fence=await grant("trim")), Committed)
        assert [frame.last.position for frame in (await driver.read_frames(ORIGIN, 10)).frames] == [3]

    async def test_a_frame_of_the_largest_size_goes_through(self, drivers: Drivers) -> None:
        driver = drivers()
        start = await begin(driver)
        watching = asyncio.ensure_future(take(drivers(), start.mod_revision + 1, 1))
        record = b"x" * (256 * 1024 - 10)
        head = await commit(driver, start, record)
        assert (await driver.read_frames(ORIGIN, 1)).frames[0].value == encode_frame([record])
        assert (await watching)[0].head == head
