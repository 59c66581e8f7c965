"""Two logs, one projection: endpoints come from the registry's log, all else from that of the meshes, and neither waits
for the other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.node_id import NodeId
from mesh.errors import NotReady, Unavailable
from mesh.events import Event
from mesh.fold import Stepwise
from mesh.position import Position
from mesh.registry.commands import DeregisterInstance
from mesh.registry.fold import REGISTRY_FOLD
from mesh.registry.state import RegistryState
from mesh.state import State
from projector.envoy.compiler import Compiler
from projector.feed.following import FrontendSession, ResourcePool
from projector.feed.port import NodeUpdate
from projector.feed.session import ProjectorSession
from projector.feed.watches import Watches
from projector.feed.wire import (
    Confirm,
    Confirmed,
    FrontendHello,
    ProjectorFrame,
    ProjectorHello,
    SnapshotFrame,
    Subscribe,
    decode_from_projector,
    encode,
)
from projector.projection import Projection
from projector.replica import Replica
from projector.snapshot import NOWHERE, TYPE_ENDPOINT, NodeSnapshot, Reach, xds_resource
from runtime.supervise import Supervisor
from tests.conditions import PATIENCE_S, await_until
from tests.projector.envoy.meshes import Log, canary, cloud_map_node, gateway_id, key, listener, node, node_id
from tests.projector.registry_logs import CART, RegistryLog
from xds.freshness import NodeMemory

EDGE, STOCK = gateway_id("edge"), node_id("stock")


class MeshFold:
    """The log of the meshes, folded as far as the test says."""

    def __init__(self, log: Log) -> None:
        self.log, self.state = log, log.state
        self.ready = True
        self.confirmed_age_s = 0.0
        self.broken = False
        self._listeners: list[Callable[[State, State, Sequence[Event]], None]] = []
        self._told = len(log.events)

    def subscribe(self, listener: Callable[[State, State, Sequence[Event]], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def confirmed(self, timeout_s: float) -> Position:
        if self.broken:
            raise NotReady("the fold stopped")
        return self.state.position

    def fold(self) -> None:
        before, self.state = self.state, self.log.state
        events, self._told = self.log.events[self._told :], len(self.log.events)
        for tell in self._listeners:
            tell(before, self.state, events)


class Setting:
    """The canary mesh, with `cart-v1` found by Cloud Map, and a registry's log."""

    def __init__(self, registry: RegistryLog) -> None:
        self.mesh = MeshFold(canary())
        self.mesh.log.update(key("virtualNode", "cart-v1"), cloud_map_node())
        self.mesh.fold()
        self.registry = registry

    @asynccontextmanager
    async def projection(self, *, follows: bool = True) -> AsyncIterator[tuple[Projection, Replica[RegistryState]]]:
        replica = self.registry.replica()
        projection = Projection(self.mesh, Compiler(), replica)
        async with Supervisor() as tasks:
            if follows:
                tasks.start(replica.run(), "registry")
                await await_until(lambda: replica.ready or replica.halted is not None)
            yield projection, replica


@pytest.fixture
async def setting(tmp_path: Path) -> Setting:
    registry = await RegistryLog.create(tmp_path)
    await registry.stock(1)
    return Setting(registry)


def endpoints(snapshot: NodeSnapshot | None) -> dict[str, bytes]:
    assert snapshot is not None
    return {name: resource.body for name, resource in snapshot.of_type(TYPE_ENDPOINT).items()}


def hears(projection: Projection, session: ProjectorSession) -> list[ProjectorFrame]:
    """All that the session has to say now, as it arrives."""
    heard = []
    while (frame := session.next_frame(projection)) is not None:
        heard.append(decode_from_projector(encode(frame)))
    return heard


def opened(projection: Projection, *nodes: NodeId) -> ProjectorSession:
    session = ProjectorSession("p", "z1", ())
    session.received(FrontendHello(1, "f", "z1", "127.0.0.1:1"))
    for number, each in enumerate(nodes, 1):
        session.received(Subscribe(each, number))
        projection.subscribe(each, session.changed)
    return session


async def test_what_the_registry_says_reaches_those_alone_whom_it_concerns(setting: Setting) -> None:
    async with setting.projection() as (projection, replica):
        told: list[NodeId] = []
        for each in (EDGE, STOCK):
            projection.subscribe(each, told.append)
            projection.current(each)
        before = endpoints(projection.current(EDGE))
        assert before
        told.clear()
        await setting.registry.register(1)
        await replica.wait_for(setting.registry.state.position, PATIENCE_S)
        assert told == [EDGE]
        after = endpoints(projection.current(EDGE))
        assert {name for name in after if after[name] != before[name]} == set(before)
        assert projection.registry == setting.registry.state.position


async def test_a_registry_that_was_never_read_is_not_taken_for_an_empty_one(setting: Setting) -> None:
    async with setting.projection(follows=False) as (projection, replica):
        told: list[NodeId] = []
        for each in (EDGE, STOCK):
            projection.subscribe(each, told.append)
        assert projection.registry == NOWHERE
        assert projection.current(STOCK) is not None
        with pytest.raises(NotReady, match="cannot be compiled"):
            projection.current(EDGE)
        async with Supervisor() as tasks:
            tasks.start(replica.run(), "registry")
            await await_until(lambda: replica.ready)
            assert EDGE in told
            assert endpoints(projection.current(EDGE))


async def test_a_poisoned_registry_leaves_endpoints_and_the_meshes_go_on(setting: Setting) -> None:
    async with setting.projection() as (projection, replica):
        session = opened(projection, EDGE, STOCK)
        before = endpoints(projection.current(EDGE))
        hears(projection, session)
        await setting.registry.poison()
        await await_until(lambda: replica.halted)
        setting.mesh.log.update(key("virtualNode", "stock"), node(listener(9090), host="stock.shop.internal"))
        setting.mesh.fold()
        frames = [frame for frame in hears(projection, session) if isinstance(frame, SnapshotFrame)]
        assert STOCK in {frame.node for frame in frames}
        assert endpoints(projection.current(EDGE)) == before
        assert await projection.confirmed(PATIENCE_S) == setting.mesh.state.position
        assert projection.confirmed_age_s == setting.mesh.confirmed_age_s, "nobody else has a fresher registry"


async def test_a_projector_that_starts_before_poison_serves_what_the_others_keep(setting: Setting) -> None:
    await setting.registry.poison()
    async with setting.projection() as (projection, replica):
        projection.subscribe(EDGE, lambda _: None)
        await await_until(lambda: replica.halted)
        assert projection.registry == setting.registry.state.position
        assert endpoints(projection.current(EDGE))


async def test_a_log_of_meshes_that_stopped_leaves_endpoints_moving(setting: Setting) -> None:
    async with setting.projection() as (projection, replica):
        session = opened(projection, EDGE)
        hears(projection, session)
        setting.mesh.broken = True
        await setting.registry.register(1)
        await replica.wait_for(setting.registry.state.position, PATIENCE_S)
        (frame,) = [frame for frame in hears(projection, session) if isinstance(frame, SnapshotFrame)]
        assert {resource.type_url for resource in frame.upserts} == {TYPE_ENDPOINT}
        assert (frame.position, frame.registry) == (setting.mesh.state.position, setting.registry.state.position)
        with pytest.raises(Unavailable):
            await projection.confirmed(PATIENCE_S)


async def test_a_confirmed_head_is_one_of_both_logs(setting: Setting) -> None:
    async with setting.projection() as (projection, _):
        session = opened(projection, EDGE)
        hears(projection, session)
        await setting.registry.register(1)
        session.received(Confirm(7, 1000))
        position = await projection.confirmed(PATIENCE_S)
        session.head_answer(7, position, projection.position, projection.registry)
        frames = hears(projection, session)
        assert isinstance(frames[-2], SnapshotFrame)
        assert frames[-1] == Confirmed(7, position, True, setting.registry.state.position)


async def test_a_registry_replica_begins_with_its_checkpoint(setting: Setting) -> None:
    registry = setting.registry
    at = await registry.checkpoint()
    await registry.do(DeregisterInstance(registry.state.services[CART].id, "i0"))
    async with setting.projection() as (_, replica):
        assert replica.state == registry.state
        assert at < replica.position
        assert REGISTRY_FOLD.state_hash(replica.state) == REGISTRY_FOLD.state_hash(registry.state)


async def test_a_draft_made_step_by_step_is_the_fold(setting: Setting) -> None:
    draft = Stepwise(REGISTRY_FOLD.evolve, setting.registry.state)
    assert draft.state() is setting.registry.state
    assert draft.position == setting.registry.state.position


POSITIONS = st.integers(0, 4).map(lambda number: Position(1, number))
REACHES = st.builds(Reach, POSITIONS, st.one_of(st.just(NOWHERE), POSITIONS))


@given(REACHES, REACHES)
def test_what_joins_two_covers_both(one: Reach, other: Reach) -> None:
    joined = one.joined(other)
    assert joined.covers(one)
    assert joined.covers(other)
    assert one.covers(one)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), max_size=12))
def test_endpoints_never_go_back_whichever_projector_speaks(offers: list[tuple[int, int]]) -> None:
    """Each offer is a projector that has folded so much of either log; contents tell what was folded."""
    memory, taken = NodeMemory(), Reach(Position(1, 0))
    for mesh, registry in offers:
        body = f"{mesh}/{registry}".encode()
        snapshot = NodeSnapshot(EDGE, Position(1, mesh), {(TYPE_ENDPOINT, "x"): xds_resource(TYPE_ENDPOINT, "x", body)})
        update = NodeUpdate(EDGE, Position(1, mesh), snapshot, Position(1, registry))
        if memory.allows(update):
            assert update.reach.covers(taken)
            memory.served(update)
            taken = taken.joined(update.reach)


def test_a_frontend_holds_back_a_projector_whose_registry_lags() -> None:
    pool = ResourcePool()
    heard: list[NodeUpdate] = []
    watches = Watches()
    watches.open(EDGE, heard.append)

    def told(registry: int, text: str) -> bool:
        session = FrontendSession(pool)
        session.subscribe(EDGE)
        resource = xds_resource(TYPE_ENDPOINT, "x", text.encode())
        session.received(ProjectorHello(1, "p", "z1", ()))
        session.received(SnapshotFrame(EDGE, 1, Position(1, 9), True, True, (resource,), (), (), Position(1, registry)))
        return watches.offer(EDGE, session.views[EDGE], session.as_of(EDGE))

    assert told(5, "new")
    assert not told(4, "old")
    assert told(6, "newer")
    assert len(heard) == 2
