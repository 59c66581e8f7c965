"""The archiver over a log and an archive in memory: whole, in order, once, whatever interrupts it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from eventlog.keys.keyring import Keyring
from eventlog.keys.rotation import KeyRotation
from eventlog.records import KeyClass
from mesh.position import Position
from tests.eventlog.archive.archives import SMALL, make_archived
from tests.eventlog.logs import BOTH


async def test_the_archive_gives_back_every_frame_as_it_is_in_etcd() -> None:
    archived = await make_archived()
    await archived.append(frames=3)
    await archived.append(records=4, frames=2)
    await archived.ship()
    assert await archived.archived() == archived.frames()
    mark = archived.mark()
    assert mark is not None
    assert mark.head == archived.log.head.head
    assert (await archived.reader()).index.head == archived.log.head.head


async def test_it_goes_on_where_it_was_and_rolls_up() -> None:
    archived = await make_archived()
    for _ in range(40):
        await archived.append(frames=2)
        await archived.ship()
    assert await archived.archived() == archived.frames()
    reader = await archived.reader()
    assert reader.index.head.at == Position(1, 80)
    assert reader.index.leaves
    assert len(await reader.segment_refs()) < 30
    manifests = [name for name in archived.store.objects if name.startswith("manifests/")]
    assert len(manifests) <= SMALL.manifests + 1


async def test_nothing_is_left_that_no_roll_up_needs() -> None:
    archived = await make_archived()
    for number in range(30):
        await archived.append()
        if number % 7 == 0:
            await archived.checkpoint()
        await archived.ship()
    assert await archived.objects_named() == archived.objects()


async def test_a_new_signing_key_signs_what_is_archived_from_then_on() -> None:
    archived = await make_archived()
    await archived.append()
    keyring = Keyring(archived.log.driver, BOTH)
    archiver = archived.archiver(keyring=keyring)
    log, log_id = archived.log, archived.log.head.head.log_id
    drawn = ""

    async def rotate() -> None:
        nonlocal drawn
        drawn = await KeyRotation(log.driver, log.keyring, BOTH, log.clock, log.entropy).draw(log_id, KeyClass.SIGNING)
        await keyring.load(log_id)
        await archived.append()

    rotating = asyncio.ensure_future(_after(lambda: archiver.status.position == log.head.head.at, rotate))
    await archived.run_until(archiver, lambda: rotating.done() and f"keys/{drawn}.pub" in archived.store.objects)
    await archived.ship(archiver)
    assert (await archived.reader()).index.head == log.head.head
    newest = archived.store.objects[max(name for name in archived.store.objects if name.startswith("manifests/"))]
    assert drawn.encode() in newest
    assert await archived.archived() == archived.frames()


async def _after(reached: Callable[[], bool], work: Callable[[], Awaitable[None]]) -> None:
    while not reached():  # noqa: ASYNC110 - turns of a loop on which time stands still
        await asyncio.sleep(0)
    await work()
