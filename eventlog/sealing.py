"""Sealing: a record becomes stored bytes that only the data key opens, and back. Pure but for the salt it is given.

    stored    = msgpack [2, schema, key id, salt, commitment, previous hash, ciphertext]
    hash      = SHA-256(stored)
    key|base|commitment = HKDF-SHA256(data key, salt = 32 fresh bytes, info = purpose): 32 + 12 + 32 bytes
    nonce     = base XOR position
    ciphertext = AES-256-GCM(flag byte + payload); the flag says whether the payload is zstd-compressed
    AAD       = msgpack [purpose, format, log id, epoch, position, previous hash, key id, schema]
    payload   = msgpack [position, time, wall, type, account, actor, source ip, request id, token, key class, data]

The envelope is always sealed under a config key. Data of the secrets class is sealed once more, under a secrets key,
before it goes into the envelope: [key id, salt, commitment, ciphertext]. So every role sees when, who and which token,
and only the API role sees a secret. Data is a map; in its place, in either class, may stand an array: the reference to
a blob (eventlog.blobs).

The records of one attempt, a frame, share a salt, and so a key that is derived once; their nonces differ, as their
positions do (TLS 1.3 makes its nonces so: RFC 8446, section 5.3). Two attempts draw two salts, so they never share a
key. AES-GCM alone would open under a second, crafted key; the commitment does not, and tells a wrong key from damaged
bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import lru_cache
from hmac import compare_digest
from typing import Any, NamedTuple, Protocol

import msgpack
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from eventlog.records import HASH_BYTES, BlobRef, Head, KeyClass, NewRecord, Record, TokenMark
from mesh.errors import BadRequest, Damaged, LimitExceeded, WrongKey
from mesh.position import Position
from runtime.limits import COMPRESS_FROM_BYTES, DATA_DEPTH_MAX, MAX_RECORD_PLAIN_BYTES

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

RECORD_FORMAT = 2
SALT_BYTES = 32
KEY_BYTES = 32
NONCE_BYTES = 12
COMMITMENT_BYTES = 32
ZSTD_LEVEL = 3

ENVELOPE = b"meshlog/record/1"
SECRET_DATA = b"meshlog/secret-data/1"

_PLAIN_FLAG, _ZSTD_FLAG = b"\0", b"\1"
_BLOB_FORMAT = 1
_KEY_CLASSES = {each.value: each for each in KeyClass}
_SHA256 = SHA256()
_PACKER = msgpack.Packer()
"""One for all: it holds nothing between calls, and making one costs as much again as what it does here."""
_DERIVED_BYTES = KEY_BYTES + NONCE_BYTES + COMMITMENT_BYTES


class DataKey(NamedTuple):
    """A data key in the open. Its repr never shows the material."""

    key_id: str
    key_class: KeyClass
    material: bytes
    created_us: int

    def __repr__(self) -> str:
        return f"DataKey({self.key_id})"


class KeyFinder(Protocol):
    """Where `open_record` finds the data key of an id."""

    def opens(self, key_class: KeyClass) -> bool:
        """Whether this role is given keys of the class at all."""
        ...

    def find(self, key_id: str, position: Position) -> DataKey:
        """MissingKey if there is none at hand."""
        ...


class SealedEnvelope(NamedTuple):
    """The fields of a stored record."""

    schema: int
    key_id: str
    salt: bytes
    commitment: bytes
    previous_hash: bytes
    ciphertext: bytes


class Place(NamedTuple):
    """Where a record stands and how it is to be read; all of it is authenticated."""

    log_id: str
    position: Position
    previous_hash: bytes
    schema: int


class Sealed(NamedTuple):
    """What one sealing gives, besides the place that it is bound to."""

    key_id: str
    salt: bytes
    commitment: bytes
    ciphertext: bytes


def seal_record(record: Record, after: Head, keys: tuple[DataKey, DataKey | None], salts: tuple[bytes, bytes]) -> bytes:
    """Seal `record` to stand right after `after`.

    `keys` is the config key and, for the secrets class, the secrets key; `salts` are 32 fresh random bytes each, the
    second for secret data, drawn for this attempt and never used at this position before. BadRequest if the data cannot
    be encoded.
    """
    config_key, secrets_key = keys
    place = Place(after.log_id, record.position, after.hash, record.schema)
    data: Any = record.data if record.blob is None else [_BLOB_FORMAT, *record.blob]
    if record.key_class is KeyClass.SECRETS:
        if secrets_key is None:
            raise ValueError("a record of the secrets class needs the secrets key")
        inner = _seal(SECRET_DATA, secrets_key, salts[1], place, encode_data(data))
        data = [secrets_key.key_id, salts[1], *inner]
    payload = encode_data(
        [
            record.position.position,
            record.time_us,
            record.wall_us,
            record.type,
            record.account,
            record.actor,
            record.source_ip,
            record.request_id,
            record.token,
            record.key_class.value,
            data,
        ]
    )
    commitment, ciphertext = _seal(ENVELOPE, config_key, salts[0], place, payload)
    stored: bytes = msgpack.packb(
        [RECORD_FORMAT, record.schema, config_key.key_id, salts[0], commitment, after.hash, ciphertext]
    )
    return stored


def place_record(new: NewRecord, after: Head, time_us: int, wall_us: int) -> Record:
    """Give a new record its place right after `after`."""
    position = Position(after.epoch, after.position + 1)
    return Record(
        position,
        time_us,
        wall_us,
        new.type,
        new.schema,
        new.account,
        new.actor,
        new.source_ip,
        new.request_id,
        new.token,
        new.data,
        new.key_class,
    )


def parse_stored(stored: bytes, position: Position) -> SealedEnvelope:
    """The fields of a stored record, checked for shape; Damaged otherwise."""
    try:
        form, schema, key_id, salt, commitment, previous_hash, ciphertext = msgpack.unpackb(stored)
    except (ValueError, TypeError, msgpack.UnpackException) as failure:
        raise _damaged(position) from failure
    if form != RECORD_FORMAT:
        raise Damaged(f"Record {position} has format {form!r}; this build reads {RECORD_FORMAT}: run a newer build")
    sound = (
        type(schema) is int
        and type(key_id) is str
        and type(ciphertext) is bytes
        and type(salt) is bytes
        and len(salt) == SALT_BYTES
        and type(commitment) is bytes
        and len(commitment) == COMMITMENT_BYTES
        and type(previous_hash) is bytes
        and len(previous_hash) == HASH_BYTES
    )
    if not sound:
        raise _damaged(position)
    return SealedEnvelope(schema, key_id, salt, commitment, previous_hash, ciphertext)


def open_record(stored: bytes, log_id: str, position: Position, keys: KeyFinder) -> Record:
    """Open a stored record that stands at `position` of `log_id`; see `open_envelope`."""
    return open_envelope(parse_stored(stored, position), log_id, position, keys)


def open_envelope(envelope: SealedEnvelope, log_id: str, position: Position, keys: KeyFinder) -> Record:
    """Open the record that stands at `position` of `log_id`.

    Whether it follows the right record is the chain's to say; that it was sealed for this place and these neighbours
    is checked here. Raises MissingKey, WrongKey or Damaged, each naming the position. `data` is None only for the
    secrets class where this role has no keys of it.
    """
    schema, key_id, salt, commitment, previous_hash, ciphertext = envelope
    place = Place(log_id, position, previous_hash, schema)
    plain = _open(ENVELOPE, (key_id, salt, commitment, ciphertext), place, keys)
    try:
        number, time_us, wall_us, kind, account, actor, source_ip, request_id, token, class_name, data = decode_data(
            plain
        )
        key_class = _KEY_CLASSES[class_name]
        mark = None if token is None else TokenMark(*token)
        inner = Sealed(*data) if key_class is KeyClass.SECRETS else None
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as failure:
        raise _damaged(position) from failure
    if number != position.position:
        raise _damaged(position)
    if inner is not None:
        plain = _open(SECRET_DATA, inner, place, keys) if keys.opens(KeyClass.SECRETS) else b""
        data = decode_data(plain) if plain else None
    blob = _blob_ref(data, position) if isinstance(data, list) else None
    if blob is None and not _json_like(data, plain):
        raise Damaged(
            f"Record {position} opens, but its data is not what Meshlog writes (byte strings, or nested without end): "
            "find out who wrote it; `meshlog quarantine` passes it over"
        )
    return Record(
        position,
        time_us,
        wall_us,
        kind,
        schema,
        account,
        actor,
        source_ip,
        request_id,
        mark,
        data if blob is None else None,
        key_class,
        blob,
    )


def _json_like(data: Any, plain: bytes) -> bool:
    """Whether decoded data is nothing that JSON has not, and nested no deeper than may be. `plain`: where it is from.

    Looked for among the stored bytes first, since hardly a record has one of those that give it away.
    """
    odd = plain[plain.find(_LAST_BEFORE_DATA) + 1 :].translate(None, _INNOCENT)
    return (len(odd) <= DATA_DEPTH_MAX and not odd.translate(None, _CONTAINERS)) or is_json_like(data)


def is_json_like(value: Any, depth: int = 0) -> bool:
    """Whether a value is nothing but JSON's types, nested DATA_DEPTH_MAX deep at most."""
    if isinstance(value, dict):
        items = value.values() if all(type(name) is str for name in value) else ()
        return depth < DATA_DEPTH_MAX and len(items) == len(value) and all(is_json_like(x, depth + 1) for x in items)
    if isinstance(value, list):
        return depth < DATA_DEPTH_MAX and all(is_json_like(item, depth + 1) for item in value)
    return value is None or isinstance(value, str | int | float)


_CONTAINERS = bytes((*range(0x80, 0xA0), *range(0xDC, 0xE0)))
"""The first bytes of msgpack's maps and arrays. (They may also stand in text and numbers; so do those below.)"""
_INNOCENT = bytes(sorted({*range(256)} - {*_CONTAINERS, *range(0xC4, 0xCA), *range(0xD4, 0xD9), 0xC1}))
"""What is neither the first byte of a map or array, nor of a byte string or an extension."""
_LAST_BEFORE_DATA = b"\xa6config"


def _blob_ref(data: list[Any], position: Position) -> BlobRef:
    form, *fields = data or [None]
    if form != _BLOB_FORMAT:
        raise Damaged(
            f"Record {position} refers to a blob of format {form!r}; this build does not know it: run a newer one"
        )
    return BlobRef(*fields)


def derive(material: bytes, salt: bytes, purpose: bytes) -> tuple[bytes, bytes, bytes]:
    """Key, nonce and commitment for one sealing. `salt` must be fresh."""
    derived = HKDF(_SHA256, _DERIVED_BYTES, salt, purpose).derive(material)
    return derived[:KEY_BYTES], derived[KEY_BYTES : KEY_BYTES + NONCE_BYTES], derived[KEY_BYTES + NONCE_BYTES :]


def _aad(purpose: bytes, place: Place, key_id: str) -> bytes:
    epoch, position = place.position
    packed: bytes = _PACKER.pack(
        [purpose, RECORD_FORMAT, place.log_id, epoch, position, place.previous_hash, key_id, place.schema]
    )
    return packed


class _Cipher(NamedTuple):
    """What one attempt's records are sealed with. `base` is the nonce's, as a number."""

    aead: AESGCM
    base: int
    commitment: bytes

    def nonce(self, position: Position) -> bytes:
        return (self.base ^ position.position).to_bytes(NONCE_BYTES, "big")


@lru_cache(maxsize=8)
def _cipher(material: bytes, salt: bytes, purpose: bytes) -> _Cipher:
    # Kept for the records of a frame, which come one after the other.
    secret, base, commitment = derive(material, salt, purpose)
    return _Cipher(AESGCM(secret), int.from_bytes(base, "big"), commitment)


def _seal(purpose: bytes, key: DataKey, salt: bytes, place: Place, plain: bytes) -> tuple[bytes, bytes]:
    cipher = _cipher(key.material, salt, purpose)
    aad = _aad(purpose, place, key.key_id)
    return cipher.commitment, cipher.aead.encrypt(cipher.nonce(place.position), compress(plain), aad)


def _open(purpose: bytes, sealed: tuple[str, bytes, bytes, bytes], place: Place, keys: KeyFinder) -> bytes:
    key_id, salt, commitment, ciphertext = sealed
    key = keys.find(key_id, place.position)
    cipher = _cipher(key.material, salt, purpose)
    if not compare_digest(cipher.commitment, commitment):
        raise WrongKey(
            f"Record {place.position} was not sealed with data key {key.key_id} as it is here: the key under that id "
            "was replaced; restore the right one from the archive or a copy"
        )
    try:
        packed = cipher.aead.decrypt(cipher.nonce(place.position), ciphertext, _aad(purpose, place, key_id))
    except InvalidTag:
        raise _damaged(place.position) from None
    try:
        return decompress(packed)
    except ValueError:
        raise _damaged(place.position) from None


def compress(plain: bytes) -> bytes:
    """A flag byte, then `plain`, compressed where that makes it smaller."""
    if len(plain) >= COMPRESS_FROM_BYTES:
        packed: bytes = zstd.compress(plain, ZSTD_LEVEL)
        if len(packed) < len(plain):
            return _ZSTD_FLAG + packed
    return _PLAIN_FLAG + plain


def decompress(packed: bytes) -> bytes:
    """What `compress` was given; ValueError if it is not its work, or claims to be larger than a record may be."""
    body = packed[1:]
    if packed[:1] == _PLAIN_FLAG:
        return body
    if packed[:1] != _ZSTD_FLAG:
        raise ValueError("neither plain nor compressed")
    decompressor = zstd.ZstdDecompressor()
    try:
        plain: bytes = decompressor.decompress(body, MAX_RECORD_PLAIN_BYTES)
    except zstd.ZstdError as failure:
        raise ValueError("not compressed data") from failure
    if not decompressor.eof:
        raise ValueError("larger than a record may be, or cut off")
    return plain


def encode_data(value: Any) -> bytes:
    """A record's payload or data as msgpack. BadRequest if it has no place there, LimitExceeded if it is too large."""
    try:
        packed: bytes = msgpack.packb(value, default=_plain)
    except (ValueError, OverflowError, TypeError, UnicodeEncodeError) as failure:
        raise BadRequest(f"The change cannot be written to the log: {failure}") from failure
    if len(packed) > MAX_RECORD_PLAIN_BYTES:
        raise LimitExceeded(
            f"The change takes {len(packed)} bytes, and one change takes at most {MAX_RECORD_PLAIN_BYTES}: make the "
            "specification smaller, or change less at a time"
        )
    return packed


def decode_data(packed: bytes) -> Any:
    """What `encode_data` was given, as plain dicts and lists. ValueError if it is not msgpack."""
    return msgpack.unpackb(packed)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a value of type {type(value).__name__} has no place in a record")


def _damaged(position: Position) -> Damaged:
    return Damaged(
        f"Record {position} fails its authentication: its bytes were changed, or it was copied here from elsewhere; "
        "run `meshlog fsck` and restore from the archive"
    )
