"""The fold of events about access: keys, users, roles and policies. Part of `mesh.evolve`; as total and as pure.

With `within: true` an event is one that a restore applies again: it may only take away what is allowed, and bears that
what it names is not there. Without, what is named and absent does not fit (KeyError), and stops the fold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mesh.iam.evaluate import document_of
from mesh.iam.policy import narrowed, read_policy
from mesh.principals import AccessKey, ManagedPolicy, Principal
from mesh.state import State

Data = Mapping[str, Any]


def access_key_created(state: State, data: Data) -> State:
    key = AccessKey(
        data["access_key_id"], data["secret"], data["account"], data["principal"], data["admin"], state.time_us
    )
    return state.but(access_keys=state.access_keys.insert(key.access_key_id, key))


def access_key_disabled(state: State, data: Data) -> State:
    # Not there: in a role that opens no secrets, and after a restore to a moment before the key was made.
    key = state.access_keys.get(data["access_key_id"])
    if key is None or key.disabled_us is not None:
        return state
    return _with_key(state, key._replace(disabled_us=state.time_us))


def access_key_enabled(state: State, data: Data) -> State:
    key = state.access_keys.get(data["access_key_id"])
    return state if key is None else _with_key(state, key._replace(disabled_us=None))


def access_key_deleted(state: State, data: Data) -> State:
    key_id = data["access_key_id"]
    return state.but(access_keys=state.access_keys.discard(key_id))


def access_keys_used(state: State, data: Data) -> State:
    hour_us: int = data["hour_us"]
    for key_id in data["keys"]:
        key = state.access_keys.get(key_id)
        if key is not None:
            state = _with_key(state, key._replace(used_us=max(key.used_us or 0, hour_us)))
    return state


def _with_key(state: State, key: AccessKey) -> State:
    return state.but(access_keys=state.access_keys.insert(key.access_key_id, key))


def principal_created(state: State, data: Data) -> State:
    arn, account, trust = data["principal"], data["account"], data["trust"]
    if arn in state.principals:
        raise ValueError(f"{arn} is there already")
    _check_text(arn, account)
    if trust is not None:
        read_policy(trust)
    return state.with_entry("principals", arn, Principal(arn, account, state.time_us, trust=trust))


def principal_deleted(state: State, data: Data) -> State:
    return state.with_entry("principals", data["principal"], None)


def policy_attached(state: State, data: Data) -> State:
    principal, policy = _principal(state, data), data["policy"]
    _check_text(policy)
    if principal is None or (data.get("within") and not _only_denies(state, policy)):
        return state
    return _put(state, principal._replace(policies=tuple(sorted({*principal.policies, policy}))))


def policy_detached(state: State, data: Data) -> State:
    principal, policy = _principal(state, data), data["policy"]
    if principal is None or (data.get("within") and _only_denies(state, policy)):
        return state
    return _put(state, principal._replace(policies=tuple(each for each in principal.policies if each != policy)))


def inline_policy_put(state: State, data: Data) -> State:
    return _inline(state, data, data["document"])


def inline_policy_deleted(state: State, data: Data) -> State:
    return _inline(state, data, None)


def _inline(state: State, data: Data, document: str | None) -> State:
    principal, name = _principal(state, data), data["name"]
    _check_text(name)
    if principal is None:
        return state
    inline = dict(principal.inline)
    before = inline.pop(name, None)
    after = narrowed(before, document) if data.get("within") else document
    if after is not None:
        read_policy(after)
        inline[name] = after
    return _put(state, principal._replace(inline=tuple(sorted(inline.items()))))


def trust_policy_put(state: State, data: Data) -> State:
    principal, document = _principal(state, data), data["document"]
    read_policy(document)
    if principal is None:
        return state
    # A role that nobody may assume is still a role: a policy that says nothing stands for none.
    trust = (narrowed(principal.trust, document) or _NOBODY) if data.get("within") else document
    return _put(state, principal._replace(trust=trust))


def policy_put(state: State, data: Data) -> State:
    arn, account, document = data["policy"], data["account"], data["document"]
    _check_text(arn, account)
    read_policy(document)
    before = state.policies.get(arn)
    if data.get("within"):
        document = narrowed(before.document if before else None, document) or _NOBODY
        if before is None and document == _NOBODY:
            return state
    version, created_us = (before.version + 1, before.created_us) if before else (1, state.time_us)
    return state.with_entry("policies", arn, ManagedPolicy(arn, account, document, version, created_us, state.time_us))


def policy_deleted(state: State, data: Data) -> State:
    arn = data["policy"]
    for principal in list(state.principals.values()):
        if arn in principal.policies:  # only after a restore: what is attached is not deleted
            state = policy_detached(state, {"principal": principal.arn, "policy": arn})
    return state.with_entry("policies", arn, None)


_NOBODY = '{"Version": "2012-10-17", "Statement": []}'


def _principal(state: State, data: Data) -> Principal | None:
    arn = data["principal"]
    return state.principals.get(arn) if data.get("within") else state.principals[arn]


def _put(state: State, principal: Principal) -> State:
    return state.with_entry("principals", principal.arn, principal)


def _only_denies(state: State, policy: str) -> bool:
    document = document_of(state, policy)
    return document is not None and not read_policy(document).allows_something


def _check_text(*values: Any) -> None:
    if not all(isinstance(value, str) for value in values):
        raise TypeError("names are texts")


Fold = Callable[[State, Data], State]
