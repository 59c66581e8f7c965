"""The port of what holds key-encryption keys: wraps and unwraps data keys, and never gives its own key out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class WrappedKey(NamedTuple):
    """A wrapped data key: with which key-encryption key, and the provider's own bytes."""

    kek_id: str
    blob: bytes


class KeyProvider(Protocol):
    """Key-encryption keys of one class.

    `context` is authenticated and not secret: it ties the wrapped key to its log, id and class.
    """

    @property
    def scheme(self) -> str:
        """What kind of provider this is, as stored beside each wrapped key: `file`, `aws-kms`, …"""
        ...

    @property
    def place(self) -> str:
        """Where it looks, for messages: a path, an ARN."""
        ...

    async def wrap(self, material: bytes, context: bytes) -> WrappedKey:
        """Wrap with the current key. MissingKey or SettingsError: there is none to use. Unavailable: try again."""
        ...

    async def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        """MissingKey: that key-encryption key is not here. WrongKey: it is another key. Damaged: changed bytes.

        Unavailable: it may be, but cannot be asked right now.
        """
        ...


class ProviderGroup:
    """The providers of one class while it moves from one to another: the first wraps, each unwraps its own."""

    def __init__(self, members: Sequence[KeyProvider]) -> None:
        self.members = tuple(members)
        self.scheme = self.members[0].scheme
        self.place = ", ".join(each.place for each in self.members)

    async def wrap(self, material: bytes, context: bytes) -> WrappedKey:
        """Wrap with the first."""
        return await self.members[0].wrap(material, context)

    async def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        """Unwrap what the first has wrapped; `wrapping` goes to the member of the stored scheme."""
        return await self.members[0].unwrap(wrapped, context)


def members_of(provider: KeyProvider) -> tuple[KeyProvider, ...]:
    """The single providers behind one, the one that wraps first."""
    return provider.members if isinstance(provider, ProviderGroup) else (provider,)
