"""The whole archive checked: every object that the index names read, hashed, chained; with keys, opened and folded too.

The first thing that is wrong is raised, naming the object or the position. Reads only.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import NamedTuple

from eventlog.archive.reader import ArchiveReader
from eventlog.archive.store import ObjectStore
from eventlog.chain import Chain
from eventlog.checkpoints import parse_manifest
from eventlog.fsck_archive import check_audit
from eventlog.keys.keyring import Keyring
from eventlog.keys.provider import KeyProvider
from eventlog.quarantine import Quarantined
from eventlog.record_walk import FsckReport
from eventlog.records import KeyClass
from mesh.errors import Damaged
from mesh.fold import Fold, S
from mesh.position import Position
from projector.beginning import TakenOut
from projector.refold import (
    OpenArchive,
    Progress,
    beginning,
    check_sound,
    enter_epoch,
    fold,
    open_archive,
    open_state,
    read_records,
)


class Verified(NamedTuple):
    """What was found sound. `state_hash`: of the fold of all that is kept, None without keys."""

    head: Position
    records: int
    objects: int
    checkpoints: int
    audit_segments: int
    state_hash: str | None


async def verify_archive(
    log_fold: Fold[S],
    store: ObjectStore,
    providers: Mapping[KeyClass, KeyProvider],
    progress: Progress | None = None,
) -> Verified:
    """With keys: the fold of all that is kept passes through the state of every checkpoint on the way.

    Raises Unavailable, NotFound, Damaged, MissingKey, WrongKey or Poison.
    """
    archive = await open_archive(store, providers)
    index = archive.index
    kept: dict[Position, str] = {}
    refs = await archive.reader.checkpoints()
    for ref in refs:
        state, _ = await open_state(log_fold, archive, ref)
        kept[ref.state_at] = log_fold.state_hash(state)
    quarantined: dict[Position, Quarantined] = {}
    while True:
        try:
            count, folded = await _fold_all(log_fold, archive, kept, quarantined, progress)
            break
        except TakenOut as out:
            quarantined[out.named.position] = out.named
    objects = len(await archive.reader.segment_refs()) + sum(1 + len(ref.parts) for ref in refs)
    segments = await _audit(store, archive.keyring)
    return Verified(index.head.at, count, objects, len(refs), segments, folded if count else None)


async def _fold_all(
    log_fold: Fold[S],
    archive: OpenArchive,
    kept: Mapping[Position, str],
    quarantined: dict[Position, Quarantined],
    progress: Progress | None,
) -> tuple[int, str]:
    """How many records were folded, and the hash of the state that they come to; on the way, those of checkpoints."""
    state, head = await beginning(log_fold, archive, archive.index.base.at)
    check_sound(head, quarantined)
    draft, count, whole = log_fold.draft(state), 0, archive.index.head.position - archive.index.base.position
    async with aclosing(read_records(archive, head, archive.index.head.at, quarantined)) as records:
        async for record, _ in records:
            await fold(archive, draft, record, quarantined)
            at = draft.position
            void = any(named.voids(at) for named in quarantined.values())
            if at in kept and not void and kept[at] != log_fold.state_hash(draft.state()):
                raise Damaged(f"The checkpoint at {at} is not the fold of the records before it")
            count += 1
            if progress is not None:
                progress(count, whole)
    return count, log_fold.state_hash(draft.state())


async def verify_without_keys(store: ObjectStore, progress: Progress | None = None) -> Verified:
    """Hashes, signatures and the chain of records; nothing is opened."""
    reader = ArchiveReader(store)
    index = await reader.load()
    chain, whole = Chain(index.base), index.head.position - index.base.position
    begun = chain.point.position
    async with aclosing(reader.frames(chain.point.at, None)) as frames:
        async for frame in frames:
            if frame.last.epoch != chain.point.epoch:
                chain = Chain(enter_epoch(index.claims, chain.point, frame.last.epoch))
            _, failure = chain.extend([frame])
            if failure is not None:
                raise failure
            if progress is not None:
                progress(chain.point.position - begun, whole)
    if chain.point.hash != index.head.hash:
        raise Damaged(f"The archive's records up to {chain.point.at} do not end at the hash that its manifest names")
    refs = await reader.checkpoints()
    for ref in refs:
        manifest, _ = await reader.checkpoint(ref)
        parse_manifest(manifest)
    objects = len(await reader.segment_refs()) + sum(1 + len(ref.parts) for ref in refs)
    segments = await _audit(store, None)
    return Verified(index.head.at, chain.point.position - begun, objects, len(refs), segments, None)


async def _audit(store: ObjectStore, keyring: Keyring | None) -> int:
    """How many segments of refused calls there are, all of them sound."""
    report = FsckReport()
    await check_audit(store, keyring, report)
    if report.findings:
        place, message = report.findings[0]
        raise Damaged(f"{place}: {message}")
    return report.audit_segments
