"""From the log to a frontend with real parts: log in memory, replicas, compiler, gRPC with mutual TLS on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from identity.node_id import NodeId
from mesh.commands import Rollback
from mesh.state import State, state_hash
from projector.envoy.compiler import Compiler
from projector.feed.client import FeedClient, secure_channels
from projector.feed.port import Confirmation
from projector.projection import Projection
from projector.replica import Replica
from projector.snapshot import NodeSnapshot
from runtime.clock import SystemClock, SystemEntropy
from runtime.supervise import Supervisor
from tests.conditions import await_until
from tests.mesh.worlds import ACCOUNT, key, node_spec, route_spec
from tests.projector.feed import certificates
from tests.projector.feed.running import Ear, Projector
from tests.projector.logs import MemoryLog

V1 = NodeId(ACCOUNT, "shop", "virtualNode", "cart-v1")
V2 = NodeId(ACCOUNT, "shop", "virtualNode", "cart-v2")
EDGE = NodeId(ACCOUNT, "shop", "virtualGateway", "edge")
NODES = (V1, V2, EDGE)
ROUTE = key("route", "all", parent="cart")


@dataclass
class Zone:
    """One zone's projector."""

    replica: Replica
    projection: Projection
    projector: Projector


async def start_zone(name: str, log: MemoryLog, tasks: Supervisor) -> Zone:
    replica = log.replica()
    projection = Projection(replica, Compiler())
    projector = Projector(name, projection, tasks)
    tasks.start(replica.run(), f"replica-{name}")
    await projector.start()
    return Zone(replica, projection, projector)


@asynccontextmanager
async def system(log: MemoryLog) -> AsyncIterator[tuple[dict[str, Zone], FeedClient, Supervisor]]:
    async with Supervisor() as tasks:
        zones = {name: await start_zone(name, log, tasks) for name in ("a", "b")}
        client = FeedClient(
            zone="a",
            projectors=[(name, zone.projector.address) for name, zone in zones.items()],
            channels=secure_channels(certificates.role("frontend").dialling),
            clock=SystemClock(),
            entropy=SystemEntropy(),
            frontend_id="frontend-a",
            frontend_address="127.0.0.1:7412",
        )
        tasks.start(client.run(), "client")
        yield zones, client, tasks
        await tasks.close()
        for zone in zones.values():
            if zone.projector.server is not None:
                await zone.projector.server.stop()


@pytest.fixture
async def log(tmp_path: Path) -> MemoryLog:
    made = await MemoryLog.create(tmp_path)
    await made.create_access_key()
    await made.fill_shop()
    return made


class Told(Ear):
    """An `Ear` for what the real compiler makes."""

    @property
    def snapshot(self) -> NodeSnapshot | None:
        return self.updates[-1].snapshot if self.updates else None


def content(shot: NodeSnapshot | None) -> dict[tuple[str, str], tuple[str, bytes]] | None:
    return None if shot is None else {name: (each.version, each.body) for name, each in shot.resources.items()}


def compiled(state: State, node: NodeId) -> dict[tuple[str, str], tuple[str, bytes]] | None:
    return content(Compiler().compile(state, node))


async def test_a_write_reaches_the_frontend_and_a_confirm_proves_it(log: MemoryLog) -> None:
    async with system(log) as (_, client, _tasks):
        told = {node: Told() for node in NODES}
        for node in NODES:
            client.watch(node, told[node])
        assert (await client.confirm(60.0)).position == log.state.position
        for weight in (1, 2, 3):
            await log.update_resource(ROUTE, route_spec({"cart-v1": weight, "cart-v2": 50}))
            answer = await client.confirm(60.0)
            assert answer == Confirmation(True, log.state.position)
            for node in NODES:
                assert content(told[node].snapshot) == compiled(log.state, node)
        assert len(told[V1].updates) == 1, "nothing of it concerned this node"


async def test_a_projector_killed_under_writes_loses_nothing_and_takes_nothing_back(log: MemoryLog) -> None:
    async with system(log) as (zones, client, _tasks):
        told = {node: Told() for node in NODES}
        for node in NODES:
            client.watch(node, told[node])
        assert (await client.confirm(60.0)).ok
        for number in range(30):
            await log.update_resource(ROUTE, route_spec({"cart-v1": number, "cart-v2": 50}))
            if number == 10:
                await zones["a"].projector.kill()
            if number == 20:
                await zones["a"].projector.start()
            await asyncio.sleep(0)
        answer = await client.confirm(60.0)
        assert answer == Confirmation(True, log.state.position)
        for node, ear in told.items():
            assert content(ear.snapshot) == compiled(log.state, node)
            assert all(update.snapshot is not None for update in ear.updates)


async def test_i4_a_replica_that_ran_all_along_and_one_started_from_nothing_are_equal(log: MemoryLog) -> None:
    async with system(log) as (zones, client, tasks):
        told = {node: Told() for node in NODES}
        for node in NODES:
            client.watch(node, told[node])
        then = log.state
        for number in range(5):
            await log.update_resource(ROUTE, route_spec({"cart-v1": number, "cart-v2": 50}))
            await log.create_resource(key("virtualNode", f"extra-{number}"), node_spec(9000 + number))
            assert (await client.confirm(60.0)).ok
        await log.delete_resource(key("virtualNode", "extra-3"))
        await log.do(Rollback(ACCOUNT, "shop", then))
        assert (await client.confirm(60.0)).ok

        newborn = await start_zone("c", log, tasks)
        await newborn.replica.confirmed(60.0)
        veteran = zones["a"]
        assert newborn.replica.position == veteran.replica.position == log.state.position
        assert state_hash(newborn.replica.state) == state_hash(veteran.replica.state) == state_hash(log.state)
        for node in NODES:
            newborn.projection.subscribe(node, lambda _: None)
            fresh = content(newborn.projection.current(node))
            assert fresh is not None
            assert fresh == content(veteran.projection.current(node)) == content(told[node].snapshot)
        assert newborn.projector.server is not None
        await newborn.projector.server.stop()


async def test_without_a_quorum_confirms_fail_and_what_was_delivered_stays(log: MemoryLog) -> None:
    async with system(log) as (_, client, _tasks):
        told = Told()
        client.watch(EDGE, told)
        assert (await client.confirm(60.0)).ok
        log.store.reachable = False
        assert not (await client.confirm(0.3)).ok
        assert client.ready
        assert content(told.snapshot) == compiled(log.state, EDGE)
        log.store.reachable = True
        assert (await client.confirm(60.0)).ok
        assert len(told.updates) == 1


async def test_a_poisoned_log_keeps_what_proxies_have_and_confirms_nothing(log: MemoryLog) -> None:
    async with system(log) as (zones, client, _tasks):
        told = Told()
        client.watch(EDGE, told)
        assert (await client.confirm(60.0)).ok
        await log.append_poison()
        for zone in zones.values():
            await await_until(lambda replica=zone.replica: replica.halted)  # type: ignore[misc]
        assert not (await client.confirm(0.3)).ok
        second = Told()
        client.watch(V1, second)
        await await_until(lambda: second.snapshot)
        assert content(second.snapshot) == compiled(log.state, V1)
        assert len(told.updates) == 1
