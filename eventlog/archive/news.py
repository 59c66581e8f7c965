"""What the log has and the archive has not: reads of the store become News, proven by the chain. Writes nothing.

Frames are read first and all else after them, so whatever a frame needs (its data key, the blob that it names) is among
what is found. Records are opened only for their time; one that does not open is archived all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import structlog

from eventlog import blobs, checkpoints
from eventlog.archive.index import ArchiveIndex
from eventlog.archive.manifest import hash_of
from eventlog.archive.segments import ArchivedFrame
from eventlog.chain import Chain, ChainedRecord
from eventlog.driver import FramePage, LogDriver
from eventlog.keys.keyring import Keyring
from eventlog.records import Head, genesis_head
from eventlog.sealing import open_envelope
from mesh.errors import Damaged, IntegrityError
from mesh.position import Position
from runtime.limits import ARCHIVE_SHIPMENT_BYTES, FOLLOW_PAGE_FRAMES

log = structlog.get_logger(__name__)


class Known(NamedTuple):
    """What the archive has beside frames: wrapped data keys, how far its checkpoints go, the names of blob parts."""

    keys: Mapping[str, bytes]
    checkpoint: Position | None
    parts: frozenset[str]


class CheckpointCopy(NamedTuple):
    """A checkpoint as stored in etcd: its manifest, read and as bytes, and its parts in the manifest's order."""

    manifest: checkpoints.CheckpointManifest
    data: bytes
    parts: tuple[bytes, ...]


class PartCopy(NamedTuple):
    """A blob part as stored in etcd."""

    name: str
    data: bytes
    after: Position


class News(NamedTuple):
    """What is to be added. `head` is the point after `frames`; `behind`: there are more frames to read at once.

    `keys` are all wrapped data keys that the archive must have, None if it has them.
    """

    frames: tuple[ArchivedFrame, ...]
    head: Head
    behind: bool
    keys: Mapping[str, bytes] | None
    checkpoints: tuple[CheckpointCopy, ...]
    parts: tuple[PartCopy, ...]

    @property
    def empty(self) -> bool:
        return not (self.frames or self.keys or self.checkpoints or self.parts)


async def read_news(driver: LogDriver, keyring: Keyring, index: ArchiveIndex, known: Known, thorough: bool) -> News:
    """What the log has beyond the archive's head. Without `thorough` the rest is looked for only if there are frames.

    Damaged if the log does not continue where the archive ends; NoQuorum.
    """
    at = index.head
    page = await driver.read_frames(at.at, FOLLOW_PAGE_FRAMES)
    records, head, behind = prove(at, page)
    if not (records or thorough):
        return News((), at, False, None, (), ())
    keys = await _keys(driver, keyring, at.log_id, known.keys)
    frames = timed(page, records, keyring, index.time_us)
    return News(
        frames,
        head,
        behind,
        keys if keys != known.keys else None,
        await _new_checkpoints(driver, head, known.checkpoint),
        await _new_parts(driver, known.parts),
    )


async def _keys(driver: LogDriver, keyring: Keyring, log_id: str, known: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """The wrapped data keys to keep: all that are known, as they are in the store now if that still opens."""
    keys = dict(known)
    for key_id, entry in (await driver.list_data_keys()).items():
        if known.get(key_id) == entry.value:
            continue
        try:
            await keyring.check(key_id, entry.value, log_id)
        except IntegrityError as failure:
            log.error("a data key in the store does not open", key=key_id, reason=failure.message)  # noqa: TRY400
            if key_id in known:
                continue  # the archive's own is the better one
        keys[key_id] = entry.value
    if keys != known:
        with suppress(IntegrityError):  # told above; records that do not open now are archived all the same
            await keyring.load(log_id)
    return keys


def prove(at: Head, page: FramePage) -> tuple[Sequence[ChainedRecord], Head, bool]:
    """The page's records that the chain proves, the point after them, and whether there are more.

    The last frame of a page that goes on is proven by the next page only, and is left for it.
    """
    chain = Chain(at)
    size, taken = 0, 0
    for frame in page.frames:
        size += len(frame.value)
        taken += 1
        if size >= ARCHIVE_SHIPMENT_BYTES:
            break
    whole = taken == len(page.frames) and not page.more
    records, failure = chain.extend(page.frames[: taken if whole else taken + 1])
    if failure is not None:
        raise failure
    if not whole:
        ends = {frame.last for frame in page.frames}
        while records and records[-1].as_head.at not in ends:
            records.pop()
    elif page.head is not None:
        held = chain.settle(page.head.head)
        records.extend([held] if held is not None else [])
    return records, records[-1].as_head if records else at, not whole


def timed(
    page: FramePage, records: Sequence[ChainedRecord], keyring: Keyring, time_us: int
) -> tuple[ArchivedFrame, ...]:
    """The proven frames of the page with the log times of their records; `time_us` is that of the record before."""
    values = {frame.last: frame.value for frame in page.frames}
    frames: list[ArchivedFrame] = []
    begun: list[ChainedRecord] = []
    for record in records:
        begun.append(record)
        value = values.get(record.as_head.at)
        if value is not None:
            first, last = (_time_us(each, keyring, time_us) for each in (begun[0], record))
            times = (last,) if first == last else tuple(_time_us(each, keyring, time_us) for each in begun)
            frames.append(ArchivedFrame(record.as_head.position, times, value))
            time_us = last
            begun.clear()
    return tuple(frames)


def _time_us(record: ChainedRecord, keyring: Keyring, at_least_us: int) -> int:
    head = record.as_head
    try:
        return max(at_least_us, open_envelope(record.envelope, head.log_id, head.at, keyring).time_us)
    except IntegrityError:
        # Poison is the replicas' to report; the archive keeps what is in the log.
        return at_least_us


async def find_base(driver: LogDriver, head: Head) -> Head:
    """Where a new archive begins: before the first record, or, if that was trimmed, at the oldest usable checkpoint.

    Damaged if there is neither.
    """
    genesis = genesis_head(head.log_id)
    if genesis.epoch == head.epoch and await _continues(driver, genesis, head):
        return genesis
    for at in await checkpoints.list_checkpoints(driver):
        copy = await _copy(driver, at) if at.epoch == head.epoch else None
        if copy is None or copy.manifest.log_id != head.log_id:
            continue
        if await _continues(driver, copy.manifest.at, head):
            return copy.manifest.at
    raise Damaged(
        "The log's first records were trimmed, and no checkpoint in etcd continues into what is left: a new archive "
        "cannot begin; give the archive that this log was shipped to before"
    )


async def _continues(driver: LogDriver, base: Head, head: Head) -> bool:
    page = await driver.read_frames(base.at, 1)
    if not page.frames:
        return base == head
    _, failure = Chain(base).extend(page.frames)
    return failure is None


async def _new_checkpoints(driver: LogDriver, head: Head, newest: Position | None) -> tuple[CheckpointCopy, ...]:
    copies: list[CheckpointCopy] = []
    for at in await checkpoints.list_checkpoints(driver):
        later = newest is None or (at.position, at.epoch) > (newest.position, newest.epoch)
        if later and at <= head.at:
            copy = await _copy(driver, at)
            copies.extend([copy] if copy is not None and copy.manifest.log_id == head.log_id else [])
    return tuple(copies)


async def _copy(driver: LogDriver, at: Position) -> CheckpointCopy | None:
    """None if it is gone, or not whole: checkpoints are made anew all the time, and a damaged one is of no use."""
    entry = await driver.read_entry(checkpoints.manifest_name(at))
    if entry is None:
        return None
    try:
        manifest = checkpoints.parse_manifest(entry.value)
    except Damaged:
        return None
    entries = [await driver.read_entry(checkpoints.part_name(at, number)) for number in range(len(manifest.parts))]
    parts = tuple(part.value for part in entries if part is not None)
    sound = len(parts) == len(manifest.parts) and all(
        hash_of(part) == listed.hash for listed, part in zip(manifest.parts, parts, strict=True)
    )
    return CheckpointCopy(manifest, entry.value, parts) if sound and manifest.at.at == at else None


async def _new_parts(driver: LogDriver, known: frozenset[str]) -> tuple[PartCopy, ...]:
    copies: list[PartCopy] = []
    for name in await driver.list_entries(blobs.PREFIX, keys_only=True):
        if name in known or (entry := await driver.read_entry(name)) is None:
            continue
        try:
            after = blobs.parse_part(name, entry.value).after
        except Damaged:
            continue
        copies.append(PartCopy(name, entry.value, after))
    return tuple(copies)
