"""The duty that keeps certificates alive and carries rotations of authorities through. One API server does it for all.

    a certificate with a third of its life left        is issued anew, for as long as before
    an authority that was told to rotate               its new root is believed, everywhere, for `spread_s`; then
                                                       certificates are issued under it, and those that are not are
                                                       issued anew; when none is left, and `spread_s` after the last,
                                                       the old root is dropped

What is to be done next follows from the state and the time alone (`due`), so a duty that is interrupted anywhere is
taken up by the next holder. Proxies are told by their own stream; `spread_s` is how long the slowest of them may take.
What fails is tried again, and told in `warnings` of the status of every server, whoever holds the duty.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from api.commands import CommandService
from api.history import iso
from api.outcomes import Origin
from api.pki import issuing, lifetime_of, signer_of
from api.ports import ApiPorts
from cluster.issuing import issue_certificate
from mesh.certificates import Authority, Certificate, Root
from mesh.commands import Command, idempotency_token
from mesh.commands_pki import DropRoot, PromoteRoot
from mesh.errors import Conflict, MeshlogError
from mesh.in_use import listed
from mesh.state import State
from runtime.limits import (
    CERTIFICATE_BACKDATE_S,
    CERTIFICATE_RETRY_S,
    LEAF_RENEW_SHARE,
    RENEWAL_OVERDUE_SHARE,
    RENEWALS_PER_ROUND,
)

log = structlog.get_logger(__name__)

OPERATION = "RenewCertificates"
_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Promote:
    """Issue under this root from now on."""

    authority: Authority
    root: Root


@dataclass(frozen=True, slots=True)
class Renew:
    """Issue this certificate anew."""

    authority: Authority
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class Drop:
    """Believe this root no more."""

    authority: Authority
    root: Root


Step = Promote | Renew | Drop


def due(state: State, now_us: int, spread_s: float) -> Iterator[Step]:
    """What is to be done now, authorities first, in the order of their ARNs."""
    settled_us = now_us - int(spread_s * _US)
    under: dict[str, list[Certificate]] = {}
    for arn in sorted(state.certificates):
        certificate = state.certificates[arn]
        under.setdefault(certificate.authority, []).append(certificate)
    for arn in sorted(state.authorities):
        authority = state.authorities[arn]
        mine = under.get(arn, [])
        newest = authority.trusted()[-1]
        if newest.id != authority.issuing and newest.added_us <= settled_us and newest.id in state.authority_keys:
            yield Promote(authority, newest)
            continue  # what follows is looked at in the state that this leads to
        yield from (Renew(authority, each) for each in mine if _wants_renewal(authority, each, now_us))
        yield from _droppable(authority, mine, settled_us)


def _wants_renewal(authority: Authority, certificate: Certificate, now_us: int) -> bool:
    if not authority.issuing:
        return False
    if certificate.root != authority.issuing:
        return True
    recent = now_us < certificate.updated_us + CERTIFICATE_RETRY_S * _US
    return not recent and certificate.not_after_us - now_us < _life_us(certificate) * LEAF_RENEW_SHARE


def _life_us(certificate: Certificate) -> int:
    """How long it was good for when it was new. (What is issued here begins a little before it is made.)"""
    whole_us = certificate.not_after_us - certificate.not_before_us
    return whole_us - CERTIFICATE_BACKDATE_S * _US if certificate.authority else whole_us


def _droppable(authority: Authority, mine: list[Certificate], settled_us: int) -> Iterator[Drop]:
    """Roots before the issuing one that nothing is under, once every peer has heard of the last that was."""
    if authority.updated_us > settled_us or any(each.updated_us > settled_us for each in mine):
        return
    for root in authority.trusted():
        if root.id == authority.issuing:
            return
        if authority.issuing and not any(each.root == root.id for each in mine):
            yield Drop(authority, root)


def warnings(state: State, now_us: int) -> list[str]:
    """What an operator has to know of certificates, from the state and the time alone."""
    expired, late = [], []
    for arn in sorted(state.certificates):
        certificate = state.certificates[arn]
        if certificate.not_after_us <= now_us:
            expired.append(arn)
        elif certificate.not_after_us - now_us < _life_us(certificate) * RENEWAL_OVERDUE_SHARE:
            late.append(f"{arn} ({iso(certificate.not_after_us)})")
    said = []
    if expired:
        said.append(
            f"{len(expired)} certificates have expired, and no caller that validates takes them: {listed(expired)}. "
            "Issue them anew with `meshlog pki certificate rotate`, or import them again"
        )
    if late:
        said.append(
            f"{len(late)} certificates should have been renewed and will expire: {listed(late)}. See this server's log "
            "for why; imported ones are yours to import again"
        )
    for arn in sorted(state.authorities):
        authority = state.authorities[arn]
        root = authority.trusted()[-1]
        lived = (root.not_after_us - now_us) / max(root.not_after_us - root.not_before_us, 1)
        if lived < RENEWAL_OVERDUE_SHARE:
            end = "has expired" if lived <= 0 else f"expires at {iso(root.not_after_us)}"
            said.append(f"the root of {arn} {end}: `meshlog pki ca rotate` replaces it without a break")
    return said


class RenewalDuty:
    """Does what is due. `run` is for ever; `round` once, and tells whether there was anything."""

    def __init__(self, ports: ApiPorts, commands: CommandService[Any, Any], every_s: float, spread_s: float) -> None:
        self._ports, self._commands, self._every_s, self._spread_s = ports, commands, every_s, spread_s
        self._failing: dict[str, str] = {}

    @property
    def failures(self) -> list[str]:
        """What could not be done when it was last tried, in words."""
        return [f"{arn}: {why}" for arn, why in sorted(self._failing.items())]

    async def run(self, token: int) -> None:  # noqa: ARG002 - the log's own head is the fence of what it writes
        """As a duty's work."""
        while True:
            await self.round()
            await self._ports.clock.sleep(self._every_s)

    async def round(self) -> bool:
        """Do what is due now, at most `RENEWALS_PER_ROUND` steps."""
        done, failing = 0, {}
        for step in due(self._ports.replica.state, self._ports.clock.now_us(), self._spread_s):
            if done >= RENEWALS_PER_ROUND:
                break
            done += 1
            try:
                await self._do(step)
            except MeshlogError as error:
                arn = step.certificate.arn if isinstance(step, Renew) else step.authority.arn
                failing[arn] = error.message
                log.warning("a certificate is not renewed yet", arn=arn, step=type(step).__name__, reason=error.message)
        self._failing = failing
        return done > 0

    async def _do(self, step: Step) -> None:
        arn = step.authority.arn
        if isinstance(step, Promote):
            await self._submit(PromoteRoot(arn, step.root.id), step.authority.account)
        elif isinstance(step, Drop):
            await self._submit(DropRoot(arn, step.root.id), step.authority.account)
        else:
            await self._renew(step)

    async def _renew(self, step: Renew) -> None:
        state, certificate = self._ports.replica.state, step.certificate
        authority = state.authorities.get(step.authority.arn)
        if authority is None:
            raise Conflict(f"{step.authority.arn} was retired meanwhile")
        made = issue_certificate(
            signer_of(state, authority),
            certificate.names,
            self._ports.clock.now_us(),
            self._ports.entropy,
            lifetime_of(certificate),
        )
        command = issuing(certificate.arn, authority, made, create=False, seen=certificate.version)
        await self._submit(command, certificate.account)
        log.info("certificate renewed", arn=certificate.arn, serial=made.serial, until=iso(made.not_after_us))

    async def _submit(self, command: Command, account: str) -> None:
        request_id, principal = self._ports.entropy.uuid(), f"arn:aws:iam::{account}:service/meshlog"
        members: Mapping[str, Any] = {}
        token = idempotency_token(account, principal, OPERATION, request_id, members)
        outcome = await self._commands.submit(command, Origin(account, principal, "", request_id, OPERATION, token))
        await self._ports.replica.wait_for(outcome.position, self._ports.read_deadline_s)
