"""The part of an API server that drills restores and knows of others: wired from the settings, for `cli.serve`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

import structlog

from cli.serve_epoch import end_with_the_epoch
from cluster.duties import run_duty
from cluster.etcd.connection import EtcdConnection
from eventlog.archive.places import open_store
from eventlog.driver import Fence, LogDriver
from eventlog.keys.provider import KeyProvider
from eventlog.records import KeyClass
from mesh.errors import Unavailable
from mesh.fold import MESH_FOLD
from mesh.state import State
from projector.drill import Drill, DrillMetrics, DrillResult, last_result, status_document
from projector.replica import Replica
from runtime.clock import Clock
from runtime.limits import DRILL_LOOK_S
from runtime.settings import ApiSettings, DutySettings
from runtime.supervise import Supervisor

log = structlog.get_logger(__name__)

DUTY = "drill"


def make_drill(
    settings: ApiSettings,
    connection: EtcdConnection,
    driver: LogDriver,
    replica: Replica[State],
    *,
    providers: Mapping[KeyClass, KeyProvider],
    clock: Clock,
) -> DrillDuty | None:
    """None where no archive is set: there is nothing to restore from."""
    if settings.archive is None:
        return None
    metrics = DrillMetrics()
    store = open_store(settings.archive)
    drill = Drill(
        MESH_FOLD,
        store,
        providers,
        driver,
        replica,
        clock=clock,
        holder_id=settings.id,
        interval_s=(settings.duties or DutySettings()).drill_every_s,
    )
    duty = partial(run_duty, connection, settings.key_prefix, DUTY, holder_id=settings.id, clock=clock)
    epoch = partial(end_with_the_epoch, store, replica, clock)
    return DrillDuty(drill, driver, metrics, clock, duty=duty, epoch=epoch)


class DrillDuty:
    """Drills under the duty's lease, and knows the last result, whoever drilled."""

    def __init__(
        self,
        drill: Drill,
        driver: LogDriver,
        metrics: DrillMetrics,
        clock: Clock,
        *,
        duty: Callable[..., Coroutine[Any, Any, None]],
        epoch: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self._drill = drill
        self._driver = driver
        self._metrics = metrics
        self._duty = duty
        self._clock = clock
        self._epoch = epoch
        self._last: DrillResult | None = None

    def start(self, supervisor: Supervisor) -> None:
        supervisor.start(self._look(), "drill results")
        supervisor.start(self._epoch(), "epoch")
        supervisor.start(self._duty(work=self._work), DUTY)

    def status(self) -> Mapping[str, Any] | None:
        """For /status: the last result, None before the first."""
        return status_document(self._last)

    async def _work(self, token: int) -> None:
        await self._drill.run(Fence(DUTY, token))

    async def _look(self) -> None:
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
