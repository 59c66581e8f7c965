"""The part of an API server that archives the log: wired from the settings, for `cli.serve`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from prometheus_client import Gauge

from cluster.duties import run_duty
from cluster.etcd.connection import EtcdConnection
from eventlog.archive.archiver import Archiver, ArchiverMetrics
from eventlog.archive.monitor import ArchiveMonitor
from eventlog.archive.places import open_store
from eventlog.driver import Fence, LogDriver
from eventlog.keys.keyring import Keyring
from mesh.position import Position
from runtime.clock import Clock, Entropy
from runtime.settings import ApiSettings
from runtime.supervise import Supervisor

DUTY = "archive"
_DAY_US = 86_400_000_000


def make_archiving(
    settings: ApiSettings,
    connection: EtcdConnection,
    driver: LogDriver,
    keyring: Keyring,
    *,
    position: Callable[[], Position],
    clock: Clock,
    entropy: Entropy,
) -> ArchiveDuty | None:
    """None where no archive is set. SettingsError if what is set is no archive's address."""
    if settings.archive is None:
        return None
    store = open_store(settings.archive)
    archiver = Archiver(
        store,
        driver,
        keyring,
        clock,
        entropy,
        holder_id=settings.id,
        retention_us=settings.archive_retention_days * _DAY_US,
        metrics=ArchiverMetrics(),
    )
    duty = partial(run_duty, connection, settings.key_prefix, DUTY, holder_id=settings.id, clock=clock)
    return ArchiveDuty(archiver, ArchiveMonitor(driver, store.place, position, clock), duty)


class ArchiveDuty:
    """Archives under the duty's lease, and watches that somebody does."""

    def __init__(
        self, archiver: Archiver, monitor: ArchiveMonitor, duty: Callable[..., Coroutine[Any, Any, None]]
    ) -> None:
        self._archiver = archiver
        self._monitor = monitor
        self._duty = duty
        behind = Gauge("meshlog_archive_behind_seconds", "For how long the archive has lacked something")
        behind.set_function(lambda: self._monitor.lag_s)

    def start(self, supervisor: Supervisor) -> None:
        supervisor.start(self._monitor.run(), "archive monitor")
        supervisor.start(self._duty(work=self._work), DUTY)

    def status(self) -> Mapping[str, Any]:
        """For /status: how far the archive is, as this server sees it, and what is wrong."""
        archiver, mark = self._archiver.status, self._monitor.mark
        found: dict[str, Any] = {
            "place": self._monitor.place,
            "position": str(mark.head.at) if mark else None,
            "behind_s": round(self._monitor.lag_s, 3),
        }
        if archiver.holding:
            found |= {"ships": True, "lag_s": round(self._archiver.lag_s(), 3)}
            if archiver.error:
                found["error"] = archiver.error
        if self._monitor.alarm:
            found["alarm"] = self._monitor.alarm
        return found

    async def _work(self, token: int) -> None:
        await self._archiver.run(Fence(DUTY, token))
