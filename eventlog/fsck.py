"""Checking a whole log: every stored byte that can be checked, with keys or without. Reads only.

Without keys: the names of frames, contiguity, the hash chain from the first record that is kept to the head, the shape
of wrapped data keys and of blob parts, the signatures and hashes of checkpoints, and that every data key that a record
names is there. With keys, also that each wrapped key unwraps, that each record, blob and checkpoint opens in its place,
and that log time never goes back. With a fold, that checkpoints are what the records before them fold to. One fault is
reported once where it is and goes on after it, so that a report shows all of them. Nothing here knows what a record
means.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import msgpack

from eventlog import blobs, checkpoints
from eventlog.archive.manifest import Mark, decode_mark
from eventlog.checkpoints import CheckpointManifest, OpenCheckpoint
from eventlog.driver import Compacted, Entry, LogDriver, RawEntry, RawPage
from eventlog.frames import parse_frame_name
from eventlog.keys.keyring import Keyring
from eventlog.keys.wrapping import parse_wrapped
from eventlog.record_walk import Anchor, Finding, Fold, FsckReport, Opened, RecordWalk
from eventlog.records import Head, genesis_head
from eventlog.signing import known_signers
from mesh.errors import Damaged, IntegrityError, NoQuorum
from mesh.position import Position
from runtime.limits import FOLLOW_PAGE_FRAMES, FSCK_TRIES

__all__ = ["Finding", "Fold", "FsckReport", "archive_mark", "fsck"]

Progress = Callable[[int], None]
"""Told how many records were checked."""

ARCHIVE_MARK = "archive"


async def fsck(
    driver: LogDriver,
    keyring: Keyring | None,
    progress: Progress | None = None,
    *,
    fold: Fold | None = None,
    archived: Head | None = None,
) -> FsckReport:
    """Check the log as of one moment, also while it is written. `archived`: how far an archive said before, in a
    document of its own, that it reaches.

    Raises only Unavailable and its like; what is wrong with the log is in the report.
    """
    for _ in range(FSCK_TRIES):
        try:
            return await _Check(driver, keyring, progress, fold).run(archived)
        except Compacted:
            continue
    raise NoQuorum("etcd compacted its history while the log was being checked, again and again: try once more")


async def archive_mark(driver: LogDriver) -> Mark | None:
    """How far the log's entry `archive` says that the archive reaches; None if it says nothing readable."""
    entry = await driver.read_entry(ARCHIVE_MARK)
    try:
        return None if entry is None else decode_mark(entry.value)
    except Damaged:
        return None


class _Check:
    """One attempt."""

    def __init__(
        self, driver: LogDriver, keyring: Keyring | None, progress: Progress | None, fold: Fold | None
    ) -> None:
        self._driver, self._keyring, self._progress = driver, keyring, progress
        self._report = FsckReport()
        self._manifests: dict[Position, CheckpointManifest] = {}
        opened = None if keyring is None else Opened(keyring, blobs.parts_in(driver), fold)
        self._loaders: dict[int, Callable[[], Awaitable[OpenCheckpoint | None]]] = {}
        self._walk = RecordWalk(self._report, opened, self._loaders)

    async def run(self, archived: Head | None) -> FsckReport:
        report, driver = self._report, self._driver
        # Before the head is read: what these name must be in the log by then, and is not if its tail was cut off.
        mark = await self._mark()
        promised = await checkpoints.list_checkpoints(driver)
        stored_parts = await driver.list_entries(blobs.PREFIX)
        try:
            page = await driver.scan("", FOLLOW_PAGE_FRAMES)
        except Damaged as damage:
            report.add("head", damage.message)
            return report
        if page.head is None:
            report.add("head", "There is no head: there is no log here, or its head was deleted")
        else:
            report.head, report.log_id = page.head.head, page.head.head.log_id
        data_keys = await driver.list_data_keys()
        await self._check_data_keys(data_keys)
        for at in sorted({*promised, *await checkpoints.list_checkpoints(driver)}):
            await self._checkpoint(at, beyond_is_wrong=at in promised)
        for named, what in ((mark.head if mark else None, "The entry `archive`"), (archived, "The archive")):
            self._promise(named, what)
        await self._frames(page)
        self._finish(data_keys)
        self._check_parts(stored_parts)
        return report

    async def _mark(self) -> Mark | None:
        entry = await self._driver.read_entry(ARCHIVE_MARK)
        if entry is None:
            return None
        try:
            return decode_mark(entry.value)
        except Damaged as damage:
            self._report.add(ARCHIVE_MARK, damage.message)
            return None

    def _promise(self, named: Head | None, what: str) -> None:
        """`named` was in the log when `what` was written, so it must be in it still."""
        head, report = self._report.head, self._report
        if named is None or head is None:
            return
        if named.log_id != head.log_id:
            report.add("head", f"{what} is of log {named.log_id}, etcd holds log {head.log_id}")
        elif named.at > head.at:
            report.add(
                "head",
                f"{what} reaches to {named.at}, and the log ends at {head.at}: its tail was cut off, or etcd was set "
                "back to an old copy. Write nothing; restore from the archive",
            )
        elif named.epoch == head.epoch:
            self._walk.anchors[named.position].append(Anchor(what, named.hash))

    async def _check_data_keys(self, entries: Mapping[str, Entry]) -> None:
        report = self._report
        report.data_keys = len(entries)
        for key_id, entry in entries.items():
            try:
                parse_wrapped(key_id, entry.value)
            except Damaged as damage:
                report.add(f"datakey/{key_id}", damage.message)
        if self._keyring is None or not report.log_id:
            return
        try:
            await self._keyring.load(report.log_id)
        except IntegrityError as failure:
            report.add("datakey", failure.message)

    async def _checkpoint(self, at: Position, *, beyond_is_wrong: bool) -> None:
        """Signature, parts and, with keys, contents of one checkpoint; then the log is held against it."""
        report, driver, name = self._report, self._driver, checkpoints.manifest_name(at)
        entry = await driver.read_entry(name)
        if entry is None:
            return  # removed meanwhile
        report.checkpoints += 1
        trusted = known_signers(self._keyring) if self._keyring else None
        try:
            manifest = checkpoints.parse_manifest(entry.value, trusted)
            if self._keyring is not None:
                await checkpoints.read_checkpoint(driver, self._keyring, at)
            elif manifest.at.at != at:
                report.add(name, f"This checkpoint is one of {manifest.at.at}: it was copied here; delete it")
            for number, part in enumerate(manifest.parts):
                stored = await driver.read_entry(checkpoints.part_name(at, number))
                if stored is None or hashlib.sha256(stored.value).digest() != part.hash:
                    report.add(checkpoints.part_name(at, number), "This part is missing, or is not the one named")
        except IntegrityError as failure:
            # Unless it is being removed just now: the manifest goes first.
            if await driver.read_entry(name) is not None:
                report.add(name, failure.message)
            return
        if manifest.at.epoch == (report.head.epoch if report.head else 0):
            self._manifests[at] = manifest
            self._loaders[at.position] = partial(self._open, at)
        if beyond_is_wrong:
            self._promise(manifest.at, f"The checkpoint at {at}")

    async def _open(self, at: Position) -> OpenCheckpoint | None:
        try:
            return await checkpoints.read_checkpoint(self._driver, self._keyring, at) if self._keyring else None
        except IntegrityError:
            return None  # told already

    async def _frames(self, page: RawPage) -> None:
        walk, begun = self._walk, False
        while True:
            for entry in page.entries:
                last = self._place(entry)
                if last is None:
                    continue
                if not begun:
                    await self._begin(last, entry.value)
                    begun = True
                await walk.frame(last, entry.value)
                if self._progress is not None:
                    self._progress(self._report.records)
            if not page.more:
                break
            page = await self._driver.scan(page.entries[-1].name, FOLLOW_PAGE_FRAMES, page.revision)
        if not begun and self._report.head is not None:
            await self._begin(Position(self._report.head.epoch, 0), b"")

    async def _begin(self, last: Position, value: bytes) -> None:
        """Where the log may begin: at its first record, or where a checkpoint stands in for what is before."""
        head = self._report.head
        if head is None:
            await self._walk.begin(0, None)
            return
        covered = max((at.position for at in self._manifests), default=0)
        first = last.position - _records_in(value) if value else head.position
        if covered == 0 or first <= 0:
            await self._walk.begin(0, genesis_head(head.log_id).hash)
            return
        if first > covered:
            self._report.add(
                last,
                f"The log begins after {first}, and its newest checkpoint is of {covered}: what is between is missing",
            )
        await self._walk.begin(first, None)

    def _place(self, entry: RawEntry) -> Position | None:
        """Where a frame belongs by its key; None if that is not in the log as it is now."""
        report, head = self._report, self._report.head
        last = parse_frame_name(entry.name)
        if last is None:
            report.add(f"log/{entry.name}", "This key is no frame's name: something else than Meshlog wrote it")
            return None
        epoch = head.epoch if head else last.epoch
        if last.epoch < epoch:
            report.older_epoch_frames += 1
        elif last.epoch > epoch:
            report.add(last, f"This frame is of epoch {last.epoch}, the log's head of epoch {epoch}")
        elif head and last.position > head.position:
            report.add(last, f"This frame is beyond the log's head, which is at {head.at}")
        else:
            return last
        return None

    def _finish(self, data_keys: Mapping[str, Entry]) -> None:
        """Compare the end with the head, and the data keys that records name with those that are there."""
        report, head, walk = self._report, self._report.head, self._walk
        walk.finish(data_keys)
        if head is None:
            return
        if walk.at != head.position:
            report.add("head", f"The head is at {head.at}, the last frame ends at {walk.at}: records are missing")
        elif walk.hash is not None and walk.hash != head.hash:
            report.add("head", f"The head's hash is not that of the last record, {head.at}: one of them was changed")

    def _check_parts(self, stored_parts: Mapping[str, Entry]) -> None:
        """The shape of every blob part; those that records name were opened with them."""
        self._report.blob_parts = len(stored_parts)
        for name, entry in stored_parts.items():
            if blobs.parse_part_name(name) is None:
                self._report.add(name, "This key is no blob part's name: something else than Meshlog wrote it")
                continue
            try:
                blobs.parse_part(name, entry.value)
            except Damaged as damage:
                if name not in self._walk.parts_named:
                    self._report.add(name, damage.message)
        if self._keyring is not None:
            self._report.unnamed_parts = len(stored_parts.keys() - self._walk.parts_named)


def _records_in(value: bytes) -> int:
    """How many records a frame says that it holds; 0 if it says nothing readable."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(value)
    try:
        return int(unpacker.read_array_header())
    except (ValueError, msgpack.UnpackException):
        return 0
