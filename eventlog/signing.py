"""Named Ed25519 keys: what API servers sign checkpoints and archive manifests with, and how anybody verifies them.

The seed is a data key of class `signing`, wrapped in etcd as the others are, so every API server signs with one name
and a restored cluster goes on with it. The public key is published (`keys/<name>.pub` in the archive), and every
signed document carries it; whoever has it from elsewhere pins it by name. A seed never leaves this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from eventlog.driver import LogDriver, Refused, Unknown
from eventlog.keys.keyring import Keyring
from eventlog.keys.wrapping import draw_data_key
from eventlog.records import KeyClass
from eventlog.sealing import DataKey
from mesh.errors import Damaged, NoQuorum
from runtime.clock import Clock, Entropy

PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64


class SigningKey(NamedTuple):
    """A signing key at hand. Its repr never shows the private half."""

    name: str
    public: bytes
    private: Ed25519PrivateKey

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return self.private.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey({self.name})"


async def signing_key(driver: LogDriver, keyring: Keyring, log_id: str, clock: Clock, entropy: Entropy) -> SigningKey:
    """The log's newest signing key, drawn now if it has none yet. MissingKey in a role without secrets; NoQuorum."""
    await keyring.load(log_id)
    if not keyring.held(KeyClass.SIGNING):
        drawn = draw_data_key(KeyClass.SIGNING, clock.now_us(), entropy)
        result = await driver.put_data_key(drawn.key_id, await keyring.wrap(drawn, log_id), 0)
        if isinstance(result, Unknown | Refused):
            # If it did land, the next call finds it.
            raise NoQuorum(f"etcd did not take the log's new signing key ({result.reason}): try again")
        await keyring.load(log_id)
    return _signing_key(keyring.held(KeyClass.SIGNING)[-1])


def known_signers(keyring: Keyring) -> Mapping[str, bytes] | None:
    """Public keys by name, as far as the keyring was loaded; None in a role that holds no signing keys."""
    if not keyring.opens(KeyClass.SIGNING):
        return None
    return {key.key_id: _signing_key(key).public for key in keyring.held(KeyClass.SIGNING)}


def verify(public: bytes, signature: bytes, message: bytes) -> None:
    """Damaged unless `signature` over `message` was made with the private half of `public`."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise Damaged(
            "A signature does not fit its document: the bytes were changed, or another key made it; run `meshlog fsck`"
        ) from None


def check_signer(name: str, public: bytes, trusted: Mapping[str, bytes] | None) -> None:
    """Damaged unless `public` is what `trusted` has under `name`; None trusts what the document says."""
    if trusted is not None and trusted.get(name) != public:
        raise Damaged(
            f"A document is signed as {name} with a key that is not known by that name here: it was forged, or comes "
            "from another cluster; pin its public key if you trust where it comes from"
        )


def _signing_key(key: DataKey) -> SigningKey:
    private = Ed25519PrivateKey.from_private_bytes(key.material)
    return SigningKey(key.key_id, private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw), private)
