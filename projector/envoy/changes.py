"""Events to the keys of the resources whose specs they may have changed: what `Compiler.affected` is asked about."""

from __future__ import annotations

from collections.abc import Iterable

from mesh.events import (
    ACCESS_KEY_CREATED,
    ACCESS_KEY_DELETED,
    ACCESS_KEY_DISABLED,
    ACCESS_KEY_ENABLED,
    ACCESS_KEYS_USED,
    ACCOUNT_CREATED,
    AUTHORITY_CREATED,
    AUTHORITY_KEY_KEPT,
    AUTHORITY_RETIRED,
    AUTHORITY_ROOT_ADDED,
    AUTHORITY_ROOT_DROPPED,
    AUTHORITY_ROOT_PROMOTED,
    CERTIFICATE_DELETED,
    CERTIFICATE_IMPORTED,
    CERTIFICATE_ISSUED,
    DATA_KEYS_DRAWN,
    DATA_KEYS_REWRAPPED,
    INLINE_POLICY_DELETED,
    INLINE_POLICY_PUT,
    LEVEL_RAISED,
    LOG_RESTORED,
    MESH_ROLLED_BACK,
    MESH_SHARED,
    MESH_UNSHARED,
    POLICY_ATTACHED,
    POLICY_DELETED,
    POLICY_DETACHED,
    POLICY_PUT,
    PRINCIPAL_CREATED,
    PRINCIPAL_DELETED,
    PROXY_IDENTITY_ISSUED,
    QUOTA_CHANGED,
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
from projector.envoy.view import pki_key, share_key

OF_ONE = frozenset({RESOURCE_CREATED, RESOURCE_UPDATED, RESOURCE_DELETED})
OF_MANY = frozenset({MESH_ROLLED_BACK})
OF_SHARES = frozenset({MESH_SHARED, MESH_UNSHARED})
OF_PKI = frozenset(
    {
        AUTHORITY_CREATED,
        AUTHORITY_ROOT_ADDED,
        AUTHORITY_ROOT_PROMOTED,
        AUTHORITY_ROOT_DROPPED,
        AUTHORITY_RETIRED,
        CERTIFICATE_DELETED,
        CERTIFICATE_IMPORTED,
        CERTIFICATE_ISSUED,
    }
)
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
        ACCOUNT_CREATED,
        AUTHORITY_KEY_KEPT,
        PROXY_IDENTITY_ISSUED,
        QUOTA_CHANGED,
        DATA_KEYS_DRAWN,
        DATA_KEYS_REWRAPPED,
        LEVEL_RAISED,
        LOG_RESTORED,
        RECORD_QUARANTINED,
    }
)
"""Tags, credentials, policies, accounts, keys and levels change no spec. (A level is looked at by itself.)"""


def changed_keys(events: Iterable[Event]) -> set[ResourceKey]:
    """The resources made, updated, deleted or rolled back, and the shares, certificates and authorities that began,
    changed or ended, as keys of their own."""
    found: set[ResourceKey] = set()
    for event in events:
        if event.data is None:
            continue
        if event.type in OF_ONE:
            found.add(key_of(event.data["key"]))
        elif event.type in OF_MANY:
            found.update(key_of(change["key"]) for change in event.data["changes"])
        elif event.type in OF_SHARES:
            account, mesh = event.data["account"], event.data["mesh"]
            found.update(share_key(account, mesh, consumer) for consumer in event.data["with"])
        elif event.type in OF_PKI:
            found.add(pki_key(event.data.get("certificate") or event.data["authority"]))
    return found
