"""What the log says happened: one envelope, a closed set of types.

`eventlog` carries the envelope's fields as a sealed record and `data` as plain msgpack values; the fold (`evolve`)
gives them their meaning. Data shapes, by type:

    ResourceCreated      {key: [5 strings of ResourceKey], uid, owner, spec, tags: {k: v}}
    ResourceUpdated      {key, spec}
    ResourceDeleted      {key}
    TagsChanged          {key, set: {k: v}, unset: [k]}
    MeshRolledBack       {account, mesh, to: [epoch, position], only?: [key],
                          changes: [{key, uid, owner, version, created_us, spec|None, tags}]}
                         spec None: the resource goes; else it is (again) with exactly what is said here
    AccessKeyCreated     {access_key_id, secret, account, principal, admin}     sealed in the secrets class
    AccessKeyDisabled    {access_key_id}                                        no secret in it, as the next three
    AccessKeyEnabled     {access_key_id}
    AccessKeyDeleted     {access_key_id}
    AccessKeysUsed       {hour_us, keys: [id]}                                  in that hour, for the first time
    PrincipalCreated     {principal: arn, account, trust: document|None}        a user, or a role with its trust policy
    PrincipalDeleted     {principal}
    PolicyAttached       {principal, policy: arn}                               AWS's own policies are in no event
    PolicyDetached       {principal, policy}
    InlinePolicyPut      {principal, name, document}                            made or replaced, as the next two
    InlinePolicyDeleted  {principal, name}
    TrustPolicyPut       {principal, document}
    PolicyPut            {policy, account, document}
    PolicyDeleted        {policy}
                         documents are JSON texts, as they came. `within: true`, in what a restore applies again: this
                         may only take away what is allowed, and bears that what it names is not there
    AccountCreated       {account, name}                                        its first admin key comes beside it
    MeshShared           {account, mesh, with: [account]}                       account: the mesh's owner, as below
    MeshUnshared         {account, mesh, with: [account]}
    QuotaChanged         {account, code, value|None}                            None: App Mesh's default again
    AuthorityCreated     {authority: arn, account, name, root: {id, certificate, not_before_us, not_after_us}, issues}
    AuthorityRootAdded   {authority, root}                      believed from here on, beside the ones before
    AuthorityRootPromoted {authority, root: id}                 certificates are issued under it from here on
    AuthorityRootDropped {authority, root: id}                  believed no more
    AuthorityKeyKept     {authority, root: id, secret}          a root's key, sealed in the secrets class
    AuthorityRetired     {authority}
    CertificateIssued    {certificate: arn, account, names, authority, root: id, chain, secret, serial, not_before_us,
                          not_after_us}                         for the first time or anew; `secret`: its key, which
                         projectors open, since proxies must have it
    CertificateImported  the same without authority and root
    CertificateDeleted   {certificate}
    ProxyIdentityIssued  {node: key, serial, not_after_us}                      no state, an audit fact
    DataKeysDrawn        {keys: [id]}                                           no state, an audit fact, as the next
    DataKeysRewrapped    {keys: [id], kek}                                      kek: what wraps them now
    LevelRaised          {level}
    LogRestored          {from_epoch, position, hash, to, known, reason}
                         the first of an epoch: this timeline goes on from that position of an earlier epoch, whose
                         record has that hash (hex). `to` is what was asked for, `known` the last position that
                         anybody knew of the timeline that was left (None: nobody was left to ask)
    RecordQuarantined    {position: [epoch, position], time_us, reason}         see eventlog.quarantine
                         an operator's word that a record before it does not count. It changes no state, nor does the
                         stand-in of the same type that every reader is given in that record's place
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mesh.kinds import ResourceKey, mesh_key
from mesh.position import Position

RESOURCE_CREATED = "ResourceCreated"
RESOURCE_UPDATED = "ResourceUpdated"
RESOURCE_DELETED = "ResourceDeleted"
TAGS_CHANGED = "TagsChanged"
MESH_ROLLED_BACK = "MeshRolledBack"
ACCESS_KEY_CREATED = "AccessKeyCreated"
ACCESS_KEY_DISABLED = "AccessKeyDisabled"
ACCESS_KEY_ENABLED = "AccessKeyEnabled"
ACCESS_KEY_DELETED = "AccessKeyDeleted"
ACCESS_KEYS_USED = "AccessKeysUsed"
PRINCIPAL_CREATED = "PrincipalCreated"
PRINCIPAL_DELETED = "PrincipalDeleted"
POLICY_ATTACHED = "PolicyAttached"
POLICY_DETACHED = "PolicyDetached"
INLINE_POLICY_PUT = "InlinePolicyPut"
INLINE_POLICY_DELETED = "InlinePolicyDeleted"
TRUST_POLICY_PUT = "TrustPolicyPut"
POLICY_PUT = "PolicyPut"
POLICY_DELETED = "PolicyDeleted"
QUOTA_CHANGED = "QuotaChanged"
ACCOUNT_CREATED = "AccountCreated"
MESH_SHARED = "MeshShared"
MESH_UNSHARED = "MeshUnshared"
AUTHORITY_CREATED = "AuthorityCreated"
AUTHORITY_ROOT_ADDED = "AuthorityRootAdded"
AUTHORITY_ROOT_PROMOTED = "AuthorityRootPromoted"
AUTHORITY_ROOT_DROPPED = "AuthorityRootDropped"
AUTHORITY_KEY_KEPT = "AuthorityKeyKept"
AUTHORITY_RETIRED = "AuthorityRetired"
CERTIFICATE_ISSUED = "CertificateIssued"
CERTIFICATE_IMPORTED = "CertificateImported"
CERTIFICATE_DELETED = "CertificateDeleted"
PROXY_IDENTITY_ISSUED = "ProxyIdentityIssued"
DATA_KEYS_DRAWN = "DataKeysDrawn"
DATA_KEYS_REWRAPPED = "DataKeysRewrapped"
LEVEL_RAISED = "LevelRaised"
LOG_RESTORED = "LogRestored"
RECORD_QUARANTINED = "RecordQuarantined"

EVENT_TYPES = (
    RESOURCE_CREATED,
    RESOURCE_UPDATED,
    RESOURCE_DELETED,
    TAGS_CHANGED,
    MESH_ROLLED_BACK,
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
    MESH_SHARED,
    MESH_UNSHARED,
    QUOTA_CHANGED,
    AUTHORITY_CREATED,
    AUTHORITY_ROOT_ADDED,
    AUTHORITY_ROOT_PROMOTED,
    AUTHORITY_ROOT_DROPPED,
    AUTHORITY_KEY_KEPT,
    AUTHORITY_RETIRED,
    CERTIFICATE_ISSUED,
    CERTIFICATE_IMPORTED,
    CERTIFICATE_DELETED,
    PROXY_IDENTITY_ISSUED,
    DATA_KEYS_DRAWN,
    DATA_KEYS_REWRAPPED,
    LEVEL_RAISED,
    LOG_RESTORED,
    RECORD_QUARANTINED,
)

LEVEL = 3
"""The highest level this build understands, and so may be raised to."""

LEVELS: Mapping[str, int] = {
    ACCESS_KEY_ENABLED: 2,
    ACCESS_KEY_DELETED: 2,
    ACCESS_KEYS_USED: 2,
    PRINCIPAL_CREATED: 2,
    PRINCIPAL_DELETED: 2,
    POLICY_ATTACHED: 2,
    POLICY_DETACHED: 2,
    INLINE_POLICY_PUT: 2,
    INLINE_POLICY_DELETED: 2,
    TRUST_POLICY_PUT: 2,
    POLICY_PUT: 2,
    POLICY_DELETED: 2,
    QUOTA_CHANGED: 2,
    ACCOUNT_CREATED: 2,
    MESH_SHARED: 2,
    MESH_UNSHARED: 2,
    AUTHORITY_CREATED: 3,
    AUTHORITY_ROOT_ADDED: 3,
    AUTHORITY_ROOT_PROMOTED: 3,
    AUTHORITY_ROOT_DROPPED: 3,
    AUTHORITY_KEY_KEPT: 3,
    AUTHORITY_RETIRED: 3,
    CERTIFICATE_ISSUED: 3,
    CERTIFICATE_IMPORTED: 3,
    CERTIFICATE_DELETED: 3,
}
"""The level that a cluster must have before an event of the type may be written; 1 for what is not named. An older
build stops in front of a type that it does not know, so `decide` writes none before all members know it."""

SCHEMAS: Mapping[str, int] = dict.fromkeys(EVENT_TYPES, 1)
"""The data shape that this build writes for each type, and the highest that it can fold."""

SECRET_TYPES = frozenset({ACCESS_KEY_CREATED, AUTHORITY_KEY_KEPT})
"""Types sealed under the secrets class of data key: only the API role can open them."""

NARROWING_TYPES = frozenset(
    {POLICY_ATTACHED, POLICY_DETACHED, INLINE_POLICY_PUT, INLINE_POLICY_DELETED, TRUST_POLICY_PUT, POLICY_PUT}
)
"""Types that may take access away, as may give some. A restore applies them with `within`."""

RESTRICTING_TYPES = NARROWING_TYPES | {
    ACCESS_KEY_DISABLED,
    ACCESS_KEY_DELETED,
    PRINCIPAL_DELETED,
    POLICY_DELETED,
    MESH_UNSHARED,
}
"""Types that take access away. A restore to a moment before such an event applies it again: what was revoked stays
revoked, whatever else is lost. So the fold of each of them must bear that what it names is not there."""


def subject(event_type: str, data: Mapping[str, Any] | None) -> ResourceKey | None:
    """The resource an event is about (a whole mesh, a certificate's node); None where there is none."""
    if data is None:
        return None
    if event_type in (MESH_ROLLED_BACK, MESH_SHARED, MESH_UNSHARED):
        return mesh_key(data["account"], data["mesh"])
    key = data.get("node") if event_type == PROXY_IDENTITY_ISSUED else data.get("key")
    return ResourceKey(*key) if key else None


@dataclass(frozen=True, slots=True)
class Token:
    """The idempotency mark of a write: who and what (`digest`), and with which body (`body`). Both SHA-256."""

    digest: bytes
    body: bytes


class Mark(Protocol):
    """A `Token`, or whatever carries the same."""

    @property
    def digest(self) -> bytes: ...

    @property
    def body(self) -> bytes: ...


class Happened(Protocol):
    """What the fold looks at of an event: an `Event`, or an opened record as it comes from the log."""

    @property
    def position(self) -> Position: ...

    @property
    def time_us(self) -> int: ...

    @property
    def type(self) -> str: ...

    @property
    def schema(self) -> int: ...

    @property
    def token(self) -> Mark | None: ...

    @property
    def data(self) -> Mapping[str, Any] | None: ...


@dataclass(frozen=True, slots=True)
class NewEvent:
    """What `decide` gives: an event that has no place in the log yet."""

    type: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """One event in its place. `time_us` never goes back within a log; `actor` is the principal's ARN.

    `data` is None when this role cannot open it (a secret, in a projector): it then changes no configuration.
    """

    position: Position
    time_us: int
    wall_us: int
    type: str
    schema: int
    account: str
    actor: str
    source_ip: str
    request_id: str
    token: Token | None
    data: Mapping[str, Any] | None
