"""Temporary credentials of Meshlog's own: a session becomes a token that any API server opens, and back. Pure.

    token      = "MLST1" + base64url(msgpack [data key id, salt, ciphertext])
    key|nonce  = HKDF-SHA256(data key, salt = 32 fresh bytes, info = purpose): 32 + 12 bytes
    ciphertext = AES-256-GCM(msgpack of the session's fields), with purpose and data key id authenticated

Nothing is stored: the token is the session. Its secret is inside, so only who holds the data keys (API servers) can
open it or make one. What does not open is None, never an error that tells why.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import NamedTuple, Protocol

import msgpack
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from runtime.clock import Entropy
from runtime.limits import SESSION_TOKEN_CHARS

TEMPORARY_PREFIX = "MLTK"
"""How the access key ids of sessions begin."""

_MARK = "MLST1"
_PURPOSE = b"meshlog/session/1"
_KEY_BYTES, _NONCE_BYTES, _SALT_BYTES = 32, 12, 32
_ID_BYTES, _SECRET_BYTES = 10, 30
_TEXT = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


class Session(NamedTuple):
    """Who holds temporary credentials, until when, and on what grounds.

    `principal` and `identity` as in `Caller`. Grounds: `parent_key_id` (GetSessionToken) must still open, and
    `role_created_us` (AssumeRole) must still be the creation time of the role: one made anew is another role.
    """

    access_key_id: str
    secret: str
    account: str
    principal: str
    identity: str
    name: str
    issued_us: int
    expires_us: int
    admin: bool = False
    policy: str | None = None
    parent_key_id: str = ""
    role_created_us: int = 0

    def __repr__(self) -> str:
        return f"Session({self.principal})"


class SessionKeys(Protocol):
    """The data keys that sessions are sealed under."""

    def sealing(self) -> tuple[str, bytes]:
        """Id and material of the key to seal with; MissingKey if there is none."""
        ...

    def material(self, key_id: str) -> bytes | None:
        """The material of a key, also of an older one; None if it is not known."""
        ...


def draw_temporary_key(entropy: Entropy) -> tuple[str, str]:
    """An access key id and its secret, in the alphabets of `identity.access_key`."""
    access_key_id = TEMPORARY_PREFIX + base64.b32encode(entropy.token_bytes(_ID_BYTES)).decode()
    return access_key_id, base64.b64encode(entropy.token_bytes(_SECRET_BYTES), altchars=b"Az").decode()


def is_token(text: str) -> bool:
    """Whether it has the form of a token of ours. It may still be forged, or another cluster's."""
    return text.startswith(_MARK)


def seal(session: Session, keys: SessionKeys, entropy: Entropy) -> str:
    """The session's token: ASCII without characters that a URL or a shell would touch."""
    key_id, material = keys.sealing()
    salt = entropy.token_bytes(_SALT_BYTES)
    key, nonce = _derive(material, salt)
    plain = msgpack.packb(list(session))
    packed: bytes = msgpack.packb([key_id, salt, AESGCM(key).encrypt(nonce, plain, _bound_to(key_id))])
    return _MARK + base64.urlsafe_b64encode(packed).decode().rstrip("=")


def open_token(token: str, keys: SessionKeys) -> Session | None:
    """The session that a token holds, expired or not; None if it is none, was changed, or its key is not known."""
    text = token.removeprefix(_MARK)
    if not is_token(token) or len(token) > SESSION_TOKEN_CHARS or not _TEXT.fullmatch(text):
        return None
    try:
        packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        if base64.urlsafe_b64encode(packed).decode().rstrip("=") != text:
            return None  # two spellings of one token
        key_id, salt, ciphertext = msgpack.unpackb(packed)
        material = keys.material(key_id) if isinstance(key_id, str) else None
        if material is None or len(salt) != _SALT_BYTES:
            return None
        key, nonce = _derive(material, salt)
        return Session(*msgpack.unpackb(AESGCM(key).decrypt(nonce, ciphertext, _bound_to(key_id))))
    except (ValueError, TypeError, binascii.Error, msgpack.UnpackException, InvalidTag):
        return None


def _derive(material: bytes, salt: bytes) -> tuple[bytes, bytes]:
    derived = HKDF(SHA256(), _KEY_BYTES + _NONCE_BYTES, salt, _PURPOSE).derive(material)
    return derived[:_KEY_BYTES], derived[_KEY_BYTES:]


def _bound_to(key_id: str) -> bytes:
    packed: bytes = msgpack.packb([_PURPOSE, key_id])
    return packed
