"""A log in memory, an archive in memory, and archivers between them that can be interrupted at any call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from typing import Any, cast

import msgpack

from eventlog.archive.archiver import MARK, Archiver
from eventlog.archive.manifest import EpochClaim, Mark, claim_name, decode_mark, object_name, seal_claim
from eventlog.archive.memory import MemoryObjectStore
from eventlog.archive.news import Known
from eventlog.archive.reader import ArchiveReader
from eventlog.archive.shipment import Shape
from eventlog.archive.store import ObjectStore
from eventlog.blobs import BLOB_FORMAT, part_name
from eventlog.checkpoints import CheckpointPlace, manifest_name, seal_checkpoint
from eventlog.checkpoints import part_name as checkpoint_part_name
from eventlog.driver import Committed, Fence, LogDriver, StoredFrame
from eventlog.drivers.memory import MemoryDriver, MemoryStore
from eventlog.frames import decode_frame
from eventlog.keys.keyring import Keyring
from eventlog.records import Head, HeadRef, KeyClass, Record
from eventlog.sealing import open_record
from eventlog.signing import signing_key
from eventlog.writer import LogWriter
from mesh.errors import Unavailable
from mesh.position import Position
from runtime.clock import Clock
from tests.eventlog.logs import BOTH, Log, SeededEntropy, make_log, new_record

SMALL = Shape(manifests=4, merge_bytes=3_000, segment_bytes=10_000, leaf_entries=5)
"""Rolls up all the time, so that a short test has every kind of object."""

DUTY = "archive"
QUIET_TURNS = 40
"""Turns of the event loop in which an archiver looks at the log some times."""

_numbers = count(1)


class Crash(Exception):  # noqa: N818 - an end, not an error
    """The process dies here."""


class Fate(Enum):
    """What becomes of a call."""

    WELL = "done and answered"
    DIES_BEFORE = "the process dies before it"
    DIES_AFTER = "done, and the process dies before it learns so"
    FAILS = "not done, reported failed"
    LANDS = "done, reported failed"


@dataclass
class Faults:
    """Decides each call's fate by its number, over all wrapped ports."""

    fate_of: Callable[[int, str], Fate] = lambda *_: Fate.WELL
    calls: list[str] = field(default_factory=list)

    async def call(self, what: str, do: Callable[[], Any], *_: object) -> Any:
        fate = self.fate_of(len(self.calls), what)
        self.calls.append(what)
        if fate is Fate.DIES_BEFORE:
            raise Crash(what)
        if fate is Fate.FAILS:
            raise Unavailable(f"{what} failed in this test")
        answer = await do()
        if fate is Fate.DIES_AFTER:
            raise Crash(what)
        if fate is Fate.LANDS:
            raise Unavailable(f"{what} landed in this test, and nobody was told")
        return answer


class FaultyPort:
    """Any port, each of whose calls meets its fate. Asynchronous generators are left alone."""

    def __init__(self, port: Any, faults: Faults) -> None:
        self._port = port
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        if not callable(found):
            return found
        return lambda *arguments, **named: self._faults.call(name, lambda: found(*arguments, **named), *arguments)


class CountingStore(MemoryObjectStore):
    """Counts what changes it."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0

    async def put_new(self, name: str, data: bytes) -> bool:
        placed = await super().put_new(name, data)
        self.changes += placed
        return placed

    async def delete(self, name: str) -> None:
        self.changes += name in self.objects
        await super().delete(name)


@dataclass
class Archived:
    """A log and its archive."""

    log: Log
    etcd: MemoryStore
    store: CountingStore

    async def append(self, records: int = 1, frames: int = 1) -> None:
        """`frames` frames of `records` records each, a second apart."""
        for _ in range(frames):
            self.log.clock.wall_us += 1_000_000
            position = self.log.head.head.position
            await self.log.append(*(new_record(position + 1 + each) for each in range(records)))

    async def checkpoint(self, content: bytes = b"state") -> Position:
        """Put a checkpoint at the head into etcd, as the duty would."""
        log = self.log
        head = log.head.head
        await log.keyring.load(head.log_id)
        keys = [(await log.keyring.sealing_keys(head.log_id, each)) for each in (KeyClass.CONFIG, KeyClass.SECRETS)]
        signer = await signing_key(log.driver, log.keyring, head.log_id, log.clock, log.entropy)
        secrets = keys[1][1]
        assert secrets is not None
        sealed = seal_checkpoint(
            ([content.hex()], ["secret"]),
            CheckpointPlace(head, head.at, log.clock.wall_us, 1, "hash"),
            (keys[0][0], secrets),
            signer,
            created_us=log.clock.wall_us,
            entropy=log.entropy,
        )
        entries = {checkpoint_part_name(head.at, n): part for n, part in enumerate(sealed.parts.values())}
        await log.driver.write_entries(entries | {manifest_name(head.at): sealed.manifest})
        return head.at

    def archiver(
        self,
        faults: Faults | None = None,
        retention_us: int = 0,
        store: ObjectStore | None = None,
        shape: Shape = SMALL,
        clock: Clock | None = None,
        *,
        keyring: Keyring | None = None,
    ) -> Archiver:
        store, driver = store or self.store, self.log.driver
        if faults is not None:
            store = cast(ObjectStore, FaultyPort(store, faults))
            driver = cast(LogDriver, FaultyPort(driver, faults))
        entropy = SeededEntropy(f"archiver {next(_numbers)}")
        return Archiver(
            store,
            driver,
            keyring or Keyring(driver, BOTH),
            clock or self.log.clock,
            entropy,
            holder_id="api-1",
            retention_us=retention_us,
            shape=shape,
        )

    async def ship(self, archiver: Archiver | None = None, fence: Fence | None = None) -> None:
        """Let an archiver run until the archive has the whole log and nothing more changes, or it ends by itself."""
        archiver = archiver or self.archiver()
        task = asyncio.ensure_future(archiver.run(fence or self.etcd.grant(DUTY)))
        quiet, before = 0, -1
        while not task.done() and quiet < QUIET_TURNS:
            await asyncio.sleep(0)
            quiet = (
                quiet + 1 if before == self.store.changes and archiver.status.position == self.log.head.head.at else 0
            )
            before = self.store.changes
        if not task.done():
            task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def run_until(self, archiver: Archiver, reached: Callable[[], bool]) -> None:
        """Let an archiver run until something is so."""
        task = asyncio.ensure_future(archiver.run(self.etcd.grant(DUTY)))
        while not reached():
            await asyncio.sleep(0)
            assert not task.done()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def part(self, blob_id: bytes) -> None:
        """Put a blob's only part into etcd, as a writer would at the head."""
        at = self.log.head.head.at
        fields = [BLOB_FORMAT, *at, 1, 1, "config-1", bytes(32), bytes(32), b"sealed"]
        await self.log.driver.write_entries({part_name(blob_id, 0): msgpack.packb(fields)})

    def mark(self) -> Mark | None:
        entry = self.etcd.entries.get(MARK)
        return None if entry is None else decode_mark(entry.value)

    async def reader(self, faults: Faults | None = None) -> ArchiveReader:
        reader = ArchiveReader(cast(ObjectStore, FaultyPort(self.store, faults)) if faults else self.store)
        await reader.load()
        return reader

    async def archived(self, after: Position | None = None, upto: Position | None = None) -> list[StoredFrame]:
        """What the archive gives back."""
        reader = await self.reader()
        async with aclosing(reader.frames(after or reader.index.base.at, upto)) as frames:
            return [frame async for frame in frames]

    def frames(self) -> list[StoredFrame]:
        """What the log in etcd has."""
        frames = [
            StoredFrame(Position(*(int(part) for part in name.split("/"))), entry.value, 0)
            for name, entry in self.etcd.frames.items()
        ]
        return sorted(frames)

    async def known(self, reader: ArchiveReader) -> Known:
        """What an archiver that loaded this archive knows."""
        checkpoints = await reader.checkpoints()
        newest = checkpoints[-1].at if checkpoints else None
        return Known(await reader.data_keys(), newest, await reader.part_names())

    def objects(self) -> set[str]:
        """Every object's name."""
        return {name for name in self.store.objects if name.startswith("objects/")}

    async def objects_named(self) -> set[str]:
        """The names of all objects that the archive's index needs."""
        reader = await self.reader()
        index = reader.index
        held = [index.held, *(await reader.leaves_until(index.head.position)).values()]
        hashes = {index.keys, index.dropped, *index.superseded}.union(*(each.hashes() for each in held))
        hashes.update(leaf.hash for leaf in index.leaves)
        return {object_name(digest) for digest in hashes if digest}

    async def open(self, frames: Sequence[StoredFrame]) -> list[Record]:
        """The records of frames."""
        await self.log.keyring.load(self.log.head.head.log_id)
        opened: list[Record] = []
        for frame in frames:
            stored_records = decode_frame(frame.value, frame.last)
            first = frame.last.position - len(stored_records) + 1
            for offset, stored in enumerate(stored_records):
                position = Position(frame.last.epoch, first + offset)
                opened.append(open_record(stored, self.log.head.head.log_id, position, self.log.keyring))
        return opened


async def restored(archived: Archived, base: Head) -> Archived:
    """A new etcd that goes on from `base` in the next free epoch, over the same archive: what a restore leaves."""
    old, etcd = archived.log, MemoryStore()
    signer = await signing_key(old.driver, old.keyring, base.log_id, old.clock, old.entropy)
    epoch = old.head.head.epoch + 1
    claim = EpochClaim(base.log_id, epoch, base, None, old.clock.wall_us, "restore")
    assert await archived.store.put_new(claim_name(claim.epoch), seal_claim(claim, signer))
    driver = MemoryDriver(etcd)
    keys = {name: entry.value for name, entry in archived.etcd.entries.items() if name.startswith("datakey/")}
    created = await driver.create(claim.head, {})
    assert isinstance(created, Committed)
    await driver.write_entries(keys)
    keyring = Keyring(driver, BOTH)
    writer = LogWriter(driver, keyring, old.clock, old.entropy)
    log = Log(driver, keyring, writer, old.clock, old.entropy, HeadRef(claim.head, created.mod_revision))
    return Archived(log, etcd, archived.store)


async def make_archived(seed: str = "seed") -> Archived:
    etcd = MemoryStore()
    return Archived(await make_log(MemoryDriver(etcd), seed), etcd, CountingStore())
