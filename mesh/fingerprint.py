"""What each item of a state adds to its fingerprint: one 4096-bit hash, the same in every role (I4). Pure.

The fingerprint is a sum, modulo 2^4096, of one hash for each item. A sum does not depend on the order of insertion,
and one change costs two hashes whatever the size of the mesh; at this width, finding two sets with one sum is beyond
reach (generalised birthday attacks need some 2^128 steps).

Changes are written down as they come and counted when the sum is asked for: of a thing that changed often in between,
only the first and the last state are hashed. Every role counts the same, whenever it does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mesh.limits import UNCOUNTED_MAX

if TYPE_CHECKING:
    from mesh.kinds import ResourceKey
    from mesh.position import Position
    from mesh.state import Resource, TokenEntry, Tombstone

FINGERPRINT_BYTES = 512
FINGERPRINT_MASK = (1 << (8 * FINGERPRINT_BYTES)) - 1
_ENCODE = json.JSONEncoder(
    check_circular=False, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=dict
).encode


Item = Callable[[Any, Any], int]
"""What one kind of thing counts for: of its key and its value."""


class Tally:
    """The fingerprint of a state: a value, of which the newest changes may still be uncounted.

    `total`, or what gives it when it is first asked for.
    """

    __slots__ = ("_before", "_change", "_total", "_uncounted")

    def __init__(self, total: int | Callable[[], int] = 0) -> None:
        self._total = total
        self._before: Tally | None = None
        self._change: tuple[tuple[Item, Any], Any, Any] | None = None
        self._uncounted = 0

    def changed(self, item: Item, key: Any, before: Any, after: Any) -> Tally:
        """The tally once what `key` names is `after` and no more `before`; None where there is nothing."""
        if self._uncounted >= UNCOUNTED_MAX:
            self._count()
        made = Tally()
        made._before, made._change, made._uncounted = self, ((item, key), before, after), self._uncounted + 1
        return made

    @property
    def total(self) -> int:
        """The fingerprint."""
        if self._before is not None:
            self._count()
        return self._settled()

    def _settled(self) -> int:
        total = self._total
        if not isinstance(total, int):
            total = self._total = total() & FINGERPRINT_MASK
        return total

    def _count(self) -> None:
        first: dict[tuple[Item, Any], Any] = {}
        last: dict[tuple[Item, Any], Any] = {}
        at = self
        while (before := at._before) is not None and at._change is not None:
            slot, was, became = at._change
            last.setdefault(slot, became)
            first[slot] = was
            at = before
        total = at._settled()
        for (item, key), became in last.items():
            was = first[item, key]
            if became is not was:
                total += (0 if became is None else item(key, became)) - (0 if was is None else item(key, was))
        # The same value as before, in another form: whoever counts it meanwhile in another thread gets the same.
        self._total = total & FINGERPRINT_MASK
        self._before, self._uncounted = None, 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tally) and self.total == other.total

    def __hash__(self) -> int:
        return hash(self.total)

    def __repr__(self) -> str:
        return f"Tally(uncounted={self._uncounted})"


def canonical_json(value: Any) -> bytes:
    """One byte string for each JSON value (frozen or plain): sorted members, no spaces, UTF-8."""
    return _ENCODE(value).encode()


@lru_cache(maxsize=2048)
def _item(text: bytes) -> int:
    # Cached, since what one event adds the next one to the same thing takes away.
    return int.from_bytes(hashlib.shake_256(text).digest(FINGERPRINT_BYTES), "big")


def resource_item(key: ResourceKey, resource: Resource) -> int:  # noqa: ARG001 - the key is in the digest
    """What the fingerprint counts for a resource."""
    return _item(b'["resource","%s"]' % resource.digest.hex().encode())


def stone_item(uid: str, stone: Tombstone) -> int:
    """What the fingerprint counts for a tombstone."""
    return _item(canonical_json(("deleted", uid, stone)))


def change_item(container: ResourceKey, position: Position) -> int:
    """What the fingerprint counts for a container's last change."""
    return _item(canonical_json(("changed_in", container, position)))


def token_item(digest: bytes, entry: TokenEntry) -> int:
    """What the fingerprint counts for a token: written out, since there are many.

    The answer counts by what it is of: uid, version and the position of its change. Its content follows from those.
    """
    epoch, position = entry.position
    text = f'["token","{digest.hex()}","{entry.body.hex()}",[{epoch},{position}],{entry.time_us},'
    if entry.kept is not None:
        uid, version, changed_at = entry.kept.mark
        text += f"{version},{changed_at},{uid}"
    return _item(text.encode())


def entry_item(place: tuple[str, Any], entry: tuple[Any, ...]) -> int:
    """What the fingerprint counts for an entry of one of the small tables of a state: the table's name and the key."""
    return _item(canonical_json((*place, entry)))
