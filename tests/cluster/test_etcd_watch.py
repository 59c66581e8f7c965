"""Watching: the cursor's rules without a socket, then real members killed, paused and compacted under a watch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from cluster.etcd import protos
from cluster.etcd.choice import EtcdMember
from cluster.etcd.connection import EtcdConnection
from cluster.etcd.values import KeyEvent, RangeRead, RevisionCompacted, WatchUpdate
from cluster.etcd.watch import Denied, Leave, WatchCursor
from mesh.errors import OutcomeUnknown, Unavailable
from runtime.clock import SystemClock, SystemEntropy
from tests.conditions import PATIENCE_S, TRIES, await_until
from tests.etcd_cluster import EtcdCluster


def event(revision: int, key: bytes = b"k") -> Any:
    item = protos.kv.KeyValue(key=key, value=b"v", mod_revision=revision, create_revision=revision, version=1)
    return protos.kv.Event(kv=item)


def response(*revisions: int, revision: int = 0, **fields: Any) -> Any:
    header = protos.rpc.ResponseHeader(revision=revision or max(revisions, default=1))
    return protos.rpc.WatchResponse(header=header, events=[event(each) for each in revisions], **fields)


def seen(update: Any) -> list[int]:
    assert isinstance(update, WatchUpdate)
    return [each.item.mod_revision for each in update.events]


def test_changes_move_the_place_to_resume() -> None:
    cursor = WatchCursor(5)
    assert seen(cursor.on_response(response(5, 6, 6))) == [5, 6, 6]
    assert cursor.next_revision == 7


def test_a_sign_of_life_does_not() -> None:
    cursor = WatchCursor(5)
    assert cursor.on_response(response(revision=90)) == WatchUpdate((), 90)
    assert cursor.next_revision == 5


def test_what_was_delivered_or_lies_before_the_start_is_dropped() -> None:
    cursor = WatchCursor(5)
    assert cursor.on_response(response(3, 4)) is None
    assert seen(cursor.on_response(response(4, 5, 6))) == [5, 6]
    assert seen(cursor.on_response(response(5, 6, 7))) == [7]


def test_fragments_are_joined_and_never_resumed_in_the_middle() -> None:
    cursor = WatchCursor(5)
    assert cursor.on_response(response(5, 6, fragment=True)) is None
    assert cursor.next_revision == 5
    assert seen(cursor.on_response(response(6, 7))) == [5, 6, 6, 7]
    assert cursor.on_response(response(8, fragment=True)) is None
    cursor.on_stream()
    assert seen(cursor.on_response(response(8, 9))) == [8, 9]


def test_endings_are_told_apart() -> None:
    cursor = WatchCursor(5)
    assert cursor.on_response(response(created=True)) is None
    compacted = cursor.on_response(response(canceled=True, compact_revision=9))
    assert isinstance(compacted, RevisionCompacted)
    assert compacted.compact_revision == 9
    assert cursor.on_response(response(canceled=True, cancel_reason="etcdserver: no leader")) == Leave(
        "etcdserver: no leader"
    )
    assert isinstance(cursor.on_response(response(canceled=True, cancel_reason="permission denied")), Denied)


def test_a_deletion_is_told() -> None:
    deleted = protos.kv.Event(type=protos.kv.Event.DELETE, kv=protos.kv.KeyValue(key=b"k", mod_revision=5))
    answer = protos.rpc.WatchResponse(events=[deleted])
    update = WatchCursor(5).on_response(answer)
    assert isinstance(update, WatchUpdate)
    assert update.events[0].deleted


class Watching:
    """A watch run beside the test. `events` grows; `arrived_s` is when each came."""

    def __init__(self, connection: EtcdConnection, from_revision: int) -> None:
        self.events: list[KeyEvent] = []
        self.arrived_s: list[float] = []
        self.updates = 0
        self._task = asyncio.ensure_future(self._run(connection, from_revision))

    async def _run(self, connection: EtcdConnection, from_revision: int) -> None:
        async with aclosing(connection.watch(b"w/", b"w0", from_revision)) as updates:
            async for update in updates:
                self.updates += 1
                for each in update.events:
                    self.events.append(each)
                    self.arrived_s.append(time.monotonic())

    async def until(self, count: int) -> list[bytes]:
        await await_until(lambda: len(self.events) >= count or self._task.done(), what=f"{count} changes")
        return [each.item.value for each in self.events]

    async def until_updates(self, count: int) -> None:
        await await_until(lambda: self.updates >= count, what=f"{count} updates")

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path_factory.mktemp("etcd-watch"), size=3) as running:
        yield running


@pytest.fixture(autouse=True)
def _healed(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "cluster" in request.fixturenames:
        running: EtcdCluster = request.getfixturevalue("cluster")
        for index, member in enumerate(running.members):
            if member.process is None:
                running.start(index)


def connect(cluster: EtcdCluster, zone: str = "z1") -> EtcdConnection:
    members = [EtcdMember(*endpoint) for endpoint in cluster.endpoints]
    return EtcdConnection(members, zone, None, SystemClock(), SystemEntropy())


@pytest.fixture
async def connection(cluster: EtcdCluster) -> AsyncIterator[EtcdConnection]:
    opened = connect(cluster)
    yield opened
    opened.close()


async def put(connection: EtcdConnection, value: bytes) -> None:
    """Put until it is certain: the key is its own value, so twice is as good as once."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await connection.put(b"w/" + value, value)
            except (OutcomeUnknown, Unavailable):
                continue
            return


async def start_watching(connection: EtcdConnection) -> Watching:
    revision = (await connection.range(RangeRead(b"w/"))).revision
    watching = Watching(connection, revision + 1)
    await put(connection, b"first")
    await watching.until(1)
    return watching


async def test_the_death_of_the_watched_member_costs_less_than_a_second(cluster: EtcdCluster) -> None:
    writer, took_s = connect(cluster, "z3"), list[float]()
    while not took_s or (took_s[-1] >= 1.0 and len(took_s) < TRIES):
        if cluster.members[0].process is None:
            cluster.start(0)
        if cluster.leader() == 0:
            cluster.restart(0)
        opened = connect(cluster)
        watching = await start_watching(opened)
        cluster.kill(0)
        await put(writer, b"after the kill")
        written_s = time.monotonic()
        assert (await watching.until(2))[-1] == b"after the kill"
        took_s.append(watching.arrived_s[-1] - written_s)
        await watching.close()
        opened.close()
    assert took_s[-1] < 1.0, took_s
    writer.close()


async def test_the_death_of_the_leader_loses_nothing(cluster: EtcdCluster, connection: EtcdConnection) -> None:
    writer = connect(cluster, "z2")
    watching = await start_watching(connection)
    cluster.kill(cluster.leader())
    for number in range(5):
        await put(writer, b"%d" % number)
    values = await watching.until(6)
    assert list(dict.fromkeys(values)) == [b"first", b"0", b"1", b"2", b"3", b"4"]
    revisions = [each.item.mod_revision for each in watching.events]
    assert revisions == sorted(set(revisions))
    await watching.close()
    writer.close()


async def test_a_stopped_member_is_left(cluster: EtcdCluster, connection: EtcdConnection) -> None:
    writer = connect(cluster, "z3")
    watching = await start_watching(connection)
    cluster.pause(0)
    try:
        await put(writer, b"while it stands still")
        assert (await watching.until(2))[-1] == b"while it stands still"
    finally:
        cluster.resume(0)
    await watching.close()
    writer.close()


async def test_an_idle_watch_gives_signs_of_life(connection: EtcdConnection) -> None:
    watching = await start_watching(connection)
    await watching.until_updates(watching.updates + 3)
    assert len(watching.events) == 1
    await watching.close()


async def test_a_compacted_start_is_told_not_skipped(connection: EtcdConnection) -> None:
    await put(connection, b"old")
    now = (await connection.range(RangeRead(b"w/"))).revision
    await put(connection, b"new")
    await connection.write("KV", "Compact", protos.rpc.CompactionRequest(revision=now + 1))
    async with asyncio.timeout(PATIENCE_S), aclosing(connection.watch(b"w/", b"w0", now - 1)) as updates:
        with pytest.raises(RevisionCompacted):
            await anext(updates)


async def test_a_slow_reader_holds_the_watch_back_and_misses_nothing(connection: EtcdConnection) -> None:
    revision = (await connection.range(RangeRead(b"w/"))).revision
    read: list[bytes] = []
    async with aclosing(connection.watch(b"w/", b"w0", revision + 1)) as updates:
        for number in range(400):
            await connection.put(b"w/slow", b"%d" % number)
        async with asyncio.timeout(PATIENCE_S):
            async for update in updates:
                read.extend(each.item.value for each in update.events)
                if len(read) == 400:
                    break
    assert read == [b"%d" % number for number in range(400)]


async def test_a_closed_connection_ends_its_watches(cluster: EtcdCluster) -> None:
    opened = connect(cluster)
    watching = await start_watching(opened)
    opened.close()
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(watching._task, return_exceptions=True)
