"""Commands about access to events: keys, users, roles and policies of the caller's own account. Pure.

Who may ask is authorised before (`api.authorization`); here is what must hold whoever asks. What another account has is
as absent to a caller as what is nowhere.
"""

from __future__ import annotations

import re

from mesh.commands import (
    AttachPolicy,
    Context,
    CreateAccessKey,
    CreatePrincipal,
    DeleteAccessKey,
    DeleteInlinePolicy,
    DeletePolicy,
    DeletePrincipal,
    DetachPolicy,
    DisableAccessKey,
    EnableAccessKey,
    PutInlinePolicy,
    PutPolicy,
    PutTrustPolicy,
    RecordKeyUse,
)
from mesh.errors import BadRequest, Conflict, Forbidden, LimitExceeded, NotFound
from mesh.events import (
    ACCESS_KEY_CREATED,
    ACCESS_KEY_DELETED,
    ACCESS_KEY_DISABLED,
    ACCESS_KEY_ENABLED,
    ACCESS_KEYS_USED,
    INLINE_POLICY_DELETED,
    INLINE_POLICY_PUT,
    POLICY_ATTACHED,
    POLICY_DELETED,
    POLICY_DETACHED,
    POLICY_PUT,
    PRINCIPAL_CREATED,
    PRINCIPAL_DELETED,
    TRUST_POLICY_PUT,
    NewEvent,
)
from mesh.iam.managed import MANAGED, PREFIX
from mesh.iam.policy import check_policy
from mesh.limits import (
    ACCESS_KEYS_PER_USER,
    INLINE_POLICIES_MAX_CHARS,
    POLICIES_PER_ACCOUNT,
    POLICIES_PER_PRINCIPAL,
    POLICY_MAX_CHARS,
    POLICY_NAME_MAX_CHARS,
    POLICY_TEXT_MAX_BYTES,
    PRINCIPALS_PER_ACCOUNT,
    TRUST_POLICY_MAX_CHARS,
    USER_NAME_MAX_CHARS,
    VALUE_SHOWN_CHARS,
)
from mesh.principals import AccessKey, IamName, Principal, iam_name
from mesh.rules import is_account
from mesh.state import State

Events = list[NewEvent]
_POLICY_NAME = re.compile(r"[A-Za-z0-9_+=,.@-]{1," + str(POLICY_NAME_MAX_CHARS) + "}")


# --- access keys


def create_access_key(state: State, command: CreateAccessKey, context: Context) -> Events:  # noqa: ARG001
    if not is_account(command.account):
        raise BadRequest(f"account: '{command.account[:40]}' must be twelve digits")
    if not command.access_key_id or not command.secret:
        raise BadRequest("an access key needs an id and a secret")
    if command.admin and not command.by_admin:
        raise Forbidden("An admin key can only be made with an admin key: it is the root of its account")
    if command.access_key_id in state.access_keys:
        raise Conflict(f"the access key {command.access_key_id} exists already: draw another id")
    data = {
        "access_key_id": command.access_key_id,
        "secret": command.secret,
        "account": command.account,
        "principal": command.principal,
        "admin": command.admin,
    }
    had = [key.access_key_id for key in state.access_keys.values() if key.principal == command.principal]
    if len(had) >= ACCESS_KEYS_PER_USER:
        raise LimitExceeded(
            f"Cannot exceed quota for AccessKeysPerUser: {ACCESS_KEYS_PER_USER}. {command.principal} has "
            f"{', '.join(sorted(had))}: delete one with `meshlog iam key delete`, or name another user"
        )
    return [*_its_user(state, command), NewEvent(ACCESS_KEY_CREATED, data)]


def _its_user(state: State, command: CreateAccessKey) -> Events:
    """The user whose key it is, where the key can do nothing without one."""
    name = iam_name(command.principal)
    if command.admin or name is None or name.kind != "user" or command.principal in state.principals:
        return []
    return create_principal(state, CreatePrincipal(command.principal), Context(command.account, "", ""))


def disable_access_key(state: State, command: DisableAccessKey, context: Context) -> Events:
    key = _access_key(state, command, context)
    if key.disabled_us is not None:
        return []
    _check_not_last(state, key)
    return [NewEvent(ACCESS_KEY_DISABLED, {"access_key_id": key.access_key_id})]


def enable_access_key(state: State, command: EnableAccessKey, context: Context) -> Events:
    key = _access_key(state, command, context)
    return [] if key.disabled_us is None else [NewEvent(ACCESS_KEY_ENABLED, {"access_key_id": key.access_key_id})]


def delete_access_key(state: State, command: DeleteAccessKey, context: Context) -> Events:
    key = _access_key(state, command, context)
    if key.disabled_us is None:
        _check_not_last(state, key)
    return [NewEvent(ACCESS_KEY_DELETED, {"access_key_id": key.access_key_id})]


def record_key_use(state: State, command: RecordKeyUse, context: Context) -> Events:
    known = (state.access_keys.get(key_id) for key_id in sorted(set(command.key_ids)))
    own = (key for key in known if key is not None and key.account == context.account)
    new = [key.access_key_id for key in own if (key.used_us or 0) < command.hour_us]
    return [NewEvent(ACCESS_KEYS_USED, {"hour_us": command.hour_us, "keys": new})] if new else []


def _access_key(
    state: State, command: DisableAccessKey | EnableAccessKey | DeleteAccessKey, context: Context
) -> AccessKey:
    key_id, account = command.access_key_id, command.account
    key = state.access_keys.get(key_id)
    # One sentence for both, so that it tells nobody which keys another account has.
    if key is None or key.account != account or key.account != context.account:
        raise NotFound(f"account {account} has no access key {key_id[:40]}: see `meshlog iam key list`")
    if command.principal and key.principal != command.principal:
        raise NotFound(f"{command.principal} has no access key {key_id[:40]}: see `meshlog iam key list`")
    if key.admin and not command.by_admin:
        raise Forbidden(f"{key_id} is an admin key, the root of its account: only with an admin key it can be changed")
    return key


def _check_not_last(state: State, key: AccessKey) -> None:
    others = [
        other
        for other in state.access_keys.values()
        if other.admin and other.account == key.account and other.disabled_us is None and other != key
    ]
    if key.admin and not others:
        raise Conflict(
            f"{key.access_key_id} is the last admin key of account {key.account}, and without it nobody could do "
            "anything there: create another one first, with `meshlog iam key create --admin`"
        )


# --- users and roles


def create_principal(state: State, command: CreatePrincipal, context: Context) -> Events:
    name = _own(command.arn, context, "user", "role")
    if len(name.name) > USER_NAME_MAX_CHARS:
        raise BadRequest(f"{name.kind}: '{name.name}' has more than {USER_NAME_MAX_CHARS} characters")
    if (name.kind == "role") != (command.trust is not None):
        raise BadRequest("trust: a role needs a trust policy, which says who may assume it, and a user has none")
    if command.arn in state.principals:
        raise Conflict(f"{name.kind.title()} with name {name.name} already exists.")
    if sum(each.account == name.account for each in state.principals.values()) >= PRINCIPALS_PER_ACCOUNT:
        raise LimitExceeded(f"account {name.account} has {PRINCIPALS_PER_ACCOUNT} users and roles: no more are allowed")
    if command.trust is not None:
        _check_document(command.trust, TRUST_POLICY_MAX_CHARS, trust=True)
    return [NewEvent(PRINCIPAL_CREATED, {"principal": command.arn, "account": name.account, "trust": command.trust})]


def delete_principal(state: State, command: DeletePrincipal, context: Context) -> Events:
    principal = _principal(state, command.arn, context)
    keys = sorted(key.access_key_id for key in state.access_keys.values() if key.principal == command.arn)
    for what, left, how in (
        ("delete access keys", keys, "meshlog iam key delete"),
        ("detach all policies", principal.policies, "meshlog iam policy detach"),
        ("delete policies", [name for name, _ in principal.inline], "meshlog iam policy delete NAME --user"),
    ):
        if left:
            raise Conflict(f"Cannot delete entity, must {what} first: {', '.join(left)} (`{how}`)")
    return [NewEvent(PRINCIPAL_DELETED, {"principal": command.arn})]


def put_trust_policy(state: State, command: PutTrustPolicy, context: Context) -> Events:
    role = _principal(state, command.role, context)
    if role.trust is None:
        raise BadRequest(f"{command.role} is a user: only a role can be assumed, and so has a trust policy")
    _check_document(command.document, TRUST_POLICY_MAX_CHARS, trust=True)
    if role.trust == command.document:
        return []
    return [NewEvent(TRUST_POLICY_PUT, {"principal": command.role, "document": command.document})]


# --- policies


def attach_policy(state: State, command: AttachPolicy, context: Context) -> Events:
    principal = _principal(state, command.principal, context)
    if command.policy not in MANAGED:
        own = _own(command.policy, context, "policy")
        if command.policy not in state.policies:
            raise NotFound(f"Policy {own.arn} does not exist or is not attachable.")
    if command.policy in principal.policies:
        return []
    if len(principal.policies) >= POLICIES_PER_PRINCIPAL:
        raise LimitExceeded(f"Cannot exceed quota for PoliciesPerUser: {POLICIES_PER_PRINCIPAL}")
    return [NewEvent(POLICY_ATTACHED, {"principal": command.principal, "policy": command.policy})]


def detach_policy(state: State, command: DetachPolicy, context: Context) -> Events:
    principal = _principal(state, command.principal, context)
    if command.policy not in principal.policies:
        raise NotFound(f"Policy {command.policy[:300]} was not found: it is not attached to {command.principal}")
    return [NewEvent(POLICY_DETACHED, {"principal": command.principal, "policy": command.policy})]


def put_inline_policy(state: State, command: PutInlinePolicy, context: Context) -> Events:
    principal = _principal(state, command.principal, context)
    _check_policy_name(command.name)
    _check_document(command.document, INLINE_POLICIES_MAX_CHARS)
    others = [document for name, document in principal.inline if name != command.name]
    if sum(map(_size_chars, [*others, command.document])) > INLINE_POLICIES_MAX_CHARS:
        raise LimitExceeded(
            f"Maximum policy size of {INLINE_POLICIES_MAX_CHARS} characters exceeded for {command.principal}: that is "
            "for all its inline policies together. Make a managed policy of some, and attach it"
        )
    if (command.name, command.document) in principal.inline:
        return []
    data = {"principal": command.principal, "name": command.name, "document": command.document}
    return [NewEvent(INLINE_POLICY_PUT, data)]


def delete_inline_policy(state: State, command: DeleteInlinePolicy, context: Context) -> Events:
    principal = _principal(state, command.principal, context)
    if command.name not in dict(principal.inline):
        raise NotFound(f"The policy with name {command.name[:VALUE_SHOWN_CHARS]} cannot be found")
    return [NewEvent(INLINE_POLICY_DELETED, {"principal": command.principal, "name": command.name})]


def put_policy(state: State, command: PutPolicy, context: Context) -> Events:
    name = _own(command.arn, context, "policy")
    _check_policy_name(name.name)
    _check_document(command.document, POLICY_MAX_CHARS)
    before = state.policies.get(command.arn)
    if PREFIX + name.name in MANAGED:
        raise Conflict(f"{name.name} is one of AWS's own policies: give yours another name")
    if before is not None and command.create:
        raise Conflict(f"A policy called {name.name} already exists. Duplicate names are not allowed.")
    if before is not None and before.document == command.document:
        return []
    own = sum(each.account == name.account for each in state.policies.values())
    if before is None and own >= POLICIES_PER_ACCOUNT:
        raise LimitExceeded(f"Cannot exceed quota for PoliciesPerAccount: {POLICIES_PER_ACCOUNT}")
    return [NewEvent(POLICY_PUT, {"policy": command.arn, "account": name.account, "document": command.document})]


def delete_policy(state: State, command: DeletePolicy, context: Context) -> Events:
    name = _own(command.arn, context, "policy")
    if command.arn not in state.policies:
        raise NotFound(f"Policy {name.arn} was not found: see `meshlog iam policy list`")
    attached = sorted(each.arn for each in state.principals.values() if command.arn in each.policies)
    if attached:
        raise Conflict(f"Cannot delete a policy attached to entities: detach it from {', '.join(attached[:5])} first")
    return [NewEvent(POLICY_DELETED, {"policy": command.arn})]


# --- what they share


def _own(arn: str, context: Context, *kinds: str) -> IamName:
    """What an ARN names, if that is of these kinds and could be of the caller's account."""
    name = iam_name(arn)
    if name is None or name.kind not in kinds:
        expected = " or ".join(f"arn:aws:iam::{context.account}:{kind}/<name>" for kind in kinds)
        raise BadRequest(
            f"'{arn[:VALUE_SHOWN_CHARS]}' is not {expected}, with a name of letters, digits and the characters _+=,.@-"
        )
    if name.account != context.account:
        raise NotFound(f"{arn} cannot be found in account {context.account}")
    return name


def _principal(state: State, arn: str, context: Context) -> Principal:
    name = _own(arn, context, "user", "role")
    found = state.principals.get(arn)
    if found is None:
        raise NotFound(
            f"The {name.kind} with name {name.name} cannot be found: make it with `meshlog iam {name.kind} create`"
        )
    return found


def _check_policy_name(name: str) -> None:
    if _POLICY_NAME.fullmatch(name) is None:
        raise BadRequest(
            f"name: '{name[:VALUE_SHOWN_CHARS]}' must be 1 to {POLICY_NAME_MAX_CHARS} letters, digits and the "
            "characters _+=,.@-"
        )


def _check_document(document: str, limit_chars: int, *, trust: bool = False) -> None:
    if len(document.encode(errors="replace")) > POLICY_TEXT_MAX_BYTES:
        raise BadRequest(f"document: is larger than {POLICY_TEXT_MAX_BYTES} bytes")
    check_policy(document, limit_chars, trust=trust)


def _size_chars(document: str) -> int:
    return sum(not char.isspace() for char in document)
