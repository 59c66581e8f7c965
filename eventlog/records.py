"""What the log holds, as values: a record before it has a place, a record in its place, and the head.

Nothing here touches bytes on disk but `Head`, whose encoding is the value of the `head` key. A record's stored form is
made and opened by `eventlog.sealing`; this module must never grow a second one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

import msgpack

from mesh.errors import Damaged
from mesh.position import Position

HEAD_FORMAT = 1
HASH_BYTES = 32
FIRST_EPOCH = 1


class KeyClass(StrEnum):
    """The classes of data key. `secrets` (CA keys, access keys) opens in the API role only, and so does `signing`: the
    seeds by which API servers sign checkpoints and archive manifests. No record is sealed with a signing key."""

    CONFIG = "config"
    SECRETS = "secrets"
    SIGNING = "signing"

    @property
    def wrapped_by(self) -> KeyClass:
        """The class whose key-encryption keys wrap data keys of this one."""
        return KeyClass.SECRETS if self is KeyClass.SIGNING else self


class TokenMark(NamedTuple):
    """The idempotency mark of a write: who and what (`digest`), and with which body (`body`). Both SHA-256."""

    digest: bytes
    body: bytes


class BlobRef(NamedTuple):
    """What a record carries instead of data too large for a frame: see eventlog.blobs.

    `id` names the blob and is a salted hash of its content, `size_bytes` long, stored in `parts` parts.
    """

    id: bytes
    salt: bytes
    parts: int
    size_bytes: int


class NewRecord(NamedTuple):
    """A record that has no place in the log yet.

    `data` is a JSON-like mapping (frozen or plain). With `key_class` SECRETS only `data` needs the secrets key to be
    read; the envelope around it opens with the config key, so that every role knows the time and token of every record.
    """

    type: str
    schema: int
    account: str
    actor: str
    source_ip: str
    request_id: str
    token: TokenMark | None
    data: Mapping[str, Any]
    key_class: KeyClass = KeyClass.CONFIG


class Record(NamedTuple):
    """One record in its place, opened. `time_us` never goes back within a log; `wall_us` is the writer's own clock.

    `data` is plain dicts and lists; None only where its key class is not configured in this role, or where it is in
    `blob` and was not read from there yet (`blobs.fetch`).
    """

    position: Position
    time_us: int
    wall_us: int
    type: str
    schema: int
    account: str
    actor: str
    source_ip: str
    request_id: str
    token: TokenMark | None
    data: Mapping[str, Any] | None
    key_class: KeyClass
    blob: BlobRef | None = None


class Head(NamedTuple):
    """A point of the chain: the log's identity, the position of the last record and the SHA-256 of its stored bytes.

    At position 0 `hash` is `genesis_hash(log_id)`. The value of the `head` key is `encode_head(head)`.
    """

    log_id: str
    epoch: int
    position: int
    hash: bytes

    @property
    def at(self) -> Position:
        return Position(self.epoch, self.position)


class HeadRef(NamedTuple):
    """A head together with the store's revision of the write that made it; what an append compares."""

    head: Head
    mod_revision: int


def genesis_hash(log_id: str) -> bytes:
    """The hash that the first record of a log carries as its predecessor's."""
    return hashlib.sha256(b"meshlog/genesis/1\0" + log_id.encode()).digest()


def genesis_head(log_id: str) -> Head:
    """The head of a log that has no record yet."""
    return Head(log_id, FIRST_EPOCH, 0, genesis_hash(log_id))


def encode_head(head: Head) -> bytes:
    """The value of the `head` key: msgpack array [format, log id, epoch, position, hash]."""
    packed: bytes = msgpack.packb([HEAD_FORMAT, head.log_id, head.epoch, head.position, head.hash])
    return packed


def decode_head(value: bytes) -> Head:
    """Read the value of the `head` key; Damaged if it is anything but what `encode_head` writes."""
    try:
        form, log_id, epoch, position, digest = msgpack.unpackb(value)
    except (ValueError, TypeError, msgpack.UnpackException) as failure:
        raise Damaged(_HEAD_UNREADABLE) from failure
    if form != HEAD_FORMAT:
        raise Damaged(f"The log's head has format {form!r}; this build reads format {HEAD_FORMAT}: run a newer build")
    head = Head(log_id, epoch, position, digest)
    sound = (
        isinstance(log_id, str)
        and type(epoch) is int
        and type(position) is int
        and epoch >= FIRST_EPOCH
        and position >= 0
        and isinstance(digest, bytes)
        and len(digest) == HASH_BYTES
    )
    if not sound or encode_head(head) != value:
        raise Damaged(_HEAD_UNREADABLE)
    return head


_HEAD_UNREADABLE = "The log's head is not readable, its bytes were changed: run `meshlog fsck`, restore the archive"
