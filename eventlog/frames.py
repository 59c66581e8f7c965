"""Frames: what one append writes. Stored records become one value, a position becomes a key name, and back.

A frame is always a msgpack array of stored records (each a bin), also when it holds one, and is keyed by the position
of its last record. Nothing here looks inside a record.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgpack

from mesh.errors import Damaged, LimitExceeded
from mesh.position import Position
from runtime.limits import MAX_FRAME_BYTES

_NAME = re.compile(r"([1-9][0-9]{0,18})/([0-9]{20})", re.ASCII)


def frame_name(last: Position) -> str:
    """`<epoch>/<position:020d>`, the key's name under `log/`: names of one epoch sort by position."""
    return f"{last.epoch}/{last.position:020d}"


def parse_frame_name(name: str) -> Position | None:
    """The position that a key's name under `log/` stands for, or None if no frame has such a name."""
    match = _NAME.fullmatch(name)
    if match is None or int(match[2]) == 0:
        return None
    return Position(int(match[1]), int(match[2]))


def encode_frame(stored_records: Sequence[bytes]) -> bytes:
    """Stored records as one value; LimitExceeded over 256 KiB (no value in the store is larger)."""
    packed: bytes = msgpack.packb(list(stored_records))
    if len(packed) > MAX_FRAME_BYTES:
        raise LimitExceeded(
            f"The change takes {len(packed)} bytes of the log, and one entry holds at most {MAX_FRAME_BYTES}: "
            "make the specification smaller or split the change"
        )
    return packed


def decode_frame(value: bytes, last: Position) -> tuple[bytes, ...]:
    """The stored records of the frame keyed `last`; Damaged if it is no frame or says more than its key allows."""
    try:
        records = msgpack.unpackb(value)
    except (ValueError, TypeError, msgpack.UnpackException) as failure:
        raise Damaged(_unreadable(last)) from failure
    if not isinstance(records, list) or not records or not all(isinstance(record, bytes) for record in records):
        raise Damaged(_unreadable(last))
    # A second spelling of the same array would be bytes that no hash covers.
    if len(records) > last.position or msgpack.packb(records) != value:
        raise Damaged(_unreadable(last))
    return tuple(records)


def _unreadable(last: Position) -> str:
    return f"The log's frame at {last} is not readable: its bytes were changed; run `meshlog fsck`"
