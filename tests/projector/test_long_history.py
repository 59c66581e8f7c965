"""A long history through real etcd, with every duty at work: what stays in etcd does not grow with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from cluster.duties import run_duty
from cluster.etcd.choice import EtcdMember
from cluster.etcd.connection import EtcdConnection
from cluster.etcd.maintenance import Maintenance
from cluster.etcd.space import space_of
from cluster.members import Member
from eventlog.archive.archiver import Archiver
from eventlog.archive.memory import MemoryObjectStore
from eventlog.checkpoints import list_checkpoints
from eventlog.driver import Fence
from eventlog.drivers.etcd import EtcdDriver
from eventlog.follower import Follower
from eventlog.genesis import create_log
from eventlog.keys.keyring import Keyring
from eventlog.reads import HeadConfirmer
from eventlog.records import HeadRef, NewRecord, TokenMark
from eventlog.writer import Appended, LogWriter
from mesh.fold import MESH_FOLD
from mesh.position import Position
from projector.checkpointing import CheckpointDuty
from projector.replica import Replica
from projector.reproduction import Reproduction
from projector.trimming import TrimDuty
from runtime.clock import SystemClock, SystemEntropy
from runtime.settings import DutySettings
from tests.etcd_cluster import EtcdCluster
from tests.eventlog.logs import BOTH
from tests.mesh.worlds import ACCOUNT, MESH, PRINCIPAL, key, node_spec

CLOCK, ENTROPY = SystemClock(), SystemEntropy()
EVENTS, FRAME, KEEP = 5_000, 40, 300
SETTINGS = DutySettings(checkpoint_events=500, checkpoint_every_s=1, keep_events=KEEP)
NODE = key("virtualNode", "busy")


def record(kind: str, data: dict[str, object], number: int) -> NewRecord:
    token = TokenMark(number.to_bytes(32, "big"), bytes(32))
    return NewRecord(kind, 1, ACCOUNT, PRINCIPAL, "192.0.2.7", f"rq-{number}", token, data)


def records() -> list[NewRecord]:
    """A mesh, a node in it, and its changes."""
    made = [
        record("ResourceCreated", {"key": list(where), "uid": uid, "owner": ACCOUNT, "spec": spec, "tags": {}}, number)
        for number, (where, uid, spec) in enumerate(((MESH, "u1", {}), (NODE, "u2", node_spec(1))))
    ]
    for number in range(len(made), EVENTS):
        spec = {**node_spec(1 + number % 60_000), "note": "x" * 200}
        made.append(record("ResourceUpdated", {"key": list(NODE), "spec": spec}, number))
    return made


class Process:
    """A replica over real etcd, and what of the log it reproduces."""

    def __init__(self, connection: EtcdConnection, prefix: str, name: str) -> None:
        self.name, self.driver = name, EtcdDriver(connection, prefix)
        self.keyring = Keyring(self.driver, BOTH)
        self.replica = Replica(
            MESH_FOLD, Follower(self.driver, self.keyring, CLOCK, ENTROPY), HeadConfirmer(self.driver), CLOCK
        )
        self.reproduction = Reproduction(MESH_FOLD, self.driver, lambda: None, CLOCK)
        self.replica.subscribe(self.reproduction.folded)

    def member(self) -> Member:
        said = str(self.reproduction)
        return Member(role="api", id=self.name, zone="z", address="a:1", level=1, build="0", reproduced=said)


@pytest.fixture
async def connection(tmp_path: Path) -> AsyncIterator[EtcdConnection]:
    with EtcdCluster(tmp_path, size=1) as cluster:
        opened = EtcdConnection([EtcdMember(*cluster.endpoints[0])], "z1", None, CLOCK, ENTROPY)
        yield opened
        opened.close()


async def write(process: Process, head: HeadRef) -> None:
    writer, made = LogWriter(process.driver, process.keyring, CLOCK, ENTROPY), records()
    for start in range(0, len(made), FRAME):
        done = await writer.append(head, made[start : start + FRAME], CLOCK.now_us())
        assert isinstance(done, Appended)
        head = done.head


async def test_etcd_stays_small_whatever_the_history(connection: EtcdConnection) -> None:
    prefix = "/meshlog/"
    maker, other = Process(connection, prefix, "api-z1"), Process(connection, prefix, "api-z2")
    head = (await create_log(maker.driver, BOTH, CLOCK, ENTROPY)).head

    async def members() -> list[Member]:
        return [maker.member(), other.member()]

    checkpoints = CheckpointDuty(
        MESH_FOLD,
        maker.replica,
        maker.driver,
        maker.keyring,
        SETTINGS,
        member_id=maker.name,
        clock=CLOCK,
        entropy=ENTROPY,
    )
    trim = TrimDuty(MESH_FOLD, maker.driver, maker.keyring, members, lambda: False, keep_events=KEEP, clock=CLOCK)
    archiver = Archiver(
        MemoryObjectStore(), maker.driver, maker.keyring, CLOCK, ENTROPY, holder_id="api-z1", retention_us=0
    )

    def duty(name: str, work: Callable[[Fence], Awaitable[None]]) -> Awaitable[None]:
        return run_duty(
            connection, prefix, name, holder_id="api-z1", work=lambda token: work(Fence(name, token)), clock=CLOCK
        )

    tasks = [
        asyncio.ensure_future(work)
        for work in (
            maker.replica.run(),
            other.replica.run(),
            maker.reproduction.run(),
            other.reproduction.run(),
            duty("checkpoint", checkpoints.work),
            duty("trim", trim.work),
            duty("archive", archiver.run),
            Maintenance(connection, keep_s=1, default_quota_bytes=2**32, clock=CLOCK).run(),
        )
    ]
    try:
        await write(maker, head)
        deadline_s = time.monotonic() + 40
        kept = EVENTS
        while kept > 3 * 500 + KEEP:
            assert time.monotonic() < deadline_s, f"{kept} events are still in etcd"
            assert not any(task.done() for task in tasks), [task for task in tasks if task.done()]
            await asyncio.sleep(0.2)
            first = (await maker.driver.read_frames(Position(1, 0), 1)).frames[0]
            kept = EVENTS - first.last.position
        head_now = await maker.driver.read_head()
        assert head_now is not None
        assert head_now.head.position == EVENTS
        assert maker.replica.state == other.replica.state
        assert len(await list_checkpoints(maker.driver)) <= 3
        await Maintenance(connection, keep_s=0, default_quota_bytes=2**32, clock=CLOCK).round()
        space = space_of(await connection.statuses(), 2**32)
        assert space is not None
        assert space.used_bytes < 8 * 2**20
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
