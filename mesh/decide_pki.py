"""Commands about certificate authorities and certificates to events, of the caller's own account. Pure.

Keys, serials and signatures are drawn and made before (`api.pki`); here is what must hold whoever asks, by the state
that is decided on. What another account has is as absent to a caller as what is nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mesh.certificates import (
    AUTHORITY,
    CERTIFICATE,
    Authority,
    Certificate,
    Root,
    authority_arns,
    certificate_arns,
    check_names,
    pki_name,
)
from mesh.commands import Context
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
from mesh.errors import BadRequest, Conflict, LimitExceeded, NotFound, ResourceInUse
from mesh.events import (
    AUTHORITY_CREATED,
    AUTHORITY_KEY_KEPT,
    AUTHORITY_RETIRED,
    AUTHORITY_ROOT_ADDED,
    AUTHORITY_ROOT_DROPPED,
    AUTHORITY_ROOT_PROMOTED,
    CERTIFICATE_DELETED,
    CERTIFICATE_IMPORTED,
    CERTIFICATE_ISSUED,
    NewEvent,
)
from mesh.in_use import listed
from mesh.limits import (
    AUTHORITIES_PER_ACCOUNT,
    AUTHORITY_NAME_CHARS,
    CERTIFICATE_CHAIN_MAX_BYTES,
    CERTIFICATE_KEY_MAX_BYTES,
    CERTIFICATES_PER_ACCOUNT,
    VALUE_SHOWN_CHARS,
)
from mesh.state import State

Events = list[NewEvent]


# --- authorities


def create_authority(state: State, command: CreateAuthority, context: Context) -> Events:
    _own(command.arn, AUTHORITY, context)
    if not 0 < len(command.name) <= AUTHORITY_NAME_CHARS or not command.name.isprintable():
        raise BadRequest(f"name: must be 1 to {AUTHORITY_NAME_CHARS} printable characters")
    mine = [each for each in state.authorities.values() if each.account == context.account]
    if command.arn in state.authorities:
        raise Conflict(f"The certificate authority {command.arn} exists already")
    same = next((each for each in mine if each.name == command.name), None)
    if same is not None:
        raise Conflict(f"The certificate authority {same.arn} has the name '{command.name}' already: choose another")
    if len(mine) >= AUTHORITIES_PER_ACCOUNT:
        raise LimitExceeded(f"account {context.account} has {AUTHORITIES_PER_ACCOUNT} certificate authorities: no more")
    _check_root(state, command.root)
    data = {"authority": command.arn, "account": context.account, "name": command.name}
    created = NewEvent(AUTHORITY_CREATED, {**data, "root": _root(command.root), "issues": command.secret is not None})
    return [created, *_key(command.arn, command.root, command.secret)]


def rotate_authority(state: State, command: RotateAuthority, context: Context) -> Events:
    authority = _authority(state, command.arn, context)
    if len(authority.roots) > 1:
        raise Conflict(
            f"{authority.arn} is being rotated: its new root is believed beside the old one until no certificate is "
            "under that any more. Wait for it: see `meshlog pki ca list`"
        )
    if authority.root(command.root.id) is not None:
        raise Conflict(f"{authority.arn} has this root already")
    _check_root(state, command.root)
    added = NewEvent(AUTHORITY_ROOT_ADDED, {"authority": authority.arn, "root": _root(command.root)})
    return [added, *_key(authority.arn, command.root, command.secret)]


def promote_root(state: State, command: PromoteRoot, context: Context) -> Events:
    authority = _authority(state, command.arn, context)
    newest = authority.trusted()[-1]
    if command.root != newest.id:
        raise Conflict(f"{command.root[:VALUE_SHOWN_CHARS]} is not the newest root of {authority.arn}")
    if command.root == authority.issuing:
        return []
    return [NewEvent(AUTHORITY_ROOT_PROMOTED, {"authority": authority.arn, "root": newest.id})]


def drop_root(state: State, command: DropRoot, context: Context) -> Events:
    authority = _authority(state, command.arn, context)
    root = authority.root(command.root)
    if root is None:
        return []
    if root.id == authority.issuing or len(authority.roots) == 1:
        raise Conflict(f"{authority.arn} issues certificates under the root {root.id[:16]}: it stays")
    under = [each.arn for each in _issued_by(state, authority) if each.root == root.id]
    if under:
        raise ResourceInUse(
            f"The root {root.id[:16]} of {authority.arn} still has certificates under it: {listed(under)}"
        )
    return [NewEvent(AUTHORITY_ROOT_DROPPED, {"authority": authority.arn, "root": root.id})]


def retire_authority(state: State, command: RetireAuthority, context: Context) -> Events:
    authority = _authority(state, command.arn, context)
    under = [each.arn for each in _issued_by(state, authority)]
    if under:
        raise ResourceInUse(
            f"{authority.arn} cannot be retired because it has issued certificates that are in use: {listed(under)}. "
            "Delete them first, or have another authority issue them: `meshlog pki certificate rotate --ca`"
        )
    _check_unnamed(state, authority.arn, authority_arns, "retired")
    return [NewEvent(AUTHORITY_RETIRED, {"authority": authority.arn})]


# --- certificates


def issue_certificate(state: State, command: IssueCertificate, context: Context) -> Events:
    _own(command.arn, CERTIFICATE, context)
    authority = _authority(state, command.authority, context)
    before = state.certificates.get(command.arn)
    _check_new(state, command.arn, before, context, wanted=command.create)
    if command.root != authority.issuing:
        raise Conflict(f"{authority.arn} was rotated while {command.arn} was being issued: try again")
    if before is not None and command.seen not in (None, before.version):
        raise Conflict(f"{command.arn} is at version {before.version} by now: look again")
    names = check_names(command.domain, command.names) if before is None else before.names
    issued = {"authority": authority.arn, "root": command.root}
    return [NewEvent(CERTIFICATE_ISSUED, {**_material(command, names, context), **issued})]


def import_certificate(state: State, command: ImportCertificate, context: Context) -> Events:
    _own(command.arn, CERTIFICATE, context)
    before = state.certificates.get(command.arn)
    if before is not None and before.authority:
        raise Conflict(f"{command.arn} is issued by {before.authority}, which renews it: delete it, or import another")
    _check_new(state, command.arn, before, context, wanted=command.create)
    if command.not_after_us <= state.time_us:
        raise BadRequest(f"{command.arn}: the certificate has expired: import one that is valid")
    # What a certificate from elsewhere is for is not ours to judge: a name that nobody asks for is never taken.
    return [NewEvent(CERTIFICATE_IMPORTED, _material(command, command.names, context))]


def delete_certificate(state: State, command: DeleteCertificate, context: Context) -> Events:
    certificate = _certificate(state, command.arn, context)
    _check_unnamed(state, certificate.arn, certificate_arns, "deleted")
    return [NewEvent(CERTIFICATE_DELETED, {"certificate": certificate.arn})]


# --- what they share


def _own(arn: str, kind: str, context: Context) -> None:
    """BadRequest if `arn` is none of that kind; NotFound if it is another account's."""
    name = pki_name(arn)
    if name is None or name.kind != kind:
        service = "acm" if kind == CERTIFICATE else "acm-pca"
        raise BadRequest(
            f"arn: '{arn[:VALUE_SHOWN_CHARS]}' is not arn:aws:{service}:<region>:{context.account}:{kind}/<id>"
        )
    if name.account != context.account:
        raise NotFound(f"{arn} cannot be found in account {context.account}: it names account {name.account}")


def _authority(state: State, arn: str, context: Context) -> Authority:
    _own(arn, AUTHORITY, context)
    found = state.authorities.get(arn)
    if found is None:
        raise NotFound(f"The certificate authority {arn} cannot be found: see `meshlog pki ca list`")
    return found


def _certificate(state: State, arn: str, context: Context) -> Certificate:
    _own(arn, CERTIFICATE, context)
    found = state.certificates.get(arn)
    if found is None:
        raise NotFound(f"The certificate {arn} cannot be found: see `meshlog pki certificate list`")
    return found


def _check_new(state: State, arn: str, before: Certificate | None, context: Context, *, wanted: bool) -> None:
    if wanted and before is not None:
        raise Conflict(f"The certificate {arn} exists already: `meshlog pki certificate rotate` issues it anew")
    if not wanted and before is None:
        raise NotFound(f"The certificate {arn} cannot be found: see `meshlog pki certificate list`")
    count = sum(each.account == context.account for each in state.certificates.values())
    if wanted and count >= CERTIFICATES_PER_ACCOUNT:
        raise LimitExceeded(
            f"account {context.account} has {CERTIFICATES_PER_ACCOUNT} certificates: no more are allowed"
        )


def _check_root(state: State, root: Root) -> None:
    if len(root.certificate.encode()) > CERTIFICATE_CHAIN_MAX_BYTES:
        raise BadRequest(f"certificate: a root has at most {CERTIFICATE_CHAIN_MAX_BYTES} bytes")
    if root.not_after_us <= state.time_us:
        raise BadRequest("certificate: the root has expired: nothing that it issued would be believed")


def _material(
    command: IssueCertificate | ImportCertificate, names: tuple[str, ...], context: Context
) -> dict[str, Any]:
    for member, text, limit_bytes in (
        ("certificate", command.chain, CERTIFICATE_CHAIN_MAX_BYTES),
        ("private_key", command.secret, CERTIFICATE_KEY_MAX_BYTES),
    ):
        if len(text.encode()) > limit_bytes:
            raise BadRequest(f"{member}: is larger than {limit_bytes} bytes")
    return {
        "certificate": command.arn,
        "account": context.account,
        "names": list(names),
        "chain": command.chain,
        "secret": command.secret,
        "serial": command.serial,
        "not_before_us": command.not_before_us,
        "not_after_us": command.not_after_us,
    }


def _root(root: Root) -> Mapping[str, Any]:
    return {
        "id": root.id,
        "certificate": root.certificate,
        "not_before_us": root.not_before_us,
        "not_after_us": root.not_after_us,
    }


def _key(arn: str, root: Root, secret: str | None) -> Events:
    """The root's key, in an event of its own, since only API servers may open it."""
    if secret is None:
        return []
    return [NewEvent(AUTHORITY_KEY_KEPT, {"authority": arn, "root": root.id, "secret": secret})]


def _issued_by(state: State, authority: Authority) -> Iterator[Certificate]:
    return (each for each in state.certificates.values() if each.authority == authority.arn)


def _check_unnamed(state: State, arn: str, arns_of: Callable[[Mapping[str, Any]], Iterator[str]], how: str) -> None:
    """ResourceInUse while a specification names `arn`. Looks at everything: it is asked seldom."""
    users = sorted(resource.key.path for resource in state.resources.values() if arn in arns_of(resource.spec))
    if users:
        raise ResourceInUse(f"{arn} cannot be {how} because specifications name it: {listed(users)}")
