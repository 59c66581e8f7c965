"""One API server: settings in, a running process out. The other roles' wiring is in `cli.serve_projector` and
`cli.serve_frontend`; what an API server does beside answering, in `cli.serve_…`.

Nothing is decided here. `run_api` builds the graph from its ports, says what readiness means, and runs it until a
signal comes or a part fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from api.app import create_app
from api.authentication import Authenticator
from api.past import LogHistory, StoredCheckpoints
from api.peers import Peers, PeerServer
from api.ports import ApiPorts, KeyPorts, Readiness, SignedIdentity, XdsEndpoint
from api.proxy_credentials import ProxyGate
from api.proxy_service import ProxyCredentialsService
from api.recent import RecentEvents
from cli.genesis import create_registry_log
from cli.log_access import LogAccess, member_of, open_log, open_registry, registry_archive
from cli.role_health import check_addresses, fold_checks, serve_health, status_of
from cli.serve_archive import make_archiving
from cli.serve_audit import Audit, make_audit
from cli.serve_certificates import Certificates
from cli.serve_drill import make_drill
from cli.serve_http import drain, serve_http
from cli.serve_registry import RegistryLog
from cli.serve_registry_duties import registry_ports, start_registry_duties
from cli.serve_upkeep import Upkeep
from cluster import pki
from cluster.etcd.connection import EtcdConnection
from cluster.members import Registration, list_members
from eventlog.archive.places import open_store
from eventlog.archive.reader import ArchiveReader
from eventlog.keys.opening import KeyCheck, keep_fresh
from eventlog.keys.rotation import KeyRotation
from eventlog.timeline import Timeline
from identity.node_id import NodeId
from mesh.errors import MeshlogError
from mesh.fold import S
from mesh.state import State, state_hash
from projector.replica import Replica
from runtime.clock import Clock, Entropy, SystemClock, SystemEntropy
from runtime.health import Check, HealthServer
from runtime.limits import (
    CONFIRM_EVERY_S,
    CONFIRM_TIMEOUT_S,
    CONFIRMED_AGE_READY_S,
    PROXY_LIFETIME_S,
)
from runtime.settings import ApiSettings
from runtime.supervise import Supervisor
from runtime.tls import channel_credentials, server_credentials

log = structlog.get_logger(__name__)


class _Signer:
    """The proxies' root as the API uses it."""

    def __init__(self, settings: ApiSettings, entropy: Entropy) -> None:
        self._authority = pki.load_authority(settings.proxy_authority)
        self._frontends_root = settings.role_tls.authority.read_text(encoding="ascii")
        self._trust_domain = settings.trust_domain
        self._entropy = entropy

    def sign(self, node: NodeId, csr_pem: bytes, now_us: int) -> SignedIdentity:
        serial = pki.fresh_serial(self._entropy)
        not_after_us = now_us + PROXY_LIFETIME_S * 1_000_000
        certificate = pki.sign_proxy_request(
            self._authority,
            csr_pem,
            node=node,
            trust_domain=self._trust_domain,
            serial=serial,
            now_us=now_us,
            not_after_us=not_after_us,
        ).decode()
        return SignedIdentity(certificate, certificate, self._frontends_root, f"{serial:x}", not_after_us)


def _confirmable(replica: Replica[State]) -> Check:
    """A server that etcd's quorum has not spoken to for a while can answer nothing but 503."""

    def check() -> str | None:
        age_s = replica.confirmed_age_s
        return None if age_s < CONFIRMED_AGE_READY_S else f"no quorum of etcd confirmed the head for {age_s:.0f} s"

    return check


async def _keep_confirming(replica: Replica[State], registry: RegistryLog, clock: Clock) -> None:
    """So that readiness tells the truth on an idle server too."""

    async def confirm(log_of: Replica[State] | RegistryLog) -> None:
        try:
            await log_of.confirmed(CONFIRM_TIMEOUT_S)
        except MeshlogError as error:
            log.info("head not confirmed", reason=error.message)

    while True:
        # Together, so that both are one read.
        await asyncio.gather(confirm(replica), *([] if registry.halted else [confirm(registry)]))
        await clock.sleep(CONFIRM_EVERY_S)


@dataclass(frozen=True, slots=True)
class _Server:
    """An API server's parts, as far as they are made before its keys were tried."""

    settings: ApiSettings
    access: LogAccess[State]
    registry: RegistryLog
    upkeep: Upkeep
    certificates: Certificates
    clock: Clock
    entropy: Entropy
    ending: asyncio.Event

    def _keys(self, access: LogAccess[S]) -> KeyPorts:
        rotation = KeyRotation(access.driver, access.keyring, access.providers, self.clock, self.entropy)
        return KeyPorts(rotation, access.keyring)

    def ports(self, health: HealthServer, peers: Peers | None, audit: Audit | None) -> ApiPorts:
        """What the API needs of all the rest."""
        settings, access, clock, entropy = self.settings, self.access, self.clock, self.entropy
        recent = RecentEvents()
        access.replica.subscribe(recent.folded)
        reader = ArchiveReader(open_store(settings.archive)) if settings.archive else None

        def readiness() -> Readiness:
            failing = health.failing()
            return Readiness(not failing, "; ".join(failing.values()))

        async def members() -> Sequence[Mapping[str, Any]]:
            found = await list_members(access.connection, settings.key_prefix)
            return [member.document() for member in found]

        return ApiPorts(
            replica=access.replica,
            writer=self.upkeep.writer(access.driver, access.keyring),
            history=LogHistory(Timeline(access.driver, reader), access.keyring, reader),
            checkpoints=StoredCheckpoints(access.driver, access.keyring, reader),
            signer=_Signer(settings, entropy),
            xds_endpoints=lambda: [XdsEndpoint(zone, address) for zone, address in settings.frontends],
            clock=clock,
            entropy=entropy,
            region=settings.region,
            zone=settings.zone,
            server_id=settings.id,
            readiness=readiness,
            members=members,
            registry=registry_ports(self.registry, settings, self.upkeep, clock, self._keys(self.registry.access)),
            keys=self._keys(access),
            peers=peers,
            recent=recent,
            audit=audit.ports if audit else None,
            limits=settings.limits,
        )

    async def run(self, stack: AsyncExitStack, supervisor: Supervisor, health: HealthServer, log_id: str) -> None:
        """Serve until the supervisor ends."""
        settings, access, clock = self.settings, self.access, self.clock
        audit = make_audit(settings, log_id, access.driver, access.keyring, clock=clock, entropy=self.entropy)
        peers = Peers(lambda: channel_credentials(settings.role_tls), clock) if settings.peer_listen else None
        ports = self.ports(health, peers, audit)
        app = create_app(ports)
        server = serve_http(app, settings, clock, self.entropy, supervisor)
        if settings.peer_listen and peers is not None:
            taker = PeerServer(app.state.commands, settings.trust_domain)
            proxies = ProxyCredentialsService(ProxyGate(ports, Authenticator(ports)), settings.trust_domain)
            await taker.start(settings.peer_listen, server_credentials(settings.role_tls), proxies)
            stack.push_async_callback(taker.stop, 0)
            stack.push_async_callback(peers.close)
            supervisor.start(peers.run(partial(_other_peers, access.connection, settings)), "peers")
        registration = Registration(
            access.connection, settings.key_prefix, lambda: member_of(settings, access, self.registry.access), clock
        )
        supervisor.start(access.replica.run(), "replica")
        supervisor.start(_keep_confirming(access.replica, self.registry, clock), "confirm")
        supervisor.start(keep_fresh(access.keyring, log_id, clock), "data keys")
        supervisor.start(registration.run(), "member")
        supervisor.start(access.reproduction.run(), "reproduction")
        supervisor.start(self.registry.run(supervisor), "registry")
        start_registry_duties(self.registry, ports, app.state.registry_commands, settings, supervisor)
        if audit:
            supervisor.start(audit.calls.run(), "audit")
        self.certificates.start(supervisor, ports, app.state.commands)
        serving = supervisor.start(server.serve(), "http")
        serving.add_done_callback(lambda _: supervisor.stop())
        log.info("serving", role=settings.role, address=settings.listen)
        try:
            await supervisor.wait()
        finally:
            self.ending.set()
            await drain(server, serving, clock)
            if audit:
                await audit.calls.close()


async def run_api(settings: ApiSettings) -> None:
    """One API server, until a signal."""
    check_addresses(settings)
    clock, entropy = SystemClock(), SystemEntropy()
    access = open_log(settings, clock, entropy)
    beside = open_registry(access, settings, clock, entropy)
    connection, driver, keyring, replica = access.connection, access.driver, access.keyring, access.replica
    async with AsyncExitStack() as stack:
        stack.callback(connection.close)
        supervisor = await stack.enter_async_context(Supervisor())
        supervisor.stop_on_signals()
        keys = KeyCheck(driver, keyring, access.providers, clock)
        make = partial(create_registry_log, beside.driver, beside.providers, registry_archive(settings), clock, entropy)
        registry = RegistryLog(beside, clock, make)
        upkeep = Upkeep(settings, access, beside, clock, entropy)
        stack.callback(upkeep.close)
        archiving = make_archiving(settings, access, beside, clock, entropy)
        drill = make_drill(settings, access, beside, clock, entropy)

        certificates = Certificates(settings, connection, replica, clock)

        def status() -> Mapping[str, Any]:
            said = status_of(settings, replica.position) | {"state_hash": state_hash(replica.state)} | upkeep.status()
            told = registry.status()
            if drill:
                said |= {"drill": drill.mesh.status()}
                told |= {"drill": drill.registry.status()}
            if archiving:
                said |= {"archive": archiving.mesh.status()}
                told |= {"archive": archiving.registry.status()}
            warnings = [*said["warnings"], *registry.warnings, *certificates.warnings]
            return said | {"registry": told, "warnings": warnings}

        ending = asyncio.Event()
        checks = {
            "ending": lambda: "this server is ending" if ending.is_set() else None,
            "keys": lambda: keys.waiting_for,
            **fold_checks(replica),
            "quorum": _confirmable(replica),
        }
        health = await serve_health(stack, settings, {**checks, **upkeep.checks()}, status)
        if not await supervisor.finish(supervisor.start(keys.run(), "keys")):
            return
        for duty in (upkeep, archiving, drill):
            if duty is not None:
                duty.start(supervisor)
        await _Server(settings, access, registry, upkeep, certificates, clock, entropy, ending).run(
            stack, supervisor, health, keys.log_id
        )


async def _other_peers(connection: EtcdConnection, settings: ApiSettings) -> list[str]:
    living = await list_members(connection, settings.key_prefix, settings.role)
    return [member.peer for member in living if member.peer and member.id != settings.id]
