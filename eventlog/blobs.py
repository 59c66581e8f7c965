"""Blobs: data too large for a frame, sealed in parts beside the log, and the reference that its record carries instead.

    packed    = flag byte + msgpack of the data, compressed as a record is
    blob id   = SHA-256(purpose | salt | packed): the record names it, so the chain vouches for the content
    part name = blob/<id as hex>/<part:06d>
    part      = msgpack [1, epoch, position, parts, schema, key id, salt, commitment, ciphertext]: the position of the
                head when it was written, a salt of its own, AES-256-GCM of a slice of `packed`
    AAD       = msgpack [purpose, format, log id, blob id, part, parts, epoch, position, key id, schema]
    reference = msgpack array [1, id, salt, parts, size], where the record's data, a map, would be

Parts are written before the record that names them, so a writer that died, or lost its race, leaves parts that nobody
names. A record may name a blob only up to BLOB_NAMED_WITHIN positions after the head that it was written at. So once
the log is trimmed beyond that, no record that is left, and none to come, can name it: `removable` needs neither keys
nor a clock, and never takes a part that a slow writer may still count on.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgpack
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.constant_time import bytes_eq

from eventlog.driver import Committed, HeadMoved, LogDriver
from eventlog.records import HASH_BYTES, BlobRef, Head, Record
from eventlog.sealing import (
    COMMITMENT_BYTES,
    SALT_BYTES,
    DataKey,
    KeyFinder,
    compress,
    decode_data,
    decompress,
    derive,
    encode_data,
    is_json_like,
)
from mesh.errors import Damaged, NoQuorum, WrongKey
from mesh.position import Position
from runtime.clock import Clock, Entropy
from runtime.limits import (
    APPEND_DEADLINE_S,
    APPEND_PAUSE_S,
    BLOB_NAMED_WITHIN,
    BLOB_PART_BYTES,
    BLOB_TXN_PARTS,
    BLOBS_REMEMBERED,
)

PREFIX = "blob/"
BLOB_FORMAT = 1
_ID = b"meshlog/blob-id/1\0"
_PART = b"meshlog/blob-part/1"
_NAME = re.compile(r"blob/([0-9a-f]{64})/([0-9]{6})", re.ASCII)

PartsOf = Callable[[BlobRef], Awaitable[Mapping[str, bytes]]]
"""Where a blob's parts are read: their values by their names (`part_names`), as far as they are there."""


class BlobPart(NamedTuple):
    """A stored part's fields. `after` is the head's position when it was written, in clear and authenticated."""

    after: Position
    parts: int
    schema: int
    key_id: str
    salt: bytes
    commitment: bytes
    ciphertext: bytes


class SealedBlob(NamedTuple):
    """A reference and the parts to store before the record that carries it, by name."""

    ref: BlobRef
    parts: Mapping[str, bytes]


def part_name(blob_id: bytes, part: int) -> str:
    """The name of a part, counted from 0."""
    return f"{PREFIX}{blob_id.hex()}/{part:06d}"


def part_names(ref: BlobRef) -> list[str]:
    """The names of all parts, in order."""
    return [part_name(ref.id, part) for part in range(ref.parts)]


def parse_part_name(name: str) -> tuple[bytes, int] | None:
    """Blob id and part number of an entry's name; None if it is no part's."""
    match = _NAME.fullmatch(name)
    return None if match is None else (bytes.fromhex(match[1]), int(match[2]))


def seal_blob(data: Mapping[str, Any], schema: int, after: Head, key: DataKey, entropy: Entropy) -> SealedBlob:
    """Seal a record's data in parts, at the head `after`. LimitExceeded or BadRequest if it cannot be a record's."""
    packed = compress(encode_data(data))
    salt = entropy.token_bytes(SALT_BYTES)
    slices = [packed[start : start + BLOB_PART_BYTES] for start in range(0, len(packed), BLOB_PART_BYTES)]
    ref = BlobRef(_blob_id(salt, packed), salt, len(slices), len(packed))
    parts: dict[str, bytes] = {}
    for number, piece in enumerate(slices):
        part_salt = entropy.token_bytes(SALT_BYTES)
        secret, nonce, commitment = derive(key.material, part_salt, _PART)
        part = BlobPart(after.at, ref.parts, schema, key.key_id, part_salt, commitment, b"")
        ciphertext = AESGCM(secret).encrypt(nonce, piece, _aad(after.log_id, ref.id, number, part))
        parts[part_name(ref.id, number)] = _encode_part(part._replace(ciphertext=ciphertext))
    return SealedBlob(ref, parts)


def open_blob(record: Record, log_id: str, parts: Mapping[str, bytes], keys: KeyFinder) -> Record:
    """The record with the data that its reference stands for. `parts` are stored parts by name.

    Damaged, WrongKey or MissingKey, each naming the record's position and the part.
    """
    ref = record.blob
    if ref is None:
        return record
    pieces: list[bytes] = []
    for number, name in enumerate(part_names(ref)):
        value = parts.get(name)
        if value is None:
            raise Damaged(f"{_place(record, number)} is not in the store: restore it from the archive")
        pieces.append(_open_part(record, number, value, log_id, keys))
    packed = b"".join(pieces)
    if len(packed) != ref.size_bytes or _blob_id(ref.salt, packed) != ref.id:
        raise Damaged(f"{_place(record, None)} is not what the record names: restore it from the archive")
    try:
        data = decode_data(decompress(packed))
    except ValueError as failure:
        raise Damaged(f"{_place(record, None)} is not readable: restore it from the archive") from failure
    if not isinstance(data, dict) or not is_json_like(data):
        raise Damaged(f"{_place(record, None)} is not a record's data: restore it from the archive")
    return record._replace(data=data)


def parse_part(name: str, value: bytes) -> BlobPart:
    """The fields of a stored part, checked for shape; Damaged otherwise."""
    where = f"The blob part {name} is not readable: its bytes were changed; restore it from the archive"
    try:
        form, epoch, position, parts, schema, key_id, salt, commitment, ciphertext = msgpack.unpackb(value)
    except (ValueError, TypeError, msgpack.UnpackException) as failure:
        raise Damaged(where) from failure
    if form != BLOB_FORMAT:
        raise Damaged(f"The blob part {name} has format {form!r}; this build reads {BLOB_FORMAT}: run a newer build")
    sound = (
        all(type(number) is int and number >= 0 for number in (epoch, position, parts, schema))
        and isinstance(key_id, str)
        and all(isinstance(field, bytes) for field in (salt, commitment, ciphertext))
        and len(salt) == SALT_BYTES
        and len(commitment) == COMMITMENT_BYTES
    )
    if not sound:
        raise Damaged(where)
    part = BlobPart(Position(epoch, position), parts, schema, key_id, salt, commitment, ciphertext)
    if _encode_part(part) != value:  # a second spelling would be bytes that nothing authenticates
        raise Damaged(where)
    return part


def parts_in(driver: LogDriver) -> PartsOf:
    """Parts as a driver has them."""

    async def read(ref: BlobRef) -> Mapping[str, bytes]:
        found = await driver.list_entries(f"{PREFIX}{ref.id.hex()}/")
        return {name: entry.value for name, entry in found.items()}

    return read


async def fetch(record: Record, log_id: str, parts_of: PartsOf, keys: KeyFinder) -> Record:
    """The record, whole: what a reader calls on every record that it opened. Free for one that has its data."""
    if record.blob is None or record.data is not None:
        return record
    return open_blob(record, log_id, await parts_of(record.blob), keys)


async def removable(driver: LogDriver, trimmed: Position) -> Mapping[str, int]:
    """Parts that no record beyond `trimmed` names or ever can name, and their mod_revisions.

    To be called once the frames up to `trimmed` are gone; delete in portions of BLOB_TXN_PARTS, expecting those
    mod_revisions. A part that is unreadable is left for fsck to report.
    """
    found: dict[str, int] = {}
    for name, entry in (await driver.list_entries(PREFIX)).items():
        try:
            after = parse_part(name, entry.value).after
        except Damaged:
            continue
        if Position(after.epoch, after.position + BLOB_NAMED_WITHIN) <= trimmed:
            found[name] = entry.mod_revision
    return found


class BlobWriter:
    """Writes blobs for one log writer. Remembers the last few: a lost race seals the record anew, not its blob."""

    def __init__(
        self, driver: LogDriver, clock: Clock, entropy: Entropy, deadline_s: float = APPEND_DEADLINE_S
    ) -> None:
        self._driver = driver
        self._clock = clock
        self._entropy = entropy
        self._deadline_s = deadline_s
        self._written: OrderedDict[bytes, tuple[Head, BlobRef]] = OrderedDict()

    async def put(self, record: Record, after: Head, key: DataKey) -> Record:
        """Store the record's data, if it is not stored yet, and give the record its reference.

        `after` is the head that the record's frame is to follow. NoQuorum: certainly no record was written.
        """
        assert record.data is not None  # noqa: S101 - a writer always has the data
        digest = hashlib.sha256(b"%s\0%d\0%s" % (key.key_id.encode(), record.schema, encode_data(record.data))).digest()
        known = self._written.get(digest)
        if known is None or not _may_name(known[0], record.position, after.log_id):
            sealed = seal_blob(record.data, record.schema, after, key, self._entropy)
            for portion in _portions(sealed.parts):
                await self._write(portion)
            known = self._written[digest] = after, sealed.ref
            while len(self._written) > BLOBS_REMEMBERED:
                self._written.popitem(last=False)
        return record._replace(blob=known[1])

    async def _write(self, portion: Mapping[str, bytes]) -> None:
        # Create-only, and nobody else knows the names: one that is there already is ours, from a lost answer.
        give_up_s = self._clock.monotonic_s() + self._deadline_s
        while True:
            result = await self._driver.write_entries(portion, expected=dict.fromkeys(portion, 0))
            if isinstance(result, Committed | HeadMoved):
                return
            if self._clock.monotonic_s() >= give_up_s:
                raise NoQuorum(f"etcd takes no writes ({result.reason}); nothing was changed: try again")
            await self._clock.sleep(APPEND_PAUSE_S * (0.5 + self._entropy.jitter()))


def _may_name(written: Head, position: Position, log_id: str) -> bool:
    ahead = position.position - written.position
    return written.log_id == log_id and written.epoch == position.epoch and 0 < ahead <= BLOB_NAMED_WITHIN


def _portions(parts: Mapping[str, bytes]) -> Iterator[Mapping[str, bytes]]:
    names = list(parts)
    for start in range(0, len(names), BLOB_TXN_PARTS):
        yield {name: parts[name] for name in names[start : start + BLOB_TXN_PARTS]}


def _open_part(record: Record, number: int, value: bytes, log_id: str, keys: KeyFinder) -> bytes:
    ref = record.blob
    assert ref is not None  # noqa: S101 - the caller's own
    try:
        part = parse_part(part_name(ref.id, number), value)
    except Damaged as damage:
        raise Damaged(f"{_place(record, number)} is damaged: restore it from the archive") from damage
    key = keys.find(part.key_id, record.position)
    secret, nonce, expected = derive(key.material, part.salt, _PART)
    if not bytes_eq(expected, part.commitment):
        raise WrongKey(
            f"{_place(record, number)} was not sealed with data key {key.key_id} as it is here: the key under that id "
            "was replaced, or the part was changed; restore the right one from the archive or a copy"
        )
    counted = part.parts == ref.parts and part.schema == record.schema
    try:
        if counted and key.key_class is record.key_class:
            return AESGCM(secret).decrypt(nonce, part.ciphertext, _aad(log_id, ref.id, number, part))
    except InvalidTag:
        pass
    raise Damaged(f"{_place(record, number)} fails its authentication: restore it from the archive")


def _encode_part(part: BlobPart) -> bytes:
    packed: bytes = msgpack.packb([BLOB_FORMAT, *part.after, *part[1:]])
    return packed


def _blob_id(salt: bytes, packed: bytes) -> bytes:
    digest = hashlib.sha256(_ID + salt + packed).digest()
    assert len(digest) == HASH_BYTES  # noqa: S101 - what a reference holds
    return digest


def _aad(log_id: str, blob_id: bytes, number: int, part: BlobPart) -> bytes:
    packed: bytes = msgpack.packb(
        [_PART, BLOB_FORMAT, log_id, blob_id, number, part.parts, *part.after, part.key_id, part.schema]
    )
    return packed


def _place(record: Record, number: int | None) -> str:
    ref = record.blob
    assert ref is not None  # noqa: S101 - only of records that have one
    if number is None:
        return f"The blob of record {record.position} ({PREFIX}{ref.id.hex()})"
    return f"Part {number + 1} of {ref.parts} of the blob of record {record.position} ({part_name(ref.id, number)})"
