"""The part of an API server that drills restores and knows of others: wired from the settings, for `cli.serve`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

import structlog

from cli.log_access import LogAccess, key_providers, registry_archive
from cli.serve_epoch import end_with_the_epoch
from cluster.duties import abreast, run_duty
from eventlog.archive.places import open_store
from eventlog.archive.store import ObjectStore
from eventlog.driver import Fence
from mesh.errors import Unavailable
from mesh.fold import S
from mesh.registry.state import RegistryState
from mesh.state import State
from projector.drill import Drill, DrillMetrics, DrillResult, last_result, status_document
from runtime.clock import Clock, Entropy
from runtime.limits import DRILL_LOOK_S
from runtime.settings import ApiSettings, DutySettings
from runtime.supervise import Supervisor

log = structlog.get_logger(__name__)

DUTY = "drill"


def make_drill(
    settings: ApiSettings,
    access: LogAccess[State],
    registry: LogAccess[RegistryState],
    clock: Clock,
    entropy: Entropy,
) -> DrillDuty | None:
    """None where no archive is set: there is nothing to restore from."""
    beside = registry_archive(settings)
    if settings.archive is None or beside is None:
        return None
    store = open_store(settings.archive)
    drilling = partial(DrilledLog, settings=settings, clock=clock, entropy=entropy)
    mesh = drilling(access, store, metrics="meshlog")
    other = drilling(registry, beside, metrics="meshlog_registry")
    work = abreast({DUTY: mesh.work, f"registry-{DUTY}": other.work}, clock)
    duty = partial(
        run_duty, access.connection, settings.key_prefix, DUTY, holder_id=settings.id, work=work, clock=clock
    )
    return DrillDuty(mesh, other, duty, partial(end_with_the_epoch, store, access.replica, clock))


class DrilledLog:
    """One log's drills, and the last result, whoever drilled."""

    def __init__(
        self,
        access: LogAccess[S],
        store: ObjectStore,
        *,
        metrics: str,
        settings: ApiSettings,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._drill = Drill(
            access.fold,
            store,
            key_providers(settings.kek, entropy),
            access.driver,
            access.replica,
            clock=clock,
            holder_id=settings.id,
            interval_s=(settings.duties or DutySettings()).drill_every_s,
        )
        self._driver, self._metrics, self._clock = access.driver, DrillMetrics(of=metrics), clock
        self._last: DrillResult | None = None

    def status(self) -> Mapping[str, Any] | None:
        """For /status: the last result, None before the first."""
        return status_document(self._last)

    async def work(self, token: int) -> None:
        await self._drill.run(Fence(DUTY, token))

    async def look(self) -> None:
        while True:
            try:
                found = await last_result(self._driver)
            except Unavailable as failure:
                log.info("the last drill's result cannot be read", reason=failure.message)
            else:
                if found is not None and found != self._last:
                    self._metrics.told(found)
                self._last = found
            await self._clock.sleep(DRILL_LOOK_S)


class DrillDuty:
    """Drills both logs under the duty's lease, and ends this server once a restore has begun another epoch."""

    def __init__(
        self,
        mesh: DrilledLog,
        registry: DrilledLog,
        duty: Callable[[], Coroutine[Any, Any, None]],
        epoch: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self.mesh, self.registry, self._duty, self._epoch = mesh, registry, duty, epoch

    def start(self, supervisor: Supervisor) -> None:
        supervisor.start(self.mesh.look(), "drill results")
        supervisor.start(self.registry.look(), "registry drill results")
        supervisor.start(self._epoch(), "epoch")
        supervisor.start(self._duty(), DUTY)
