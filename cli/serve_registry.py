"""The registry's log in one process: made where it is missing, its keys opened, followed and folded.

Whatever befalls it is told, in `warnings`, and ends nothing else: the meshes are served without it. A key that is
missing or wrong is waited for, and so is an etcd that does not answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog

from cli.log_access import LogAccess
from eventlog.keys.opening import keep_fresh
from mesh.errors import MeshlogError
from mesh.position import Position
from mesh.registry.state import RegistryState, state_hash
from projector.replica_ports import FoldListener
from runtime.clock import Clock
from runtime.limits import KEY_CHECK_PAUSE_S, REGISTRY_LOOK_S
from runtime.supervise import Supervisor

log = structlog.get_logger(__name__)

Make = Callable[[], Awaitable[object]]
"""Makes the registry's log unless there is one: `cli.genesis.create_registry_log`."""


class RegistryLog:
    """One process's registry. `run` under its supervisor, for ever; `status` is for /status."""

    def __init__(self, access: LogAccess[RegistryState], clock: Clock, make: Make | None = None) -> None:
        self.access, self._clock, self._make = access, clock, make
        self._trouble: str | None = "it has not been read yet"
        self._told: list[Callable[[], Sequence[str]]] = []

    def tells(self, alarms: Callable[[], Sequence[str]]) -> None:
        """Have `warnings` hold these as well."""
        self._told.append(alarms)

    @property
    def state(self) -> RegistryState:
        """The fold so far, and so on: it is read as the replica is, and is halted too until it can be opened."""
        return self.access.replica.state

    @property
    def ready(self) -> bool:
        return self.access.replica.ready

    @property
    def halted(self) -> str | None:
        return self._trouble or self.access.replica.halted

    @property
    def confirmed_age_s(self) -> float:
        return self.access.replica.confirmed_age_s

    def subscribe(self, listener: FoldListener[RegistryState]) -> Callable[[], None]:
        return self.access.replica.subscribe(listener)

    async def confirmed(self, timeout_s: float) -> Position:
        return await self.access.replica.confirmed(timeout_s)

    @property
    def warnings(self) -> list[str]:
        """What an operator has to know of it."""
        replica = self.access.replica
        said = [self._trouble, replica.halted]
        return [f"registry: {each}" for each in said if each] + [
            *replica.alarms,
            *(alarm for tell in self._told for alarm in tell()),
            *filter(None, [self.access.reproduction.disagreement]),
        ]

    def status(self) -> dict[str, Any]:
        """Its place and its health: {epoch, position, state_hash, ready}, and `halted` where it stopped."""
        state, replica = self.access.replica.state, self.access.replica
        found: dict[str, Any] = {
            "epoch": state.position.epoch,
            "position": state.position.position,
            "state_hash": state_hash(state),
            "ready": replica.ready and replica.halted is None,
        }
        return found | ({"halted": replica.halted} if replica.halted else {})

    async def run(self, supervisor: Supervisor) -> None:
        """Open it, then follow it."""
        log_id = await self._opened()
        supervisor.start(self.access.replica.run(), "registry replica")
        supervisor.start(keep_fresh(self.access.keyring, log_id, self._clock, REGISTRY_LOOK_S), "registry data keys")
        supervisor.start(self.access.reproduction.run(REGISTRY_LOOK_S), "registry reproduction")

    async def _opened(self) -> str:
        """The log's id, once there is one and every data key of it that this role may open is open."""
        while True:
            try:
                if self._make is not None:
                    await self._make()
                head = await self.access.driver.read_head()
                if head is not None:
                    await self.access.keyring.load(head.head.log_id)
                    self._trouble = None
                    return head.head.log_id
                trouble = "there is none in etcd yet: an API server makes it"
            except MeshlogError as failure:
                trouble = failure.message
            if trouble != self._trouble:
                log.warning("the registry waits", reason=trouble)
            self._trouble = trouble
            await self._clock.sleep(KEY_CHECK_PAUSE_S)
