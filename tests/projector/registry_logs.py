"""A registry's log in memory, with its keys and replicas of it: real parts, no etcd. See `tests.projector.logs`."""

from __future__ import annotations

from pathlib import Path

from eventlog.drivers.memory import MemoryDriver
from eventlog.reads import HeadConfirmer
from eventlog.records import NewRecord
from mesh.commands import Context
from mesh.position import Position
from mesh.registry.commands import CreateNamespace, CreateService, RegisterInstance, RegistryCommand
from mesh.registry.decide import decide
from mesh.registry.events import INSTANCE_DEREGISTERED, SCHEMAS
from mesh.registry.evolve import evolve
from mesh.registry.fold import REGISTRY_FOLD
from mesh.registry.state import RegistryState, ServiceKey
from projector.beginning import from_checkpoints
from projector.checkpointing import CheckpointDuty
from projector.replica import Replica, event_of
from runtime.settings import DutySettings
from tests.projector.logs import BOTH, CLOCK, CONFIG_ONLY, ENTROPY, MemoryLog

ACCOUNT = "123456789012"
CART = ServiceKey(ACCOUNT, "shop.internal", "cart")


class RegistryLog:
    """Use `await RegistryLog.create(tmp_path)`."""

    def __init__(self, log: MemoryLog) -> None:
        self.log, self.state = log, RegistryState()

    @classmethod
    async def create(cls, directory: Path) -> RegistryLog:
        return cls(await MemoryLog.create(directory))

    @property
    def driver(self) -> MemoryDriver:
        return MemoryDriver(self.log.store)

    def replica(self) -> Replica[RegistryState]:
        driver, keyring = self.driver, self.log.keyring(CONFIG_ONLY)
        begin = from_checkpoints(REGISTRY_FOLD, driver, keyring)
        return Replica(REGISTRY_FOLD, self.log.follower(), HeadConfirmer(driver), CLOCK, begin)

    async def do(self, command: RegistryCommand) -> None:
        """Decide, append and fold."""
        context = Context(ACCOUNT, "arn", type(command).__name__, uid=f"uid-{self.state.position.position}")
        events = decide(self.state, command, context).events
        for event in events:
            await self.write(event.type, event.data)

    async def write(self, kind: str, data: object, *, folds: bool = True) -> Position:
        """Append one event, whatever it is; gives where it is."""
        record = NewRecord(kind, SCHEMAS.get(kind, 1), ACCOUNT, "arn", "", "r", None, data)  # type: ignore[arg-type]
        appended = await self.log.append(record)
        if folds:
            self.state = evolve(self.state, event_of(appended.records[-1]))
        return appended.records[-1].position

    async def poison(self) -> Position:
        """Write what no replica can fold."""
        data = {"service": list(CART), "instance": "nobody", "operation": "o"}
        return await self.write(INSTANCE_DEREGISTERED, data, folds=False)

    async def checkpoint(self) -> Position:
        assert self.log.head is not None
        keyring = self.log.keyring(BOTH)
        duty = CheckpointDuty(
            REGISTRY_FOLD,
            self.replica(),
            self.driver,
            keyring,
            DutySettings(),
            member_id="m",
            clock=CLOCK,
            entropy=ENTROPY,
        )
        await duty.make(self.state, self.log.head.head, self.log.store.grant("checkpoint"))
        return self.log.head.head.at

    async def stock(self, count: int = 1) -> None:
        """The service CART, with instances i0, i1, … at 10.0.0.1 and so on."""
        await self.do(CreateNamespace(CART.namespace, "HTTP"))
        (namespace,) = self.state.namespaces.values()
        await self.do(CreateService(namespace.id, CART.service))
        for number in range(count):
            await self.register(number)

    async def register(self, number: int) -> None:
        told = {"AWS_INSTANCE_IPV4": f"10.0.0.{number + 1}"}
        await self.do(RegisterInstance(self.state.services[CART].id, f"i{number}", told))
