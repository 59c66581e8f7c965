"""The port of what holds key-encryption keys: wraps and unwraps data keys, and never gives its own key out."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class WrappedKey(NamedTuple):
    """A wrapped data key: with which key-encryption key, and the provider's own bytes."""

    kek_id: str
    blob: bytes


class KeyProvider(Protocol):
    """Key-encryption keys of one class.

    `context` is authenticated and not secret: it ties the wrapped key to its log, id and class.
    """

    scheme: str
    """What kind of provider this is, as stored beside each wrapped key: `file`, `aws-kms`, …"""

    place: str
    """Where it looks, for messages: a path, an ARN."""

    async def wrap(self, material: bytes, context: bytes) -> WrappedKey:
        """Wrap with the current key. MissingKey or SettingsError if there is none to use."""
        ...

    async def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        """MissingKey: that key-encryption key is not here. WrongKey: it is another key. Damaged: changed bytes."""
        ...
