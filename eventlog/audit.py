"""Audit segments: what API servers refused, kept in the archive, chained and sealed. Never in the log's own store.

    audit/<server id>/<seq:020d>, seq from 1, create-only; one chain for each server
    object = msgpack [1, body, signer's name, public key, signature over purpose + all before it]; unsigned: three empty
             fields
    body   = msgpack [log id, server id, seq, previous, first time, last time, key id, salt, commitment, ciphertext]
    previous is the SHA-256 of the object before, of the first one `chain_start(log id, server id)`
    AAD    = msgpack [purpose, format and all of body up to and with the key id]
    sealed = msgpack [entries, dropped]: entries in the order of their `time_us`, and how many were not kept, by reason

Anybody can follow the chain and check the signatures; what was asked needs the config data key, since request details
are configuration. A chain shows what was changed or taken out of its middle; its last segments can be cut off unseen
until the next one is written, which is why they are written every few seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgpack
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.constant_time import bytes_eq

from eventlog.archive.store import ObjectStore
from eventlog.sealing import DataKey, KeyFinder, compress, decode_data, decompress, derive, encode_data
from eventlog.signing import SIGNATURE_BYTES, SigningKey, check_signer, verify
from mesh.errors import Damaged, WrongKey
from mesh.position import ORIGIN

PREFIX = "audit/"
FORMAT = 1
TIME = "time_us"
_PURPOSE = b"meshlog/audit/1"
_UNSIGNED = ("", b"", b"")

Entry = Mapping[str, Any]
"""One refused call: JSON-like, with its `time_us`."""


class Link(NamedTuple):
    """The end of a server's chain: what the next segment follows. `seq` 0 and the chain's start where there is none."""

    seq: int
    hash: bytes
    last_us: int


class SealedSegment(NamedTuple):
    """A segment as stored, its shape and signature checked. `signer` is empty if nobody signed it."""

    log_id: str
    server_id: str
    seq: int
    previous: bytes
    first_us: int
    last_us: int
    key_id: str
    salt: bytes
    commitment: bytes
    ciphertext: bytes
    signer: str = ""

    @property
    def name(self) -> str:
        return segment_name(self.server_id, self.seq)


class Refusals(NamedTuple):
    """What a segment holds: entries in the order of time, and how many more there were, by error code."""

    entries: Sequence[Entry]
    dropped: Mapping[str, int]


def segment_name(server_id: str, seq: int) -> str:
    return f"{PREFIX}{server_id}/{seq:020d}"


def chain_start(log_id: str, server_id: str) -> bytes:
    """What the first segment of a server names as the hash before it."""
    return hashlib.sha256(b"meshlog/audit-start/1\0" + msgpack.packb([log_id, server_id])).digest()


def seal_segment(
    refusals: Refusals, ids: tuple[str, str], after: Link, key: DataKey, salt: bytes, *, signer: SigningKey | None
) -> bytes:
    """The object that follows `after`. `ids` are log id and server id, `salt` is fresh; without `signer` it is bare."""
    times = [entry[TIME] for entry in refusals.entries] or [after.last_us]
    secret, nonce, commitment = derive(key.material, salt, _PURPOSE)
    segment = SealedSegment(*ids, after.seq + 1, after.hash, times[0], times[-1], key.key_id, salt, commitment, b"")
    plain = compress(encode_data([list(refusals.entries), dict(refusals.dropped)]))
    sealed = segment._replace(ciphertext=AESGCM(secret).encrypt(nonce, plain, _aad(segment)))
    body = _pack(sealed[:-1])
    if signer is None:
        return _pack([FORMAT, body, *_UNSIGNED])
    unsigned = _pack([FORMAT, body, signer.name, signer.public, bytes(SIGNATURE_BYTES)])[:-SIGNATURE_BYTES]
    return unsigned + signer.sign(_PURPOSE + unsigned)


def parse_segment(name: str, data: bytes, trusted: Mapping[str, bytes] | None = None) -> SealedSegment:
    """The segment stored as `name`; Damaged if it is not one, was moved, or its signature is wrong."""
    try:
        form, body, signer, public, signature = msgpack.unpackb(data)
        segment = SealedSegment(*msgpack.unpackb(body))._replace(signer=signer)
        sound = (
            _pack([form, body, signer, public, signature]) == data
            and all(type(number) is int for number in (segment.seq, segment.first_us, segment.last_us))
            and all(isinstance(each, bytes) for each in (segment.previous, *segment[7:10]))
            and form == FORMAT
            and segment.name == name
        )
    except (ValueError, TypeError, msgpack.UnpackException) as failure:
        raise _damaged(name) from failure
    if not sound or ((signer, public, signature) == _UNSIGNED and trusted is not None):
        raise _damaged(name)
    if signer:
        try:
            verify(public, signature, _PURPOSE + data[:-SIGNATURE_BYTES])
            check_signer(signer, public, trusted)
        except Damaged as failure:
            raise Damaged(f"The audit segment {name}: {failure.message}") from failure
    elif public or signature:
        raise _damaged(name)
    return segment


def open_segment(segment: SealedSegment, keys: KeyFinder) -> Refusals:
    """What a segment holds; Damaged, WrongKey or MissingKey."""
    key = keys.find(segment.key_id, ORIGIN)
    secret, nonce, expected = derive(key.material, segment.salt, _PURPOSE)
    if not bytes_eq(expected, segment.commitment):
        raise WrongKey(
            f"The audit segment {segment.name} was not sealed with data key {key.key_id} as it is here: the key under "
            "that id was replaced; restore the right one from the archive or a copy"
        )
    try:
        packed = AESGCM(secret).decrypt(nonce, segment.ciphertext, _aad(segment))
        entries, dropped = decode_data(decompress(packed))
    except (InvalidTag, ValueError, TypeError):
        raise _damaged(segment.name) from None
    return Refusals(entries, dropped)


def follows(segment: SealedSegment, after: Link) -> bool:
    """Whether `segment` continues the chain that ends at `after`."""
    return (segment.seq, segment.previous) == (after.seq + 1, after.hash) and segment.last_us >= after.last_us


def link_of(segment: SealedSegment, data: bytes) -> Link:
    """The end of the chain after a segment whose object is `data`."""
    return Link(segment.seq, hashlib.sha256(data).digest(), segment.last_us)


async def list_chains(store: ObjectStore, server_id: str = "") -> Mapping[str, Sequence[str]]:
    """The names of segments by server id, in the order of their chain; of one server, or of all."""
    found: dict[str, list[str]] = {}
    for stored in await store.list(f"{PREFIX}{server_id}/" if server_id else PREFIX):
        found.setdefault(stored.name.split("/")[1], []).append(stored.name)
    return found


async def read_segment(
    store: ObjectStore, name: str, trusted: Mapping[str, bytes] | None = None
) -> tuple[SealedSegment, bytes] | None:
    """A segment and its object; None if it is gone (the retention took it)."""
    data = await store.get(name)
    return None if data is None else (parse_segment(name, data, trusted), data)


class ChainWriter:
    """Writes one server's chain. Another process under the same server id may write too: names are create-only."""

    def __init__(self, store: ObjectStore, log_id: str, server_id: str) -> None:
        self._store = store
        self._ids = (log_id, server_id)
        self._end: Link | None = None
        self._sealed: tuple[str, bytes] | None = None

    async def end(self) -> Link:
        """Where the chain ends; found in the store at first."""
        if self._end is None:
            names = (await list_chains(self._store, self._ids[1])).get(self._ids[1], ())
            self._end = Link(0, chain_start(*self._ids), 0) if not names else await self._link(names[-1])
        return self._end

    async def append(self, refusals: Refusals, key: DataKey, salt: bytes, signer: SigningKey | None) -> None:
        """Write the next segment. After Unavailable, repeat it with the same refusals: they are in the chain once."""
        while True:
            if self._sealed is None:
                after = await self.end()
                name = segment_name(self._ids[1], after.seq + 1)
                self._sealed = name, seal_segment(refusals, self._ids, after, key, salt, signer=signer)
            name, data = self._sealed
            taken = not await self._store.put_new(name, data)
            self._end = await self._link(name)
            self._sealed = None
            if not taken or self._end.hash == hashlib.sha256(data).digest():
                return

    async def prune(self, before_us: int) -> int:
        """Delete segments that ended before a time, from the oldest on, but never the last one. Their number."""
        names = (await list_chains(self._store, self._ids[1])).get(self._ids[1], ())
        for gone, name in enumerate(names[:-1]):
            found = await read_segment(self._store, name)
            if found is not None and found[0].last_us >= before_us:
                return gone
            await self._store.delete(name)
        return max(0, len(names) - 1)

    async def _link(self, name: str) -> Link:
        found = await read_segment(self._store, name)
        if found is None or found[0].log_id != self._ids[0]:
            raise Damaged(
                f"The audit segment {name} in {self._store.place} is not of this log: give this cluster an archive of "
                "its own"
            )
        return link_of(*found)


def _aad(segment: SealedSegment) -> bytes:
    return _pack([_PURPOSE, FORMAT, *segment[:7]])


def _pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def _damaged(name: str) -> Damaged:
    return Damaged(f"The audit segment {name} is not readable: its bytes were changed; put it back from a copy")
