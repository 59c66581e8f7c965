"""The hash chain: frames in, stored records with their place and proof of order out. Pure, needs no key.

Every record carries the SHA-256 of the stored bytes of the one before it; the head carries that of the last. So a
record's own bytes are proven by what comes after it, and `Chain` gives a record out only when they are: the last one
of a listing's page waits for the next page or the head. It must never skip, reorder or repeat a position.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from eventlog.driver import StoredFrame
from eventlog.frames import decode_frame
from eventlog.records import Head
from eventlog.sealing import SealedEnvelope, parse_stored
from mesh.errors import Damaged, IntegrityError, LogTrimmed
from mesh.position import Position


class ChainedRecord(NamedTuple):
    """A stored record that the chain vouches for. `as_head` is the point right after it."""

    as_head: Head
    envelope: SealedEnvelope
    mod_revision: int


class Chain:
    """Follows one epoch's chain from a point. `point` is the last record taken in, `proven` the last one given out."""

    def __init__(self, start: Head) -> None:
        self.point = start
        self.proven = start
        self._held: ChainedRecord | None = None

    def extend(self, frames: Iterable[StoredFrame]) -> tuple[list[ChainedRecord], IntegrityError | None]:
        """Take in frames; return the records proven by what follows them, and what stopped it, if anything did."""
        proven: list[ChainedRecord] = []
        try:
            for frame in frames:
                self._take(frame, proven)
        except IntegrityError as failure:
            return proven, failure
        return proven, None

    def settle(self, head: Head) -> ChainedRecord | None:
        """Prove the last record by the head; Damaged if they differ. None if it was proven already."""
        if head != self.point:
            raise Damaged(
                f"The log's head says {head.at} with hash {head.hash.hex()[:16]}…, its records end at {self.point.at} "
                f"with hash {self.point.hash.hex()[:16]}…: run `meshlog fsck` and restore from the archive"
            )
        held, self._held = self._held, None
        self.proven = self.point
        return held

    def drop_unproven(self) -> None:
        """Forget what was taken in and not given out, to read it again."""
        self._held, self.point = None, self.proven

    def _take(self, frame: StoredFrame, proven: list[ChainedRecord]) -> None:
        stored_records = decode_frame(frame.value, frame.last)
        first = frame.last.position - len(stored_records) + 1
        point = self.point
        if frame.last.epoch != point.epoch or first != point.position + 1:
            later = frame.last.epoch == point.epoch and first > point.position + 1
            raise (LogTrimmed if later else Damaged)(
                f"The log is broken after {point.at}: the next frame holds {first} to {frame.last.position} of epoch "
                f"{frame.last.epoch}; run `meshlog fsck` and restore from the archive"
            )
        for offset, stored in enumerate(stored_records):
            position = Position(point.epoch, first + offset)
            envelope = parse_stored(stored, position)
            if envelope.previous_hash != self.point.hash:
                blamed = f"record {self.point.at} or record {position}" if self.point.position else f"record {position}"
                raise Damaged(
                    f"The log's chain is broken between {self.point.at} and {position}: the bytes of {blamed} were "
                    "changed; run `meshlog fsck` and restore from the archive"
                )
            if self._held is not None:
                proven.append(self._held)
                self.proven = self.point
            self.point = Head(point.log_id, point.epoch, position.position, hashlib.sha256(stored).digest())
            self._held = ChainedRecord(self.point, envelope, frame.mod_revision)
