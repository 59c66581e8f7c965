"""The port between the log and what stores it: one head, frames, named entries beside them, and a watch over the log.

Entries are all that is not head or frame, by their name under the log's prefix: `datakey/<id>`, `blob/…`,
`checkpoint/…`, `archive`. A duty writes them, and trims, under a fence: its leased key, as it was when the duty began.

A driver moves bytes and compares the head; it never seals, opens or verifies. `drivers.memory` is the reference and
`drivers.etcd` the real one; tests/eventlog/conformance.py holds what both must do.

Errors: every read raises NoQuorum when the store cannot answer in time, SettingsError when it refuses this user and
TimelineMoved when it is not the store it was. Writes return `Unknown` instead of guessing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import NamedTuple, Protocol

from eventlog.records import Head, HeadRef
from mesh.position import Position


class StoredFrame(NamedTuple):
    """A frame as stored. `last` is its key: the epoch, and the position of its last record."""

    last: Position
    value: bytes
    mod_revision: int


class AppendTxn(NamedTuple):
    """One append, complete: repeating it is safe, since one head value can be replaced once."""

    expected: HeadRef
    frame: bytes
    head: Head


class Committed(NamedTuple):
    """It is in the log; `mod_revision` is the new head's."""

    mod_revision: int


class HeadMoved(NamedTuple):
    """Refused: what was compared is not as expected. `current` is the head after an append; None: there is none, or
    another thing was compared."""

    current: HeadRef | None


class Unknown(NamedTuple):
    """No answer that can be trusted: it may have landed, may yet land, or never will."""

    reason: str


class Refused(NamedTuple):
    """This sending certainly did not land, for a reason that may pass: the store is overloaded."""

    reason: str


AppendResult = Committed | HeadMoved | Unknown | Refused


class FramePage(NamedTuple):
    """Frames in order, as of store revision `revision`; `more` tells that the listing goes on.

    `head` is the head as of the same revision; None if there is none, and on pages of a named revision, which are a
    first page's continuation.
    """

    frames: Sequence[StoredFrame]
    revision: int
    more: bool
    head: HeadRef | None


class RawEntry(NamedTuple):
    """One key under `log/`, unparsed: what follows `log/` in its name, and its value."""

    name: str
    value: bytes
    mod_revision: int


class RawPage(NamedTuple):
    """Entries in the order of their names, as of store revision `revision`; `head` as in a FramePage."""

    entries: Sequence[RawEntry]
    revision: int
    more: bool
    head: HeadRef | None


class Entry(NamedTuple):
    """One named entry as stored. `value` is empty where only names were asked for."""

    value: bytes
    mod_revision: int


class Fence(NamedTuple):
    """A duty that is held: `token` is the create_revision of `duties/<name>`, gone with the holder's lease."""

    name: str
    token: int


class WatchBatch(NamedTuple):
    """What one store revision changed, whole. `head` is None if it did not touch the head.

    With no frames and no head it is a sign of life: the store has nothing newer.
    """

    revision: int
    frames: Sequence[StoredFrame] = ()
    head: HeadRef | None = None
    head_deleted: bool = False


class Compacted(Exception):  # noqa: N818 - a condition of the store that a follower always handles, not an error
    """The store no longer has what changed since the asked revision; list again. Never reaches a caller."""


class LogDriver(Protocol):
    """One log in one store."""

    async def read_head(self) -> HeadRef | None:
        """The head by a quorum (linearizable) read; None: no log here yet. Damaged if it is unreadable."""
        ...

    async def create(self, head: Head, data_keys: Mapping[str, bytes]) -> AppendResult:
        """Write the first head and wrapped data keys, only if there is no head; HeadMoved otherwise."""
        ...

    async def append(self, txn: AppendTxn) -> AppendResult:
        """Compare the head's value and mod_revision; put the frame and the new head. Sent once, never retried here.

        LimitExceeded if the store calls it too large.
        """
        ...

    async def read_frames(self, after: Position, limit: int, revision: int | None = None) -> FramePage:
        """Frames of epoch `after.epoch` keyed beyond `after.position`, at most `limit`.

        A quorum read of the present, frames and head as of one moment; or of store revision `revision`, to go on
        with a listing (raises Compacted if that is gone).
        """
        ...

    async def scan(self, after: str, limit: int, revision: int | None = None) -> RawPage:
        """Every key under `log/` whose name sorts after `after` ("" to begin), whatever it is: for fsck."""
        ...

    def watch(self, from_revision: int) -> AsyncGenerator[WatchBatch, None]:
        """Changes of frames and head from `from_revision` on, revision by revision, each once and whole.

        Goes on by itself over lost members; raises Compacted if `from_revision` is gone. Close it with `aclose`.
        """
        ...

    async def read_entry(self, name: str) -> Entry | None:
        """One entry by a quorum read."""
        ...

    async def list_entries(self, prefix: str, *, keys_only: bool = False) -> Mapping[str, Entry]:
        """All entries whose names begin with `prefix`, as of one moment, sorted by name; a quorum read."""
        ...

    async def write_entries(
        self, puts: Mapping[str, bytes | None], *, expected: Mapping[str, int] = {}, fence: Fence | None = None
    ) -> AppendResult:
        """Set entries (None: delete) in one Txn, if each name in `expected` has that mod_revision (0: absent) and the
        fence stands; HeadMoved(None) if not. Sent once. LimitExceeded if the store calls it too large."""
        ...

    async def trim(self, upto: Position, *, expected: Mapping[str, int], fence: Fence | None = None) -> AppendResult:
        """Delete the frames of epoch `upto.epoch` keyed up to and including `upto`, in one Txn, under the same
        conditions as `write_entries`. The head is untouched."""
        ...

    async def list_data_keys(self) -> Mapping[str, Entry]:
        """The entries under `datakey/`, by id."""
        ...

    async def put_data_key(self, key_id: str, value: bytes, expected_mod_revision: int) -> AppendResult:
        """Write a wrapped data key if its mod_revision is the expected one (0: only if it is new).

        HeadMoved(None) if it is not.
        """
        ...
