"""What a caller asks for, as values: a request that passed the model, turned into one of a closed set of commands.

`decide` turns a command and the state at the log's head into events or a domain error. A command never holds a
time, a random value or a connection: whatever differs between two attempts comes with the `Context`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from mesh.commands_pki import (
    CreateAuthority,
    DeleteCertificate,
    DropRoot,
    ImportCertificate,
    IssueCertificate,
    PromoteRoot,
    RetireAuthority,
    RotateAuthority,
)
from mesh.events import Token
from mesh.kinds import ResourceKey
from mesh.position import Position
from mesh.state import State


@dataclass(frozen=True, slots=True)
class Create:
    """Make a resource that does not exist yet. `spec` is the caller's own ({} where the API leaves it out).

    `checked`: the spec has passed `rules.check_spec` and need not again, however often the command is decided.
    """

    key: ResourceKey
    spec: Mapping[str, Any]
    tags: Mapping[str, str] = field(default_factory=dict)
    checked: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Update:
    """Replace the whole spec of a resource. Tags stay. `checked` as in `Create`."""

    key: ResourceKey
    spec: Mapping[str, Any]
    checked: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Delete:
    key: ResourceKey


@dataclass(frozen=True, slots=True)
class TagResource:
    """Add tags, or replace the values of those that are there."""

    key: ResourceKey
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class UntagResource:
    """Take tags away; keys that are not there are no error (as in AWS)."""

    key: ResourceKey
    tag_keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rollback:
    """Bring one mesh back to what it was in `to`, the state after the wanted position (`to.position`).

    `allow_mesh_deletion`: the mesh did not exist then, and the caller says that it shall go with all that is in it.
    `only`: not all of it, but these resources of it. `seen`: the position at which the caller was shown what would
    change; a later change of the mesh makes this another rollback than the one that was asked for.
    """

    account: str
    mesh: str
    to: State
    allow_mesh_deletion: bool = False
    only: frozenset[ResourceKey] | None = None
    seen: Position | None = None


@dataclass(frozen=True, slots=True)
class CreateAccessKey:
    """Issue a SigV4 key pair that the shell has drawn. `principal` is an ARN; only `by_admin` is an admin's made."""

    access_key_id: str
    secret: str = field(repr=False)
    account: str
    principal: str
    admin: bool
    by_admin: bool = True


@dataclass(frozen=True, slots=True)
class DisableAccessKey:
    """Let an access key of `account` open nothing until it is enabled again.

    `principal`: whose it must be, if the caller said so. `by_admin`: only an admin touches an admin key. These of the
    next two, as well.
    """

    access_key_id: str
    account: str
    principal: str = ""
    by_admin: bool = True


@dataclass(frozen=True, slots=True)
class EnableAccessKey:
    """Let a disabled access key of `account` open again what it did."""

    access_key_id: str
    account: str
    principal: str = ""
    by_admin: bool = True


@dataclass(frozen=True, slots=True)
class DeleteAccessKey:
    """Forget an access key of `account`."""

    access_key_id: str
    account: str
    principal: str = ""
    by_admin: bool = True


@dataclass(frozen=True, slots=True)
class RecordKeyUse:
    """Put on record which access keys were used in an hour of log time. Those that are on record are left out."""

    hour_us: int
    key_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CreatePrincipal:
    """Make a user, or a role that `trust` (a policy document, JSON text) lets others assume."""

    arn: str
    trust: str | None = None


@dataclass(frozen=True, slots=True)
class DeletePrincipal:
    """Delete a user or role that has nothing left: no access key, no policy."""

    arn: str


@dataclass(frozen=True, slots=True)
class AttachPolicy:
    """Attach a managed policy (of the account's own, or one of AWS's that Meshlog has) to a user or role."""

    principal: str
    policy: str


@dataclass(frozen=True, slots=True)
class DetachPolicy:
    principal: str
    policy: str


@dataclass(frozen=True, slots=True)
class PutInlinePolicy:
    """Make or replace a policy that is a user's or role's own. `document` is JSON text."""

    principal: str
    name: str
    document: str


@dataclass(frozen=True, slots=True)
class DeleteInlinePolicy:
    principal: str
    name: str


@dataclass(frozen=True, slots=True)
class PutTrustPolicy:
    """Replace who may assume a role."""

    role: str
    document: str


@dataclass(frozen=True, slots=True)
class PutPolicy:
    """Make or replace a managed policy of the account's own. `create`: it must not be there yet."""

    arn: str
    document: str
    create: bool = False


@dataclass(frozen=True, slots=True)
class DeletePolicy:
    """Delete a managed policy that is attached to nobody."""

    arn: str


@dataclass(frozen=True, slots=True)
class CreateAccount:
    """Add a tenant, with the first admin key of it, which the shell has drawn."""

    account: str
    name: str
    access_key_id: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ShareMesh:
    """Share a mesh of `account` with other accounts."""

    account: str
    mesh: str
    consumers: frozenset[str]


@dataclass(frozen=True, slots=True)
class UnshareMesh:
    """Share a mesh of `account` no more with these."""

    account: str
    mesh: str
    consumers: frozenset[str]


@dataclass(frozen=True, slots=True)
class SetQuota:
    """Let `account` have that much of what the quota is for; None: App Mesh's default."""

    account: str
    code: str
    value: int | None


@dataclass(frozen=True, slots=True)
class IssueProxyIdentity:
    """Put on record that a proxy certificate was signed. `node` is a virtual node or gateway that may not exist yet."""

    node: ResourceKey
    serial: str
    not_after_us: int


@dataclass(frozen=True, slots=True)
class RecordDataKeys:
    """Put on record that data keys were drawn, or that they are wrapped by the key-encryption key `kek` now."""

    key_ids: tuple[str, ...]
    kek: str | None = None


@dataclass(frozen=True, slots=True)
class RaiseLevel:
    """Let the cluster emit what `level` brought; the caller has seen that all live members understand it."""

    level: int


Command = (
    Create
    | Update
    | Delete
    | TagResource
    | UntagResource
    | Rollback
    | CreateAccessKey
    | DisableAccessKey
    | EnableAccessKey
    | DeleteAccessKey
    | RecordKeyUse
    | CreatePrincipal
    | DeletePrincipal
    | AttachPolicy
    | DetachPolicy
    | PutInlinePolicy
    | DeleteInlinePolicy
    | PutTrustPolicy
    | PutPolicy
    | DeletePolicy
    | SetQuota
    | CreateAccount
    | ShareMesh
    | UnshareMesh
    | CreateAuthority
    | RotateAuthority
    | PromoteRoot
    | DropRoot
    | RetireAuthority
    | IssueCertificate
    | ImportCertificate
    | DeleteCertificate
    | IssueProxyIdentity
    | RecordDataKeys
    | RaiseLevel
)
COMMANDS: tuple[type[Command], ...] = get_args(Command)


@dataclass(frozen=True, slots=True)
class Context:
    """Who asks, and what the shell drew for this command.

    `account` and `principal` (an ARN) are the caller's; `operation` is the API operation's name; `uid` is a fresh
    resource id, used if the command creates one. `level` is what all live members of the cluster are known to
    understand: a command that needs it raises the cluster's to it. `allowed` raises a
    CallerError where the caller may not do this by some state: it is asked of the one that is decided on. Equal
    contexts and states give equal decisions.
    """

    account: str
    principal: str
    operation: str
    token: Token | None = None
    uid: str = ""
    now_us: int = 0
    level: int = 1
    allowed: Callable[[State], None] | None = field(default=None, compare=False)


def idempotency_token(
    account: str, principal: str, operation: str, client_token: str, members: Mapping[str, Any]
) -> Token:
    """The mark that makes a repeated call one event (digest: who and what; body: with which input).

    `members` is the whole input, path and query members among it; `clientToken` itself is left out of the body's
    digest, so that a request id can stand in for a token that the caller did not send.
    """
    who = json.dumps([account, principal, operation, client_token]).encode()
    told = {name: value for name, value in members.items() if name != "clientToken"}
    what = json.dumps(told, sort_keys=True, separators=(",", ":"), default=dict).encode()
    return Token(hashlib.sha256(who).digest(), hashlib.sha256(what).digest())
