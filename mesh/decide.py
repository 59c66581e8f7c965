"""Commands to events: every rule that needs to know what else exists. Pure; the state is that of the log's head.

A repeated token answers from the log. Otherwise a command gives the events that it leads to, or a domain error that
says what is in the way. `decide` changes nothing: the events count once they are in the log, and `evolve` folds them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from mesh import decide_iam, decide_pki, sharing
from mesh.commands import (
    AttachPolicy,
    Command,
    Context,
    Create,
    CreateAccessKey,
    CreateAccount,
    CreatePrincipal,
    Delete,
    DeleteAccessKey,
    DeleteInlinePolicy,
    DeletePolicy,
    DeletePrincipal,
    DetachPolicy,
    DisableAccessKey,
    EnableAccessKey,
    IssueProxyIdentity,
    PutInlinePolicy,
    PutPolicy,
    PutTrustPolicy,
    RaiseLevel,
    RecordDataKeys,
    RecordKeyUse,
    Rollback,
    SetQuota,
    ShareMesh,
    TagResource,
    UnshareMesh,
    UntagResource,
    Update,
)
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
from mesh.errors import BadRequest, Conflict, LevelTooLow, NotFound
from mesh.events import (
    DATA_KEYS_DRAWN,
    DATA_KEYS_REWRAPPED,
    LEVEL,
    LEVEL_RAISED,
    LEVELS,
    MESH_ROLLED_BACK,
    PROXY_IDENTITY_ISSUED,
    RESOURCE_CREATED,
    RESOURCE_DELETED,
    RESOURCE_UPDATED,
    TAGS_CHANGED,
    NewEvent,
)
from mesh.frozen import thaw
from mesh.in_use import check_unused, titled
from mesh.kinds import (
    KINDS,
    MESH,
    VIRTUAL_GATEWAY,
    VIRTUAL_NODE,
    ResourceKey,
    mesh_key,
)
from mesh.limits import PROBLEMS_SHOWN
from mesh.ports import check_ports
from mesh.quotas import check_backends, check_room, set_quota
from mesh.references import hard_references
from mesh.rollback import RollbackPlan, plan_rollback
from mesh.rules import check_key, check_spec, check_tags
from mesh.state import Resource, State, TokenEntry


@dataclass(frozen=True, slots=True)
class Decision:
    """What a command leads to. `events` empty and `replay` None: nothing to change, nothing to write.

    `replay` is the answer of the first call with the same token.
    """

    events: tuple[NewEvent, ...]
    replay: TokenEntry | None = None


def decide(state: State, command: Command, context: Context) -> Decision:
    """The events that `command` leads to in `state`; raises a CallerError that names what is in the way."""
    if context.allowed is not None:
        context.allowed(state)
    if context.token is not None:
        entry = state.tokens.get(context.token.digest)
        if entry is not None:
            if entry.body == context.token.body:
                return Decision((), entry)
            raise Conflict(
                f"the clientToken of this {context.operation} was used before, with another input: "
                "send a new token, or the same input"
            )
    events = tuple(DECIDERS[type(command)](state, command, context))
    needed = max((LEVELS.get(event.type, 1) for event in events), default=1)
    if state.level < needed <= context.level:
        events = (NewEvent(LEVEL_RAISED, {"level": needed}), *events)
    elif needed > state.level:
        raise LevelTooLow(
            f"{context.operation} needs a cluster of level {needed}, and this one is of level {state.level}: some "
            "server still runs an older build. Upgrade all of them, and try again: the level then rises by itself"
        )
    return Decision(events)


def present(state: State, key: ResourceKey) -> Resource:
    """The living resource of that key; NotFound in AWS's words."""
    resource = state.get(key)
    if resource is None:
        raise NotFound(f"{titled(key)} is not present {_place(key)}")
    return resource


def _place(key: ResourceKey) -> str:
    if key.kind == MESH.name:
        return f"for account {key.account}"
    parent = KINDS[key.kind].parent
    within = f"under {KINDS[parent].title} {key.parent} " if parent else ""
    return f"{within}under mesh {key.mesh} for account {key.account}"


def _create(state: State, command: Create, context: Context) -> list[NewEvent]:
    key = command.key
    check_key(key)
    # Before anything is looked up, here as below, so that it tells nobody what exists in another account.
    sharing.check_may_create(state, key, context.account)
    if not command.checked:
        check_spec(key.kind, command.spec)
    tags = check_tags(command.tags)
    references = hard_references(key, command.spec)
    for reference in references:
        if not reference.path:
            present(state, reference.target)
    if key in state.resources:
        raise Conflict(f"{titled(key)} already exists {_place(key)}")
    _check_references(state, key, command.spec)
    check_ports(state, key, command.spec)
    check_room(state, key, command.spec)
    data = {"key": list(key), "uid": context.uid, "owner": context.account, "spec": _plain(command.spec), "tags": tags}
    return [NewEvent(RESOURCE_CREATED, data)]


def _plain(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    # What comes from a request's JSON is plain already, and nobody's to change.
    return spec if type(spec) is dict else cast("Mapping[str, Any]", thaw(spec))


def _update(state: State, command: Update, context: Context) -> list[NewEvent]:
    key = command.key
    sharing.check_visible(state, key.account, key.mesh, context.account)
    if not command.checked:
        check_spec(key.kind, command.spec)
    before = _present_with_parents(state, key)
    sharing.check_may_change(before, context.account)
    _check_references(state, key, command.spec)
    check_ports(state, key, command.spec)
    check_backends(state, key, command.spec, before.spec)
    # An update that changes nothing is an event too: App Mesh moves the version for it.
    return [NewEvent(RESOURCE_UPDATED, {"key": list(key), "spec": _plain(command.spec)})]


def _delete(state: State, command: Delete, context: Context) -> list[NewEvent]:
    key = command.key
    sharing.check_visible(state, key.account, key.mesh, context.account)
    sharing.check_may_delete(_present_with_parents(state, key), context.account)
    check_unused(state, key)
    return [NewEvent(RESOURCE_DELETED, {"key": list(key)})]


def _tag(state: State, command: TagResource, context: Context) -> list[NewEvent]:
    resource = _taggable(state, command.key, context)
    check_tags(command.tags, resource.tags)
    if all(resource.tags.get(key) == value for key, value in command.tags.items()):
        return []
    return [NewEvent(TAGS_CHANGED, {"key": list(command.key), "set": dict(command.tags), "unset": []})]


def _untag(state: State, command: UntagResource, context: Context) -> list[NewEvent]:
    resource = _taggable(state, command.key, context)
    unset = sorted(set(command.tag_keys) & set(resource.tags))
    if not unset:
        return []
    return [NewEvent(TAGS_CHANGED, {"key": list(command.key), "set": {}, "unset": unset})]


def _taggable(state: State, key: ResourceKey, context: Context) -> Resource:
    """App Mesh: an account tags, and lists the tags of, what it made."""
    sharing.check_visible(state, key.account, key.mesh, context.account)
    resource = _present_with_parents(state, key)
    sharing.check_may_change(resource, context.account, "tag")
    return resource


def rollback_plan(state: State, command: Rollback, asked_by: str) -> RollbackPlan:
    """What `command` would do for that account, with every reason not to; NotFound if there is nothing to take back."""
    account, mesh, then = command.account, command.mesh, command.to
    home = mesh_key(account, mesh)
    for key in sorted({home} | (command.only or set())):
        if key not in state.resources and key not in then.resources:
            raise NotFound(
                f"{titled(key)} is not present {_place(key)}, neither now nor after position {then.position}"
            )
    plan = plan_rollback(state, then, account, mesh, command.only)
    return replace(plan, refusals=(*plan.refusals, *sharing.foreign_changes(plan.changes, asked_by)))


def _rollback(state: State, command: Rollback, context: Context) -> list[NewEvent]:
    account, mesh, then = command.account, command.mesh, command.to
    if then.position > state.position:
        raise BadRequest(f"the log is at {state.position} and has no position {then.position} to roll back to yet")
    sharing.check_visible_at(state, account, mesh, context.account, then.position)
    changed_at = state.changed_in.get(mesh_key(account, mesh))
    if command.seen is not None and changed_at is not None and changed_at > command.seen:
        raise Conflict(
            f"mesh {mesh} was changed at {changed_at}, after what would change was shown (at {command.seen}); nothing "
            "was rolled back: look again"
        )
    plan = rollback_plan(state, command, context.account)
    if plan.refusals:
        more = f"; and {len(plan.refusals) - PROBLEMS_SHOWN} more" if len(plan.refusals) > PROBLEMS_SHOWN else ""
        reasons = "; ".join(plan.refusals[:PROBLEMS_SHOWN]) + more
        raise Conflict(f"mesh {mesh} cannot be rolled back to {then.position}: {reasons}")
    if plan.deletes_mesh and not command.allow_mesh_deletion:
        raise Conflict(
            f"mesh {mesh} did not exist after position {then.position}: rolling back deletes it with all "
            f"{len(plan.changes) - 1} resources in it. Choose a later position, or allow it: allow_mesh_deletion"
        )
    if not plan.changes:
        return []
    data: dict[str, Any] = {
        "account": account,
        "mesh": mesh,
        "to": list(then.position),
        "changes": [change.data() for change in plan.changes],
    }
    if command.only is not None:
        data["only"] = [list(key) for key in sorted(command.only)]
    return [NewEvent(MESH_ROLLED_BACK, data)]


def _issue_proxy_identity(state: State, command: IssueProxyIdentity, context: Context) -> list[NewEvent]:
    node = command.node
    if node.kind not in (VIRTUAL_NODE.name, VIRTUAL_GATEWAY.name):
        raise BadRequest(f"'{node.path}' is no virtual node and no virtual gateway: only those have proxies")
    check_key(node)
    sharing.check_visible(state, node.account, node.mesh, context.account)
    # The node need not exist yet: proxies may start before their mesh is described.
    sharing.check_may_run(state, node, context.account)
    if node.account != context.account:
        present(state, node)
    data = {"node": list(node), "serial": command.serial, "not_after_us": command.not_after_us}
    return [NewEvent(PROXY_IDENTITY_ISSUED, data)]


def _record_data_keys(state: State, command: RecordDataKeys, context: Context) -> list[NewEvent]:  # noqa: ARG001
    if not command.key_ids:
        return []
    if command.kek is None:
        return [NewEvent(DATA_KEYS_DRAWN, {"keys": list(command.key_ids)})]
    return [NewEvent(DATA_KEYS_REWRAPPED, {"keys": list(command.key_ids), "kek": command.kek})]


def _raise_level(state: State, command: RaiseLevel, context: Context) -> list[NewEvent]:  # noqa: ARG001
    if not state.level <= command.level <= LEVEL:
        raise BadRequest(
            f"level {command.level} is out of reach: the cluster is at {state.level} and never goes back, "
            f"and this build understands up to {LEVEL}"
        )
    return [NewEvent(LEVEL_RAISED, {"level": command.level})] if command.level > state.level else []


def _present_with_parents(state: State, key: ResourceKey) -> Resource:
    """The resource; when it is absent since its mesh or parent is, NotFound names that."""
    if key not in state.resources:
        for reference in hard_references(key, {}):
            present(state, reference.target)
    return present(state, key)


def _check_references(state: State, key: ResourceKey, spec: Mapping[str, Any]) -> None:
    targets = dict.fromkeys(reference.target for reference in hard_references(key, spec))
    missing = [target for target in targets if target not in state.resources]
    if missing:
        raise NotFound("; ".join(f"{titled(target)} is not present {_place(target)}" for target in missing))


DECIDERS = cast(
    "Mapping[type[Command], Callable[[State, Command, Context], list[NewEvent]]]",
    {
        Create: _create,
        Update: _update,
        Delete: _delete,
        TagResource: _tag,
        UntagResource: _untag,
        Rollback: _rollback,
        CreateAccessKey: decide_iam.create_access_key,
        DisableAccessKey: decide_iam.disable_access_key,
        EnableAccessKey: decide_iam.enable_access_key,
        DeleteAccessKey: decide_iam.delete_access_key,
        RecordKeyUse: decide_iam.record_key_use,
        CreatePrincipal: decide_iam.create_principal,
        DeletePrincipal: decide_iam.delete_principal,
        AttachPolicy: decide_iam.attach_policy,
        DetachPolicy: decide_iam.detach_policy,
        PutInlinePolicy: decide_iam.put_inline_policy,
        DeleteInlinePolicy: decide_iam.delete_inline_policy,
        PutTrustPolicy: decide_iam.put_trust_policy,
        PutPolicy: decide_iam.put_policy,
        DeletePolicy: decide_iam.delete_policy,
        SetQuota: set_quota,
        CreateAccount: sharing.decide_create_account,
        ShareMesh: sharing.decide_share,
        UnshareMesh: sharing.decide_unshare,
        CreateAuthority: decide_pki.create_authority,
        RotateAuthority: decide_pki.rotate_authority,
        PromoteRoot: decide_pki.promote_root,
        DropRoot: decide_pki.drop_root,
        RetireAuthority: decide_pki.retire_authority,
        IssueCertificate: decide_pki.issue_certificate,
        ImportCertificate: decide_pki.import_certificate,
        DeleteCertificate: decide_pki.delete_certificate,
        IssueProxyIdentity: _issue_proxy_identity,
        RecordDataKeys: _record_data_keys,
        RaiseLevel: _raise_level,
    },
)
"""One small function for each command."""
