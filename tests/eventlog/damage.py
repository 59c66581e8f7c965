"""A small log with everything in it, its archive, and the question that every damage is put to: is it seen?

Seen: who reads gets an error, or fsck of etcd and archive reports it. Never wrong: whoever reads gets the records that
were written, in order and from the first on, then perhaps an error; and a checkpoint's own documents, or an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import aclosing
from copy import copy
from dataclasses import dataclass
from typing import NamedTuple

from eventlog import blobs, checkpoints
from eventlog.append import new_head
from eventlog.archive.reader import ArchiveReader
from eventlog.driver import AppendTxn, Committed, Entry
from eventlog.drivers.memory import MemoryDriver, MemoryStore
from eventlog.frames import encode_frame
from eventlog.fsck import archive_mark, fsck
from eventlog.fsck_archive import fsck_archive
from eventlog.keys.keyring import Keyring
from eventlog.records import Head, HeadRef, KeyClass, Record
from eventlog.sealing import place_record, seal_record
from mesh.errors import IntegrityError, NotFound, NotReady
from mesh.position import Position
from tests.eventlog.archive.archives import Archived, make_archived
from tests.eventlog.logs import BOTH, Log, new_record, read_all

TRIED: Counter[str] = Counter()
SEEN: Counter[str] = Counter()


def lines() -> list[str]:
    """Detected of tried, by what was damaged."""
    rows = [f"{SEEN[kind]:6} of {TRIED[kind]:6} detected: {kind}" for kind in sorted(TRIED)]
    return [*rows, f"{SEEN.total():6} of {TRIED.total():6} detected in all, 0 wrong states"] if rows else []


class Read(NamedTuple):
    """What became of a reading: whether it ended in an error, and whether all that it gave is true."""

    failed: bool
    right: bool


@dataclass
class World:
    """A log in etcd and in the archive, and the truth about both."""

    made: Archived
    truth: list[Record]
    checkpoint: Position
    documents: tuple[object, object]
    keyring: Keyring
    reaches: Head | None

    @property
    def etcd(self) -> MemoryStore:
        return self.made.etcd

    @property
    def log(self) -> Log:
        return self.made.log

    def damaged(self) -> World:
        """A copy that can be damaged: the stores' contents, not the bytes, are copied."""
        etcd, store = copy(self.etcd), copy(self.made.store)
        etcd.frames, etcd.names, etcd.entries = dict(etcd.frames), list(etcd.names), dict(etcd.entries)
        store.objects = dict(store.objects)
        driver = MemoryDriver(etcd)
        log = copy(self.log)
        log.driver, log.keyring = driver, Keyring(driver, BOTH)
        return World(
            Archived(log, etcd, store), self.truth, self.checkpoint, self.documents, self.keyring, self.reaches
        )

    async def fsck_sees(self) -> bool:
        """By a check of etcd with keys, which knows how far the archive reached."""
        report = await fsck(self.log.driver, Keyring(self.log.driver, BOTH), archived=self.reaches)
        return not report.clean

    async def fsck_sees_in_archive(self) -> bool:
        promised = await archive_mark(self.log.driver)
        return not (await fsck_archive(self.made.store, self.keyring, promised=promised)).clean

    async def read_etcd(self) -> Read:
        """A follower from the first record on."""
        found: list[Record] = []
        try:
            async with aclosing(self.log.follower().follow()) as batches:
                async for batch in batches:
                    found += batch.records
                    if batch.caught_up:
                        return Read(False, found == self.truth[: len(found)])
        except (IntegrityError, NotReady):
            pass
        return Read(True, found == self.truth[: len(found)])

    async def read_checkpoint(self) -> Read:
        """The checkpoint, as a replica that starts reads it."""
        driver = self.log.driver
        try:
            opened = await checkpoints.read_checkpoint(driver, Keyring(driver, BOTH), self.checkpoint)
        except IntegrityError:
            return Read(True, True)
        return Read(opened is None, opened is None or (opened.config, opened.secrets) == self.documents)

    async def read_archive(self) -> Read:
        """The archive's records, from the first on."""
        reader = ArchiveReader(self.made.store)
        found: list[Record] = []
        failed = False
        try:
            index = await reader.load()
            async with aclosing(reader.frames(index.base.at)) as frames:
                async for frame in frames:
                    found += await self.made.open([frame])
        except (IntegrityError, NotFound):
            failed = True
        # What is in a blob is compared where followers read it.
        expected = [each._replace(data=None) if each.blob else each for each in self.truth]
        return Read(failed, found == expected[: len(found)])


async def make_world(seed: str = "damage", *, small: bool = False) -> World:
    """Five records in three frames: one of the secrets class, one with a blob; a checkpoint after the first two.

    `small` leaves the last frame out.
    """
    made = await make_archived(seed)
    log = made.log
    await log.append(new_record(1), new_record(2, KeyClass.SECRETS))
    at = await made.checkpoint(b"after two")
    await append_with_blob(log)
    if not small:
        await log.append(new_record(4), new_record(5))
    await made.ship()
    keyring = Keyring(log.driver, BOTH)
    await keyring.load(log.head.head.log_id)
    opened = await checkpoints.read_checkpoint(log.driver, keyring, at)
    assert opened is not None
    reaches = (await ArchiveReader(made.store).load()).head
    return World(made, await read_all(log.follower()), at, (opened.config, opened.secrets), keyring, reaches)


async def append_with_blob(log: Log) -> None:
    """A record whose data is in a blob, small as it is."""
    expected = log.head
    keys = await log.keyring.sealing_keys(expected.head.log_id, KeyClass.CONFIG)
    record = place_record(new_record(3), expected.head, log.clock.wall_us, log.clock.wall_us)
    record = await blobs.BlobWriter(log.driver, log.clock, log.entropy).put(record, expected.head, keys[0])
    stored = seal_record(record, expected.head, keys, (log.entropy.token_bytes(32), log.entropy.token_bytes(32)))
    txn = AppendTxn(expected, encode_frame([stored]), new_head(expected.head, [stored]))
    done = await log.driver.append(txn)
    assert isinstance(done, Committed)
    log.head = HeadRef(txn.head, done.mod_revision)


Place = tuple[str, bytes, Callable[[World, bytes], None]]


def etcd_places(world: World) -> Iterator[Place]:
    """Everything that is stored in etcd: its kind, its bytes, and how to put others there."""
    assert world.etcd.head is not None

    def set_head(damaged: World, value: bytes) -> None:
        assert damaged.etcd.head is not None
        damaged.etcd.head = damaged.etcd.head._replace(value=value)

    yield "head in etcd", world.etcd.head.value, set_head
    for name, entry in world.etcd.frames.items():

        def put_frame(damaged: World, value: bytes, name: str = name) -> None:
            damaged.etcd.put_frame(name, value)

        yield "record in etcd", entry.value, put_frame
    for name, entry in world.etcd.entries.items():
        kind = name.partition("/")[0]
        if kind == "checkpoint":
            kind = "checkpoint manifest" if name.endswith("manifest") else "checkpoint part"

        def put(damaged: World, value: bytes, name: str = name, entry: Entry = entry) -> None:
            damaged.etcd.entries[name] = entry._replace(value=value)

        yield f"{kind} in etcd", entry.value, put


def archive_places(world: World) -> Iterator[Place]:
    """Everything that is in the archive."""
    for name, data in world.made.store.objects.items():

        def put(damaged: World, value: bytes, name: str = name) -> None:
            damaged.made.store.objects[name] = value

        yield f"{name.partition('/')[0]} in the archive", data, put
