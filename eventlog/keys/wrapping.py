"""Wrapped data keys: a data key becomes the value of `datakey/<id>`, and back, through a key provider.

    value   = msgpack [1, class, created_us, scheme, kek id, blob]
    context = msgpack ["meshlog/datakey/1", log id, key id, class, created_us], authenticated by the provider

Nothing here stores or caches; the material never leaves through a message or a log line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgpack

from eventlog.keys.provider import KeyProvider, WrappedKey, members_of
from eventlog.records import KeyClass
from eventlog.sealing import KEY_BYTES, DataKey
from mesh.errors import Damaged, MissingKey
from runtime.clock import Entropy

DATA_KEY_FORMAT = 1
_CONTEXT = "meshlog/datakey/1"


class WrappedDataKey(NamedTuple):
    """The value of `datakey/<id>`, read."""

    key_class: KeyClass
    created_us: int
    scheme: str
    wrapped: WrappedKey


def draw_data_key(key_class: KeyClass, created_us: int, entropy: Entropy) -> DataKey:
    """A new data key with a random id that begins with its class."""
    key_id = f"{key_class.value}-{entropy.token_bytes(8).hex()}"
    return DataKey(key_id, key_class, entropy.token_bytes(KEY_BYTES), created_us)


async def wrap_data_key(key: DataKey, log_id: str, provider: KeyProvider) -> bytes:
    """The value to store under `datakey/<key id>`."""
    wrapped = await provider.wrap(key.material, _context(log_id, key.key_id, key.key_class, key.created_us))
    value: bytes = msgpack.packb(
        [DATA_KEY_FORMAT, key.key_class.value, key.created_us, provider.scheme, wrapped.kek_id, wrapped.blob]
    )
    return value


def parse_wrapped(key_id: str, value: bytes) -> WrappedDataKey:
    """Read the value of `datakey/<key_id>`; Damaged if it is not one."""
    try:
        form, class_name, created_us, scheme, kek_id, blob = msgpack.unpackb(value)
        key_class = KeyClass(class_name)
    except (ValueError, TypeError, msgpack.UnpackException) as failure:
        raise _damaged(key_id) from failure
    if form != DATA_KEY_FORMAT:
        raise Damaged(f"Data key {key_id} has format {form!r}; this build reads {DATA_KEY_FORMAT}: run a newer build")
    sound = type(created_us) is int and isinstance(scheme, str) and isinstance(kek_id, str) and isinstance(blob, bytes)
    again = [form, class_name, created_us, scheme, kek_id, blob]
    if not sound or msgpack.packb(again) != value:
        raise _damaged(key_id)
    return WrappedDataKey(key_class, created_us, scheme, WrappedKey(kek_id, blob))


async def unwrap_data_key(
    key_id: str, value: bytes, log_id: str, providers: Mapping[KeyClass, KeyProvider]
) -> DataKey | None:
    """The data key of `datakey/<key_id>`; None where its class is not given to this role.

    MissingKey, WrongKey and Damaged say which key, where it was looked for and what to do.
    """
    entry = parse_wrapped(key_id, value)
    provider = providers.get(entry.key_class.wrapped_by)
    if provider is None:
        return None
    context = _context(log_id, key_id, entry.key_class, entry.created_us)
    material = await _unwrap(key_id, entry, context, provider)
    if len(material) != KEY_BYTES:
        raise _damaged(key_id)
    return DataKey(key_id, entry.key_class, material, entry.created_us)


async def _unwrap(key_id: str, entry: WrappedDataKey, context: bytes, provider: KeyProvider) -> bytes:
    """By the providers of the stored scheme, one after the other."""
    missing = MissingKey(
        f"Data key {key_id} is wrapped by a '{entry.scheme}' provider with key {entry.wrapped.kek_id}, but the "
        f"class '{entry.key_class.wrapped_by.value}' is set to '{provider.scheme}' ({provider.place}): set that "
        "provider beside it, or re-wrap the data keys first"
    )
    for each in members_of(provider):
        if each.scheme == entry.scheme:
            try:
                return await each.unwrap(entry.wrapped, context)
            except MissingKey as elsewhere:
                missing = elsewhere
    raise missing


def _context(log_id: str, key_id: str, key_class: KeyClass, created_us: int) -> bytes:
    packed: bytes = msgpack.packb([_CONTEXT, log_id, key_id, key_class.value, created_us])
    return packed


def _damaged(key_id: str) -> Damaged:
    return Damaged(
        f"The wrapped data key {key_id} is not readable, its bytes were changed: restore it from the archive"
    )
