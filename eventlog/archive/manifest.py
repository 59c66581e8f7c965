"""Manifests, leaves and epoch claims: what the archive holds, as signed values and as bytes. Pure.

    manifests/<epoch:08d>/<seq:020d>   one for each shipment, each holding the hash of the one before
    epochs/<epoch:08d>                 the claim of an epoch: where its timeline leaves the one before
    objects/<sha256>                   all else, named by content: segments, checkpoints, blob parts, data keys, leaves

A manifest says how far the archive reaches, and what it adds. Some are roll-ups (`rollup == seq`): those say all that
is held, in leaves (complete stretches of the index, objects of their own) and a tail. So reading the newest manifests
back to the last roll-up gives the whole index, and those before it are not needed any more.

    signed = msgpack [1, body, signer's name, public key, signature over purpose + all bytes before it]

Nothing here reads or writes an object. Everything that is read raises Damaged, naming the object.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgpack

from eventlog.records import HASH_BYTES, Head
from eventlog.signing import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, SigningKey, check_signer, verify
from mesh.errors import Damaged
from mesh.position import Position
from runtime.limits import BLOB_NAMED_WITHIN

FORMAT = 1
OBJECTS = "objects/"
MANIFESTS = "manifests/"
EPOCHS = "epochs/"
KEYS = "keys/"

_MANIFEST = b"meshlog/archive-manifest/1\0"
_CLAIM = b"meshlog/archive-epoch/1\0"


class SegmentRef(NamedTuple):
    """An object of frames: positions `first` to `last` of `epoch`, between two log times. It may hold more than that.

    Positions count on over epochs, so along one timeline they order segments by themselves.
    """

    hash: bytes
    size_bytes: int
    epoch: int
    first: int
    last: int
    first_time_us: int
    last_time_us: int


class CheckpointRef(NamedTuple):
    """A checkpoint: the object of its manifest and those of its parts, each the same bytes as in etcd."""

    hash: bytes
    size_bytes: int
    at: Position
    state_at: Position
    time_us: int
    parts: tuple[bytes, ...]


class PartRef(NamedTuple):
    """A blob part: its entry's name, its object, and the head's position when it was written."""

    hash: bytes
    size_bytes: int
    name: str
    after: Position


class Holdings(NamedTuple):
    """What a stretch of the archive holds, each in order of position."""

    segments: tuple[SegmentRef, ...] = ()
    checkpoints: tuple[CheckpointRef, ...] = ()
    parts: tuple[PartRef, ...] = ()

    def joined(self, other: Holdings) -> Holdings:
        """This stretch and the one after it."""
        return Holdings(self.segments + other.segments, self.checkpoints + other.checkpoints, self.parts + other.parts)

    def between(self, after: int, upto: int) -> Holdings:
        """What is needed for the positions beyond `after` up to `upto`, a checkpoint at `after` included."""
        return Holdings(
            tuple(
                ref._replace(first=max(ref.first, after + 1), last=min(ref.last, upto))
                for ref in self.segments
                if ref.last > after and ref.first <= upto
            ),
            tuple(ref for ref in self.checkpoints if after <= ref.at.position <= upto),
            tuple(
                ref
                for ref in self.parts
                if after < ref.after.position + BLOB_NAMED_WITHIN and ref.after.position < upto
            ),
        )

    def hashes(self) -> set[bytes]:
        """Every object that this names."""
        found = {ref.hash for refs in self for ref in refs}
        return found.union(*(ref.parts for ref in self.checkpoints))


class LeafRef(NamedTuple):
    """An object that holds one full stretch of the index: Holdings of positions `first` to `last`."""

    hash: bytes
    size_bytes: int
    first: int
    last: int
    first_time_us: int
    last_time_us: int


class ManifestRef(NamedTuple):
    """A manifest by its place in the chain and its bytes."""

    epoch: int
    seq: int
    hash: bytes


class Manifest(NamedTuple):
    """One manifest. `base` is the point after which the archive holds everything, `head` how far it reaches.

    `held` is what it adds, in a roll-up all that the leaves do not hold. `rollup` is the seq of the newest roll-up,
    `keys` the object of wrapped data keys. `dropped`, of a roll-up: an object that lists what is not needed any more.
    """

    log_id: str
    epoch: int
    seq: int
    previous: bytes
    token: int
    created_us: int
    base: Head
    head: Head
    time_us: int
    rollup: int
    keys: bytes
    held: Holdings
    leaves: tuple[LeafRef, ...] = ()
    dropped: bytes = b""


class EpochClaim(NamedTuple):
    """Who began an epoch, and where: `base` is the last record of the epoch before (or a log's beginning).

    `read_from` is the newest manifest that the claimer saw, None if there was none.
    """

    log_id: str
    epoch: int
    base: Head
    read_from: ManifestRef | None
    created_us: int
    by: str

    @property
    def head(self) -> Head:
        """The base as the new epoch's head: what its first record follows."""
        return self.base._replace(epoch=self.epoch)


class Mark(NamedTuple):
    """The value of etcd's `archive` entry: how far which archive reaches."""

    place: str
    head: Head
    manifest: ManifestRef
    token: int


def object_name(digest: bytes) -> str:
    return OBJECTS + digest.hex()


def manifest_name(epoch: int, seq: int) -> str:
    return f"{MANIFESTS}{epoch:08d}/{seq:020d}"


def claim_name(epoch: int) -> str:
    return f"{EPOCHS}{epoch:08d}"


def public_key_name(signer: str) -> str:
    return f"{KEYS}{signer}.pub"


def seal_manifest(manifest: Manifest, signer: SigningKey) -> bytes:
    """The object's bytes; their SHA-256 is what the next manifest holds."""
    return _sign(_MANIFEST, manifest, signer)


def open_manifest(name: str, data: bytes, trusted: Mapping[str, bytes] | None = None) -> Manifest:
    """Read and verify the manifest called `name`; Damaged if it is not the one that was put there."""
    fields = _open(_MANIFEST, name, data, trusted)
    try:
        log_id, epoch, seq, previous, token, created, base, head, time_us, rollup, keys, held, leaves, dropped = fields
        manifest = Manifest(
            log_id, epoch, seq, previous, token, created, Head(*base), Head(*head), time_us, rollup, keys,
            _holdings(held), tuple(LeafRef(*leaf) for leaf in leaves), dropped,
        )  # fmt: skip
        named = manifest_name(epoch, seq)
    except (ValueError, TypeError) as failure:
        raise unreadable(name) from failure
    if named != name or manifest.head.epoch != epoch or manifest.head.log_id != log_id:
        raise Damaged(f"{name} in the archive is the manifest {manifest.epoch}/{manifest.seq}: it was moved or copied")
    return manifest


def seal_claim(claim: EpochClaim, signer: SigningKey) -> bytes:
    """The object's bytes, for `claim_name(claim.epoch)`: create-only, so an epoch has one claimer."""
    return _sign(_CLAIM, claim, signer)


def open_claim(name: str, data: bytes, trusted: Mapping[str, bytes] | None = None) -> EpochClaim:
    """Read and verify the claim called `name`; Damaged if it is not the one that was put there."""
    try:
        log_id, epoch, base, read_from, created_us, by = _open(_CLAIM, name, data, trusted)
        source = None if read_from is None else ManifestRef(*read_from)
        claim = EpochClaim(log_id, epoch, Head(*base), source, created_us, by)
        named = claim_name(epoch)
    except (ValueError, TypeError) as failure:
        raise unreadable(name) from failure
    if named != name or claim.base.log_id != log_id or claim.base.epoch > claim.epoch:
        raise Damaged(f"{name} in the archive claims epoch {claim.epoch}: it was moved or copied")
    return claim


def encode_leaf(held: Holdings) -> bytes:
    return _pack([FORMAT, held])


def decode_leaf(name: str, data: bytes) -> Holdings:
    """The stretch of the index in the object `name`; its bytes were checked by their hash."""
    try:
        form, held = msgpack.unpackb(data)
        if form == FORMAT:
            return _holdings(held)
    except (ValueError, TypeError, msgpack.UnpackException) as failure:
        raise unreadable(name) from failure
    raise unreadable(name)


def encode_keys(keys: Mapping[str, bytes], log_id: str, nonce: bytes) -> bytes:
    """The object of wrapped data keys by id. `nonce` sets it apart from an equal one, so that it is never put twice."""
    return _pack([FORMAT, log_id, nonce, dict(sorted(keys.items()))])


def decode_keys(name: str, data: bytes) -> Mapping[str, bytes]:
    """Wrapped data keys by id; Damaged if the object is none of them."""
    try:
        form, _, _, keys = msgpack.unpackb(data)
        if form == FORMAT and all(isinstance(key, str) and isinstance(value, bytes) for key, value in keys.items()):
            return dict(keys)
    except (ValueError, TypeError, AttributeError, msgpack.UnpackException) as failure:
        raise unreadable(name) from failure
    raise unreadable(name)


def encode_dropped(hashes: set[bytes]) -> bytes:
    return _pack([FORMAT, sorted(hashes)])


def decode_dropped(name: str, data: bytes) -> set[bytes]:
    """The objects that a roll-up made superfluous."""
    try:
        form, hashes = msgpack.unpackb(data)
        if form == FORMAT and all(_is_hash(each) for each in hashes):
            return set(hashes)
    except (ValueError, TypeError, msgpack.UnpackException) as failure:
        raise unreadable(name) from failure
    raise unreadable(name)


def encode_mark(mark: Mark) -> bytes:
    """The value of the `archive` entry. Its sum makes a changed byte show before the trim believes it."""
    return _pack([FORMAT, *mark, hash_of(_pack(mark))])


def decode_mark(value: bytes) -> Mark:
    """Read the value of the `archive` entry; Damaged if it is none."""
    try:
        form, place, head, manifest, token, _ = msgpack.unpackb(value)
        mark = Mark(place, Head(*head), ManifestRef(*manifest), token)
    except (ValueError, TypeError, msgpack.UnpackException) as failure:
        raise Damaged(_MARK_UNREADABLE) from failure
    if form != FORMAT or encode_mark(mark) != value:
        raise Damaged(_MARK_UNREADABLE)
    return mark


def signer_of(name: str, data: bytes) -> tuple[str, bytes]:
    """Whose signature a manifest or claim carries, and the public key that it was verified with."""
    try:
        _, _, signer, public, _ = msgpack.unpackb(data)
    except (ValueError, TypeError, msgpack.UnpackException) as failure:
        raise unreadable(name) from failure
    return signer, public


def unreadable(name: str) -> Damaged:
    return Damaged(f"{name} in the archive is not readable: its bytes were changed; put it back from a copy")


_MARK_UNREADABLE = "The log's entry `archive` is not readable, its bytes were changed: run `meshlog fsck`"


def _pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def _is_hash(value: object) -> bool:
    return isinstance(value, bytes) and len(value) == HASH_BYTES


def _holdings(fields: Any) -> Holdings:
    segments, checkpoints, parts = fields
    return Holdings(
        tuple(SegmentRef(*ref) for ref in segments),
        tuple(
            CheckpointRef(digest, size, Position(*at), Position(*state_at), time_us, tuple(part_hashes))
            for digest, size, at, state_at, time_us, part_hashes in checkpoints
        ),
        tuple(PartRef(digest, size, name, Position(*after)) for digest, size, name, after in parts),
    )


def _sign(purpose: bytes, document: tuple[Any, ...], signer: SigningKey) -> bytes:
    body = _pack(document)
    unsigned = _pack([FORMAT, body, signer.name, signer.public, bytes(SIGNATURE_BYTES)])[:-SIGNATURE_BYTES]
    return unsigned + signer.sign(purpose + unsigned)


def _open(purpose: bytes, name: str, data: bytes, trusted: Mapping[str, bytes] | None) -> Any:
    try:
        form, body, signer, public, signature = msgpack.unpackb(data)
        sound = (
            form == FORMAT
            and isinstance(body, bytes)
            and isinstance(signer, str)
            and len(public) == PUBLIC_KEY_BYTES
            and len(signature) == SIGNATURE_BYTES
            and _pack([form, body, signer, public, signature]) == data
        )
        fields = msgpack.unpackb(body) if sound else None
    except (ValueError, TypeError, msgpack.UnpackException) as failure:
        raise unreadable(name) from failure
    if not sound:
        raise unreadable(name)
    try:
        verify(public, signature, purpose + data[:-SIGNATURE_BYTES])
        check_signer(signer, public, trusted)
    except Damaged as failure:
        raise Damaged(f"{name} in the archive: {failure.message}") from failure
    return fields


def hash_of(data: bytes) -> bytes:
    """What names an object, and what a manifest holds of the one before."""
    return hashlib.sha256(data).digest()
