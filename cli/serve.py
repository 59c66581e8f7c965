"""The one place where a role's parts are wired together: settings in, a running process out.

Nothing is decided here. Each `run_*` builds the graph of one role from its ports, says what readiness means for it, and
runs it until a signal comes or a part fails.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import structlog
from prometheus_client import REGISTRY

from api.app import create_app
from api.past import LogHistory, StoredCheckpoints
from api.peers import Peers, PeerServer
from api.ports import ApiPorts, KeyPorts, Readiness, SignedIdentity, XdsEndpoint
from api.recent import RecentEvents
from api.server import ApiServer, server_config
from cli.serve_archive import make_archiving
from cli.serve_audit import make_audit
from cli.serve_drill import make_drill
from cli.serve_upkeep import Upkeep, UpkeepParts
from cluster import pki
from cluster.etcd.choice import EtcdMember
from cluster.etcd.connection import EtcdConnection
from cluster.etcd.connection import TlsFiles as EtcdTls
from cluster.frontends import FrontendRegistrations
from cluster.members import Member, Registration, list_members
from eventlog.archive.places import open_store
from eventlog.archive.reader import ArchiveReader
from eventlog.drivers.etcd import EtcdDriver
from eventlog.follower import Follower
from eventlog.keys.keyring import Keyring
from eventlog.keys.opening import KeyCheck, keep_fresh
from eventlog.keys.provider import KeyProvider
from eventlog.keys.rotation import KeyRotation, holdings
from eventlog.keys.sources import open_sources
from eventlog.reads import HeadConfirmer
from eventlog.records import KeyClass
from eventlog.signing import known_signers
from eventlog.timeline import Timeline
from identity.node_id import NodeId
from mesh.errors import MeshlogError
from mesh.events import LEVEL
from mesh.position import Position
from mesh.state import state_hash
from projector.beginning import from_checkpoints
from projector.feed.client import FeedClient, secure_channels
from projector.feed.server import FeedServer
from projector.projection import Projection
from projector.replica import Replica
from projector.reproduction import Reproduction
from runtime.clock import Clock, Entropy, SystemClock, SystemEntropy
from runtime.health import Check, HealthServer
from runtime.limits import (
    CONFIRM_EVERY_S,
    CONFIRM_TIMEOUT_S,
    CONFIRMED_AGE_READY_S,
    MEMBERS_READ_S,
    PROXY_LIFETIME_S,
    SHUTDOWN_GRACE_S,
)
from runtime.listen import check_free
from runtime.settings import (
    ApiSettings,
    FrontendSettings,
    KekSettings,
    LogSettings,
    ProcessSettings,
    ProjectorSettings,
    TlsFiles,
    split_address,
)
from runtime.supervise import Supervisor
from runtime.tls import channel_credentials, server_credentials
from xds.metrics import XdsMetrics
from xds.server import XdsServer

log = structlog.get_logger(__name__)

BUILD = version("meshlog")


@dataclass(frozen=True, slots=True)
class LogAccess:
    """What a role that reaches the log has: the connection, the driver over it, and the fold."""

    connection: EtcdConnection
    driver: EtcdDriver
    providers: Mapping[KeyClass, KeyProvider]
    keyring: Keyring
    replica: Replica
    follower: Callable[[], Follower]
    reproduction: Reproduction


def etcd_connection(settings: LogSettings, clock: Clock, entropy: Entropy) -> EtcdConnection:
    """The role's own connection, own zone first."""
    members = [EtcdMember(zone, address) for zone, address in settings.etcd_endpoints]
    files = settings.etcd_tls
    tls = EtcdTls(ca=files.authority, certificate=files.certificate, key=files.key)
    return EtcdConnection(members, settings.zone, tls, clock, entropy)


def key_providers(kek: KekSettings, entropy: Entropy) -> Mapping[KeyClass, KeyProvider]:
    """The classes of data key that this role is given."""
    providers = {KeyClass.CONFIG: open_sources(kek.config, KeyClass.CONFIG, entropy)}
    if kek.secrets is not None:
        providers[KeyClass.SECRETS] = open_sources(kek.secrets, KeyClass.SECRETS, entropy)
    return providers


def open_log(settings: LogSettings, clock: Clock, entropy: Entropy) -> LogAccess:
    """Build, without a first call: the replica waits for etcd by itself."""
    connection = etcd_connection(settings, clock, entropy)
    driver = EtcdDriver(connection, settings.key_prefix)
    providers = key_providers(settings.kek, entropy)
    keyring = Keyring(driver, providers)

    def follower() -> Follower:
        return Follower(driver, keyring, clock, entropy)

    replica = Replica(follower(), HeadConfirmer(driver), clock, from_checkpoints(driver, keyring))
    reproduction = Reproduction(driver, lambda: known_signers(keyring), clock)
    replica.subscribe(reproduction.folded)
    return LogAccess(connection, driver, providers, keyring, replica, follower, reproduction)


def _member(settings: LogSettings, access: LogAccess) -> Member:
    return Member(
        role=settings.role,
        id=settings.id,
        zone=settings.zone,
        address=settings.advertise,
        level=LEVEL,
        build=BUILD,
        peer=getattr(settings, "peer_advertise", None) or "",
        keks=holdings(access.providers),
        reproduced=str(access.reproduction),
    )


def _status(settings: ProcessSettings, position: Position) -> dict[str, Any]:
    return {
        "role": settings.role,
        "id": settings.id,
        "zone": settings.zone,
        "pid": os.getpid(),
        "build": BUILD,
        "level": LEVEL,
        "epoch": position.epoch,
        "position": position.position,
    }


def _folded(replica: Replica) -> dict[str, Check]:
    return {
        "log": lambda: None if replica.ready else "the log is not folded up to its head yet",
        "fold": lambda: replica.halted,
    }


def _check_addresses(settings: ProcessSettings) -> None:
    check_free(settings.listen, "listen")
    check_free(settings.health, "health")
    if isinstance(settings, ApiSettings) and settings.peer_listen:
        check_free(settings.peer_listen, "peer_listen")


async def _serve_health(
    stack: AsyncExitStack,
    settings: ProcessSettings,
    checks: Mapping[str, Check],
    status: Callable[[], Mapping[str, Any]],
) -> HealthServer:
    health = HealthServer(checks, status, REGISTRY)
    host, port = split_address(settings.health, "health")
    await health.start(host, port)
    stack.push_async_callback(health.stop)
    return health


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


def _confirmable(replica: Replica) -> Check:
    """A server that etcd's quorum has not spoken to for a while can answer nothing but 503."""

    def check() -> str | None:
        age_s = replica.confirmed_age_s
        return None if age_s < CONFIRMED_AGE_READY_S else f"no quorum of etcd confirmed the head for {age_s:.0f} s"

    return check


async def _keep_confirming(replica: Replica, clock: Clock) -> None:
    """So that readiness tells the truth on an idle server too."""
    while True:
        try:
            await replica.confirmed(CONFIRM_TIMEOUT_S)
        except MeshlogError as error:
            log.info("head not confirmed", reason=error.message)
        await clock.sleep(CONFIRM_EVERY_S)


async def run_api(settings: ApiSettings) -> None:
    """One API server, until a signal."""
    _check_addresses(settings)
    clock, entropy = SystemClock(), SystemEntropy()
    access = open_log(settings, clock, entropy)
    replica = access.replica
    async with AsyncExitStack() as stack:
        stack.callback(access.connection.close)
        supervisor = await stack.enter_async_context(Supervisor())
        supervisor.stop_on_signals()
        keys = KeyCheck(access.driver, access.keyring, access.providers, clock)
        upkeep = Upkeep(
            settings,
            UpkeepParts(access.connection, access.driver, access.keyring, replica, access.reproduction),
            clock,
            entropy,
        )
        stack.callback(upkeep.close)
        checks = {"keys": lambda: keys.waiting_for, **_folded(replica), "quorum": _confirmable(replica)}
        checks |= upkeep.checks()

        archiving = make_archiving(
            settings, access.connection, access.driver, access.keyring, position=lambda: replica.position,
            clock=clock, entropy=entropy,
        )  # fmt: skip

        drill = make_drill(
            settings, access.connection, access.driver, replica,
            providers=key_providers(settings.kek, entropy), clock=clock,
        )  # fmt: skip

        def status() -> Mapping[str, Any]:
            said = _status(settings, replica.position) | {"state_hash": state_hash(replica.state)} | upkeep.status()
            said |= {"drill": drill.status()} if drill else {}
            return said | ({"archive": archiving.status()} if archiving else {})

        health = await _serve_health(stack, settings, checks, status)
        if not await supervisor.finish(supervisor.start(keys.run(), "keys")):
            return

        def readiness() -> Readiness:
            failing = health.failing()
            return Readiness(not failing, "; ".join(failing.values()))

        async def members() -> Sequence[Mapping[str, Any]]:
            found = await list_members(access.connection, settings.key_prefix)
            return [member.document() for member in found]

        peers = Peers(lambda: channel_credentials(settings.role_tls), clock)
        recent = RecentEvents()
        replica.subscribe(recent.folded)
        audit = make_audit(settings, keys.log_id, access.driver, access.keyring, clock=clock, entropy=entropy)
        reader = ArchiveReader(open_store(settings.archive)) if settings.archive else None
        ports = ApiPorts(
            replica=replica,
            writer=upkeep.writer(),
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
            keys=KeyPorts(KeyRotation(access.driver, access.keyring, access.providers, clock, entropy), access.keyring),
            peers=peers if settings.peer_listen else None,
            recent=recent,
            audit=audit.ports if audit else None,
        )
        app = create_app(ports)
        server = ApiServer(
            server_config(app, split_address(settings.listen), clock=clock, entropy=entropy, tls=settings.http_tls)
        )
        if settings.peer_listen:
            taker = PeerServer(app.state.commands, settings.trust_domain)
            await taker.start(settings.peer_listen, server_credentials(settings.role_tls))
            stack.push_async_callback(taker.stop, 0)
            stack.push_async_callback(peers.close)
            supervisor.start(peers.run(partial(_other_peers, access.connection, settings)), "peers")
        upkeep.start(supervisor)
        if archiving:
            archiving.start(supervisor)
        if drill:
            drill.start(supervisor)
        registration = Registration(access.connection, settings.key_prefix, lambda: _member(settings, access), clock)
        supervisor.start(replica.run(), "replica")
        supervisor.start(_keep_confirming(replica, clock), "confirm")
        supervisor.start(keep_fresh(access.keyring, keys.log_id, clock), "data keys")
        supervisor.start(registration.run(), "member")
        supervisor.start(access.reproduction.run(), "reproduction")
        if audit:
            supervisor.start(audit.calls.run(), "audit")
        serving = supervisor.start(server.serve(), "http")
        serving.add_done_callback(lambda _: supervisor.stop())
        log.info("serving", role=settings.role, address=settings.listen)
        try:
            await supervisor.wait()
        finally:
            server.should_exit = True
            await asyncio.wait([serving], timeout=SHUTDOWN_GRACE_S)
            if audit:
                await audit.calls.close()


async def _other_peers(connection: EtcdConnection, settings: ApiSettings) -> list[str]:
    living = await list_members(connection, settings.key_prefix, settings.role)
    return [member.peer for member in living if member.peer and member.id != settings.id]


async def _know_projectors(
    connection: EtcdConnection, settings: ProjectorSettings, known: set[tuple[str, str]], clock: Clock
) -> None:
    """Keep `known` at the configured projectors and those that live now, for frontends to dial."""
    static = {(endpoint.zone, endpoint.address) for endpoint in settings.projectors}
    while True:
        try:
            living = await list_members(connection, settings.key_prefix, settings.role)
            known.clear()
            known.update(static, ((member.zone, member.address) for member in living))
        except MeshlogError as error:
            log.info("projectors not listed", reason=error.message)
        await clock.sleep(MEMBERS_READ_S)


async def run_projector(settings: ProjectorSettings) -> None:
    """One projector, until a signal."""
    _check_addresses(settings)
    # The resource classes take a second to load and 60 MB to hold: only where resources are built.
    from projector.envoy.compiler import Compiler  # noqa: PLC0415
    from projector.envoy.warm import warm_up  # noqa: PLC0415

    clock, entropy = SystemClock(), SystemEntropy()
    access = open_log(settings, clock, entropy)
    replica = access.replica
    async with AsyncExitStack() as stack:
        stack.callback(access.connection.close)
        supervisor = await stack.enter_async_context(Supervisor())
        supervisor.stop_on_signals()
        compiler = Compiler()
        warm_up(compiler)
        projection = Projection(replica, compiler)
        known = {(endpoint.zone, endpoint.address) for endpoint in settings.projectors}
        feed = FeedServer(
            source=projection,
            registry=FrontendRegistrations(
                access.connection, settings.key_prefix, level=LEVEL, build=BUILD, clock=clock, supervisor=supervisor
            ),
            projectors=lambda: sorted(known),
            projector_id=settings.id,
            zone=settings.zone,
            trust_domain=settings.trust_domain,
            clock=clock,
        )

        def status() -> Mapping[str, Any]:
            alarms = {str(node): list(said) for node, said in projection.alarms.items()}
            return _status(settings, replica.position) | {
                "state_hash": state_hash(replica.state),
                "frontends": feed.frontends,
                "alarms": alarms,
                "warnings": [said for said in (access.reproduction.disagreement, *replica.alarms) if said],
            }

        keys = KeyCheck(access.driver, access.keyring, access.providers, clock)
        await _serve_health(stack, settings, {"keys": lambda: keys.waiting_for, **_folded(replica)}, status)
        if not await supervisor.finish(supervisor.start(keys.run(), "keys")):
            return
        await feed.start(settings.listen, server_credentials(settings.role_tls))
        stack.push_async_callback(feed.stop, 0)
        registration = Registration(access.connection, settings.key_prefix, lambda: _member(settings, access), clock)
        supervisor.start(replica.run(), "replica")
        supervisor.start(feed.run(), "feed")
        supervisor.start(_know_projectors(access.connection, settings, known, clock), "projectors")
        supervisor.start(keep_fresh(access.keyring, keys.log_id, clock), "data keys")
        supervisor.start(registration.run(), "member")
        supervisor.start(access.reproduction.run(), "reproduction")
        log.info("serving", role=settings.role, address=settings.listen)
        await supervisor.wait()


async def run_frontend(settings: FrontendSettings) -> None:
    """One frontend, until a signal. No etcd, no keys, no disk but its certificates."""
    _check_addresses(settings)
    clock, entropy = SystemClock(), SystemEntropy()
    async with AsyncExitStack() as stack:
        supervisor = await stack.enter_async_context(Supervisor())
        supervisor.stop_on_signals()
        feed = FeedClient(
            zone=settings.zone,
            projectors=settings.projectors,
            channels=secure_channels(lambda: channel_credentials(settings.role_tls)),
            clock=clock,
            entropy=entropy,
            frontend_id=settings.id,
            frontend_address=settings.advertise,
        )
        server = XdsServer(
            feed=feed, trust_domain=settings.trust_domain, clock=clock, entropy=entropy, metrics=XdsMetrics(REGISTRY)
        )

        def status() -> Mapping[str, Any]:
            refused = [
                {
                    "node": str(proxy.node),
                    "type": proxy.refusal.type,
                    "resources": list(proxy.refusal.names),
                    "position": str(proxy.refusal.position),
                }
                for proxy in server.proxies
                if proxy.refusal is not None
            ]
            return _status(settings, feed.position) | {"proxies": len(server.proxies), "refused": refused}

        checks: dict[str, Check] = {"feed": lambda: None if feed.ready else "no projector feeds this frontend yet"}
        await _serve_health(stack, settings, checks, status)
        proxies_root = TlsFiles(
            certificate=settings.role_tls.certificate,
            key=settings.role_tls.key,
            authority=settings.proxy_authority_certificate,
        )
        await server.start(settings.listen, server_credentials(proxies_root))
        stack.push_async_callback(server.stop, 0)
        supervisor.start(feed.run(), "feed")
        log.info("serving", role=settings.role, address=settings.listen)
        await supervisor.wait()
