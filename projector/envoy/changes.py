"""Events to the keys of the resources whose specs they may have changed: what `Compiler.affected` is asked about."""

from __future__ import annotations

from collections.abc import Iterable

from mesh.events import (
    ACCESS_KEY_CREATED,
    ACCESS_KEY_DELETED,
    ACCESS_KEY_DISABLED,
    ACCESS_KEY_ENABLED,
    ACCESS_KEYS_USED,
    DATA_KEYS_DRAWN,
    DATA_KEYS_REWRAPPED,
    INLINE_POLICY_DELETED,
    INLINE_POLICY_PUT,
    LEVEL_RAISED,
    LOG_RESTORED,
    MESH_ROLLED_BACK,
    POLICY_ATTACHED,
    POLICY_DELETED,
    POLICY_DETACHED,
    POLICY_PUT,
    PRINCIPAL_CREATED,
    PRINCIPAL_DELETED,
    PROXY_IDENTITY_ISSUED,
    RECORD_QUARANTINED,
    RESOURCE_CREATED,
    RESOURCE_DELETED,
    RESOURCE_UPDATED,
    TAGS_CHANGED,
    TRUST_POLICY_PUT,
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
        ACCESS_KEY_ENABLED,
        ACCESS_KEY_DELETED,
        ACCESS_KEYS_USED,
        PRINCIPAL_CREATED,
        PRINCIPAL_DELETED,
        POLICY_ATTACHED,
        POLICY_DETACHED,
        INLINE_POLICY_PUT,
        INLINE_POLICY_DELETED,
        TRUST_POLICY_PUT,
        POLICY_PUT,
        POLICY_DELETED,
        PROXY_IDENTITY_ISSUED,
        DATA_KEYS_DRAWN,
        DATA_KEYS_REWRAPPED,
        LEVEL_RAISED,
        LOG_RESTORED,
        RECORD_QUARANTINED,
    }
)
"""Tags, credentials, policies, keys and levels change no spec. (A level is looked at by itself.)"""


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
