"""Long histories for tests: a log of meshes in memory, archived, trimmed and once restored, and its oracle fold."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from api.past import LogHistory, PastStates, StoredCheckpoints
from eventlog.archive.reader import ArchiveReader
from eventlog.checkpoints import CheckpointPlace, seal_checkpoint, write_checkpoint
from eventlog.keys.keyring import Keyring
from eventlog.records import KeyClass, NewRecord
from eventlog.signing import signing_key
from eventlog.timeline import Timeline
from mesh.checkpoint import to_documents
from mesh.commands import Command, Context, Create, Delete, Rollback, TagResource, Update
from mesh.decide import decide
from mesh.errors import MeshlogError
from mesh.events import LOG_RESTORED, SCHEMAS
from mesh.evolve import evolve
from mesh.kinds import mesh_key
from mesh.position import Position
from mesh.state import State, state_hash
from projector.replica import event_of
from tests.eventlog.archive.archives import Archived, make_archived, restored
from tests.eventlog.logs import BOTH
from tests.mesh.worlds import ACCOUNT, PRINCIPAL, key, node_spec, placed, route_spec, router_spec

MESHES = ("shop", "bank")
ACTORS = (PRINCIPAL, f"arn:aws:iam::{ACCOUNT}:user/bob")
_FRAME_EVENTS = 12


@dataclass(repr=False)
class Past:
    """A log and, by number, what every event of it led to: `states[0]` is the empty one."""

    archived: Archived
    states: list[State] = field(default_factory=lambda: [State()])
    random: random.Random = field(default_factory=lambda: random.Random(20_261_122))  # noqa: S311 - of tests
    _uids: int = 0

    @property
    def now(self) -> State:
        return self.states[-1]

    def history(self) -> LogHistory:
        reader = ArchiveReader(self.archived.store)
        return LogHistory(Timeline(self.archived.log.driver, reader), self._keyring(), reader)

    def checkpoints(self) -> StoredCheckpoints:
        return StoredCheckpoints(self.archived.log.driver, self._keyring(), ArchiveReader(self.archived.store))

    def past(self) -> PastStates:
        return PastStates(self.history(), self.checkpoints())

    def _keyring(self) -> Keyring:
        return Keyring(self.archived.log.driver, BOTH)

    async def grow(self, count: int) -> None:
        """So many more events, in frames of one to twelve."""
        end = len(self.states) + count
        while len(self.states) < end:
            room = end - len(self.states)
            await self._frame(self.random.randint(1, min(room, _FRAME_EVENTS)))

    async def _frame(self, size: int) -> None:
        state, records = self.now, list[NewRecord]()
        while len(records) < size:
            self._uids += 1
            context = Context(ACCOUNT, PRINCIPAL, "Test", None, f"uid-{self._uids}")
            try:
                decision = decide(state, self._command(state), context)
            except MeshlogError:
                continue
            for event in decision.events:
                records.append(_record(event.type, event.data, self.random.choice(ACTORS)))
                place = Position(state.position.epoch, state.position.position + 1)
                state = evolve(state, placed(event, place))
        await self.append(*records)

    def _command(self, state: State) -> Command:
        mesh = self.random.choice(MESHES)
        home = mesh_key(ACCOUNT, mesh)
        if home not in state.resources:
            return Create(home, {})
        number = self.random.randint(1, 12)
        node, router = key("virtualNode", f"n{number}", mesh=mesh), key("virtualRouter", f"r{number % 3}", mesh=mesh)
        spec: dict[str, Any] = node_spec(self.random.randint(1, 60_000))
        weights = {f"n{self.random.randint(1, 12)}": self.random.randint(1, 100)}
        target = key("route", "all", router.name, mesh)
        if self.random.random() < 0.02:
            return Rollback(ACCOUNT, mesh, self.random.choice(self.states))
        return self.random.choice(
            (
                Create(node, spec), Create(node, spec), Update(node, spec), Update(node, spec), Delete(node),
                Create(router, router_spec()), Create(target, route_spec(weights)), Update(target, route_spec(weights)),
                Delete(target), TagResource(node, {"n": str(self._uids)}),
            )
        )  # fmt: skip

    async def append(self, *records: NewRecord) -> None:
        """One frame, sometimes at the very time of the one before."""
        log = self.archived.log
        log.clock.wall_us += self.random.choice((0, 1, 500_000))
        appended = await log.append(*records, previous_time_us=self.now.time_us)
        for record in appended.records:
            self.states.append(evolve(self.now, event_of(record)))

    async def checkpoint(self) -> None:
        """One of the present state, in etcd."""
        log = self.archived.log
        head = log.head.head
        config, secrets = await log.keyring.sealing_keys(head.log_id, KeyClass.SECRETS)
        assert secrets is not None
        signer = await signing_key(log.driver, log.keyring, head.log_id, log.clock, log.entropy)
        place = CheckpointPlace(head, self.now.position, self.now.time_us, self.now.level, state_hash(self.now))
        sealed = seal_checkpoint(
            to_documents(self.now), place, (config, secrets), signer, created_us=0, entropy=log.entropy
        )
        await write_checkpoint(log.driver, self.archived.etcd.grant("checkpoint"), sealed, log.clock)

    async def restore(self, number: int) -> None:
        """Leave what came after `number` behind, and go on in the next epoch."""
        old = self.archived.log.head.head
        lost = self.states[number + 1 :]
        assert lost
        base = await self._head_at(number)
        del self.states[number + 1 :]
        self.archived = await restored(self.archived, base)
        data = {"from_epoch": base.epoch, "position": number, "hash": base.hash.hex(), "to": "a test",
                "known": [old.epoch, old.position], "reason": ""}  # fmt: skip
        await self.append(_record(LOG_RESTORED, data, PRINCIPAL))

    async def _head_at(self, number: int) -> Any:
        line = Timeline(self.archived.log.driver, None)
        async for frame in line.frames(Position(1, number), Position(1, number + 1)):
            from eventlog.frames import decode_frame
            from eventlog.records import Head
            from eventlog.sealing import parse_stored

            first = parse_stored(decode_frame(frame.value, frame.last)[0], frame.last)
            return Head(self.archived.log.head.head.log_id, 1, number, first.previous_hash)
        raise AssertionError("no such record")


def _record(event_type: str, data: Any, actor: str) -> NewRecord:
    return NewRecord(event_type, SCHEMAS[event_type], ACCOUNT, actor, "192.0.2.7", "request", None, data)


async def long_past(count: int) -> Past:
    """`count` events: the older two thirds in the archive alone, a restore among them, checkpoints here and there."""
    past = Past(await make_archived())
    await past.grow(count // 4)
    await past.checkpoint()
    await past.archived.ship()
    await past.grow(count // 4)
    left_at = len(past.states) - 1
    await past.grow(40)
    await past.archived.ship()
    await past.restore(left_at)
    await past.grow(count // 4 - 1)
    await past.checkpoint()
    await past.archived.ship()
    shipped = past.archived.frames()[-1].last
    past.archived.etcd.trim(Position(shipped.epoch, shipped.position))
    await past.grow(count - (len(past.states) - 1))
    return past
