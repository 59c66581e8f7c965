"""The registry's part of an API server: what the API needs of its log, and the duties that keep it true."""

from __future__ import annotations

from api.cloud_map_polling import CLOUD_MAP, AwsCloudMap, CloudMapDuty
from api.past import LogHistory
from api.ports import ApiPorts, KeyPorts, RegistryPorts
from api.registry_duties import HEARTBEATS, Commands, HeartbeatDuty, submitter
from cli.log_access import registry_archive
from cli.serve_registry import RegistryLog
from cli.serve_upkeep import Upkeep
from cluster.duties import run_duty
from cluster.heartbeats import Heartbeats
from eventlog.archive.reader import ArchiveReader
from eventlog.timeline import Timeline
from runtime.clock import Clock
from runtime.settings import ApiSettings
from runtime.supervise import Supervisor


def registry_ports(
    registry: RegistryLog, settings: ApiSettings, upkeep: Upkeep, clock: Clock, keys: KeyPorts
) -> RegistryPorts:
    """The log's fold, its writer and its history, and where heartbeats are kept."""
    access, store = registry.access, registry_archive(settings)
    reader = ArchiveReader(store) if store is not None else None
    return RegistryPorts(
        access.replica,
        upkeep.writer(access.driver, access.keyring),
        keys,
        Heartbeats(access.connection, settings.key_prefix, clock),
        LogHistory(Timeline(access.driver, reader), access.keyring, reader),
    )


def start_registry_duties(
    registry: RegistryLog, ports: ApiPorts, commands: Commands, settings: ApiSettings, supervisor: Supervisor
) -> None:
    """Start them, each whenever this server holds it. What they have to say is among the registry's warnings."""
    assert ports.registry is not None  # noqa: S101 - made by `registry_ports`
    assert ports.registry.heartbeats is not None  # noqa: S101
    submit = submitter(commands, ports.entropy)
    duty = HeartbeatDuty(ports.registry.replica, ports.registry.heartbeats, submit, ports.clock)
    registry.tells(lambda: duty.alarms)
    connection, prefix, clock = registry.access.connection, settings.key_prefix, ports.clock
    supervisor.start(
        run_duty(connection, prefix, HEARTBEATS, holder_id=settings.id, work=duty.work, clock=clock), HEARTBEATS
    )
    if settings.cloud_map is not None:
        source = AwsCloudMap(settings.cloud_map)
        copying = CloudMapDuty(
            source,
            ports.replica,
            ports.registry.replica,
            submit,
            settings.cloud_map,
            account=settings.account_id,
            clock=clock,
        )
        registry.tells(lambda: copying.alarms)
        supervisor.start(
            run_duty(connection, prefix, CLOUD_MAP, holder_id=settings.id, work=copying.work, clock=clock), CLOUD_MAP
        )
