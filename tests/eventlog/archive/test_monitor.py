"""An archive that is down: told by an alarm, nothing shipped is taken back, the log's entry stays, all is caught up."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from eventlog.archive.monitor import ArchiveMonitor
from runtime.limits import ARCHIVE_ALARM_S, ARCHIVE_WATCH_S
from tests.conditions import await_until
from tests.eventlog.archive.archives import DUTY, Archived, Fate, Faults, make_archived
from tests.eventlog.logs import ToldClock


def monitor(archived: Archived, clock: ToldClock) -> ArchiveMonitor:
    return ArchiveMonitor(archived.log.driver, "file:///archive", lambda: archived.log.head.head.at, clock)


async def watch(watching: ArchiveMonitor, clock: ToldClock, seconds: float) -> None:
    end_s = clock.time_s + seconds
    while clock.time_s < end_s:
        await watching.look()
        await clock.sleep(ARCHIVE_WATCH_S)


async def test_an_archive_that_keeps_up_raises_no_alarm() -> None:
    archived, clock = await make_archived(), ToldClock()
    watching = monitor(archived, clock)
    for _ in range(30):
        await archived.append()
        await watch(watching, clock, 2)
        await archived.ship()
        await watch(watching, clock, 1)
        assert watching.alarm is None
    assert watching.lag_s < 2
    assert watching.mark is not None
    assert watching.mark.head == archived.log.head.head


async def test_an_archive_that_is_down_is_told_and_then_caught_up_with_nothing_lost() -> None:
    archived, clock = await make_archived(), ToldClock()
    watching = monitor(archived, clock)
    await archived.append(frames=3)
    await archived.ship()
    mark = archived.mark()
    down = True
    faults = Faults(lambda _, what: Fate.FAILS if down and what in ("put_new", "list", "get") else Fate.WELL)
    archiver = archived.archiver(faults)
    task = asyncio.ensure_future(archiver.run(archived.etcd.grant(DUTY)))
    for _ in range(20):
        await archived.append()
        await watch(watching, clock, 1)
    assert watching.alarm is not None
    assert f"behind for {watching.lag_s:.0f} s (it has 1.3, the log is at 1.23)" in watching.alarm
    assert watching.lag_s >= ARCHIVE_ALARM_S
    assert archiver.status.error == "list failed in this test"
    assert archived.mark() == mark
    down = False
    await await_until(lambda: archiver.status.position == archived.log.head.head.at, what="the archive")
    await watch(watching, clock, 1)
    assert [watching.alarm, archiver.status.error] == [None, ""]
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert await archived.archived() == archived.frames()


async def test_an_archive_that_never_was_is_told_too() -> None:
    archived, clock = await make_archived(), ToldClock()
    watching = monitor(archived, clock)
    await archived.append()
    await watch(watching, clock, 20)
    assert watching.alarm is not None
    assert "it has nothing, the log is at 1.1" in watching.alarm


async def test_the_longest_wait_counts_however_long_it_lasts() -> None:
    archived, clock = await make_archived(), ToldClock()
    watching = monitor(archived, clock)
    await archived.append()
    await watch(watching, clock, 1000)
    assert 999 <= watching.lag_s <= 1001
