"""One append, from a sealed Txn to a certain answer. Sans-I/O: results in, the next thing to do out.

    Committed                                     → Done
    HeadMoved to our own new head                 → Done (an earlier sending had landed)
    HeadMoved elsewhere, every answer was certain → Lost
    HeadMoved elsewhere after a lost answer       → look at what now follows the expected head: our frame → Done,
                                                    another's frame → Lost, neither (trimmed away) → Unresolved
    Unknown                                       → the same Txn again, until the deadline → Unresolved
    Refused                                       → likewise, but NotWritten if no answer was ever lost

Why repeating is safe: the Txn compares the head's value, which names a position and a hash and so never comes back.
While it stands, a lost sending may yet land, and another sending of the same bytes lands at most once; once it is
gone, neither can. So nothing definite may be said while the head stands unchanged and an answer is missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from eventlog.driver import AppendResult, AppendTxn, Committed, HeadMoved, Refused, StoredFrame, Unknown
from eventlog.frames import decode_frame
from eventlog.records import Head, HeadRef
from eventlog.sealing import parse_stored
from mesh.errors import TimelineMoved
from runtime.limits import APPEND_PAUSE_S


class Send(NamedTuple):
    """Wait `pause_s`, send the Txn, report to `on_result`."""

    txn: AppendTxn
    pause_s: float


class ReadNext(NamedTuple):
    """Wait `pause_s`, read the first frame after `after` by a quorum read, report to `on_next_frame`."""

    after: Head
    pause_s: float


class Done(NamedTuple):
    """It is in the log, once. `head` is the head that it made."""

    head: HeadRef


class Lost(NamedTuple):
    """It is not in the log and never will be. `head` is the head as it is now."""

    head: HeadRef


class Unresolved(NamedTuple):
    """The deadline passed and nobody knows."""

    reason: str


class NotWritten(NamedTuple):
    """The deadline passed, and every sending was refused."""

    reason: str


AppendAction = Send | ReadNext | Done | Lost | Unresolved | NotWritten

_PAUSE_GROWTH = 2.0
_PAUSE_CEILING = 10.0


class AppendMachine:
    """Drives one Txn. Times are monotonic seconds."""

    def __init__(self, txn: AppendTxn, deadline_s: float) -> None:
        self._txn = txn
        self._deadline_s = deadline_s
        self._in_doubt = ""
        self._pause_s = 0.0
        self._current: HeadRef | None = None

    def start(self) -> Send:
        """The first sending."""
        return Send(self._txn, 0.0)

    def on_result(self, result: AppendResult, now_s: float) -> AppendAction:
        """What a sending came to. TimelineMoved if the head is of another history."""
        if isinstance(result, Committed):
            return Done(HeadRef(self._txn.head, result.mod_revision))
        if isinstance(result, Unknown):
            self._in_doubt = result.reason
            return self._again(now_s)
        if isinstance(result, Refused):
            return self._again(now_s) if self._in_doubt else self._again(now_s, NotWritten(result.reason))
        return self._on_moved(result)

    def on_next_frame(self, frames: Sequence[StoredFrame]) -> AppendAction:
        """What follows the expected head now."""
        expected, ours = self._txn.expected.head, self._txn.head
        current = self._current
        assert current is not None  # noqa: S101 - ReadNext is only ever given after HeadMoved
        if frames:
            frame = frames[0]
            if frame.last == ours.at and frame.value == self._txn.frame:
                return Done(HeadRef(ours, frame.mod_revision))
            first = decode_frame(frame.value, frame.last)[0]
            if parse_stored(first, frame.last).previous_hash == expected.hash:
                return Lost(current)
        return Unresolved(f"{self._in_doubt}; the log after {expected.at} is no longer in the store to look it up")

    def on_read_failed(self, reason: str, now_s: float) -> AppendAction:
        """The look at what follows failed; try again until the deadline."""
        self._in_doubt = reason
        return self._again(now_s)

    def _on_moved(self, moved: HeadMoved) -> AppendAction:
        expected, ours, current = self._txn.expected.head, self._txn.head, moved.current
        if current is None:
            raise TimelineMoved(
                f"The log's head is gone; it was at {expected.at}: the store was emptied or replaced: find out why"
            )
        if current.head == ours:
            return Done(current)
        check_same_timeline(expected, current.head)
        if not self._in_doubt:
            return Lost(current)
        if current.head == expected:
            # Same value, other revision: the head was written anew, so neither sending can have landed, nor will.
            return Lost(current)
        self._current = current
        return ReadNext(expected, 0.0)

    def _again(self, now_s: float, too_late: NotWritten | None = None) -> AppendAction:
        self._pause_s = min(max(self._pause_s * _PAUSE_GROWTH, APPEND_PAUSE_S), APPEND_PAUSE_S * _PAUSE_CEILING)
        if now_s + self._pause_s >= self._deadline_s:
            return too_late or Unresolved(self._in_doubt)
        if self._current is not None:
            return ReadNext(self._txn.expected.head, self._pause_s)
        return Send(self._txn, self._pause_s)


def check_same_timeline(known: Head, seen: Head) -> None:
    """TimelineMoved unless `seen` is `known` or a later head of the same history."""
    if seen.log_id != known.log_id:
        raise TimelineMoved(f"The store holds another log now ({seen.log_id}, was {known.log_id}): stop, find out why")
    if seen.epoch != known.epoch:
        raise TimelineMoved(
            f"The log is in epoch {seen.epoch}, this process in epoch {known.epoch}: a restore started a new timeline; "
            "start this process anew"
        )
    if seen.position < known.position or (seen.position == known.position and seen.hash != known.hash):
        raise TimelineMoved(
            f"The log's head moved back: it is at {seen.at} ({seen.hash.hex()[:16]}…), it was at {known.at} "
            f"({known.hash.hex()[:16]}…): stop, find out why"
        )


def new_head(expected: Head, stored_records: Sequence[bytes]) -> Head:
    """The head after `stored_records`, which were sealed to follow `expected` one after the other."""
    digest = hashlib.sha256(stored_records[-1]).digest()
    return Head(expected.log_id, expected.epoch, expected.position + len(stored_records), digest)
