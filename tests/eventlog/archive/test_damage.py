"""Whatever is done to an archive, reading it gives what was written, or Damaged naming the object. Never another state.

A small archive with every kind of object: manifests, a claim, keys, segments, a leaf, checkpoints, parts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing, suppress
from typing import Any

import pytest

from eventlog.archive.manifest import PartRef, hash_of, object_name
from eventlog.archive.memory import MemoryObjectStore
from eventlog.archive.reader import ArchiveReader
from eventlog.checkpoints import parse_manifest
from eventlog.driver import StoredFrame
from eventlog.records import BlobRef
from eventlog.signing import known_signers
from mesh.errors import Damaged
from tests.conditions import await_until
from tests.eventlog.archive.archives import DUTY, Archived, CountingStore, make_archived

BLOB_ID = bytes(32)


async def all_of_it(store: MemoryObjectStore, trusted: dict[str, bytes] | None = None) -> tuple[Any, ...]:
    """Everything that can be read from an archive."""
    reader = ArchiveReader(store, trusted)
    index = await reader.load()
    async with aclosing(reader.frames(index.base.at)) as found:
        frames: list[StoredFrame] = [frame async for frame in found]
    checkpoints = [await reader.checkpoint(ref) for ref in await reader.checkpoints()]
    for manifest, _ in checkpoints:
        parse_manifest(manifest)
    parts = await reader.blob_parts(BlobRef(BLOB_ID, bytes(32), 1, 1))
    return index.head, frames, checkpoints, await reader.data_keys(), parts, await reader.position_at(index.time_us)


async def every_kind() -> Archived:
    archived = await make_archived()
    await archived.append(frames=2)
    await archived.part(BLOB_ID)
    await archived.checkpoint()
    for _ in range(28):
        await archived.append(frames=2)
        await archived.ship()
    reader = await archived.reader()
    assert reader.index.leaves
    assert reader.index.dropped
    assert [ref async for held in reader._all() for ref in held.parts if isinstance(ref, PartRef)]
    return archived


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def needed(archived: Archived) -> list[str]:
    """The names whose bytes are read: what a roll-up dropped is a list that only the archiver needs."""
    return sorted(archived.store.objects)


def test_each_byte_flipped_is_found_and_named() -> None:
    async def scenario() -> None:
        archived = await every_kind()
        whole = await all_of_it(archived.store)
        dropped = object_name((await archived.reader()).index.dropped)
        kinds = set()
        for name in needed(archived):
            data = archived.store.objects[name]
            kinds.add(name.split("/")[0])
            step = max(1, len(data) // 20)
            for at in {*range(0, len(data), step), len(data) - 1}:
                archived.store.objects[name] = data[:at] + bytes((data[at] ^ 0x10,)) + data[at + 1 :]
                if name == dropped:
                    assert await all_of_it(archived.store) == whole
                    continue
                with pytest.raises(Damaged, match=name):
                    await all_of_it(archived.store)
            archived.store.objects[name] = data
        assert kinds == {"objects", "manifests", "epochs", "keys"}
        assert await all_of_it(archived.store) == whole

    run(scenario)


def test_each_object_deleted_or_cut_short_is_found_and_named() -> None:
    async def scenario() -> None:
        archived = await every_kind()
        reader = await archived.reader()
        newest = max(name for name in archived.store.objects if name.startswith("manifests/"))
        for name in needed(archived):
            data = archived.store.objects[name]
            if name == object_name(reader.index.dropped):
                continue
            for left in (None, b"", data[:-1], data[: len(data) // 2], data + b"\0"):
                if left is None:
                    del archived.store.objects[name]
                else:
                    archived.store.objects[name] = left
                if left is None and name == newest:
                    # A cut tail is an archive that ends earlier: the log's `archive` entry tells, see below.
                    assert (await all_of_it(archived.store))[0].position < archived.log.head.head.position
                else:
                    with pytest.raises(Damaged, match=f"{name}|no claim"):
                        await all_of_it(archived.store)
                archived.store.objects[name] = data

    run(scenario)


def test_each_object_swapped_for_another_is_found() -> None:
    async def scenario() -> None:
        archived = await every_kind()
        names = needed(archived)
        dropped = object_name((await archived.reader()).index.dropped)
        for name, other in zip(names, [*names[1:], names[0]], strict=True):
            if name == dropped:
                continue
            kept = dict(archived.store.objects)
            archived.store.objects[name], archived.store.objects[other] = kept[other], kept[name]
            with pytest.raises(Damaged, match=f"{name}|{other}"):
                await all_of_it(archived.store)
            archived.store.objects = kept

    run(scenario)


def test_manifests_of_another_cluster_are_refused() -> None:
    async def scenario() -> None:
        archived, other = await every_kind(), await make_archived("another seed")
        for _ in range(30):
            await other.append(frames=2)
            await other.ship()
        keyring = archived.log.keyring
        await keyring.load(archived.log.head.head.log_id)
        trusted = dict(known_signers(keyring) or {})
        for name in [name for name in archived.store.objects if name.startswith(("manifests/", "epochs/"))]:
            kept = dict(archived.store.objects)
            if name not in other.store.objects:
                continue
            archived.store.objects |= {
                each: data for each, data in other.store.objects.items() if each == name or each.startswith("keys/")
            }
            with pytest.raises(Damaged, match="in the archive"):
                await all_of_it(archived.store)
            with pytest.raises(Damaged, match=f"{name} in the archive"):
                await all_of_it(archived.store, trusted)
            archived.store.objects = kept
        with pytest.raises(Damaged, match="not known by that name here"):
            await all_of_it(other.store, trusted)

    run(scenario)


async def test_a_manifest_of_another_archive_of_the_same_log_breaks_the_chain() -> None:
    """Signed by the same key, of the same positions: only the hash of the one before tells."""
    archived = await make_archived()
    other = Archived(archived.log, archived.etcd, CountingStore())
    for _ in range(4):
        await archived.append()
        for each in (archived, other):
            archived.etcd.entries.pop("archive", None)
            await each.ship()
    second = sorted(name for name in archived.store.objects if name.startswith("manifests/"))[1]
    assert other.store.objects[second] != archived.store.objects[second]
    archived.store.objects = {**other.store.objects, **archived.store.objects, second: other.store.objects[second]}
    with pytest.raises(Damaged, match=f"does not continue|{second}"):
        await all_of_it(archived.store)


async def test_a_cut_tail_is_found_by_the_archiver_which_then_ships_nothing_more() -> None:
    archived = await every_kind()
    newest = max(name for name in archived.store.objects if name.startswith("manifests/"))
    del archived.store.objects[newest]
    mark, objects = archived.mark(), dict(archived.store.objects)
    await archived.append()
    archiver = archived.archiver()
    await archived.run_until(archiver, lambda: bool(archiver.status.error))
    assert archiver.status.error.startswith(f"{newest} is missing from the archive")
    assert archived.mark() == mark
    assert archived.store.objects == objects


async def test_an_archive_that_is_emptied_under_a_running_archiver_is_not_gone_on_with() -> None:
    archived = await every_kind()
    archiver = archived.archiver()
    await archived.run_until(archiver, lambda: archiver.status.position == archived.log.head.head.at)
    mark = archived.mark()
    task = asyncio.ensure_future(archiver.run(archived.etcd.grant(DUTY)))
    await await_until(lambda: archived.mark() != mark, what="the new holder's mark")
    mark = archived.mark()
    archived.store.objects.clear()
    await archived.append()
    await await_until(lambda: bool(archiver.status.error), what="an error")
    assert "is empty, and it held the log up to 1.58" in archiver.status.error
    assert archived.mark() == mark
    assert not [name for name in archived.store.objects if name.startswith("manifests/")]
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_damage_is_noticed_while_the_log_is_idle() -> None:
    archived = await every_kind()
    archiver = archived.archiver()
    task = asyncio.ensure_future(archiver.run(archived.etcd.grant(DUTY)))
    await await_until(lambda: archiver.status.position == archived.log.head.head.at, what="the archive")
    newest = max(name for name in archived.store.objects if name.startswith("manifests/"))
    archived.store.objects[newest] = archived.store.objects[newest][:-1]
    await await_until(lambda: bool(archiver.status.error), what="an error")
    assert archiver.status.error.startswith(newest)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_an_archive_that_was_emptied_is_not_begun_anew() -> None:
    archived = await every_kind()
    archived.store.objects.clear()
    archiver = archived.archiver()
    await archived.run_until(archiver, lambda: bool(archiver.status.error))
    assert "is empty, and it held the log up to 1.58" in archiver.status.error
    assert not archived.store.objects


async def test_another_logs_archive_is_left_alone() -> None:
    archived, other = await every_kind(), await make_archived("another seed")
    await other.append()
    objects = dict(archived.store.objects)
    archiver = other.archiver(store=archived.store)
    await other.run_until(archiver, lambda: bool(archiver.status.error))
    # The signatures of another log's archive are of no known key, so it does not come to comparing log ids.
    assert "not known by that name here" in archiver.status.error
    assert archived.store.objects == objects
    assert other.mark() is None


def test_hashes_name_what_they_are_of() -> None:
    assert object_name(hash_of(b"")) == "objects/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert DUTY == "archive"
