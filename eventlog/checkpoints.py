"""Checkpoints as stored bytes: plain documents are compressed, sealed in parts, signed and stored, and come back.

    plain     = msgpack of the documents of one class (config; secrets)
    part      = msgpack [1, key id, salt, commitment, ciphertext]: AES-256-GCM of a slice of zstd(plain), own salt
    AAD       = msgpack [purpose, format, log id, epoch, position, hash, class, part, parts, key id]
    manifest  = msgpack [1, log id, epoch, position, hash, [state epoch, state position], time_us, level, state hash,
                         parts: [[SHA-256, size, class], …], key ids, created_us, made by, signer, public key,
                         signature]
    names     = checkpoint/<epoch>/<position:020d>/part/<n:06d> and …/manifest, written last

Epoch, position and hash are the point of the log to follow after. `state_at` is the position that the state itself
says: another one only right after a restore, where the first record of the new epoch is still to come. Nothing here
knows what a state is; a checkpoint with any byte changed never opens.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgpack
import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.constant_time import bytes_eq

from eventlog.driver import Fence, LogDriver
from eventlog.fenced import write_fenced
from eventlog.keys.keyring import Keyring
from eventlog.records import HASH_BYTES, Head, KeyClass
from eventlog.sealing import COMMITMENT_BYTES, SALT_BYTES, ZSTD_LEVEL, DataKey, KeyFinder, derive
from eventlog.signing import SigningKey, check_signer, known_signers, verify
from mesh.errors import Damaged, MissingKey, WrongKey
from mesh.position import Position
from runtime.clock import Clock, Entropy
from runtime.limits import (
    CHECKPOINT_MANIFEST_BYTES,
    CHECKPOINT_PART_BYTES,
    CHECKPOINT_PLAIN_BYTES,
    CHECKPOINT_TXN_PARTS,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

log = structlog.get_logger(__name__)

FORMAT = 1
PREFIX = "checkpoint/"
_PART = b"meshlog/checkpoint-part/1"
_MANIFEST = b"meshlog/checkpoint-manifest/1\0"
_NAME = re.compile(r"checkpoint/([1-9][0-9]{0,18})/([0-9]{20})/(manifest|part/[0-9]{6})", re.ASCII)


class CheckpointPart(NamedTuple):
    """One part as the manifest lists it: the SHA-256 of its stored bytes, their number, and who may open it."""

    hash: bytes
    size_bytes: int
    key_class: KeyClass


class CheckpointPlace(NamedTuple):
    """What a checkpoint is of: the point of the log to follow after, and the state's own account of itself."""

    at: Head
    state_at: Position
    time_us: int
    level: int
    state_hash: str


class CheckpointManifest(NamedTuple):
    """A manifest, read and its signature verified. `parts` are in order, class by class; `made_by` is a member's id."""

    log_id: str
    at: Head
    state_at: Position
    time_us: int
    level: int
    state_hash: str
    parts: tuple[CheckpointPart, ...]
    key_ids: tuple[str, ...]
    created_us: int
    made_by: str
    signer: str
    public: bytes
    signature: bytes


class SealedCheckpoint(NamedTuple):
    """A checkpoint to store: the manifest, and its parts by hash in the manifest's order."""

    manifest: bytes
    parts: Mapping[bytes, bytes]


class OpenCheckpoint(NamedTuple):
    """A checkpoint, opened: plain documents. `secrets` is None in a role that opens none."""

    manifest: CheckpointManifest
    config: Any
    secrets: Any | None


def manifest_name(at: Position) -> str:
    """Where the manifest of the checkpoint at that point of the log is kept."""
    return f"{PREFIX}{at.epoch}/{at.position:020d}/manifest"


def part_name(at: Position, number: int) -> str:
    """Where a part is kept; numbers count from 0 in the manifest's order."""
    return f"{PREFIX}{at.epoch}/{at.position:020d}/part/{number:06d}"


def parse_place(name: str) -> Position | None:
    """The point of the log that an entry belongs to, by its name; None if it is no checkpoint's."""
    match = _NAME.fullmatch(name)
    return None if match is None else Position(int(match[1]), int(match[2]))


def seal_checkpoint(
    documents: tuple[Any, Any],
    place: CheckpointPlace,
    keys: tuple[DataKey, DataKey],
    signing_key: SigningKey,
    *,
    created_us: int,
    entropy: Entropy,
    made_by: str = "",
) -> SealedCheckpoint:
    """Seal the (config, secrets) documents with the (config, secrets) data keys. Takes time: run it in a thread."""
    listed: list[CheckpointPart] = []
    parts: dict[bytes, bytes] = {}
    for document, key in zip(documents, keys, strict=True):
        packed = zstd.compress(msgpack.packb(document), ZSTD_LEVEL)
        slices = [
            packed[start : start + CHECKPOINT_PART_BYTES] for start in range(0, len(packed), CHECKPOINT_PART_BYTES)
        ]
        for number, piece in enumerate(slices):
            salt = entropy.token_bytes(SALT_BYTES)
            secret, nonce, commitment = derive(key.material, salt, _PART)
            aad = _aad(place.at, (key.key_class, number, len(slices)), key.key_id)
            ciphertext = AESGCM(secret).encrypt(nonce, piece, aad)
            part: bytes = msgpack.packb([FORMAT, key.key_id, salt, commitment, ciphertext])
            listed.append(CheckpointPart(hashlib.sha256(part).digest(), len(part), key.key_class))
            parts[listed[-1].hash] = part
    key_ids = tuple(key.key_id for key in keys)
    unsigned = CheckpointManifest(
        place.at.log_id,
        *place,
        tuple(listed),
        key_ids,
        created_us,
        made_by,
        signing_key.name,
        signing_key.public,
        b"",
    )
    signed = unsigned._replace(signature=signing_key.sign(_MANIFEST + _encode(unsigned)))
    return SealedCheckpoint(_encode(signed), parts)


def parse_manifest(value: bytes, trusted: Mapping[str, bytes] | None = None) -> CheckpointManifest:
    """Read a manifest and verify its signature, by `trusted` keys where given; Damaged otherwise."""
    if len(value) > CHECKPOINT_MANIFEST_BYTES:
        raise Damaged(_UNREADABLE)
    try:
        form, log_id, epoch, position, digest, state_at, *fields = msgpack.unpackb(value)
        time_us, level, state_hash, parts, key_ids, created_us, made_by, signer, public, signature = fields
        listed = tuple(CheckpointPart(part, size, KeyClass(name)) for part, size, name in parts)
        at, state_at = Head(log_id, epoch, position, digest), Position(*state_at)
    except (ValueError, TypeError, msgpack.UnpackException) as failure:
        raise Damaged(_UNREADABLE) from failure
    if form != FORMAT:
        raise Damaged(f"A checkpoint's manifest has format {form!r}; this build reads {FORMAT}: run a newer build")
    manifest = CheckpointManifest(
        log_id,
        at,
        state_at,
        time_us,
        level,
        state_hash,
        listed,
        tuple(key_ids),
        created_us,
        made_by,
        signer,
        public,
        signature,
    )
    numbers = (epoch, position, *state_at, time_us, level, created_us, *(part.size_bytes for part in listed))
    sound = (
        all(type(number) is int and number >= 0 for number in numbers)
        and all(isinstance(text, str) for text in (log_id, state_hash, made_by, signer, *key_ids))
        and all(isinstance(field, bytes) for field in (digest, public, signature))
        and all(isinstance(part.hash, bytes) and len(part.hash) == HASH_BYTES for part in listed)
        and len(digest) == HASH_BYTES
    )
    if not sound or _encode(manifest) != value:
        raise Damaged(_UNREADABLE)
    check_signer(signer, public, trusted)
    verify(public, signature, _MANIFEST + _encode(manifest._replace(signature=b"")))
    return manifest


def open_checkpoint(
    manifest_bytes: bytes,
    parts: Callable[[bytes], bytes],
    keyring: KeyFinder,
    trusted: Mapping[str, bytes] | None = None,
) -> OpenCheckpoint:
    """Verify and open a checkpoint; `parts` gives a part's stored bytes by hash (KeyError or Damaged if it is gone).

    Damaged, WrongKey or MissingKey; `load` the keyring first. Parts of a class that this role is not given are left.
    """
    manifest = parse_manifest(manifest_bytes, trusted)
    config = _open_class(manifest, KeyClass.CONFIG, parts, keyring)
    secrets = None
    if keyring.opens(KeyClass.SECRETS):
        secrets = _open_class(manifest, KeyClass.SECRETS, parts, keyring)
    return OpenCheckpoint(manifest, config, secrets)


async def write_checkpoint(driver: LogDriver, fence: Fence, sealed: SealedCheckpoint, clock: Clock) -> int:
    """Store a checkpoint, its manifest last; gives the manifest's mod_revision.

    FenceFell if the duty was lost meanwhile; NoQuorum if etcd took no writes. Left unfinished, it is not there.
    """
    at = parse_manifest(sealed.manifest).at.at
    numbered = [(part_name(at, number), part) for number, part in enumerate(sealed.parts.values())]
    for start in range(0, len(numbered), CHECKPOINT_TXN_PARTS):
        await write_fenced(driver, dict(numbered[start : start + CHECKPOINT_TXN_PARTS]), fence, clock)
    return await write_fenced(driver, {manifest_name(at): sealed.manifest}, fence, clock)


async def list_checkpoints(driver: LogDriver) -> Sequence[Position]:
    """The points of all checkpoints that have a manifest, oldest first."""
    names = await driver.list_entries(PREFIX, keys_only=True)
    return sorted(at for name in names if name.endswith("/manifest") and (at := parse_place(name)) is not None)


async def delete_checkpoint(driver: LogDriver, fence: Fence, at: Position, clock: Clock) -> None:
    """Delete a checkpoint, its manifest first; also what an unfinished one left. FenceFell, NoQuorum."""
    await write_fenced(driver, {manifest_name(at): None}, fence, clock)
    parts = list(await driver.list_entries(part_name(at, 0).removesuffix("000000"), keys_only=True))
    for start in range(0, len(parts), _DELETED_AT_ONCE):
        await write_fenced(driver, dict.fromkeys(parts[start : start + _DELETED_AT_ONCE]), fence, clock)


async def read_checkpoint(driver: LogDriver, keyring: Keyring, at: Position) -> OpenCheckpoint | None:
    """The checkpoint at that point of the log, verified and opened; None if there is none.

    Damaged if it, or a part of it, is not what was stored, or belongs to another log; WrongKey, MissingKey, NoQuorum.
    """
    entry, head = await driver.read_entry(manifest_name(at)), await driver.read_head()
    if entry is None:
        return None
    prefix = part_name(at, 0).removesuffix("000000")
    stored = {hashlib.sha256(part.value).digest(): part.value for part in (await driver.list_entries(prefix)).values()}
    log_id = parse_manifest(entry.value).log_id
    if head is None or head.head.log_id != log_id:
        raise Damaged(f"The checkpoint at {at} is of another log: it was copied here; delete it")
    await keyring.load(log_id)
    opened = open_checkpoint(entry.value, stored.__getitem__, keyring, known_signers(keyring))
    if opened.manifest.at.at != at:
        raise Damaged(f"The checkpoint at {at} is one of {opened.manifest.at.at}: it was copied here; delete it")
    return opened


async def newest_checkpoint(
    driver: LogDriver, keyring: Keyring, before: Position | None = None
) -> OpenCheckpoint | None:
    """The newest sound checkpoint (at or before a point); None if there is none. Damaged ones are passed over, loudly.

    MissingKey and WrongKey are raised: another key, not another checkpoint, is what helps then. NoQuorum.
    """
    for at in reversed(await list_checkpoints(driver)):
        if before is not None and at > before:
            continue
        try:
            opened = await read_checkpoint(driver, keyring, at)
        except Damaged as damage:
            log.error("a checkpoint is damaged, using an older one", at=str(at), reason=damage.message)  # noqa: TRY400
            continue
        if opened is not None:
            return opened
    return None


_UNREADABLE = "A checkpoint's manifest is not readable, its bytes were changed: delete it, or restore from the archive"
_DELETED_AT_ONCE = 64


def _open_class(
    manifest: CheckpointManifest, key_class: KeyClass, parts: Callable[[bytes], bytes], keyring: KeyFinder
) -> Any:
    wanted = [part for part in manifest.parts if part.key_class is key_class]
    pieces: list[bytes] = []
    for number, part in enumerate(wanted):
        pieces.append(_open_part(manifest, part, (key_class, number, len(wanted)), parts, keyring))
    decompressor = zstd.ZstdDecompressor()
    try:
        plain = decompressor.decompress(b"".join(pieces), CHECKPOINT_PLAIN_BYTES)
        document = msgpack.unpackb(plain)
    except (zstd.ZstdError, ValueError, TypeError, msgpack.UnpackException) as failure:
        raise _damaged(manifest) from failure
    if not decompressor.eof or decompressor.unused_data:
        raise _damaged(manifest)
    return document


def _open_part(
    manifest: CheckpointManifest,
    part: CheckpointPart,
    place: tuple[KeyClass, int, int],
    parts: Callable[[bytes], bytes],
    keyring: KeyFinder,
) -> bytes:
    try:
        value = parts(part.hash)
    except KeyError:
        raise _damaged(manifest) from None
    if len(value) != part.size_bytes or hashlib.sha256(value).digest() != part.hash:
        raise _damaged(manifest)
    try:
        form, key_id, salt, commitment, ciphertext = msgpack.unpackb(value)
    except (ValueError, TypeError, msgpack.UnpackException) as failure:
        raise _damaged(manifest) from failure
    if (
        form != FORMAT
        or key_id not in manifest.key_ids
        or len(salt) != SALT_BYTES
        or len(commitment) != COMMITMENT_BYTES
    ):
        raise _damaged(manifest)
    try:
        key = keyring.find(key_id, manifest.at.at)
    except MissingKey:
        raise MissingKey(
            f"The checkpoint at {manifest.at.at} is sealed with data key {key_id}, which is not in the store "
            f"(datakey/{key_id}) or not given to this role: restore it from the archive"
        ) from None
    secret, nonce, expected = derive(key.material, salt, _PART)
    if not bytes_eq(expected, commitment):
        raise WrongKey(
            f"The checkpoint at {manifest.at.at} was not sealed with data key {key_id} as it is here: the key under "
            "that id was replaced; restore the right one from the archive or a copy"
        )
    try:
        return AESGCM(secret).decrypt(nonce, ciphertext, _aad(manifest.at, place, key_id))
    except InvalidTag:
        raise _damaged(manifest) from None


def _encode(manifest: CheckpointManifest) -> bytes:
    listed = [[part.hash, part.size_bytes, part.key_class.value] for part in manifest.parts]
    at, fields = manifest.at, manifest._replace(parts=())[2:]
    packed: bytes = msgpack.packb([FORMAT, *at, *fields[:4], listed, *fields[5:]])
    return packed


def _aad(at: Head, place: tuple[KeyClass, int, int], key_id: str) -> bytes:
    key_class, number, count = place
    packed: bytes = msgpack.packb([_PART, FORMAT, *at, key_class.value, number, count, key_id])
    return packed


def _damaged(manifest: CheckpointManifest) -> Damaged:
    return Damaged(
        f"The checkpoint at {manifest.at.at} fails its authentication: its bytes were changed, or it was copied here "
        "from elsewhere; delete it, or restore from the archive"
    )
