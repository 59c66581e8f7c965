"""Reading an archive: objects become the verified index, and frames, checkpoints, keys and moments of the timeline.

Nothing is believed: every object is compared with the hash that names it, every manifest with its signature and with
the one before. An archiver may merge and drop objects meanwhile; then the index is read again, once for each object
that is gone, and an object that the newest index still names is Damaged.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from eventlog.archive import segments
from eventlog.archive.index import ArchiveIndex, cut, empty_index, index_of, open_chain
from eventlog.archive.manifest import (
    EPOCHS,
    MANIFESTS,
    CheckpointRef,
    EpochClaim,
    Holdings,
    LeafRef,
    SegmentRef,
    decode_keys,
    decode_leaf,
    hash_of,
    manifest_name,
    object_name,
    open_claim,
    open_manifest,
    public_key_name,
    signer_of,
    unreadable,
)
from eventlog.archive.store import ObjectStore, together
from eventlog.blobs import part_names
from eventlog.driver import StoredFrame
from eventlog.records import BlobRef
from mesh.errors import Damaged, NotFound
from mesh.position import ORIGIN, Position
from runtime.limits import ARCHIVE_LEAVES_REMEMBERED, ARCHIVE_READ_TRIES

T = TypeVar("T")


class _Gone(Exception):  # noqa: N818 - a condition that the reader always handles, not an error
    """An object that the index names is not there: dropped since the index was read, or lost."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class ArchiveReader:
    """One archive. `trusted` pins public keys by signer's name; None believes the keys that the documents carry.

    Call `load` first, and again to see what was added since. Raises Unavailable, Damaged, NotFound, TimelineMoved.
    """

    def __init__(self, store: ObjectStore, trusted: Mapping[str, bytes] | None = None) -> None:
        self.store = store
        self._trusted = trusted
        self._index: ArchiveIndex | None = None
        self._epoch: int | None = None
        self._leaves: dict[bytes, Holdings] = {}

    @property
    def index(self) -> ArchiveIndex:
        """As last loaded."""
        if self._index is None:
            raise RuntimeError("load() comes first")
        return self._index

    def adopt(self, index: ArchiveIndex) -> None:
        """Go on with an index that the caller knows to be the newest: an archiver's own."""
        self._index = index

    async def load(self, epoch: int | None = None) -> ArchiveIndex:
        """Read the index: of the current timeline, or as an older `epoch` saw it. NotFound if there is no archive."""
        index = await self.load_if_any(epoch)
        if index is None:
            raise NotFound(f"There is no archive in {self.store.place}: check the address")
        return index

    async def load_if_any(self, epoch: int | None = None) -> ArchiveIndex | None:
        """`load`, but None for a place that holds nothing."""
        self._epoch, missing = epoch, ""
        for _ in range(ARCHIVE_READ_TRIES):
            claims = await self.claims()
            listing = await self._manifest_seqs()
            if unclaimed := sorted(set(listing) - {claim.epoch for claim in claims}):
                raise Damaged(
                    f"The archive in {self.store.place} has manifests of epoch {unclaimed[0]} and no claim of it: the "
                    "claim was deleted; put it back from a copy"
                )
            if not claims:
                return None
            claims = [claim for claim in claims if epoch is None or claim.epoch <= epoch]
            try:
                self._index = await self._index_of(claims, listing)
            except _Gone as gone:
                if gone.name == missing:
                    raise self._missing(gone.name) from None
                missing = gone.name
                continue
            return self._index
        raise self._missing(missing)

    async def claims(self) -> list[EpochClaim]:
        """Every claim of an epoch, in order. Damaged if they do not follow from each other."""
        claims: list[EpochClaim] = []
        for listed in await self.store.list(EPOCHS):
            data = await self.store.get(listed.name)
            claim = open_claim(listed.name, data or b"", self._trusted)
            known = {before.epoch for before in claims} or {claim.base.epoch}
            if claim.base.epoch not in known or (claims and claim.log_id != claims[0].log_id):
                raise Damaged(
                    f"{listed.name} in the archive goes on from epoch {claim.base.epoch} of log {claim.log_id}, "
                    "which is not here: it was copied from elsewhere, or a claim was deleted"
                )
            claims.append(claim)
        return claims

    async def frames(self, after: Position, upto: Position | None = None) -> AsyncGenerator[StoredFrame, None]:
        """Frames of the timeline beyond `after`, up to `upto` (None: as far as was loaded), cut at the edges."""
        index = self.index
        index.check_on_timeline(after)
        at, end = after.position, index.head.position
        if upto is not None:
            index.check_on_timeline(upto)
            end = min(end, upto.position)
        while at < end:
            ref, segment = await self._reading(partial(self._segment_after, at))
            for frame in segments.stored(segments.cut_frames(segment.frames, ref.epoch, at, end), ref.epoch):
                yield frame
                at = frame.last.position

    async def holdings(self) -> Holdings:
        """Everything that is held, in order: for a check of all of it."""

        async def read() -> Holdings:
            held = Holdings()
            async for stretch in self._all():
                held = held.joined(stretch)
            # What is at the edge of two leaves is in both.
            return Holdings(held.segments, tuple(dict.fromkeys(held.checkpoints)), tuple(dict.fromkeys(held.parts)))

        return await self._reading(read)

    async def segment_refs(self) -> list[SegmentRef]:
        """Every segment, in order."""

        async def read() -> list[SegmentRef]:
            return [ref async for held in self._all() for ref in held.segments]

        return await self._reading(read)

    async def checkpoints(self) -> list[CheckpointRef]:
        """Every checkpoint that is held, the oldest first."""

        async def read() -> list[CheckpointRef]:
            found = {ref async for held in self._all() for ref in held.checkpoints}
            return sorted(found, key=lambda ref: (ref.at.position, ref.at.epoch))

        return await self._reading(read)

    async def part_names(self) -> frozenset[str]:
        """The names of all blob parts that are held."""

        async def read() -> frozenset[str]:
            return frozenset([part.name async for held in self._all() for part in held.parts])

        return await self._reading(read)

    async def leaves_until(self, position: int) -> Mapping[LeafRef, Holdings]:
        """The leaves that end at `position` or before, each with all that it holds, whatever is left of it."""

        async def read() -> Mapping[LeafRef, Holdings]:
            return {leaf: await self._whole_leaf(leaf) for leaf in self.index.leaves if leaf.last <= position}

        return await self._reading(read)

    async def checkpoint_before(self, position: Position) -> CheckpointRef | None:
        """The newest checkpoint of a state at `position` or before; None if a fold must begin with the first record."""
        self.index.check_on_timeline(position)

        async def read() -> CheckpointRef | None:
            async for held in self._nearest(position.position):
                fitting = [ref for ref in held.checkpoints if ref.state_at.position <= position.position]
                if fitting:
                    return max(fitting, key=lambda ref: (ref.state_at.position, ref.at.epoch))
            return None

        return await self._reading(read)

    async def checkpoint(self, ref: CheckpointRef) -> tuple[bytes, Mapping[bytes, bytes]]:
        """A checkpoint's manifest, and its parts by their hashes."""
        parts = await together(partial(self.object, part) for part in ref.parts)
        return await self.object(ref.hash), dict(zip(ref.parts, parts, strict=True))

    async def data_keys(self) -> Mapping[str, bytes]:
        """The wrapped data keys by id: values of `datakey/<id>`, as last seen in etcd."""
        return await self._reading(self._data_keys)

    async def position_at(self, time_us: int) -> Position:
        """The last position whose record's log time is `time_us` or before. NotFound before what is held."""

        async def read() -> Position | None:
            leaves = [leaf for leaf in self.index.leaves if leaf.first_time_us <= time_us]
            held = [self.index.held, *[await self._leaf(leaf) for leaf in leaves[-1:]]]
            for ref in (ref for stretch in held for ref in reversed(stretch.segments) if ref.first_time_us <= time_us):
                segment = segments.decode_segment(ref, await self._object(ref.hash))
                found = segments.position_at(segment.frames, ref.epoch, time_us)
                if found is not None:
                    return Position(ref.epoch, found)
            return None

        found = await self._reading(read)
        base = self.index.base
        if found is not None or base.position == 0:
            return found or ORIGIN
        beginning = await self.checkpoint_before(base.at)
        if beginning is not None and beginning.time_us <= time_us:
            return base.at
        raise NotFound(f"The archive begins at {base.at}, after that moment: what was before is beyond the retention")

    async def blob_parts(self, ref: BlobRef) -> Mapping[str, bytes]:
        """A blob's stored parts by name, as far as they are held."""
        wanted = set(part_names(ref))

        async def read() -> dict[str, bytes]:
            found: dict[str, bytes] = {}
            async for held in self._nearest(self.index.head.position):
                for part in held.parts:
                    if part.name in wanted - set(found):
                        found[part.name] = await self._object(part.hash)
                if len(found) == len(wanted):
                    break
            return found

        return await self._reading(read)

    async def object(self, digest: bytes) -> bytes:
        """An object's bytes, compared with its name; Damaged if it is missing or another."""
        try:
            return await self._object(digest)
        except _Gone as gone:
            raise self._missing(gone.name) from None

    # -- the index, piece by piece

    async def _manifest_seqs(self) -> dict[int, list[int]]:
        seqs: dict[int, list[int]] = {}
        for listed in await self.store.list(MANIFESTS):
            _, epoch, seq = listed.name.split("/")
            if not (epoch.isdigit() and seq.isdigit()):
                raise Damaged(f"{listed.name} in the archive is no manifest's name: something else wrote it")
            seqs.setdefault(int(epoch), []).append(int(seq))
        return seqs

    async def _index_of(self, claims: Sequence[EpochClaim], listing: Mapping[int, Sequence[int]]) -> ArchiveIndex:
        claim = claims[-1]
        if seqs := listing.get(claim.epoch):
            index = await self._epoch_index(claim.epoch, seqs[-1], claims)
            stale = tuple(manifest_name(claim.epoch, seq) for seq in seqs if seq < index.rollup)
            if index.log_id != claim.log_id:
                raise Damaged(
                    f"{manifest_name(claim.epoch, seqs[-1])} in the archive is of log {index.log_id}, the archive of "
                    f"{claim.log_id}: it was copied from another cluster"
                )
            return index._replace(stale=stale)
        if len(claims) == 1:
            return empty_index(claims)
        before = [each for each in claims if each.epoch <= claim.base.epoch]
        return cut(await self._index_of(before, listing), claim)._replace(claims=tuple(claims))

    async def _epoch_index(self, epoch: int, newest: int, claims: Sequence[EpochClaim]) -> ArchiveIndex:
        name = manifest_name(epoch, newest)
        data = await self._get(name)
        rollup = open_manifest(name, data, self._trusted).rollup
        names = [manifest_name(epoch, seq) for seq in range(rollup, newest + 1)]
        values = [*await together(partial(self._get, each) for each in names[:-1]), data]
        chain = open_chain(names, values, self._trusted)
        for signer, public in {signer_of(*each) for each in zip(names, values, strict=True)}:
            if await self._get(public_key_name(signer)) != public:
                raise Damaged(
                    f"{public_key_name(signer)} in the archive is not the key that manifests of that signer are signed "
                    "with: one of them was replaced"
                )
        return index_of(chain, hash_of(data), claims)

    # -- what may have been dropped since the index was read

    async def _segment_after(self, position: int) -> tuple[SegmentRef, segments.Segment]:
        async for holdings in self._nearest(position + 1):
            for ref in holdings.segments:
                if ref.first <= position + 1 <= ref.last:
                    return ref, segments.decode_segment(ref, await self._object(ref.hash))
        raise NotFound(f"The archive in {self.store.place} no longer holds position {position + 1}")

    async def _data_keys(self) -> Mapping[str, bytes]:
        digest = self.index.keys
        return decode_keys(object_name(digest), await self._object(digest)) if digest else {}

    async def _all(self) -> AsyncGenerator[Holdings, None]:
        for leaf in self.index.leaves:
            yield await self._leaf(leaf)
        yield self.index.held

    async def _nearest(self, position: int) -> AsyncGenerator[Holdings, None]:
        """All there is, likeliest first to hold something of `position`. (What came late is in a later leaf.)"""
        index = self.index
        tail = index.leaves[-1].last if index.leaves else index.base.position
        if position > tail:
            yield index.held
        near = [leaf for leaf in index.leaves if leaf.first <= position]
        far = index.leaves[len(near) :]
        for leaf in (*reversed(near), *far):
            yield await self._leaf(leaf)
        if position <= tail:
            yield index.held

    async def _leaf(self, ref: LeafRef) -> Holdings:
        return (await self._whole_leaf(ref)).between(ref.first - 1, ref.last)

    async def _whole_leaf(self, ref: LeafRef) -> Holdings:
        if ref.hash not in self._leaves:
            while len(self._leaves) >= ARCHIVE_LEAVES_REMEMBERED:
                self._leaves.pop(next(iter(self._leaves)))
            self._leaves[ref.hash] = decode_leaf(object_name(ref.hash), await self._object(ref.hash))
        return self._leaves[ref.hash]

    async def _reading(self, step: Callable[[], Awaitable[T]]) -> T:
        """What `step` gives on the index as it is; read anew where the index names what was dropped meanwhile."""
        missing = ""
        for _ in range(ARCHIVE_READ_TRIES):
            try:
                return await step()
            except _Gone as gone:
                if gone.name == missing:
                    break
                missing = gone.name
            await self.load(self._epoch)
        raise self._missing(missing)

    async def _object(self, digest: bytes) -> bytes:
        name = object_name(digest)
        data = await self._get(name)
        if hash_of(data) != digest:
            raise unreadable(name)
        return data

    async def _get(self, name: str) -> bytes:
        data = await self.store.get(name)
        if data is None:
            raise _Gone(name)
        return data

    def _missing(self, name: str) -> Damaged:
        return Damaged(
            f"{name} is missing from the archive in {self.store.place}: it was deleted; put it back from a copy"
        )
