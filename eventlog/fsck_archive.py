"""Checking an archive: every object that its index names, the index itself, and the audit beside it. Reads only.

Without keys: claims and manifests by their signatures and chain, every object by its hash, the log's chain from what is
kept first to the archive's head, checkpoints' signatures, the chains of audit segments. With keys all of it is opened,
and with a fold every checkpoint is compared with what the records fold to. One fault does not hide the next.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import msgpack

from eventlog import audit, blobs
from eventlog.archive.manifest import (
    KEYS,
    MANIFESTS,
    CheckpointRef,
    Holdings,
    Manifest,
    Mark,
    SegmentRef,
    hash_of,
    object_name,
    open_manifest,
    public_key_name,
)
from eventlog.archive.reader import ArchiveReader
from eventlog.archive.segments import decode_segment, stored
from eventlog.archive.store import ObjectStore
from eventlog.checkpoints import OpenCheckpoint, open_checkpoint, parse_manifest
from eventlog.keys.keyring import Keyring
from eventlog.keys.wrapping import parse_wrapped
from eventlog.record_walk import Anchor, Fold, FsckReport, Opened, RecordWalk
from eventlog.signing import known_signers
from mesh.errors import IntegrityError, NotFound


async def fsck_archive(
    store: ObjectStore,
    keyring: Keyring | None,
    progress: Callable[[int], None] | None = None,
    *,
    fold: Fold | None = None,
    trusted: Mapping[str, bytes] | None = None,
    promised: Mark | None = None,
) -> FsckReport:
    """Check one archive. `keyring` is loaded; its signing keys are the ones that count, else `trusted`, else any.
    `promised`: what etcd's entry `archive` said before, which this archive must reach.

    Raises only Unavailable and its like; what is wrong is in the report.
    """
    if keyring is not None:
        trusted = known_signers(keyring) or trusted
    return await _Check(store, keyring, progress, fold, trusted).run(promised)


class _Check:
    """One pass. What a broken index keeps from being looked at is said once, with the index."""

    def __init__(
        self,
        store: ObjectStore,
        keyring: Keyring | None,
        progress: Callable[[int], None] | None,
        fold: Fold | None,
        trusted: Mapping[str, bytes] | None,
    ) -> None:
        self._store, self._keyring, self._progress = store, keyring, progress
        self._trusted = trusted
        self._reader = ArchiveReader(store, trusted)
        self._report = FsckReport()
        self._loaders: dict[int, Callable[[], Awaitable[OpenCheckpoint | None]]] = {}
        opened = None if keyring is None else Opened(keyring, self._reader.blob_parts, fold)
        self._walk = RecordWalk(self._report, opened, self._loaders)
        self._signers: dict[str, bytes] = {}

    async def run(self, promised: Mark | None) -> FsckReport:
        report, reader = self._report, self._reader
        try:
            index = await reader.load()
        except (IntegrityError, NotFound) as failure:
            report.add("archive", failure.message)
            await check_audit(self._store, self._keyring, report)
            return report
        report.head, report.log_id = index.head, index.log_id
        if promised is not None:
            self._promise(promised)
        await self._manifests()
        held = await self._holdings()
        data_keys = await self._data_keys()
        for checkpoint in held.checkpoints:
            await self._checkpoint(checkpoint)
        await self._segments(held.segments)
        self._walk.finish(data_keys)
        await self._parts(held)
        await self._public_keys()
        await check_audit(self._store, self._keyring, report)
        return report

    def _promise(self, mark: Mark) -> None:
        head = self._reader.index.head
        if mark.head.at > head.at:
            self._report.add(
                "archive",
                f"etcd says that it reaches to {mark.head.at}, and it ends at {head.at}: its newest manifests were "
                "lost, or an old copy was put in its place. Put them back; the log in etcd may be trimmed up to there",
            )
        elif mark.head.epoch == head.epoch:
            self._walk.anchors[mark.head.position].append(Anchor("etcd's entry `archive`", mark.head.hash))

    async def _manifests(self) -> None:
        """Every manifest that is still there, also those before the newest roll-up and of earlier epochs."""
        before: tuple[Manifest, bytes] | None = None
        for listed in await self._store.list(MANIFESTS):
            data = await self._store.get(listed.name)
            if data is None:
                continue  # dropped meanwhile: a roll-up made it needless
            self._report.manifests += 1
            try:
                manifest = open_manifest(listed.name, data, self._trusted)
            except IntegrityError as failure:
                self._report.add(listed.name, failure.message)
                before = None
                continue
            _, _, signer, public, _ = msgpack.unpackb(data)
            self._signers[signer] = public
            follows = before is not None and (manifest.epoch, manifest.seq) == (before[0].epoch, before[0].seq + 1)
            if before is not None and follows and manifest.previous != hash_of(before[1]):
                self._report.add(listed.name, "It does not follow the manifest before it: one of them was changed")
            before = manifest, data

    async def _holdings(self) -> Holdings:
        """All that the index names. An unreadable leaf is told, and what it listed is left out."""
        try:
            return await self._reader.holdings()
        except (IntegrityError, NotFound) as failure:
            self._report.add("archive", failure.message)
            return self._reader.index.held

    async def _object(self, digest: bytes) -> bytes | None:
        self._report.objects += 1
        try:
            return await self._reader.object(digest)
        except IntegrityError as failure:
            self._report.add(object_name(digest), failure.message)
            return None

    async def _data_keys(self) -> Mapping[str, bytes]:
        try:
            keys = await self._reader.data_keys()
            self._report.data_keys = len(keys)
            for key_id, value in keys.items():
                parse_wrapped(key_id, value)
        except IntegrityError as failure:
            self._report.add("archive", failure.message)
            return {}
        return keys

    async def _checkpoint(self, ref: CheckpointRef) -> None:
        report, place = self._report, f"checkpoint {ref.at}"
        report.checkpoints += 1
        data = await self._object(ref.hash)
        parts = [await self._object(part) for part in ref.parts]
        if data is None or None in parts:
            return
        try:
            manifest = parse_manifest(data, self._trusted)
            if self._keyring is not None:
                await self._open(ref)
        except IntegrityError as failure:
            report.add(place, failure.message)
            return
        if (manifest.at.at, manifest.state_at, manifest.log_id) != (ref.at, ref.state_at, report.log_id):
            report.add(place, f"The object is the checkpoint at {manifest.at.at} of log {manifest.log_id}")
            return
        self._signers[manifest.signer] = manifest.public
        self._walk.anchors[manifest.at.position].append(Anchor(f"The checkpoint at {ref.at}", manifest.at.hash))
        self._loaders[manifest.at.position] = partial(self._open, ref)

    async def _open(self, ref: CheckpointRef) -> OpenCheckpoint | None:
        assert self._keyring is not None  # noqa: S101 - the callers looked
        data, parts = await self._reader.checkpoint(ref)
        return open_checkpoint(data, parts.__getitem__, self._keyring, self._trusted)

    async def _segments(self, refs: Sequence[SegmentRef]) -> None:
        """The log, from what is kept first to the archive's head, over all epochs of its timeline."""
        report, walk, index = self._report, self._walk, self._reader.index
        await walk.begin(index.base.position, index.base.hash)
        for ref in refs:
            data = await self._object(ref.hash)
            if data is None:
                continue  # the next segment shows the gap
            try:
                frames = list(stored(decode_segment(ref, data).frames, ref.epoch))
            except IntegrityError as failure:
                report.add(object_name(ref.hash), failure.message)
                continue
            for frame in frames:
                await walk.frame(frame.last, frame.value)
            if self._progress is not None:
                self._progress(report.records)
        if walk.at != index.head.position:
            report.add("archive", f"It says that it reaches to {index.head.at}, and its records end at {walk.at}")
        elif walk.hash is not None and walk.hash != index.head.hash:
            report.add("archive", f"Its head's hash is not that of the last record, {index.head.at}")

    async def _parts(self, held: Holdings) -> None:
        self._report.blob_parts = len(held.parts)
        for ref in held.parts:
            data = await self._object(ref.hash)
            try:
                if data is not None:
                    blobs.parse_part(ref.name, data)
            except IntegrityError as failure:
                self._report.add(ref.name, failure.message)
        if self._keyring is not None:
            self._report.unnamed_parts = len({ref.name for ref in held.parts} - self._walk.parts_named)

    async def _public_keys(self) -> None:
        """A published key must be the one that signed: whoever pins it later would pin a forger's else."""
        published = {listed.name: await self._store.get(listed.name) for listed in await self._store.list(KEYS)}
        known = {**self._signers, **(self._trusted or {})}
        for signer, public in known.items():
            there = published.get(public_key_name(signer))
            if there is not None and public != there:
                self._report.add(public_key_name(signer), f"This is not the public key of {signer}")


async def check_audit(store: ObjectStore, keyring: Keyring | None, report: FsckReport) -> None:
    """The chains of refused calls, into `report`. A chain may begin late: the retention takes its oldest segments."""
    for server_id, names in (await audit.list_chains(store)).items():
        end: audit.Link | None = None
        for name in names:
            report.audit_segments += 1
            try:
                found = await audit.read_segment(store, name)
                if found is None:
                    continue
                segment, data = found
                end = end or _first_link(segment, server_id)
                if not audit.follows(segment, end):
                    report.add(name, "It does not follow the segment before it: one was changed or taken out")
                end = audit.link_of(segment, data)
                if keyring is not None:
                    audit.open_segment(segment, keyring)
            except IntegrityError as failure:
                report.add(name, failure.message)
                end = None


def _first_link(segment: audit.SealedSegment, server_id: str) -> audit.Link:
    """What the first segment that is there must follow."""
    if segment.seq == 1:
        return audit.Link(0, audit.chain_start(segment.log_id, server_id), 0)
    return audit.Link(segment.seq - 1, segment.previous, 0)
