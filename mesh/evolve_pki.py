"""The fold of events about certificate authorities and certificates. Part of `mesh.evolve`; as total and as pure.

What is named and absent does not fit (KeyError), and stops the fold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mesh.certificates import Authority, AuthorityKey, Certificate, RootValues
from mesh.state import State

Data = Mapping[str, Any]


def authority_created(state: State, data: Data) -> State:
    arn, root = data["authority"], _root(state, data["root"])
    if arn in state.authorities:
        raise ValueError(f"{arn} is there already")
    _check_text(arn, data["account"], data["name"])
    issuing = root[0] if data["issues"] else ""
    now_us = state.time_us
    return _put(state, Authority(arn, data["account"], data["name"], (root,), issuing, now_us, now_us))


def authority_root_added(state: State, data: Data) -> State:
    authority, root = state.authorities[data["authority"]], _root(state, data["root"])
    return _put(state, authority._replace(roots=(*authority.roots, root)))


def authority_root_promoted(state: State, data: Data) -> State:
    authority = state.authorities[data["authority"]]
    if authority.root(data["root"]) is None:
        raise ValueError("it has no such root")
    return _put(state, authority._replace(issuing=data["root"]))


def authority_root_dropped(state: State, data: Data) -> State:
    authority, root_id = state.authorities[data["authority"]], data["root"]
    roots = tuple(each for each in authority.roots if each[0] != root_id)
    if len(roots) == len(authority.roots) or not roots:
        raise ValueError("it has no such root, or no other")
    state = _put(state, authority._replace(roots=roots))
    return state.but(authority_keys=state.authority_keys.discard(root_id))


def authority_key_kept(state: State, data: Data) -> State:
    key = AuthorityKey(data["root"], data["authority"], data["secret"])
    return state.but(authority_keys=state.authority_keys.insert(key.root, key))


def authority_retired(state: State, data: Data) -> State:
    authority = state.authorities[data["authority"]]
    keys = state.authority_keys
    for root in authority.trusted():
        keys = keys.discard(root.id)
    return state.with_entry("authorities", authority.arn, None).but(authority_keys=keys)


def certificate_put(state: State, data: Data) -> State:
    """Issued or imported, for the first time or again."""
    arn, names = data["certificate"], tuple(data["names"])
    before = state.certificates.get(arn)
    authority, root = data.get("authority", ""), data.get("root", "")
    serial, chain, secret = data["serial"], data["chain"], data["secret"]
    _check_text(arn, data["account"], authority, root, chain, secret, serial, *names)
    not_before_us, not_after_us = int(data["not_before_us"]), int(data["not_after_us"])
    version, created_us = (before.version + 1, before.created_us) if before else (1, state.time_us)
    certificate = Certificate(
        arn, data["account"], names[0] if names else "", names, authority, root, chain, secret, serial,
        not_before_us, not_after_us, version, created_us, state.time_us,
    )  # fmt: skip
    return state.with_entry("certificates", arn, certificate)


def certificate_deleted(state: State, data: Data) -> State:
    return state.with_entry("certificates", state.certificates[data["certificate"]].arn, None)


def _put(state: State, authority: Authority) -> State:
    return state.with_entry("authorities", authority.arn, authority._replace(updated_us=state.time_us))


def _root(state: State, data: Data) -> RootValues:
    _check_text(data["id"], data["certificate"])
    return data["id"], data["certificate"], int(data["not_before_us"]), int(data["not_after_us"]), state.time_us


def _check_text(*values: Any) -> None:
    if not all(isinstance(value, str) for value in values):
        raise TypeError("a name, an ARN and a certificate are texts")
