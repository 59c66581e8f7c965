"""The part of an API server that archives the logs: wired from the settings, for `cli.serve`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from prometheus_client import Gauge

from cli.log_access import LogAccess, registry_archive
from cluster.duties import abreast, run_duty
from eventlog.archive.archiver import Archiver, ArchiverMetrics
from eventlog.archive.monitor import ArchiveMonitor
from eventlog.archive.places import open_store
from eventlog.archive.shipment import DEFAULT_SHAPE, Shape
from eventlog.archive.store import ObjectStore
from eventlog.driver import Fence
from mesh.fold import S
from mesh.registry.state import RegistryState
from mesh.state import State
from runtime.clock import Clock, Entropy
from runtime.limits import REGISTRY_ARCHIVE_POLL_S, REGISTRY_LOOK_S
from runtime.settings import ApiSettings
from runtime.supervise import Supervisor

DUTY = "archive"
_DAY_US = 86_400_000_000
_REGISTRY_SHAPE = DEFAULT_SHAPE._replace(poll_s=REGISTRY_ARCHIVE_POLL_S)


def make_archiving(
    settings: ApiSettings,
    access: LogAccess[State],
    registry: LogAccess[RegistryState],
    clock: Clock,
    entropy: Entropy,
) -> ArchiveDuty | None:
    """None where no archive is set. SettingsError if what is set is no archive's address."""
    beside = registry_archive(settings)
    if settings.archive is None or beside is None:
        return None
    shipping = partial(ArchivedLog, settings=settings, clock=clock, entropy=entropy)
    mesh = shipping(access, open_store(settings.archive), settings.archive_retention_days, metrics="meshlog")
    other = shipping(
        registry, beside, settings.registry_retention_days, metrics="meshlog_registry", shape=_REGISTRY_SHAPE
    )
    work = abreast({DUTY: mesh.work, f"registry-{DUTY}": other.work}, clock)
    duty = partial(
        run_duty, access.connection, settings.key_prefix, DUTY, holder_id=settings.id, work=work, clock=clock
    )
    return ArchiveDuty(mesh, other, duty)


class ArchivedLog:
    """One log on its way into its archive. `status` tells how far it is, as this server sees it, and what is wrong."""

    def __init__(
        self,
        access: LogAccess[S],
        store: ObjectStore,
        retention_days: int,
        *,
        metrics: str,
        shape: Shape = DEFAULT_SHAPE,
        settings: ApiSettings,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._archiver = Archiver(
            store,
            access.driver,
            access.keyring,
            clock,
            entropy,
            holder_id=settings.id,
            retention_us=retention_days * _DAY_US,
            metrics=ArchiverMetrics(of=metrics),
            shape=shape,
        )
        self.monitor = ArchiveMonitor(access.driver, store.place, lambda: access.replica.position, clock)
        behind = Gauge(f"{metrics}_archive_behind_seconds", "For how long the archive has lacked something")
        behind.set_function(lambda: self.monitor.lag_s)

    async def work(self, token: int) -> None:
        await self._archiver.run(Fence(DUTY, token))

    def status(self) -> Mapping[str, Any]:
        archiver, mark = self._archiver.status, self.monitor.mark
        found: dict[str, Any] = {
            "place": self.monitor.place,
            "position": str(mark.head.at) if mark else None,
            "behind_s": round(self.monitor.lag_s, 3),
        }
        if archiver.holding:
            found |= {"ships": True, "lag_s": round(self._archiver.lag_s(), 3)}
            if archiver.error:
                found["error"] = archiver.error
        if self.monitor.alarm:
            found["alarm"] = self.monitor.alarm
        return found


class ArchiveDuty:
    """Archives both logs under the duty's lease, and watches that somebody does."""

    def __init__(
        self,
        mesh: ArchivedLog,
        registry: ArchivedLog,
        duty: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self.mesh, self.registry, self._duty = mesh, registry, duty

    def start(self, supervisor: Supervisor) -> None:
        supervisor.start(self.mesh.monitor.run(), "archive monitor")
        supervisor.start(self.registry.monitor.run(REGISTRY_LOOK_S), "registry archive monitor")
        supervisor.start(self._duty(), DUTY)
