"""What goes into and comes out of etcd, as plain values: the rest of the tree never sees a message of etcd's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class KeyValue(NamedTuple):
    """A key as stored. `lease` is 0 for none."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int


class RangeResult(NamedTuple):
    """Keys in order, as of store revision `revision`. `more`: the limit cut it short."""

    items: Sequence[KeyValue]
    revision: int
    more: bool


class RangeRead(NamedTuple):
    """Which keys to read: from `key` up to, not including, `range_end` (empty: `key` alone)."""

    key: bytes
    range_end: bytes = b""
    limit: int = 0
    revision: int = 0
    keys_only: bool = False


class ValueIs(NamedTuple):
    key: bytes
    value: bytes


class ModRevisionIs(NamedTuple):
    """0: the key does not exist."""

    key: bytes
    revision: int


class CreateRevisionIs(NamedTuple):
    """0: the key does not exist. Any other: it is still the same key, the fencing token of a leased one."""

    key: bytes
    revision: int


Comparison = ValueIs | ModRevisionIs | CreateRevisionIs


class Put(NamedTuple):
    key: bytes
    value: bytes
    lease: int = 0


class Delete(NamedTuple):
    key: bytes
    range_end: bytes = b""


Operation = Put | Delete | RangeRead


class TxnDone(NamedTuple):
    """The Txn was carried out: its success branch, or its failure branch. `reads` has one result for each RangeRead."""

    succeeded: bool
    revision: int
    reads: Sequence[RangeResult]


class TxnUnknown(NamedTuple):
    """It may have been carried out, may yet be, or never will."""

    reason: str


class TxnRefused(NamedTuple):
    """It certainly was not, for a reason that may pass."""

    reason: str


TxnOutcome = TxnDone | TxnUnknown | TxnRefused


class KeyEvent(NamedTuple):
    """One change of one key. A deletion has an empty value."""

    item: KeyValue
    deleted: bool


class WatchUpdate(NamedTuple):
    """Changes in order, no store revision split; none of them: a sign of life at `revision`."""

    events: Sequence[KeyEvent]
    revision: int


class MemberStatus(NamedTuple):
    """One member's own account of itself. Sizes in bytes; `error` is why it gave none.

    `quota_bytes` is 0 where a release does not tell it (etcd before 3.6).
    """

    zone: str
    address: str
    version: str = ""
    member_id: int = 0
    leader_id: int = 0
    raft_term: int = 0
    db_size_bytes: int = 0
    db_in_use_bytes: int = 0
    alarms: Sequence[str] = ()
    error: str = ""
    quota_bytes: int = 0
    applied_index: int = 0

    @property
    def leads(self) -> bool:
        return self.member_id != 0 and self.member_id == self.leader_id


class RevisionCompacted(Exception):  # noqa: N818 - a condition that the reader always handles by listing again
    """etcd no longer has the revision that was asked for. `compact_revision` is 0 where etcd does not tell."""

    def __init__(self, compact_revision: int = 0) -> None:
        super().__init__(f"compacted at {compact_revision}")
        self.compact_revision = compact_revision


def prefix_end(prefix: bytes) -> bytes:
    """The `range_end` that makes a range of all keys with the prefix."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes((trimmed[-1] + 1,)) if trimmed else b"\0"
