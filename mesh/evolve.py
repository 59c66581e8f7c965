"""Events to state: the fold. Total on every type and schema that this build knows, pure, and the only maker of states.

An event that cannot be folded (unknown type or schema, a level above this build, a change of what is not there) is
Poison: the replica stops before it and names the position, and nobody guesses (I7).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from mesh import evolve_iam, evolve_pki, sharing
from mesh.errors import Poison
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
    LEVEL,
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
    SCHEMAS,
    SECRET_TYPES,
    TAGS_CHANGED,
    TRUST_POLICY_PUT,
    Happened,
)
from mesh.frozen import freeze
from mesh.kinds import KINDS, ResourceKey
from mesh.position import Position
from mesh.quotas import QUOTAS, QuotaValue
from mesh.state import Resource, State, TokenEntry

Data = Mapping[str, Any]
Folded = tuple[State, Resource | None]
"""The next state, and the resource that a repeated call is answered with."""

UNFIT = (KeyError, TypeError, ValueError, AttributeError, RecursionError)
"""What a fold raises on data that does not fit: missing members, wrong types, nesting without end."""


def evolve(state: State, event: Happened) -> State:
    """The state after `event`, which must come after `state.position`; raises Poison.

    An event without data (a secret, in a role that cannot open it) moves position, time and token window only, so
    that every role has the same state hash.
    """
    fold = FOLDS.get(event.type)
    if fold is None or event.schema > SCHEMAS[event.type]:
        raise Poison(
            f"the event at {event.position} is of type {event.type} schema {event.schema}, which this build does not "
            "know: run a newer build, or quarantine the event"
        )
    if event.position <= state.position:
        raise Poison(f"the event at {event.position} does not come after {state.position}: the log was read twice")
    moved = state.but(position=event.position, time_us=max(state.time_us, event.time_us))
    outcome: Resource | None = None
    if event.data is not None:
        try:
            moved, outcome = fold(moved, event.data)
        except UNFIT as error:
            # Where the stack ends differs from process to process, so its own words do too.
            why = "it is nested too deep" if isinstance(error, RecursionError) else f"{type(error).__name__} {error}"
            raise Poison(
                f"the event at {event.position} ({event.type}) does not fit the state before it: {why}"
            ) from error
    elif event.type not in SECRET_TYPES:
        raise Poison(f"the event at {event.position} ({event.type}) has no data, and is no secret")
    if event.token is None:
        return moved
    return moved.with_token(event.token.digest, TokenEntry(event.token.body, event.position, moved.time_us, outcome))


def key_of(value: Any) -> ResourceKey:
    """A key as events carry it: five strings."""
    account, mesh, kind, parent, name = value
    if kind not in KINDS:
        raise ValueError(f"'{kind}' is no kind of resource")
    return ResourceKey(account, mesh, kind, parent, name)


def _created(state: State, data: Data) -> Folded:
    key = key_of(data["key"])
    if key in state.resources:
        raise ValueError(f"{key.path} is there already")
    resource = Resource(
        key,
        freeze(data["spec"]),
        freeze(data["tags"]),
        data["uid"],
        1,
        data["owner"],
        state.time_us,
        state.time_us,
        state.position,
    )
    return state.with_resource(resource), resource


def _updated(state: State, data: Data) -> Folded:
    before = state.resources[key_of(data["key"])]
    resource = Resource(
        before.key,
        freeze(data["spec"]),
        before.tags,
        before.uid,
        before.version + 1,
        before.owner,
        before.created_us,
        state.time_us,
        state.position,
    )
    return state.with_resource(resource), resource


def _deleted(state: State, data: Data) -> Folded:
    key = key_of(data["key"])
    gone = state.resources[key]
    return state.without_resource(key, state.position), gone


def _tags_changed(state: State, data: Data) -> Folded:
    before = state.resources[key_of(data["key"])]
    unset = set(data["unset"])
    tags = {key: value for key, value in before.tags.items() if key not in unset}
    tags.update(data["set"])
    # Tags are not the resource's specification: App Mesh moves neither version nor lastUpdatedAt for them.
    resource = replace(before, tags=freeze(tags), changed_at=state.position)
    return state.with_resource(resource), resource


def _rolled_back(state: State, data: Data) -> Folded:
    for change in data["changes"]:
        key = key_of(change["key"])
        if change["spec"] is None:
            state = state.without_resource(key, state.position)
            continue
        resource = Resource(
            key,
            freeze(change["spec"]),
            freeze(change["tags"]),
            change["uid"],
            change["version"],
            change["owner"],
            change["created_us"],
            state.time_us,
            state.position,
        )
        state = state.without_tombstone(resource.uid).with_resource(resource)
    return state, None


def _quota_changed(state: State, data: Data) -> Folded:
    account, code, value = data["account"], data["code"], data["value"]
    if code not in QUOTAS or not (isinstance(account, str) and (value is None or type(value) is int)):
        raise ValueError("it is no quota's value")
    return state.with_entry("quotas", (account, code), None if value is None else QuotaValue(value)), None


def _proxy_identity_issued(state: State, data: Data) -> Folded:
    key_of(data["node"])
    return state, None


def _data_keys(state: State, data: Data) -> Folded:
    if not all(isinstance(key_id, str) for key_id in data["keys"]):
        raise ValueError("a data key's id is text")
    return state, None


def _level_raised(state: State, data: Data) -> Folded:
    level: int = data["level"]
    if level > LEVEL:
        raise ValueError(f"level {level} is above {LEVEL}, the highest that this build understands")
    return state.but(level=max(state.level, level)), None


def _log_restored(state: State, data: Data) -> Folded:
    base = Position(data["from_epoch"], data["position"])
    if base.epoch >= state.position.epoch or base.position + 1 != state.position.position:
        raise ValueError(f"a timeline that goes on from {base} does not begin with {state.position}")
    return state.but(lineage=(*state.lineage, base)), None


def _nothing(state: State, data: Data) -> Folded:  # noqa: ARG001 - one shape for the table
    return state, None


def _stateful(fold: Callable[[State, Data], State]) -> Callable[[State, Data], Folded]:
    """A fold of what is no resource, as the table wants it."""
    return lambda state, data: (fold(state, data), None)


FOLDS: Mapping[str, Callable[[State, Data], Folded]] = {
    RESOURCE_CREATED: _created,
    RESOURCE_UPDATED: _updated,
    RESOURCE_DELETED: _deleted,
    TAGS_CHANGED: _tags_changed,
    MESH_ROLLED_BACK: _rolled_back,
    ACCESS_KEY_CREATED: _stateful(evolve_iam.access_key_created),
    ACCESS_KEY_DISABLED: _stateful(evolve_iam.access_key_disabled),
    ACCESS_KEY_ENABLED: _stateful(evolve_iam.access_key_enabled),
    ACCESS_KEY_DELETED: _stateful(evolve_iam.access_key_deleted),
    ACCESS_KEYS_USED: _stateful(evolve_iam.access_keys_used),
    PRINCIPAL_CREATED: _stateful(evolve_iam.principal_created),
    PRINCIPAL_DELETED: _stateful(evolve_iam.principal_deleted),
    POLICY_ATTACHED: _stateful(evolve_iam.policy_attached),
    POLICY_DETACHED: _stateful(evolve_iam.policy_detached),
    INLINE_POLICY_PUT: _stateful(evolve_iam.inline_policy_put),
    INLINE_POLICY_DELETED: _stateful(evolve_iam.inline_policy_deleted),
    TRUST_POLICY_PUT: _stateful(evolve_iam.trust_policy_put),
    POLICY_PUT: _stateful(evolve_iam.policy_put),
    POLICY_DELETED: _stateful(evolve_iam.policy_deleted),
    ACCOUNT_CREATED: _stateful(sharing.fold_account_created),
    MESH_SHARED: _stateful(sharing.fold_shared),
    MESH_UNSHARED: _stateful(sharing.fold_unshared),
    QUOTA_CHANGED: _quota_changed,
    AUTHORITY_CREATED: _stateful(evolve_pki.authority_created),
    AUTHORITY_ROOT_ADDED: _stateful(evolve_pki.authority_root_added),
    AUTHORITY_ROOT_PROMOTED: _stateful(evolve_pki.authority_root_promoted),
    AUTHORITY_ROOT_DROPPED: _stateful(evolve_pki.authority_root_dropped),
    AUTHORITY_KEY_KEPT: _stateful(evolve_pki.authority_key_kept),
    AUTHORITY_RETIRED: _stateful(evolve_pki.authority_retired),
    CERTIFICATE_ISSUED: _stateful(evolve_pki.certificate_put),
    CERTIFICATE_IMPORTED: _stateful(evolve_pki.certificate_put),
    CERTIFICATE_DELETED: _stateful(evolve_pki.certificate_deleted),
    PROXY_IDENTITY_ISSUED: _proxy_identity_issued,
    DATA_KEYS_DRAWN: _data_keys,
    DATA_KEYS_REWRAPPED: _data_keys,
    LEVEL_RAISED: _level_raised,
    LOG_RESTORED: _log_restored,
    RECORD_QUARANTINED: _nothing,
}
"""One small function for each type of event."""
