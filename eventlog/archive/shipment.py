"""Shipments: an index and what is to be added become the objects and the manifest of one step of the archive. Pure.

A shipment's objects are put first and its manifest last, under a name that only one can take; until then nothing
refers to them. A roll-up adds nothing: it merges small segments, folds full stretches of the index into leaves, moves
the base to a newer checkpoint when time has passed, and lists the objects that are needed no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from eventlog.archive.index import ArchiveIndex, cut_leaves
from eventlog.archive.manifest import (
    CheckpointRef,
    Holdings,
    LeafRef,
    Manifest,
    PartRef,
    SegmentRef,
    encode_dropped,
    encode_keys,
    encode_leaf,
    hash_of,
    manifest_name,
    object_name,
    seal_manifest,
)
from eventlog.archive.news import CheckpointCopy, News
from eventlog.archive.segments import ArchivedFrame, Segment, decode_segment, encode_segment, segment_ref
from eventlog.records import Head
from eventlog.signing import SigningKey
from runtime.limits import (
    ARCHIVE_LEAF_ENTRIES,
    ARCHIVE_MERGE_BYTES,
    ARCHIVE_POLL_S,
    ARCHIVE_ROLLUP_MANIFESTS,
    ARCHIVE_SHIPMENT_BYTES,
)


class Stamp(NamedTuple):
    """Who ships, when, and under which fencing token. `nonce` is fresh: it sets these objects apart from all others."""

    signer: SigningKey
    token: int
    created_us: int
    nonce: bytes


class Shape(NamedTuple):
    """How an archive is rolled up: after how many manifests, into segments and leaves how large; and how often the log
    is looked at while nothing happens."""

    manifests: int = ARCHIVE_ROLLUP_MANIFESTS
    merge_bytes: int = ARCHIVE_MERGE_BYTES
    segment_bytes: int = ARCHIVE_SHIPMENT_BYTES
    leaf_entries: int = ARCHIVE_LEAF_ENTRIES
    poll_s: float = ARCHIVE_POLL_S


DEFAULT_SHAPE = Shape()


class Shipment(NamedTuple):
    """Objects to put, by name and in order, then the manifest. `data` are its bytes."""

    objects: Mapping[str, bytes]
    name: str
    data: bytes
    manifest: Manifest


class Floor(NamedTuple):
    """Where retention lets the archive begin: at a checkpoint's point.

    `leaves` are those that end there or before, each with all that it holds.
    """

    base: Head
    leaves: Mapping[LeafRef, Holdings]


def ship(index: ArchiveIndex, news: News, stamp: Stamp) -> Shipment:
    """The next manifest, adding `news`. The first of an epoch says all that is held."""
    objects: dict[str, bytes] = {}
    segments: list[SegmentRef] = []
    if news.frames:
        segment = Segment(index.log_id, index.epoch, news.frames)
        segments.append(_put_segment(objects, segment, index.head.position + 1, stamp.nonce))
    checkpoints = [_put_checkpoint(objects, copy) for copy in news.checkpoints]
    parts = [PartRef(_put(objects, copy.data), len(copy.data), copy.name, copy.after) for copy in news.parts]
    keys = index.keys
    if news.keys is not None:
        keys = _put(objects, encode_keys(news.keys, index.log_id, stamp.nonce))
    added = Holdings(tuple(segments), tuple(checkpoints), tuple(parts))
    first = index.newest is None
    manifest = _next(index, stamp)._replace(
        head=news.head,
        time_us=news.frames[-1].time_us if news.frames else index.time_us,
        rollup=1 if first else index.rollup,
        keys=keys,
        held=index.held.joined(added) if first else added,
        leaves=index.leaves if first else (),
    )
    return _sealed(objects, manifest, stamp)


def to_merge(index: ArchiveIndex, shape: Shape = DEFAULT_SHAPE) -> tuple[SegmentRef, ...]:
    """The last segments, from the first one on that is not larger than all after it together.

    So what is left has sizes that fall by half, and a byte is written again only when what follows has doubled. Large
    segments stay as they are, and so do those of older epochs, whose own manifests still name them.
    """
    segments = index.held.segments
    after, begin = 0, len(segments)
    for number in range(len(segments) - 1, -1, -1):
        ref = segments[number]
        if ref.size_bytes >= shape.merge_bytes or ref.epoch != index.epoch:
            break
        if ref.size_bytes <= after:
            begin = number
        after += ref.size_bytes
    return segments[begin:]


def raised(index: ArchiveIndex, floor: Floor) -> tuple[ArchiveIndex, set[bytes]]:
    """The index with its base at the floor, and the objects that it names no more."""
    at = floor.base.position
    left = [leaf for leaf in index.leaves if leaf.last > at]
    gone = {leaf: held for leaf, held in floor.leaves.items() if leaf not in left}
    # What came late, or may be named late, is wanted still though its leaf goes.
    carried = Holdings()
    for held in gone.values():
        carried = carried.joined(held.between(at, index.head.position)._replace(segments=()))
    held = carried.joined(index.held.between(at, index.head.position))
    before = index.held.hashes().union({leaf.hash for leaf in gone}, *(each.hashes() for each in gone.values()))
    index = index._replace(base=floor.base, leaves=cut_leaves(left, at, index.head.position), held=held)
    return index, before - held.hashes()


def roll_up(
    index: ArchiveIndex, gone: set[bytes], segments: Mapping[bytes, bytes], stamp: Stamp, shape: Shape = DEFAULT_SHAPE
) -> Shipment:
    """The next manifest, as a roll-up of an index (maybe `raised`, which made `gone` superfluous).

    `segments` are the bytes of those that `to_merge` names.
    """
    objects: dict[str, bytes] = {}
    merging = to_merge(index, shape)
    stable = index.held.segments[: len(index.held.segments) - len(merging)]
    leaves, rest = _spill(objects, index.held._replace(segments=stable), shape.leaf_entries)
    merged: list[SegmentRef] = []
    frames = [frame for ref in merging for frame in decode_segment(ref, segments[ref.hash]).frames]
    for chunk in _chunks(frames, shape.segment_bytes):
        first = merged[-1].last + 1 if merged else merging[0].first
        merged.append(_put_segment(objects, Segment(index.log_id, index.epoch, chunk), first, stamp.nonce))
    held = rest._replace(segments=rest.segments + tuple(merged))
    leaves = index.leaves + leaves
    gone = gone | index.superseded | {ref.hash for ref in merging} | ({index.dropped} if index.dropped else set())
    gone -= held.hashes()
    manifest = _next(index, stamp)
    manifest = manifest._replace(
        rollup=manifest.seq,
        held=held,
        leaves=leaves,
        dropped=_put(objects, encode_dropped(gone)) if gone else b"",
    )
    return _sealed(objects, manifest, stamp)


def _spill(objects: dict[str, bytes], held: Holdings, entries: int) -> tuple[tuple[LeafRef, ...], Holdings]:
    """A leaf of what stays as it is, if that is enough for one, and what is left."""
    segments = held.segments
    if not segments or sum(len(refs) for refs in held) < entries:
        return (), held
    last = segments[-1].last
    leaf = Holdings(
        segments,
        tuple(ref for ref in held.checkpoints if ref.at.position <= last),
        tuple(ref for ref in held.parts if ref.after.position < last),
    )
    rest = Holdings(
        (),
        tuple(ref for ref in held.checkpoints if ref.at.position > last),
        tuple(ref for ref in held.parts if ref.after.position >= last),
    )
    data = encode_leaf(leaf)
    times = segments[0].first_time_us, segments[-1].last_time_us
    return (LeafRef(_put(objects, data), len(data), segments[0].first, last, *times),), rest


def _chunks(frames: Sequence[ArchivedFrame], limit_bytes: int) -> Iterable[tuple[ArchivedFrame, ...]]:
    begin, size = 0, 0
    for number, frame in enumerate(frames):
        if size and size + len(frame.value) > limit_bytes:
            yield tuple(frames[begin:number])
            begin, size = number, 0
        size += len(frame.value)
    if frames:
        yield tuple(frames[begin:])


def _put_segment(objects: dict[str, bytes], segment: Segment, first: int, nonce: bytes) -> SegmentRef:
    data = encode_segment(segment, nonce)
    _put(objects, data)
    return segment_ref(segment, data, first)


def _put_checkpoint(objects: dict[str, bytes], copy: CheckpointCopy) -> CheckpointRef:
    parts = tuple(_put(objects, part) for part in copy.parts)
    digest, manifest = _put(objects, copy.data), copy.manifest
    return CheckpointRef(digest, len(copy.data), manifest.at.at, manifest.state_at, manifest.time_us, parts)


def _put(objects: dict[str, bytes], data: bytes) -> bytes:
    digest = hash_of(data)
    objects[object_name(digest)] = data
    return digest


def _next(index: ArchiveIndex, stamp: Stamp) -> Manifest:
    """The manifest after the index's newest, adding nothing."""
    newest = index.newest
    return Manifest(
        index.log_id,
        index.epoch,
        newest.seq + 1 if newest else 1,
        newest.hash if newest else b"",
        stamp.token,
        stamp.created_us,
        index.base,
        index.head,
        index.time_us,
        index.rollup,
        index.keys,
        Holdings(),
    )


def _sealed(objects: Mapping[str, bytes], manifest: Manifest, stamp: Stamp) -> Shipment:
    data = seal_manifest(manifest, stamp.signer)
    return Shipment(objects, manifest_name(manifest.epoch, manifest.seq), data, manifest)
