"""The archive folded: verified objects become a state at any position that is kept. What `backup verify`, drills and
restores share.

Everything on the way is checked: objects by their hashes, manifests and claims by signatures and chain, records by
the log's chain and by opening them. It writes nothing, anywhere.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Generic, NamedTuple

from eventlog.archive.index import ArchiveIndex
from eventlog.archive.manifest import CheckpointRef, EpochClaim, claim_name
from eventlog.archive.reader import ArchiveReader
from eventlog.archive.store import ObjectStore
from eventlog.blobs import PartsOf, fetch
from eventlog.chain import Chain, ChainedRecord
from eventlog.checkpoints import open_checkpoint
from eventlog.driver import LogDriver
from eventlog.drivers.memory import MemoryDriver, MemoryStore
from eventlog.frames import decode_frame
from eventlog.keys.keyring import Keyring
from eventlog.keys.provider import KeyProvider
from eventlog.quarantine import Quarantined, quarantined_by, stand_in
from eventlog.records import Head, KeyClass, Record
from eventlog.sealing import open_envelope, open_record
from eventlog.signing import known_signers
from mesh.errors import Damaged, IntegrityError, NotFound, Poison
from mesh.fold import Drafted, Fold, S, Timed
from mesh.position import Position
from projector.beginning import TakenOut

Progress = Callable[[int, int], None]
"""Told how many records of how many are folded."""

Breathe = Callable[[int], Awaitable[None]]
"""Given the number of records folded so far, lets others have the loop."""


@dataclass(frozen=True, slots=True)
class OpenArchive:
    """An archive with the keys to open it. Every signature in it was made by a key of this log's own."""

    reader: ArchiveReader
    keyring: Keyring
    key_store: LogDriver
    """A store in memory with the log's wrapped data keys, and nothing else."""
    data_keys: Mapping[str, bytes]

    @property
    def index(self) -> ArchiveIndex:
        return self.reader.index


class Refolded(NamedTuple, Generic[S]):
    """A state from the archive, the point of the log that it is the fold of, and how many records were folded."""

    state: S
    head: Head
    records: int

    @property
    def base(self) -> Head:
        """The point as the last record of its own epoch: what an epoch that begins here goes on from."""
        return self.head._replace(epoch=self.state.position.epoch)


async def open_archive(store: ObjectStore, providers: Mapping[KeyClass, KeyProvider]) -> OpenArchive:
    """Read the index, open the data keys, and read the index again, now by the log's own signing keys alone.

    Raises Unavailable, NotFound, Damaged, MissingKey, WrongKey.
    """
    reader = ArchiveReader(store)
    index = await reader.load()
    data_keys = await reader.data_keys()
    held = MemoryDriver(MemoryStore())
    for key_id, value in data_keys.items():
        await held.put_data_key(key_id, value, 0)
    keyring = Keyring(held, providers)
    await keyring.load(index.log_id)
    reader = ArchiveReader(store, known_signers(keyring))
    await reader.load()
    return OpenArchive(reader, keyring, held, data_keys)


async def refold(
    log_fold: Fold[S],
    archive: OpenArchive,
    upto: Position,
    *,
    from_nothing: bool = False,
    progress: Progress | None = None,
    breathe: Breathe | None = None,
) -> Refolded[S]:
    """The state after `upto`: from the newest checkpoint before it or, `from_nothing`, from all that is kept."""
    quarantined: dict[Position, Quarantined] = {}
    while True:
        base = archive.index.base.at if from_nothing else _before(upto, quarantined)
        state, head = await beginning(log_fold, archive, base)
        check_sound(head, quarantined)
        draft, count, whole = log_fold.draft(state), 0, upto.position - head.position
        try:
            async with aclosing(read_records(archive, head, upto, quarantined)) as records:
                async for record, reached in records:
                    await fold(archive, draft, record, quarantined)
                    head = reached
                    count += 1
                    if progress is not None:
                        progress(count, whole)
                    if breathe is not None:
                        await breathe(count)
        except TakenOut as out:
            quarantined[out.named.position] = out.named
            continue
        return Refolded(draft.state(), head, count)


def check_sound(head: Head, quarantined: Mapping[Position, Quarantined]) -> None:
    """Damaged if what is begun with has a quarantined record in it."""
    void = next((named for named in quarantined.values() if named.voids(head.at)), None)
    if void is not None:
        raise Damaged(f"The archive begins at {head.at} with a state that the quarantined record {void.position} is in")


async def fold(
    archive: OpenArchive, draft: Drafted[Timed], record: Record, quarantined: dict[Position, Quarantined]
) -> None:
    """Fold a record as replicas do: poison that is quarantined anywhere in the archive is passed over.

    `quarantined` is what is known of, and grows. Raises Poison and TakenOut.
    """
    named = quarantined_by(record) if record.position not in quarantined else None
    if named is not None and named.position not in quarantined:
        raise TakenOut(named)
    try:
        draft.fold(record)
    except Poison:
        draft.fold(await _in_its_place(archive, record.position, quarantined))


async def _in_its_place(archive: OpenArchive, position: Position, quarantined: dict[Position, Quarantined]) -> Record:
    """What stands in for a record that cannot be used. Raises again what is being handled, if it is not quarantined."""
    failure = sys.exception()
    async with aclosing(archive.reader.frames(position, None)) as frames:
        async for frame in frames:
            stored_records = decode_frame(frame.value, frame.last)
            first = frame.last.position - len(stored_records) + 1
            for number, stored in enumerate(stored_records, first):
                try:
                    at = Position(frame.last.epoch, number)
                    named = quarantined_by(open_record(stored, archive.index.log_id, at, archive.keyring))
                except IntegrityError:
                    continue
                if named is not None and named.position == position:
                    quarantined[position] = named
                    return stand_in(named)
    assert failure is not None  # noqa: S101 - called while one is handled
    raise failure


def _before(upto: Position, quarantined: Mapping[Position, Quarantined]) -> Position:
    return min((upto, *(Position(at.epoch, at.position - 1) for at in quarantined)))


async def read_records(
    archive: OpenArchive, after: Head, upto: Position, quarantined: dict[Position, Quarantined] | None = None
) -> AsyncGenerator[tuple[Record, Head], None]:
    """The records beyond `after` up to `upto`, opened, each with the point right after it.

    With `quarantined`, which grows, stand-ins come in place of those that are in quarantine.
    """
    index, chain = archive.index, Chain(after)
    async with aclosing(archive.reader.frames(after.at, upto)) as frames:
        async for frame in frames:
            proven: Sequence[ChainedRecord] = ()
            if frame.last.epoch != chain.point.epoch:
                proven = _last(chain)
                chain = Chain(enter_epoch(index.claims, chain.point, frame.last.epoch))
            more, failure = chain.extend([frame])
            for each in (*proven, *more):
                yield await _usable(archive, each, quarantined), each.as_head
            if failure is not None:
                raise failure
    for each in _last(chain):
        yield await _usable(archive, each, quarantined), each.as_head
    if upto.position == index.head.position and chain.point.hash != index.head.hash:
        raise Damaged(f"The archive's records up to {chain.point.at} do not end at the hash that its manifest names")


async def _usable(
    archive: OpenArchive, chained: ChainedRecord, quarantined: dict[Position, Quarantined] | None
) -> Record:
    at = chained.as_head.at
    if quarantined and at in quarantined:
        return stand_in(quarantined[at])
    try:
        return await opened(archive, chained)
    except IntegrityError:
        if quarantined is None:
            raise
        return await _in_its_place(archive, at, quarantined)


def _last(chain: Chain) -> Sequence[ChainedRecord]:
    """The record that nothing follows: the segment that it is in vouches for it."""
    held = chain.settle(chain.point)
    return () if held is None else (held,)


def enter_epoch(claims: Sequence[EpochClaim], point: Head, epoch: int) -> Head:
    claim = next((claim for claim in claims if claim.epoch == epoch), None)
    if claim is None or claim.base != point:
        raise Damaged(
            f"{claim_name(epoch)} in the archive does not go on from {point.at} as its records have it: it was changed"
        )
    return claim.head


async def opened(archive: OpenArchive, chained: ChainedRecord, parts_of: PartsOf | None = None) -> Record:
    """The record, whole; a blob's parts come from the archive unless said otherwise."""
    log_id, at = chained.as_head.log_id, chained.as_head.at
    record = open_envelope(chained.envelope, log_id, at, archive.keyring)
    return await fetch(record, log_id, parts_of or archive.reader.blob_parts, archive.keyring)


async def beginning(log_fold: Fold[S], archive: OpenArchive, upto: Position) -> tuple[S, Head]:
    """The newest checkpoint of a state at `upto` or before, or a log's beginning."""
    index = archive.index
    ref = await archive.reader.checkpoint_before(upto)
    if ref is not None:
        return await open_state(log_fold, archive, ref)
    if index.base.position:
        raise NotFound(
            f"The archive begins at {index.base.at} and has no checkpoint at {upto} or before: name a later moment"
        )
    return log_fold.initial(), index.base


async def open_state(log_fold: Fold[S], archive: OpenArchive, ref: CheckpointRef) -> tuple[S, Head]:
    """An archived checkpoint's state, compared with the hash that its manifest signs, and where to go on after it."""
    manifest, parts = await archive.reader.checkpoint(ref)
    opened = open_checkpoint(manifest, partial(_part, parts), archive.keyring, known_signers(archive.keyring))
    state = log_fold.from_documents(opened.config, opened.secrets)
    if opened.manifest.at.at != ref.at or log_fold.state_hash(state) != opened.manifest.state_hash:
        raise Damaged(f"The archive's checkpoint at {ref.at} does not hold the state that its manifest names")
    return state, opened.manifest.at


def _part(parts: Mapping[bytes, bytes], digest: bytes) -> bytes:
    return parts[digest]
