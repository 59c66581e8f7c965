"""The archiver interrupted at each of its calls, in each way: what is archived is always a beginning of the log, whole
and once, and the next archiver makes it all of the log."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.duties import FenceFell
from eventlog.archive.archiver import Archiver
from eventlog.archive.manifest import manifest_name
from eventlog.driver import Entry
from mesh.errors import NotFound
from tests.eventlog.archive.archives import DUTY, SMALL, Archived, Crash, Fate, Faults, make_archived

ROUNDS = 6
"""Enough for a roll-up that merges, spills a leaf and deletes."""


async def written(archived: Archived, faults: Faults) -> None:
    """A log that grows while archivers come and, at their fate, go; with a checkpoint and a new data key on the way."""
    archiver: Archiver | None = None
    for number in range(ROUNDS):
        await archived.append(records=1 + number % 2)
        if number == 2:
            await archived.checkpoint()
        archiver = archiver or archived.archiver(faults)
        try:
            await archived.ship(archiver)
        except Crash:
            archiver = None
            await check_prefix(archived)


async def check_prefix(archived: Archived) -> None:
    """What is archived is the beginning of the log, and the log's `archive` entry promises no more than that."""
    mark = archived.mark()
    try:
        frames = await archived.archived()
    except NotFound:
        assert mark is None
        return
    assert frames == archived.frames()[: len(frames)]
    assert mark is None or mark.head.position <= (frames[-1].last.position if frames else 0)


async def check_whole(archived: Archived) -> None:
    """A healthy archiver after it all: everything, once; and the keys and checkpoints too."""
    await archived.ship()
    assert await archived.archived() == archived.frames()
    mark, reader = archived.mark(), await archived.reader()
    assert mark is not None
    assert mark.head == archived.log.head.head == reader.index.head
    assert [ref.at.position for ref in await reader.checkpoints()] == [4]
    keys = {
        name.removeprefix("datakey/"): entry.value
        for name, entry in archived.etcd.entries.items()
        if "datakey/" in name
    }
    assert await reader.data_keys() == keys
    for name, data in archived.store.objects.items():
        assert not name.startswith("objects/") or name == f"objects/{hashlib.sha256(data).hexdigest()}"
    assert await archived.objects_named() <= archived.objects()


async def data_keys(archived: Archived) -> Mapping[str, Entry]:
    return await archived.log.driver.list_data_keys()


async def calls_of_one_run() -> list[str]:
    faults = Faults()
    await written(await make_archived(), faults)
    return faults.calls


CHANGING = {"put_new", "delete", "write_entries"}


def fated(at: int, fate: Fate) -> Faults:
    return Faults(lambda number, _: fate if number == at else Fate.WELL)


@pytest.mark.parametrize("fate", [Fate.DIES_AFTER, Fate.FAILS, Fate.LANDS])
def test_interrupted_at_every_change_nothing_is_lost_or_doubled(fate: Fate) -> None:
    """To die before a change is to die after the one before it."""

    async def scenario() -> None:
        calls = await calls_of_one_run()
        assert set(calls) >= CHANGING
        for at, what in enumerate(calls):
            if what in CHANGING and (fate is Fate.DIES_AFTER or at % 2 == (fate is Fate.FAILS)):
                archived = await make_archived()
                await written(archived, fated(at, fate))
                await check_whole(archived)

    asyncio.run(scenario())


def test_a_deletion_that_was_interrupted_is_finished() -> None:
    async def scenario() -> None:
        calls = await calls_of_one_run()
        deletions = [at for at, what in enumerate(calls) if what == "delete"]
        assert len(deletions) > 5
        for at in deletions:
            archived = await make_archived()
            await written(archived, fated(at, Fate.DIES_BEFORE))
            await check_whole(archived)
            assert archived.objects() == await archived.objects_named()
            index = (await archived.reader()).index
            assert index.newest is not None
            kept = {manifest_name(1, seq) for seq in range(index.rollup, index.newest.seq + 1)}
            assert {name for name in archived.store.objects if name.startswith("manifests/")} == kept

    asyncio.run(scenario())


def test_a_read_that_fails_or_dies_changes_nothing() -> None:
    async def scenario() -> None:
        calls = await calls_of_one_run()
        for number, at in enumerate(each for each, what in enumerate(calls) if what not in CHANGING):
            if number % 10 == 0:
                archived = await make_archived()
                await written(archived, fated(at, (Fate.DIES_BEFORE, Fate.FAILS)[number % 20 == 0]))
                await check_whole(archived)

    asyncio.run(scenario())


@settings(max_examples=25)
@given(fates=st.lists(st.sampled_from([Fate.WELL] * 6 + list(Fate)), min_size=100, max_size=100))
def test_interrupted_again_and_again_nothing_is_lost_or_doubled(fates: list[Fate]) -> None:
    async def scenario() -> None:
        archived = await make_archived()
        await written(archived, Faults(lambda number, _: fates[number % len(fates)]))
        await check_whole(archived)

    asyncio.run(scenario())


class Pausing(Faults):
    """Stops at one of its calls until it is let go on: a process under SIGSTOP."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._at = at
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def call(self, what: str, do: Callable[[], Awaitable[Any]], *_: object) -> Any:
        self.calls.append(what)
        if len(self.calls) == self._at + 1:
            self.reached.set()
            await self.go_on.wait()
        return await do()


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def held_and_paused(at: int) -> tuple[Archived, Pausing, asyncio.Future[None]]:
    """A log and its archiver, which stops at call `at`, if it gets there."""
    archived, pausing = await make_archived(), Pausing(at)
    await archived.append(frames=3)
    old = asyncio.ensure_future(archived.archiver(pausing).run(archived.etcd.grant(DUTY)))
    for number in range(ROUNDS):
        await archived.append(records=1 + number % 2)
        await turns(30)
    await turns(60)
    return archived, pausing, old


def test_a_paused_holder_that_wakes_up_harms_nothing() -> None:
    async def scenario(at: int) -> list[str]:
        archived, pausing, old = await held_and_paused(at)
        if not pausing.reached.is_set():
            old.cancel()
            with suppress(asyncio.CancelledError):
                await old
            return pausing.calls
        # The lease ends, another server takes over, and goes on for long enough to roll up and delete.
        fence = archived.etcd.grant(DUTY)
        for _ in range(SMALL.manifests + 1):
            await archived.append()
            await archived.ship(fence=fence)
        mark, before = archived.mark(), await archived.archived()
        assert mark is not None
        assert mark.token == fence.token
        assert before == archived.frames()
        pausing.go_on.set()
        await turns(80)
        if not old.done():
            old.cancel()
        with suppress(asyncio.CancelledError, FenceFell):
            await old
        # Whatever it put was true, or nobody's; the entry is not its to move.
        assert archived.mark() == mark
        assert (await archived.archived())[: len(before)] == before
        await archived.append()
        await archived.ship(fence=fence)
        assert await archived.archived() == archived.frames()
        assert await archived.objects_named() <= archived.objects()
        return pausing.calls

    for at, what in enumerate(asyncio.run(scenario(-1))):
        if what in CHANGING:
            asyncio.run(scenario(at))


def test_of_two_that_are_about_to_write_one_manifest_the_later_goes_on_from_the_other_ones() -> None:
    async def scenario() -> None:
        archived = await make_archived()
        await archived.append(frames=2)
        await archived.ship()
        await archived.append()
        halted: list[PausingAtManifest] = []
        tasks: list[asyncio.Future[None]] = []
        for _ in range(2):  # the second one takes the duty over
            halted.append(PausingAtManifest())
            tasks.append(asyncio.ensure_future(archived.archiver(halted[-1]).run(archived.etcd.grant(DUTY))))
            await asyncio.wait_for(halted[-1].reached.wait(), 5)
            await archived.append()  # so that the two differ
        halted[0].go_on.set()
        await turns(60)
        assert tasks[0].done()  # fenced off, after its manifest was in
        halted[1].go_on.set()
        await turns(120)
        assert archived.mark() is not None
        assert await archived.archived() == archived.frames()
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError, FenceFell):
                await task
        await check_prefix(archived)
        mark = archived.mark()
        assert mark is not None
        assert mark.manifest == (await archived.reader()).index.newest

    asyncio.run(scenario())


class PausingAtManifest(Pausing):
    """Stops before its first manifest is put."""

    def __init__(self) -> None:
        super().__init__(-1)

    async def call(self, what: str, do: Callable[[], Awaitable[Any]], *arguments: object) -> Any:
        if what == "put_new" and str(arguments[0]).startswith("manifests/") and not self.reached.is_set():
            self.reached.set()
            await self.go_on.wait()
        return await do()
