"""What each item of a state adds to its fingerprint: one 4096-bit hash, the same in every role (I4). Pure.

The fingerprint is a sum, modulo 2^4096, of one hash for each item. A sum does not depend on the order of insertion,
and one change costs two hashes whatever the size of the mesh; at this width, finding two sets with one sum is beyond
reach (generalised birthday attacks need some 2^128 steps).
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mesh.kinds import ResourceKey
    from mesh.position import Position
    from mesh.state import TokenEntry, Tombstone

FINGERPRINT_BYTES = 512
FINGERPRINT_MASK = (1 << (8 * FINGERPRINT_BYTES)) - 1
_ENCODE = json.JSONEncoder(
    check_circular=False, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=dict
).encode


def canonical_json(value: Any) -> bytes:
    """One byte string for each JSON value (frozen or plain): sorted members, no spaces, UTF-8."""
    return _ENCODE(value).encode()


@lru_cache(maxsize=2048)
def _item(text: bytes) -> int:
    # Cached, since what one event adds the next one to the same thing takes away.
    return int.from_bytes(hashlib.shake_256(text).digest(FINGERPRINT_BYTES), "big")


def resource_item(digest: bytes) -> int:
    """What the fingerprint counts for a resource of this digest."""
    return _item(b'["resource","%s"]' % digest.hex().encode())


def stone_item(uid: str, stone: Tombstone) -> int:
    """What the fingerprint counts for a tombstone."""
    return _item(canonical_json(("deleted", uid, stone)))


def change_item(container: ResourceKey, position: Position) -> int:
    """What the fingerprint counts for a container's last change."""
    return _item(canonical_json(("changed_in", container, position)))


def token_item(digest: bytes, entry: TokenEntry) -> int:
    """What the fingerprint counts for a token: canonical JSON, written out, since there are many."""
    kept = f'"{entry.kept.digest.hex()}"' if entry.kept else "null"
    epoch, position = entry.position
    text = f'["token","{digest.hex()}","{entry.body.hex()}",[{epoch},{position}],{entry.time_us},{kept}]'
    return _item(text.encode())


def entry_item(table: str, key: Any, entry: tuple[Any, ...]) -> int:
    """What the fingerprint counts for an entry of one of the small tables of a state."""
    return _item(canonical_json((table, key, entry)))
