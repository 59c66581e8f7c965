"""The whole archive checked: every object that the index names read, hashed, chained; with keys, opened and folded too.

The first thing that is wrong is raised, naming the object or the position. Reads only.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import NamedTuple

from eventlog.archive.reader import ArchiveReader
from eventlog.archive.store import ObjectStore
from eventlog.chain import Chain
from eventlog.checkpoints import parse_manifest
from eventlog.keys.provider import KeyProvider
from eventlog.records import KeyClass
from mesh.errors import Damaged
from mesh.evolve import evolve
from mesh.position import Position
from mesh.state import State, state_hash
from projector.refold import OpenArchive, Progress, beginning, enter_epoch, open_archive, open_state, read_records
from projector.replica import event_of


class Verified(NamedTuple):
    """What was found sound. `state_hash`: of the fold of all that is kept, None without keys."""

    head: Position
    records: int
    objects: int
    checkpoints: int
    state_hash: str | None


async def verify_archive(
    store: ObjectStore, providers: Mapping[KeyClass, KeyProvider], progress: Progress | None = None
) -> Verified:
    """With keys: the fold of all that is kept passes through the state of every checkpoint on the way.

    Raises Unavailable, NotFound, Damaged, MissingKey, WrongKey or Poison.
    """
    archive = await open_archive(store, providers)
    index = archive.index
    kept: dict[Position, str] = {}
    refs = await archive.reader.checkpoints()
    for ref in refs:
        state, _ = await open_state(archive, ref)
        kept[ref.state_at] = state_hash(state)
    count, whole = 0, index.head.position - index.base.position
    async with aclosing(_states(archive)) as states:
        async for state in states:
            wanted = kept.get(state.position)
            if wanted is not None and wanted != state_hash(state):
                raise Damaged(f"The checkpoint at {state.position} is not the fold of the records before it")
            count += 1
            if progress is not None:
                progress(count, whole)
    objects = len(await archive.reader.segment_refs()) + sum(1 + len(ref.parts) for ref in refs)
    return Verified(index.head.at, count, objects, len(refs), state_hash(state) if count else None)


async def _states(archive: OpenArchive) -> AsyncGenerator[State, None]:
    state, head = await beginning(archive, archive.index.base.at)
    async with aclosing(read_records(archive, head, archive.index.head.at)) as records:
        async for record, _ in records:
            state = evolve(state, event_of(record))
            yield state


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
    return Verified(index.head.at, chain.point.position - begun, objects, len(refs), None)
