"""The timeline: every record from the beginning to the head, from etcd where it still has them, else from the archive.

A restore leaves the end of an epoch behind and goes on from its base; positions count on, so along the timeline they
order everything. Frames come cut at the edges that were asked for, each following the one before by its hash, over the
seam between archive and etcd as over the one between epochs. Reads only.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from eventlog.archive.reader import ArchiveReader
from eventlog.archive.segments import ArchivedFrame, cut_frames, stored
from eventlog.blobs import fetch, part_names, parts_in
from eventlog.driver import LogDriver, StoredFrame
from eventlog.frames import decode_frame
from eventlog.keys.keyring import Keyring
from eventlog.records import BlobRef, Head, Record, genesis_head
from eventlog.sealing import open_record, parse_stored
from mesh.errors import Damaged, MissingKey, NotFound, NotReady, TimelineMoved
from mesh.position import Position
from runtime.limits import TIMELINE_PAGE_FRAMES


class Timeline:
    """One log as a whole. Damaged where it is broken, NotFound where it was dropped; Unavailable, TimelineMoved."""

    def __init__(self, driver: LogDriver, archive: ArchiveReader | None) -> None:
        self._driver = driver
        self._archive = archive
        self._loaded = False

    async def log_id(self) -> str:
        return (await self._head()).log_id

    async def begins(self) -> Position:
        """The position after which every record up to the head can be had."""
        head = await self._head()
        page = await self._driver.read_frames(Position(head.epoch, 0), 1)
        begins = _before(page.frames[0]) if page.frames else head.at
        archive = await self._archive_of(head, begins.position - 1)
        return begins if archive is None else min(archive.index.base.at, begins, key=lambda at: at.position)

    async def frames(self, after: Position, upto: Position | None = None) -> AsyncGenerator[StoredFrame, None]:
        """Frames beyond `after`, up to `upto` (None: the head as it is now)."""
        head = await self._head()
        end = head.position
        for edge in (after, upto):
            await self._check(edge, head)
        if upto is not None:
            end = min(end, upto.position)
        links = _Links()
        at = after.position
        while at < end:
            begun = at
            async with aclosing(self._stretch(at, end, head)) as stretch:
                async for frame in stretch:
                    links.take(frame)
                    yield frame
                    at = frame.last.position
            if at == begun:
                raise NotFound(
                    f"Position {at + 1} of the log is neither in etcd nor in an archive that is known here: it is "
                    "older than what is kept, or the archive is missing from the settings"
                )
        if at == head.position:
            links.end(head)

    async def records(
        self, keyring: Keyring, after: Head | None = None, upto: Position | None = None
    ) -> AsyncGenerator[Record, None]:
        """The records of `frames`, opened and whole, following `after` (None: from the first record on)."""
        log_id = await self.log_id()
        start = genesis_head(log_id) if after is None else after
        following: bytes | None = start.hash
        async with aclosing(self.frames(start.at, upto)) as frames:
            async for frame in frames:
                first = _before(frame).position + 1
                for number, record in enumerate(decode_frame(frame.value, frame.last), start=first):
                    at = Position(frame.last.epoch, number)
                    if following not in (None, parse_stored(record, at).previous_hash):
                        raise TimelineMoved(f"Record {at} does not follow the point that was asked for, {start.at}")
                    following = None
                    yield await fetch(await _open(record, log_id, at, keyring), log_id, self.parts, keyring)

    async def parts(self, ref: BlobRef) -> Mapping[str, bytes]:
        """A blob's stored parts by name, as far as they are kept."""
        found = dict(await parts_in(self._driver)(ref))
        if set(part_names(ref)) - set(found):
            head = await self._head()
            archive = await self._archive_of(head, head.position - 1)
            found |= await archive.blob_parts(ref) if archive is not None else {}
        return found

    async def _stretch(self, after: int, end: int, head: Head) -> AsyncGenerator[StoredFrame, None]:
        """What one source has beyond `after`: at least one frame if there is any."""
        page = await self._driver.read_frames(Position(head.epoch, after), TIMELINE_PAGE_FRAMES)
        begins = _before(page.frames[0]).position if page.frames else end
        if begins <= after:
            archived = (ArchivedFrame(frame.last.position, (0,), frame.value) for frame in page.frames)
            for frame in stored(cut_frames(archived, head.epoch, after, end), head.epoch):
                yield frame
            return
        archive = await self._archive_of(head, after)
        if archive is not None:
            span = (Position(head.epoch, number) for number in (after, min(begins, end)))
            async with aclosing(archive.frames(*span)) as frames:
                async for frame in frames:
                    yield frame

    async def _archive_of(self, head: Head, after: int) -> ArchiveReader | None:
        """The archive, read anew if it may have grown beyond `after` since; None if there is none, or another log's."""
        archive = self._archive
        if archive is None:
            return None
        if not self._loaded or archive.index.head.position <= after:
            self._loaded = await archive.load_if_any() is not None
        if not self._loaded or archive.index.log_id != head.log_id or archive.index.epoch < head.epoch:
            return None
        if archive.index.epoch > head.epoch:
            raise TimelineMoved(
                f"Epoch {archive.index.epoch} was begun by a restore, and this cluster is of epoch {head.epoch}: it is "
                "the past; stop it"
            )
        return archive

    async def _check(self, at: Position | None, head: Head) -> None:
        if at is None or at.epoch == head.epoch:
            return
        archive = await self._archive_of(head, head.position - 1)
        if archive is not None:
            archive.index.check_on_timeline(at)
        elif at.epoch > head.epoch or at.position > 0:
            raise TimelineMoved(f"Position {at} is of another epoch than the log's head, {head.at}")

    async def _head(self) -> Head:
        found = await self._driver.read_head()
        if found is None:
            raise NotReady("There is no log in the store yet: start an API server, which makes one")
        return found.head


class _Links:
    """Checks that each record follows the one before, across sources and epochs."""

    def __init__(self) -> None:
        self._hash: bytes | None = None

    def take(self, frame: StoredFrame) -> None:
        records = decode_frame(frame.value, frame.last)
        for number, stored_record in enumerate(records, start=frame.last.position - len(records) + 1):
            at = Position(frame.last.epoch, number)
            if self._hash not in (None, parse_stored(stored_record, at).previous_hash):
                raise Damaged(f"The log's chain is broken before {at}: run `meshlog fsck`")
            self._hash = hashlib.sha256(stored_record).digest()

    def end(self, head: Head) -> None:
        if self._hash not in (None, head.hash):
            raise Damaged(f"The log's records do not end at its head, {head.at}: run `meshlog fsck`")


def _before(frame: StoredFrame) -> Position:
    """The position before a frame's first record."""
    return frame.last._replace(position=frame.last.position - len(decode_frame(frame.value, frame.last)))


async def _open(stored_record: bytes, log_id: str, at: Position, keyring: Keyring) -> Record:
    try:
        return open_record(stored_record, log_id, at, keyring)
    except MissingKey:  # drawn since the last load
        await keyring.load(log_id)
        return open_record(stored_record, log_id, at, keyring)
