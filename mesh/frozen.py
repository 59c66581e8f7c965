"""JSON-like values made immutable and back: mappings become read-only views, lists become tuples."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

Frozen = Any
"""A deep-frozen JSON value: str, int, float, bool, None, tuple of Frozen, read-only mapping of str to Frozen."""


def freeze(value: Any) -> Frozen:
    """A deep, order-keeping, immutable copy."""
    # By exact type first: this is done for every value of every specification, and a check for Mapping is slow.
    kind = type(value)
    if kind is str or kind is int:
        return value
    if kind is dict or isinstance(value, Mapping):
        return MappingProxyType(
            {key: item if type(item) is str or type(item) is int else freeze(item) for key, item in value.items()}
        )
    if isinstance(value, (list, tuple)):
        return tuple([freeze(item) for item in value])
    return value


def thaw(value: Frozen) -> Any:
    """The plain dict/list form, for encoders."""
    kind = type(value)
    if kind is str or kind is int:
        return value
    if kind is dict or isinstance(value, Mapping):
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [thaw(item) for item in value]
    return value
