"""The duty that watches heartbeats: it looks at all that are kept, and puts into the log who fell silent or came back.

The judgement is `mesh.registry.heartbeats`; here is when to look, and what makes our own gaps known. Two holders at
once do no harm: whoever is marked already stays as he is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Gauge

from api.commands import CommandService, Origin
from api.ports import Heartbeats, Replica
from mesh.commands import idempotency_token
from mesh.errors import MeshlogError
from mesh.frozen import Frozen
from mesh.registry.commands import MarkHeartbeats, RegistryCommand
from mesh.registry.heartbeats import Judged, judge
from mesh.registry.state import RegistryState, ServiceKey
from runtime.clock import Clock, Entropy
from runtime.limits import HEARTBEAT_GAP_S, HEARTBEAT_LOOK_S, READ_DEADLINE_S

log = structlog.get_logger(__name__)

Commands = CommandService[RegistryState, RegistryCommand, Frozen]
ACTOR = "arn:aws:iam::{account}:role/meshlog/registry"
HEARTBEATS = "heartbeats"


class Submit(Protocol):
    """Puts a command of a duty into the registry's log."""

    async def __call__(self, command: RegistryCommand, account: str, operation: str) -> None: ...


def submitter(commands: Commands, entropy: Entropy) -> Submit:
    """As the API does for callers, under the duties' own name."""

    async def submit(command: RegistryCommand, account: str, operation: str) -> None:
        actor, request_id = ACTOR.format(account=account), entropy.uuid()
        token = idempotency_token(account, actor, operation, request_id, {})
        await commands.submit(command, Origin(account, actor, "", request_id, operation, token))

    return submit


class HeartbeatDuty:
    """`work` is for `cluster.duties.run_duty`; `alarms` are what an operator has to know meanwhile."""

    def __init__(
        self,
        replica: Replica[RegistryState],
        heartbeats: Heartbeats,
        submit: Submit,
        clock: Clock,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        self._replica, self._heartbeats, self._submit, self._clock = replica, heartbeats, submit, clock
        self._since_s = self._last_s = clock.monotonic_s()
        self.alarms: tuple[str, ...] = ()
        self._held = Gauge("meshlog_registry_heartbeats_held", "Services held back by the brake", registry=registry)

    async def work(self, token: int) -> None:  # noqa: ARG002 - what it writes is compared with the log's head
        """Look, now and then, until it is cancelled. Whoever holds the duty anew watches everybody anew."""
        self._since_s = self._last_s = self._clock.monotonic_s()
        try:
            while True:
                try:
                    await self.look()
                except MeshlogError as failure:
                    log.info("heartbeats not looked at", reason=failure.message)
                await self._clock.sleep(HEARTBEAT_LOOK_S)
        finally:
            self._tell(())

    async def look(self) -> Judged:
        """One look. NoQuorum, NotReady: then nothing is known, and time without a look is not counted."""
        await self._replica.confirmed(READ_DEADLINE_S)
        kept = {(ServiceKey(*name[:3]), name[3]) for name in await self._heartbeats.kept()}
        now_s = self._clock.monotonic_s()
        if now_s - self._last_s > HEARTBEAT_GAP_S:
            self._since_s = now_s
        self._last_s = now_s
        watched_s = now_s - self._since_s
        judged = judge(self._replica.state, kept, now_us=self._clock.now_us(), watched_s=watched_s)
        self._tell(judged.held)
        await self._mark(judged.heard, silent=False)
        await self._mark(judged.missed, silent=True)
        return judged

    async def _mark(self, found: Mapping[ServiceKey, tuple[str, ...]], *, silent: bool) -> None:
        operation = "HeartbeatsMissed" if silent else "HeartbeatsHeard"
        for key, instances in found.items():
            await self._submit(MarkHeartbeats(key, instances, silent), key.account, operation)
            log.warning("heartbeats", service=key.service, namespace=key.namespace, ids=instances, silent=silent)

    def _tell(self, held: tuple[str, ...]) -> None:
        for alarm in held:
            if alarm not in self.alarms:
                log.error("heartbeats are missing, and nothing is done about it", alarm=alarm)
        self.alarms = held
        self._held.set(len(held))
