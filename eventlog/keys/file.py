"""The file provider: key-encryption keys in a text file that only its owner can read.

One key a line, `<id> <32 bytes as hex or base64>`, the current one first; `#` begins a comment. A line with the key
alone gets an id from its SHA-256. Retired keys stay below for as long as a data key is wrapped with them. The file is
read at each use, so a rotated file needs no restart. It must never be readable by group or others.

Every host has a copy of its own. So a new key is first added to each copy, not current, and only then wraps something.

    blob = salt (32) | commitment (32) | AES-256-GCM(data key), key|nonce|commitment = HKDF-SHA256(KEK, salt)
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.constant_time import bytes_eq

from eventlog.keys.provider import WrappedKey
from eventlog.records import KeyClass
from eventlog.sealing import COMMITMENT_BYTES, KEY_BYTES, SALT_BYTES, derive
from mesh.errors import Damaged, MissingKey, SettingsError, WrongKey
from runtime.clock import Entropy
from runtime.files import PRIVATE, write_atomic

_PURPOSE = b"meshlog/kek/1"
_WIDER_THAN_OWNER = 0o077
_COMMENT = "# Meshlog key-encryption key, class '{}'. Without it the log cannot be opened: keep a copy off this host.\n"


class FileKeyProvider:
    """Key-encryption keys of one class from one file."""

    scheme = "file"

    def __init__(self, path: Path, key_class: KeyClass, entropy: Entropy) -> None:
        self.place = str(path)
        self._path = path
        self._class = key_class
        self._entropy = entropy

    async def wrap(self, material: bytes, context: bytes) -> WrappedKey:
        """Wrap with the first key of the file."""
        return await self.wrap_with(self.held()[0], material, context)

    def held(self) -> tuple[str, ...]:
        """The ids of the keys in the file, the current one first. MissingKey, SettingsError."""
        return tuple(read_key_file(self._path, self._class))

    async def wrap_with(self, kek_id: str, material: bytes, context: bytes) -> WrappedKey:
        """Wrap with that key of the file, current or not."""
        kek = self._find(kek_id)
        salt = self._entropy.token_bytes(SALT_BYTES)
        secret, nonce, commitment = derive(kek, salt, _PURPOSE)
        return WrappedKey(kek_id, salt + commitment + AESGCM(secret).encrypt(nonce, material, context))

    async def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        """Unwrap with the key of that id; MissingKey, WrongKey or Damaged."""
        kek = self._find(wrapped.kek_id)
        blob = wrapped.blob
        salt, commitment = blob[:SALT_BYTES], blob[SALT_BYTES : SALT_BYTES + COMMITMENT_BYTES]
        if len(blob) != SALT_BYTES + COMMITMENT_BYTES + KEY_BYTES + 16:
            raise self._damaged(wrapped.kek_id)
        secret, nonce, expected = derive(kek, salt, _PURPOSE)
        if not bytes_eq(expected, commitment):
            raise WrongKey(
                f"The key {wrapped.kek_id} of class '{self._class.value}' in {self._path} is not the one that wrapped "
                "this log's data keys (or the wrapped key was changed): put the right file back from its copy"
            )
        try:
            return AESGCM(secret).decrypt(nonce, blob[SALT_BYTES + COMMITMENT_BYTES :], context)
        except InvalidTag:
            raise self._damaged(wrapped.kek_id) from None

    def prefer(self, kek_id: str) -> None:
        """Make it the current key of this host's file. MissingKey; OSError if the file may not be written."""
        make_current(self._path, self._class, kek_id)

    def _find(self, kek_id: str) -> bytes:
        kek = read_key_file(self._path, self._class).get(kek_id)
        if kek is None:
            raise MissingKey(
                f"The key-encryption key {kek_id} of class '{self._class.value}' is not in {self._path}: put the file "
                "back from its copy, or add the key with `meshlog keys import`"
            )
        return kek

    def _damaged(self, kek_id: str) -> Damaged:
        return Damaged(
            f"A data key wrapped with {kek_id} fails its authentication: its bytes were changed, or it was copied from "
            "another log or id; restore it from the archive"
        )


def read_key_file(path: Path, key_class: KeyClass) -> dict[str, bytes]:
    """The keys of a file by id, the current one first. MissingKey: there is none. SettingsError: it is not sound."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read()
    except FileNotFoundError:
        raise MissingKey(
            f"There is no key file for class '{key_class.value}' at {path}: put it back from its copy, or set the path "
            "of the file that this cluster was made with"
        ) from None
    except OSError as failure:
        raise MissingKey(
            f"The key file for class '{key_class.value}' at {path} cannot be read ({failure.strerror}): it must be "
            "owned by the user that runs this role"
        ) from failure
    if mode & _WIDER_THAN_OWNER:
        raise SettingsError(
            f"The key file {path} can be read by others than its owner (mode {mode:04o}): run `chmod 600 {path}`, and "
            "rotate the key if anybody else may have read it"
        )
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.decode("ascii", "replace").splitlines(), start=1):
        found = _parse_line(line, path, number)
        if found is not None and keys.setdefault(*found) != found[1]:
            raise SettingsError(f"The key file {path} has two different keys of id {found[0]}: rename one")
    if not keys:
        raise MissingKey(f"The key file {path} of class '{key_class.value}' is empty: put its copy back")
    return keys


def add_keys(path: Path, key_class: KeyClass, keys: Mapping[str, bytes]) -> list[str]:
    """Add those that are not in the file yet, below the current one; the ids added. A file that is gone is made anew.

    SettingsError if the file has another key under one of the ids: nothing is written then.
    """
    try:
        present = read_key_file(path, key_class)
        text = path.read_text(encoding="ascii", errors="replace")
    except MissingKey:
        present, text = {}, _COMMENT.format(key_class.value)
    for key_id, material in keys.items():
        if present.get(key_id, material) != material:
            raise SettingsError(f"The key file {path} has another key under the id {key_id}: is it of another cluster?")
    new = {key_id: material for key_id, material in keys.items() if key_id not in present}
    if new:
        lines = "".join(_line(key_id, material) for key_id, material in new.items())
        _replace(path, f"{text.rstrip()}\n{lines}")
    return list(new)


def make_current(path: Path, key_class: KeyClass, key_id: str) -> None:
    """Put that key's line before the others, so that it wraps from now on. MissingKey if it is not in the file."""
    keys = read_key_file(path, key_class)
    if key_id not in keys:
        raise MissingKey(f"The key file {path} has no key {key_id}: add it first, with `meshlog keys import`")
    if next(iter(keys)) == key_id:
        return
    lines = path.read_text(encoding="ascii", errors="replace").splitlines(keepends=True)
    parsed = [_parse_line(line, path, number) for number, line in enumerate(lines, start=1)]
    first = next(index for index, found in enumerate(parsed) if found is not None)
    others = [line for line, found in zip(lines, parsed, strict=True) if found is None or found[0] != key_id]
    _replace(path, "".join([*others[:first], _line(key_id, keys[key_id]), *others[first:]]))


def draw_kek(entropy: Entropy) -> tuple[str, bytes]:
    """A new key-encryption key and its id."""
    material = entropy.token_bytes(KEY_BYTES)
    return key_id_of(material), material


def _parse_line(line: str, path: Path, number: int) -> tuple[str, bytes] | None:
    words = line.split("#", 1)[0].split()
    if not words:
        return None
    material = _key_material(words[-1])
    if material is None or len(words) > 2:
        # The line itself is never quoted: it may be all but one character of a key.
        raise SettingsError(
            f"Line {number} of the key file {path} is not a key: write `<id> <key>`, the key being 32 bytes as 64 hex "
            "digits or as base64"
        )
    return (words[0] if len(words) == 2 else key_id_of(material)), material


def _line(key_id: str, material: bytes) -> str:
    return f"{key_id} {base64.b64encode(material).decode()}\n"


def _replace(path: Path, text: str) -> None:
    """Whole or not at all, and still owned by the role that reads it when an operator's root has written it."""
    owned = (path if path.exists() else path.parent).stat()
    write_atomic(path, text.encode(), PRIVATE, (owned.st_uid, owned.st_gid) if os.geteuid() == 0 else None)


def key_id_of(material: bytes) -> str:
    """An id for a key-encryption key, from its hash: tells keys apart and gives nothing away."""
    return "kek-" + hashlib.sha256(b"meshlog/kek-id/1\0" + material).hexdigest()[:16]


def create_key_file(path: Path, key_class: KeyClass, entropy: Entropy) -> str:
    """Draw a key into a new file of mode 0600 and return its id; SettingsError if there is a file already."""
    key_id, material = draw_kek(entropy)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise SettingsError(f"There is a key file at {path} already: it is never overwritten") from None
    with os.fdopen(descriptor, "w") as file:
        file.write(_COMMENT.format(key_class.value))
        file.write(_line(key_id, material))
        file.flush()
        os.fsync(file.fileno())
    return key_id


def _key_material(word: str) -> bytes | None:
    try:
        if len(word) == 2 * KEY_BYTES:
            return bytes.fromhex(word)
        material = base64.b64decode(word, validate=True)
    except (ValueError, binascii.Error):
        return None
    return material if len(material) == KEY_BYTES else None
