"""One projector: the log folded, compiled, and fed to frontends; wired from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import structlog

from cli.log_access import member_of, open_log, open_registry
from cli.role_health import BUILD, check_addresses, fold_checks, serve_health, status_of
from cli.serve_registry import RegistryLog
from cluster.etcd.connection import EtcdConnection
from cluster.frontends import FrontendRegistrations
from cluster.members import Registration, list_members
from eventlog.keys.opening import KeyCheck, keep_fresh
from mesh.errors import MeshlogError
from mesh.events import LEVEL
from mesh.state import state_hash
from projector.feed.server import FeedServer
from projector.projection import Projection
from runtime.clock import Clock, SystemClock, SystemEntropy
from runtime.limits import MEMBERS_READ_S
from runtime.settings import ProjectorSettings
from runtime.supervise import Supervisor
from runtime.tls import server_credentials

log = structlog.get_logger(__name__)


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
    check_addresses(settings)
    # The resource classes take a second to load and 60 MB to hold: only where resources are built.
    from projector.envoy.compiler import Compiler  # noqa: PLC0415
    from projector.envoy.warm import warm_up  # noqa: PLC0415

    clock, entropy = SystemClock(), SystemEntropy()
    access = open_log(settings, clock, entropy)
    registry = RegistryLog(open_registry(access, settings, clock, entropy), clock)
    replica = access.replica
    async with AsyncExitStack() as stack:
        stack.callback(access.connection.close)
        supervisor = await stack.enter_async_context(Supervisor())
        supervisor.stop_on_signals()
        compiler = Compiler()
        warm_up(compiler)
        projection = Projection(replica, compiler, registry)
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
            return status_of(settings, replica.position) | {
                "state_hash": state_hash(replica.state),
                "frontends": feed.frontends,
                "alarms": alarms,
                "registry": registry.status(),
                "warnings": [
                    *(said for said in (access.reproduction.disagreement, *replica.alarms) if said),
                    *registry.warnings,
                ],
            }

        keys = KeyCheck(access.driver, access.keyring, access.providers, clock)
        await serve_health(stack, settings, {"keys": lambda: keys.waiting_for, **fold_checks(replica)}, status)
        if not await supervisor.finish(supervisor.start(keys.run(), "keys")):
            return
        await feed.start(settings.listen, server_credentials(settings.role_tls))
        stack.push_async_callback(feed.stop, 0)
        registration = Registration(
            access.connection, settings.key_prefix, lambda: member_of(settings, access, registry.access), clock
        )
        supervisor.start(replica.run(), "replica")
        supervisor.start(feed.run(), "feed")
        supervisor.start(_know_projectors(access.connection, settings, known, clock), "projectors")
        supervisor.start(keep_fresh(access.keyring, keys.log_id, clock), "data keys")
        supervisor.start(registration.run(), "member")
        supervisor.start(access.reproduction.run(), "reproduction")
        supervisor.start(registry.run(supervisor), "registry")
        log.info("serving", role=settings.role, address=settings.listen)
        await supervisor.wait()
