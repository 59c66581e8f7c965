"""Segments: stretches of the log as objects. Frames as they are in etcd, and when they were, become bytes, and back.

    segment = msgpack [1, log id, epoch, nonce, [[position of the last record, [time_us, …], frame], …]]

The times are those of the frame's records, or one if all are equal: so a moment is found without any key. The nonce
sets apart what two archivers made of the same frames, so that no object is ever put again after it was dropped.
Frames are cut where a timeline leaves in the middle of one. Pure; verifies no chain: readers do.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgpack

from eventlog.archive.manifest import FORMAT, SegmentRef, hash_of, object_name, unreadable
from eventlog.driver import StoredFrame
from eventlog.frames import decode_frame, encode_frame
from mesh.position import Position


class ArchivedFrame(NamedTuple):
    """A frame as archived: the position of its last record, the log time of each record (one if all are equal)."""

    last: int
    times_us: tuple[int, ...]
    value: bytes

    @property
    def time_us(self) -> int:
        return self.times_us[-1]


class Segment(NamedTuple):
    """Frames of one epoch, in order."""

    log_id: str
    epoch: int
    frames: tuple[ArchivedFrame, ...]


def encode_segment(segment: Segment, nonce: bytes) -> bytes:
    packed: bytes = msgpack.packb([FORMAT, segment.log_id, segment.epoch, nonce, segment.frames])
    return packed


def decode_segment(ref: SegmentRef, data: bytes) -> Segment:
    """The frames of `ref`'s object, whose bytes were checked by their hash; cut to what `ref` says of it."""
    try:
        form, log_id, epoch, _, frames = msgpack.unpackb(data)
        archived = tuple(ArchivedFrame(last, tuple(times), value) for last, times, value in frames)
    except (ValueError, TypeError, msgpack.UnpackException) as failure:
        raise unreadable(object_name(ref.hash)) from failure
    if form != FORMAT or epoch != ref.epoch:
        raise unreadable(object_name(ref.hash))
    return Segment(log_id, epoch, tuple(cut_frames(archived, epoch, ref.first - 1, ref.last)))


def segment_ref(segment: Segment, data: bytes, first: int) -> SegmentRef:
    """How manifests name the segment whose bytes are `data` and whose first record stands at `first`."""
    frames = segment.frames
    times = frames[0].times_us[0], frames[-1].time_us
    return SegmentRef(hash_of(data), len(data), segment.epoch, first, frames[-1].last, *times)


def cut_frames(frames: Iterable[ArchivedFrame], epoch: int, after: int, upto: int) -> Iterator[ArchivedFrame]:
    """The records beyond `after` up to `upto`: whole frames, and what is left of those at the edges."""
    first = None
    for frame in frames:
        if frame.last <= after:
            continue
        if first is not None and first > upto:
            return
        records = decode_frame(frame.value, Position(epoch, frame.last))
        begins = frame.last - len(records) + 1
        low, high = max(after + 1, begins), min(upto, frame.last)
        if low > high:
            return
        first = frame.last + 1
        if (low, high) == (begins, frame.last):
            yield frame
            continue
        times = frame.times_us if len(frame.times_us) > 1 else frame.times_us * len(records)
        kept = slice(low - begins, high - begins + 1)
        yield ArchivedFrame(high, times[kept], encode_frame(records[kept]))


def stored(frames: Iterable[ArchivedFrame], epoch: int) -> Iterator[StoredFrame]:
    """As a driver gives them; an archive knows no store revisions."""
    return (StoredFrame(Position(epoch, frame.last), frame.value, 0) for frame in frames)


def position_at(frames: Sequence[ArchivedFrame], epoch: int, time_us: int) -> int | None:
    """The last position whose record's time is `time_us` or before; None if the first is later already."""
    found: int | None = None
    for frame in frames:
        if frame.times_us[0] > time_us:
            break
        count = len(decode_frame(frame.value, Position(epoch, frame.last)))
        times = frame.times_us if len(frame.times_us) > 1 else frame.times_us * count
        found = frame.last - count + bisect_right(times, time_us)
    return found
