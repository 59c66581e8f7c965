"""Certificate authorities and certificates over HTTP, of the caller's own account; what they are for is docs/pki.md.

GET  pki/authorities             {authorities: [{arn, name, roots: [...], issuing, certificates, created, updated}]}
POST pki/authorities             {name, arn?, validity_s?, certificate?}   certificate: a root that is only believed
POST pki/authorities/rotate      {authority, validity_s?}                  a new root; a duty does the rest
POST pki/authorities/retire      {authority} → {arn, deleted}
GET  pki/certificates            {certificates: [{arn, domain, names, authority, serial, version, …}]}
GET  pki/certificates/show?certificate=                                    one of them, with its public chain
POST pki/certificates            {domain, names?, authority, arn?, validity_s?}
POST pki/certificates/rotate     {certificate, authority?, validity_s?}    a new key and serial, the same names
POST pki/certificates/import     {certificate, chain?, private_key, arn?}  PEM; under an ARN that is there: replaced
POST pki/certificates/delete     {certificate} → {arn, deleted}

All POST bodies take a clientToken. Keys are drawn here, sealed, and in no answer, event or log line. Authorities and
certificates are named by their ARNs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from api.appmesh import confirmed_state, origin_of
from api.authorization import Target
from api.calls import Answer, Call
from api.commands import CommandService
from api.outcomes import Outcome
from api.past import event_at
from api.pki_documents import authority_document, certificate_document, chain_document
from api.ports import ApiPorts
from api.reads import READING, reading
from api.requests import Fields, in_time, nothing, read_body, read_query, route, router_of
from api.routes import Router
from cluster.issuing import Material, RootMade, issue_certificate, make_root, read_certificate, read_root
from identity.caller import Caller
from mesh.certificates import AUTHORITY, CERTIFICATE, Authority, Certificate, check_names, pki_arn
from mesh.commands import Command
from mesh.commands_pki import (
    CreateAuthority,
    DeleteCertificate,
    ImportCertificate,
    IssueCertificate,
    RetireAuthority,
    RotateAuthority,
)
from mesh.errors import BadRequest, Conflict, NotFound, OutcomeUnknown
from mesh.state import State
from runtime.clock import Entropy
from runtime.limits import (
    CERTIFICATE_BACKDATE_S,
    CERTIFICATE_LIFETIME_S,
    ROOT_LIFETIME_S,
    VALIDITY_MAX_S,
    VALIDITY_MIN_S,
)

_TOKEN: Fields = {"clientToken": (str, False)}
_VALID: Fields = {"validity_s": (int, False), **_TOKEN}


class PkiApi:
    """The handlers, bound to one server's ports."""

    def __init__(self, ports: ApiPorts, commands: CommandService[Any, Any]) -> None:
        self._ports, self._commands = ports, commands

    def router(self) -> Router:
        """Its routes."""
        create: Fields = {"name": (str, True), "arn": (str, False), "certificate": (str, False), **_VALID}
        ca: Fields = {"authority": (str, True)}
        issue: Fields = {"domain": (str, True), "names": (list, False), **ca, "arn": (str, False), **_VALID}
        named: Fields = {"certificate": (str, True)}
        again: Fields = {**named, "authority": (str, False), **_VALID}
        brought: Fields = {**named, "chain": (str, False), "private_key": (str, True), "arn": (str, False), **_TOKEN}
        listed = read_query(*READING)
        return router_of(
            [
                route("GET pki/authorities", "ListCertificateAuthorities", listed, nothing, self._list_authorities),
                route("POST pki/authorities", "CreateCertificateAuthority", read_body(create), _new_ca, self._create),
                route(
                    "POST pki/authorities/rotate",
                    "RotateCertificateAuthority",
                    read_body({**ca, **_VALID}),
                    _the("authority"),
                    self._rotate_authority,
                ),
                route(
                    "POST pki/authorities/retire",
                    "RetireCertificateAuthority",
                    read_body({**ca, **_TOKEN}),
                    _the("authority"),
                    self._retire,
                ),
                route("GET pki/certificates", "ListCertificates", listed, nothing, self._list),
                route(
                    "GET pki/certificates/show",
                    "DescribeCertificate",
                    read_query(*READING, required=("certificate",)),
                    _the("certificate"),
                    self._show,
                ),
                route("POST pki/certificates", "IssueCertificate", read_body(issue), _new_certificate, self._issue),
                route("POST pki/certificates/rotate", "RotateCertificate", read_body(again), _again, self._rotate),
                route("POST pki/certificates/import", "ImportCertificate", read_body(brought), _brought, self._import),
                route(
                    "POST pki/certificates/delete",
                    "DeleteCertificate",
                    read_body({**named, **_TOKEN}),
                    _the("certificate"),
                    self._delete,
                ),
            ]
        )

    # --- reads

    async def _list_authorities(self, call: Call) -> Answer:
        read = await reading(self._ports, call)
        mine = (each for each in read.state.authorities.values() if each.account == call.caller.account)
        found = [authority_document(read.state, each) for each in sorted(mine, key=lambda each: (each.name, each.arn))]
        return read.answer({"authorities": found})

    async def _list(self, call: Call) -> Answer:
        read, now_us = await reading(self._ports, call), self._ports.clock.now_us()
        mine = (each for each in read.state.certificates.values() if each.account == call.caller.account)
        found = [certificate_document(each, now_us) for each in sorted(mine, key=lambda each: (each.domain, each.arn))]
        return read.answer({"certificates": found})

    async def _show(self, call: Call) -> Answer:
        read = await reading(self._ports, call)
        certificate = _certificate(read.state, call.members["certificate"], call.caller)
        return read.answer(chain_document(read.state, certificate, self._ports.clock.now_us()))

    # --- authorities

    async def _create(self, call: Call) -> Answer:
        ports, members = self._ports, call.members
        name, lifetime_s = members["name"], _lifetime_s(members, ROOT_LIFETIME_S)
        if "certificate" in members:
            if "validity_s" in members:
                raise BadRequest("validity_s: the root that is given has its own")
            made = read_root(members["certificate"])
        else:
            made = make_root(_common_name(name), ports.clock.now_us(), ports.entropy, lifetime_s)
        arn = members.get("arn") or _drawn(AUTHORITY, call.caller, ports.entropy)
        outcome = await self._submit(CreateAuthority(arn, name, made.root, made.secret), call, "authority")
        return await self._authority_answer(outcome)

    async def _rotate_authority(self, call: Call) -> Answer:
        ports, members = self._ports, call.members
        authority = _authority(await confirmed_state(ports), members["authority"], call.caller)
        lifetime_s = _lifetime_s(members, ROOT_LIFETIME_S)
        made = make_root(_common_name(authority.name), ports.clock.now_us(), ports.entropy, lifetime_s)
        command = RotateAuthority(authority.arn, made.root, made.secret or "")
        return await self._authority_answer(await self._submit(command, call, "authority"))

    async def _retire(self, call: Call) -> Answer:
        arn = call.members["authority"]
        outcome = await self._submit(RetireAuthority(arn), call, "authority")
        return Answer({"arn": arn, "deleted": True}, outcome[0].position)

    # --- certificates

    async def _issue(self, call: Call) -> Answer:
        members = call.members
        names = check_names(members["domain"], members.get("names") or ())
        state = await confirmed_state(self._ports)
        authority = _authority(state, members["authority"], call.caller)
        made = self._made(state, authority, names, _lifetime_s(members, CERTIFICATE_LIFETIME_S))
        arn = members.get("arn") or _drawn(CERTIFICATE, call.caller, self._ports.entropy)
        command = issuing(arn, authority, made, create=True)
        return await self._certificate_answer(await self._submit(command, call, "certificate"))

    async def _rotate(self, call: Call) -> Answer:
        members, state = call.members, await confirmed_state(self._ports)
        certificate = _certificate(state, members["certificate"], call.caller)
        arn = members.get("authority") or certificate.authority
        if not arn:
            raise BadRequest(
                "authority: the certificate was imported: name the authority that is to issue it from now on, or "
                "import it again"
            )
        authority = _authority(state, arn, call.caller)
        lifetime_s = _lifetime_s(members, lifetime_of(certificate))
        made = self._made(state, authority, check_names(certificate.domain, certificate.names), lifetime_s)
        command = issuing(certificate.arn, authority, made, create=False)
        return await self._certificate_answer(await self._submit(command, call, "certificate"))

    async def _import(self, call: Call) -> Answer:
        members = call.members
        made = read_certificate(members["certificate"], members.get("chain", ""), members["private_key"])
        arn = members.get("arn") or _drawn(CERTIFICATE, call.caller, self._ports.entropy)
        known = arn in (await confirmed_state(self._ports)).certificates
        command = ImportCertificate(arn, **made._asdict(), create=not known)
        return await self._certificate_answer(await self._submit(command, call, "certificate"))

    async def _delete(self, call: Call) -> Answer:
        arn = call.members["certificate"]
        outcome = await self._submit(DeleteCertificate(arn), call, "certificate")
        return Answer({"arn": arn, "deleted": True}, outcome[0].position)

    # --- inside

    def _made(self, state: State, authority: Authority, names: tuple[str, ...], lifetime_s: int) -> Material:
        signer = signer_of(state, authority)
        if signer.secret is None and len(authority.roots) > 1:
            raise Conflict(f"{authority.arn} issues nothing until its new root is believed everywhere: try again later")
        return issue_certificate(signer, names, self._ports.clock.now_us(), self._ports.entropy, lifetime_s)

    async def _submit(self, command: Command, call: Call, member: str) -> tuple[Outcome[Any, Any], str]:
        """What came of it, and the ARN: a repeated call is about that of the first one, whatever was drawn since."""
        ports = self._ports
        outcome = await self._commands.submit(command, origin_of(call_name(command), call))
        await ports.replica.wait_for(outcome.position, ports.read_deadline_s)
        arn: str = getattr(command, "arn", "")
        if outcome.replayed:
            event = await in_time(ports, event_at(ports.history, outcome.position, ports.replica.state))
            if event.data is None:
                raise OutcomeUnknown("It was done, but this server cannot open what: ask another one")
            arn = event.data[member]
        return outcome, arn

    async def _authority_answer(self, done: tuple[Outcome[Any, Any], str]) -> Answer:
        outcome, arn = done
        state = self._ports.replica.state
        authority = state.authorities.get(arn)
        if authority is None:
            raise OutcomeUnknown(f"{arn} was made, and has been retired since")
        return Answer(authority_document(state, authority), outcome.position)

    async def _certificate_answer(self, done: tuple[Outcome[Any, Any], str]) -> Answer:
        outcome, arn = done
        certificate = self._ports.replica.state.certificates.get(arn)
        if certificate is None:
            raise OutcomeUnknown(f"{arn} was made, and has been deleted since")
        return Answer(certificate_document(certificate, self._ports.clock.now_us()), outcome.position)


# --- shared with the duty that renews


def signer_of(state: State, authority: Authority) -> RootMade:
    """The root that an authority issues under, with its key where it is here."""
    root = authority.root(authority.issuing) or authority.trusted()[-1]
    key = state.authority_keys.get(authority.issuing)
    return RootMade(root, key.secret if key else None)


def issuing(
    arn: str, authority: Authority, made: Material, *, create: bool, seen: int | None = None
) -> IssueCertificate:
    """The command that puts an issued certificate on record."""
    return IssueCertificate(
        arn,
        made.names[0],
        made.names,
        authority.arn,
        authority.issuing,
        made.chain,
        made.secret,
        made.serial,
        made.not_before_us,
        made.not_after_us,
        create,
        seen,
    )


def lifetime_of(certificate: Certificate) -> int:
    """How long a certificate was made for, in seconds; of one from elsewhere, what is usual here."""
    if not certificate.authority:
        return CERTIFICATE_LIFETIME_S
    whole_s = (certificate.not_after_us - certificate.not_before_us) // 1_000_000
    return max(whole_s - CERTIFICATE_BACKDATE_S, VALIDITY_MIN_S)


def call_name(command: Command) -> str:
    """The operation that a command stands for in the log's tokens."""
    return type(command).__name__


# --- names and lifetimes


def _authority(state: State, arn: str, caller: Caller) -> Authority:
    found = state.authorities.get(arn)
    if found is None or found.account != caller.account:
        raise NotFound(f"The certificate authority {arn[:200]} cannot be found: see `meshlog pki ca list`")
    return found


def _certificate(state: State, arn: str, caller: Caller) -> Certificate:
    found = state.certificates.get(arn)
    if found is None or found.account != caller.account:
        raise NotFound(f"The certificate {arn[:200]} cannot be found: see `meshlog pki certificate list`")
    return found


def _drawn(kind: str, caller: Caller, entropy: Entropy) -> str:
    return pki_arn(kind, caller.region, caller.account, entropy.uuid())


def _common_name(name: str) -> str:
    # What decide refuses is refused there, in its words; X.509 takes no other name.
    return name if 0 < len(name) <= 64 and name.isprintable() else "meshlog"


def _lifetime_s(members: Mapping[str, Any], default_s: int) -> int:
    lifetime_s: int = members.get("validity_s", default_s)
    if not VALIDITY_MIN_S <= lifetime_s <= VALIDITY_MAX_S:
        raise BadRequest(f"validity_s: {lifetime_s} is not between {VALIDITY_MIN_S} and {VALIDITY_MAX_S} seconds")
    return lifetime_s


# --- what is authorised


def _the(member: str) -> Callable[[Caller, Mapping[str, Any]], list[Target]]:
    def targets(caller: Caller, members: Mapping[str, Any]) -> list[Target]:  # noqa: ARG001
        return [Target(members[member])]

    return targets


def _new_ca(caller: Caller, members: Mapping[str, Any]) -> list[Target]:
    return [Target(members.get("arn") or pki_arn(AUTHORITY, caller.region, caller.account, "*"))]


def _new_certificate(caller: Caller, members: Mapping[str, Any]) -> list[Target]:
    made = members.get("arn") or pki_arn(CERTIFICATE, caller.region, caller.account, "*")
    return [Target(made), Target(members["authority"])]


def _again(caller: Caller, members: Mapping[str, Any]) -> list[Target]:  # noqa: ARG001
    return [Target(members["certificate"]), *([Target(members["authority"])] if "authority" in members else [])]


def _brought(caller: Caller, members: Mapping[str, Any]) -> list[Target]:
    return [Target(members.get("arn") or pki_arn(CERTIFICATE, caller.region, caller.account, "*"))]
