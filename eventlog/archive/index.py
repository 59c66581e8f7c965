"""The index: verified manifests and claims become one picture of what the archive holds along the current timeline.

Pure. Manifests must continue each other from a roll-up on, and what they hold must be without a gap from the base to
the head; anything else is Damaged, naming the object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from eventlog.archive.manifest import (
    EpochClaim,
    Holdings,
    LeafRef,
    Manifest,
    ManifestRef,
    SegmentRef,
    claim_name,
    hash_of,
    manifest_name,
    open_manifest,
)
from eventlog.records import Head
from mesh.errors import Damaged, NotFound, TimelineMoved
from mesh.position import Position


class ArchiveIndex(NamedTuple):
    """What an archive holds: everything after `base` up to `head`, at log time `time_us`.

    `leaves` are stretches of the index still to be read, `held` is the rest of it, after them. `newest` is the newest
    manifest of `head`'s epoch, None before its first; `rollup` the seq of that epoch's newest roll-up. `keys` is the
    object of wrapped data keys, empty before the first. `claims` are all epochs' claims, in order. `superseded` are
    objects that newer ones took the place of since the roll-up, and `stale` manifests that the roll-up made needless.
    """

    base: Head
    head: Head
    time_us: int
    newest: ManifestRef | None
    rollup: int
    keys: bytes
    leaves: tuple[LeafRef, ...]
    held: Holdings
    dropped: bytes
    claims: tuple[EpochClaim, ...]
    superseded: frozenset[bytes] = frozenset()
    stale: tuple[str, ...] = ()

    @property
    def log_id(self) -> str:
        return self.head.log_id

    @property
    def epoch(self) -> int:
        return self.head.epoch

    @property
    def first(self) -> Position:
        """Of the first record that is held, or will be."""
        return Position(self.epoch_at(self.base.position + 1), self.base.position + 1)

    def epoch_at(self, position: int) -> int:
        """The epoch that a position of the current timeline belongs to."""
        claims = {claim.epoch: claim for claim in self.claims}
        epoch = self.epoch
        while epoch in claims and position <= (base := claims[epoch].base).position and base.epoch < epoch:
            epoch = base.epoch
        return epoch

    def check_on_timeline(self, at: Position) -> None:
        """TimelineMoved if `at` is in an epoch's lost tail, NotFound if it is before what is held.

        A later epoch's number stands for the position that its timeline has there.
        """
        if at.position < self.base.position:
            raise NotFound(
                f"The archive begins after {self.base.at}: what was before is beyond the retention; name "
                f"{self.base.at} or later"
            )
        if not self.epoch_at(at.position) <= at.epoch <= self.epoch:
            raise TimelineMoved(
                f"Position {at} is not on the current timeline (epoch {self.epoch}): it was left behind by a restore"
            )


def empty_index(claims: Sequence[EpochClaim]) -> ArchiveIndex:
    """Of an archive that has its first claim and nothing else."""
    claim = claims[0]
    return ArchiveIndex(claim.base, claim.head, 0, None, 0, b"", (), Holdings(), b"", tuple(claims))


def open_chain(names: Sequence[str], data: Sequence[bytes], trusted: Mapping[str, bytes] | None) -> list[Manifest]:
    """Consecutive manifests of one epoch, each verified and continuing the one before; Damaged otherwise."""
    opened: list[Manifest] = []
    for number, (name, value) in enumerate(zip(names, data, strict=True)):
        manifest = open_manifest(name, value, trusted)
        if opened:
            before = opened[-1]
            continues = (
                manifest.seq == before.seq + 1
                and manifest.previous == hash_of(data[number - 1])
                and manifest.log_id == before.log_id
                and manifest.rollup in (before.rollup, manifest.seq)
            )
            if not continues:
                raise Damaged(
                    f"{name} in the archive does not continue {names[number - 1]}: one of them was changed, moved or "
                    "copied from elsewhere; put it back from a copy"
                )
        opened.append(manifest)
    return opened


def index_of(manifests: Sequence[Manifest], newest_hash: bytes, claims: Sequence[EpochClaim]) -> ArchiveIndex:
    """The index that an epoch's manifests give, the first of which is its newest roll-up."""
    rollup, newest = manifests[0], manifests[-1]
    held = rollup.held
    for manifest in manifests[1:]:
        held = held.joined(manifest.held)
    index = ArchiveIndex(
        rollup.base,
        newest.head,
        newest.time_us,
        ManifestRef(newest.epoch, newest.seq, newest_hash),
        rollup.seq,
        newest.keys,
        rollup.leaves,
        held,
        rollup.dropped,
        tuple(claims),
        frozenset(manifest.keys for manifest in manifests) - {newest.keys},
    )
    check_contiguous(index, manifest_name(newest.epoch, newest.seq))
    return index


def check_contiguous(index: ArchiveIndex, name: str) -> None:
    """Damaged, naming manifest `name`, if what the index holds has a gap or an overlap."""
    at = index.base.position
    refs: list[LeafRef | SegmentRef] = [*index.leaves, *index.held.segments]
    for ref in refs:
        if ref.first != at + 1 or ref.last < ref.first:
            raise Damaged(f"The archive is broken after position {at}: {name} goes on at {ref.first}")
        at = ref.last
    if at != index.head.position:
        raise Damaged(f"The archive is broken: {name} says that it reaches {index.head.at}, its segments end at {at}")


def cut(index: ArchiveIndex, claim: EpochClaim) -> ArchiveIndex:
    """The index of the epoch before as the one that `claim` begins sees it; nothing of it may be beyond the claim."""
    base = claim.base
    if base.log_id != index.log_id or base.epoch != index.epoch:
        raise Damaged(
            f"{claim_name(claim.epoch)} in the archive is based on {base.at} of log {base.log_id}: not this one"
        )
    if not index.base.position <= base.position <= index.head.position:
        raise Damaged(
            f"{claim_name(claim.epoch)} in the archive is based on {base.at}, but manifests of epoch {base.epoch} hold "
            f"{index.base.at} to {index.head.at}: some are missing; put them back from a copy"
        )
    return index._replace(
        head=claim.head,
        newest=None,
        rollup=0,
        leaves=cut_leaves(index.leaves, index.base.position, base.position),
        held=index.held.between(index.base.position, base.position),
        dropped=b"",
        superseded=frozenset(),
        stale=(),
    )


def advanced(index: ArchiveIndex, manifest: Manifest, digest: bytes) -> ArchiveIndex:
    """The index after its next manifest, as reading it anew would give it."""
    rolled_up = manifest.rollup == manifest.seq
    return index._replace(
        base=manifest.base,
        head=manifest.head,
        time_us=manifest.time_us,
        newest=ManifestRef(manifest.epoch, manifest.seq, digest),
        rollup=manifest.rollup,
        keys=manifest.keys,
        leaves=manifest.leaves if rolled_up else index.leaves,
        held=manifest.held if rolled_up else index.held.joined(manifest.held),
        dropped=manifest.dropped if rolled_up else index.dropped,
        superseded=frozenset() if rolled_up else (index.superseded | {index.keys}) - {manifest.keys},
        stale=tuple(manifest_name(manifest.epoch, seq) for seq in range(max(index.rollup, 1), manifest.seq))
        if rolled_up
        else index.stale,
    )


def cut_leaves(leaves: Sequence[LeafRef], after: int, upto: int) -> tuple[LeafRef, ...]:
    """The leaves for the positions beyond `after` up to `upto`, and one that may have the checkpoint at `after`."""
    return tuple(
        leaf._replace(first=max(leaf.first, after + 1), last=min(leaf.last, upto))
        for leaf in leaves
        if leaf.last > after and leaf.first <= upto
    )
