"""A whole log in memory with its keys, a writer that decides on it, and replicas of it: real parts, no etcd."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eventlog.drivers.memory import MemoryDriver, MemoryStore
from eventlog.follower import Follower
from eventlog.genesis import create_log
from eventlog.keys.file import FileKeyProvider, create_key_file
from eventlog.keys.keyring import Keyring
from eventlog.quarantine import Operator, quarantine
from eventlog.reads import HeadConfirmer
from eventlog.records import HeadRef, KeyClass, NewRecord, TokenMark
from eventlog.writer import Appended, LogWriter
from mesh.commands import Command, Context, Create, CreateAccessKey, Delete, Update
from mesh.decide import decide
from mesh.events import SCHEMAS, SECRET_TYPES, Token
from mesh.evolve import evolve
from mesh.fold import MESH_FOLD
from mesh.kinds import ResourceKey
from mesh.position import Position
from mesh.state import State
from projector.beginning import from_checkpoints
from projector.checkpointing import CheckpointDuty
from projector.replica import Replica, event_of
from runtime.clock import SystemClock, SystemEntropy
from runtime.settings import DutySettings
from tests.mesh.worlds import ACCOUNT, PRINCIPAL, SHOP

CLOCK, ENTROPY = SystemClock(), SystemEntropy()
BOTH = (KeyClass.CONFIG, KeyClass.SECRETS)
CONFIG_ONLY = (KeyClass.CONFIG,)


class MemoryLog:
    """Use `await MemoryLog.create(tmp_path)`."""

    def __init__(self, directory: Path) -> None:
        self.store = MemoryStore()
        self._paths = {key_class: directory / f"{key_class.value}.key" for key_class in KeyClass}
        self.state = State()
        self.head: HeadRef | None = None
        self._writer = LogWriter(MemoryDriver(self.store), self.keyring(BOTH), CLOCK, ENTROPY)

    @classmethod
    async def create(cls, directory: Path) -> MemoryLog:
        log = cls(directory)
        for key_class, path in log._paths.items():
            create_key_file(path, key_class, ENTROPY)
        log.head = (await create_log(MemoryDriver(log.store), log.providers(BOTH), CLOCK, ENTROPY)).head
        return log

    def providers(self, classes: tuple[KeyClass, ...]) -> dict[KeyClass, FileKeyProvider]:
        return {each: FileKeyProvider(self._paths[each], each, ENTROPY) for each in classes}

    def write_to(self, store: MemoryStore) -> None:
        """From now on write there, as a process does whose store was replaced under it."""
        self._writer = LogWriter(MemoryDriver(store), self.keyring(BOTH), CLOCK, ENTROPY)

    def keyring(self, classes: tuple[KeyClass, ...]) -> Keyring:
        return Keyring(MemoryDriver(self.store), self.providers(classes))

    def follower(self, classes: tuple[KeyClass, ...] = CONFIG_ONLY) -> Follower:
        return Follower(MemoryDriver(self.store), self.keyring(classes), CLOCK, ENTROPY)

    def replica(self, classes: tuple[KeyClass, ...] = CONFIG_ONLY) -> Replica:
        driver = MemoryDriver(self.store)
        begin = from_checkpoints(MESH_FOLD, driver, self.keyring(classes))
        return Replica(MESH_FOLD, self.follower(classes), HeadConfirmer(driver), CLOCK, begin)

    async def checkpoint(self, state: State | None = None) -> Position:
        """Store a checkpoint of the fold so far; gives the point that it is at."""
        assert self.head is not None
        driver = MemoryDriver(self.store)
        duty = CheckpointDuty(
            MESH_FOLD,
            self.replica(BOTH),
            driver,
            self.keyring(BOTH),
            DutySettings(),
            member_id="m",
            clock=CLOCK,
            entropy=ENTROPY,
        )
        await duty.make(state or self.state, self.head.head, self.store.grant("checkpoint"))
        return self.head.head.at

    async def quarantine(self, position: Position, time_us: int = 0) -> Appended:
        """As an operator does, with the head alone."""
        driver = MemoryDriver(self.store)
        appended = await quarantine(
            driver,
            self.keyring(BOTH),
            self._writer,
            position=position,
            time_us=time_us,
            reason="a test",
            operator=Operator(ACCOUNT, PRINCIPAL, "q"),
        )
        self.head = appended.head
        return appended

    async def append(self, *records: NewRecord) -> Appended:
        """Append as an API server would, and fold."""
        assert self.head is not None
        result = await self._writer.append(self.head, records, self.state.time_us)
        assert isinstance(result, Appended)
        self.head = result.head
        return result

    async def do(self, command: Command, token: Token | None = None) -> Appended:
        uid = f"uid-{self.state.position.position + 1}"
        decision = decide(self.state, command, Context(ACCOUNT, PRINCIPAL, type(command).__name__, token, uid))
        mark = TokenMark(token.digest, token.body) if token else None
        records = [
            NewRecord(
                new.type,
                SCHEMAS[new.type],
                ACCOUNT,
                PRINCIPAL,
                "192.0.2.7",
                uid,
                mark,
                new.data,
                KeyClass.SECRETS if new.type in SECRET_TYPES else KeyClass.CONFIG,
            )
            for new in decision.events
        ]
        result = await self.append(*records)
        for record in result.records:
            self.state = evolve(self.state, event_of(record))
        return result

    async def create_resource(self, key: ResourceKey, spec: Mapping[str, Any]) -> Appended:
        return await self.do(Create(key, spec, {}))

    async def update_resource(self, key: ResourceKey, spec: Mapping[str, Any]) -> Appended:
        return await self.do(Update(key, spec))

    async def delete_resource(self, key: ResourceKey) -> Appended:
        return await self.do(Delete(key))

    async def create_access_key(self) -> Appended:
        return await self.do(CreateAccessKey("AKIDEXAMPLE", "a secret", ACCOUNT, PRINCIPAL, admin=True))

    async def fill_shop(self) -> None:
        """One resource of every kind, as in tests/mesh/worlds.py."""
        for key, spec in SHOP:
            await self.create_resource(key, spec)

    async def append_poison(self) -> Position:
        """An event that no build knows; returns its position."""
        appended = await self.append(
            NewRecord("CakeBaked", 1, ACCOUNT, PRINCIPAL, "192.0.2.7", "poison", None, {"layers": 3})
        )
        return appended.head.head.at
