"""Events to the keys of the resources whose specs they may have changed: what `Compiler.affected` is asked about."""

from __future__ import annotations

from collections.abc import Iterable

from mesh.events import (
    ACCESS_KEY_CREATED,
    ACCESS_KEY_DISABLED,
    DATA_KEYS_DRAWN,
    DATA_KEYS_REWRAPPED,
    LEVEL_RAISED,
    LOG_RESTORED,
    MESH_ROLLED_BACK,
    PROXY_IDENTITY_ISSUED,
    RECORD_QUARANTINED,
    RESOURCE_CREATED,
    RESOURCE_DELETED,
    RESOURCE_UPDATED,
    TAGS_CHANGED,
    Event,
)
from mesh.evolve import key_of
from mesh.kinds import ResourceKey

OF_ONE = frozenset({RESOURCE_CREATED, RESOURCE_UPDATED, RESOURCE_DELETED})
OF_MANY = frozenset({MESH_ROLLED_BACK})
OF_NONE = frozenset(
    {
        TAGS_CHANGED,
        ACCESS_KEY_CREATED,
        ACCESS_KEY_DISABLED,
        PROXY_IDENTITY_ISSUED,
        DATA_KEYS_DRAWN,
        DATA_KEYS_REWRAPPED,
        LEVEL_RAISED,
        LOG_RESTORED,
        RECORD_QUARANTINED,
    }
)
"""Tags, credentials, keys and levels change no spec. (A level is looked at by itself.)"""


def changed_keys(events: Iterable[Event]) -> set[ResourceKey]:
    """The resources made, updated, deleted or rolled back."""
    found: set[ResourceKey] = set()
    for event in events:
        if event.data is None:
            continue
        if event.type in OF_ONE:
            found.add(key_of(event.data["key"]))
        elif event.type in OF_MANY:
            found.update(key_of(change["key"]) for change in event.data["changes"])
    return found
