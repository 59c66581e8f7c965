"""The projection: only what is affected is compiled, while somebody follows it; one node's failure is its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pytest

from identity.node_id import NodeId
from mesh.commands import Delete, Rollback, TagResource
from mesh.errors import NotReady
from mesh.kinds import ResourceKey
from mesh.position import Position
from mesh.registry.state import RegistryState, ServiceKey
from mesh.state import State
from projector.envoy.compiler import NO_REGISTRY, Compiler
from projector.projection import FoldedLog, Projection
from projector.snapshot import TYPE_CLUSTER, NodeSnapshot, xds_resource
from tests.mesh.worlds import ACCOUNT, World, key, node_spec, route_spec, shop

V1 = NodeId(ACCOUNT, "shop", "virtualNode", "cart-v1")
V2 = NodeId(ACCOUNT, "shop", "virtualNode", "cart-v2")
EDGE = NodeId(ACCOUNT, "shop", "virtualGateway", "edge")


class WorldReplica:
    """A FoldedLog whose log is a World: `fold` takes in what was done since."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.state = world.state
        self.ready = True
        self.confirmed_age_s = 0.5
        self._folded = len(world.events)
        self._listeners: list[object] = []

    def subscribe(self, listener: object) -> object:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def fold(self) -> None:
        before, self.state = self.state, self.world.state
        events = self.world.events[self._folded :]
        self._folded = len(self.world.events)
        for listener in self._listeners:
            listener(before, self.state, events)  # type: ignore[operator]

    async def confirmed(self, timeout_s: float) -> Position:
        return self.state.position


@dataclass
class CountingCompiler:
    """The real compiler, counted, and failing for whom it is told to."""

    real: Compiler = field(default_factory=Compiler)
    compiled: list[NodeId] = field(default_factory=list)
    fails_for: set[NodeId] = field(default_factory=set)
    forgotten: list[NodeId] = field(default_factory=list)

    def compile(
        self,
        state: State,
        node: NodeId,
        previous: NodeSnapshot | None = None,
        registry: RegistryState = NO_REGISTRY,
    ) -> NodeSnapshot | None:
        self.compiled.append(node)
        if node in self.fails_for:
            raise ZeroDivisionError("a bug")
        return self.real.compile(state, node, previous, registry)

    def affected(self, changed: Iterable[ResourceKey], services: Iterable[ServiceKey] = ()) -> set[NodeId]:
        return self.real.affected(changed, services)

    def forget(self, node: NodeId) -> None:
        self.forgotten.append(node)
        self.real.forget(node)

    def take(self) -> list[NodeId]:
        taken, self.compiled = self.compiled, []
        return taken


class Bench:
    """A projection over the shop, and what its listeners were told."""

    def __init__(self) -> None:
        self.world = shop()
        self.replica = WorldReplica(self.world)
        self.compiler = CountingCompiler()
        replica: FoldedLog = self.replica  # type: ignore[assignment]
        self.projection = Projection(replica, self.compiler)
        self.told: list[NodeId] = []

    def follow(self, *nodes: NodeId) -> None:
        for node in nodes:
            self.projection.subscribe(node, self.told.append)
            self.projection.current(node)
        self.compiler.take()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_node_is_compiled_once_however_often_it_is_looked_at(bench: Bench) -> None:
    bench.projection.subscribe(EDGE, bench.told.append)
    first = bench.projection.current(EDGE)
    assert first is not None
    assert first is bench.projection.current(EDGE)
    assert bench.compiler.take() == [EDGE]


def test_only_what_is_affected_is_told_and_compiled(bench: Bench) -> None:
    bench.follow(V1, V2, EDGE)
    bench.world.update(key("route", "all", parent="cart"), route_spec({"cart-v1": 0, "cart-v2": 100}))
    bench.replica.fold()
    assert bench.told == [EDGE]
    for node in (V1, V2, EDGE):
        bench.projection.current(node)
    assert bench.compiler.take() == [EDGE]


def test_a_burst_costs_one_compilation(bench: Bench) -> None:
    bench.follow(EDGE)
    for weight in range(1, 50):
        bench.world.update(key("route", "all", parent="cart"), route_spec({"cart-v1": weight, "cart-v2": 50}))
        bench.replica.fold()
    bench.projection.current(EDGE)
    assert bench.compiler.take() == [EDGE]


def test_what_is_kept_is_what_a_fresh_compiler_makes(bench: Bench) -> None:
    bench.follow(V1, V2, EDGE)
    world = bench.world
    steps: list[Callable[[], object]] = [
        lambda: world.update(key("route", "all", parent="cart"), route_spec({"cart-v1": 1, "cart-v2": 3})),
        lambda: world.update(key("virtualNode", "cart-v2"), node_spec(8080, backends=("cart.shop.local",))),
        lambda: world.create(key("virtualNode", "cart-v3"), node_spec()),
        lambda: world.do(TagResource(key("virtualNode", "cart-v1"), {"a": "b"})),
        lambda: world.do(Delete(key("gatewayRoute", "cart", parent="edge"))),
        lambda: world.do(Rollback(ACCOUNT, "shop", world.states[9])),
    ]
    for step in steps:
        step()
        bench.replica.fold()
        for node in (V1, V2, EDGE):
            kept, fresh = bench.projection.current(node), Compiler().compile(world.state, node)
            assert kept is not None
            assert fresh is not None
            assert kept.resources == fresh.resources


def test_a_node_that_comes_and_goes_is_told(bench: Bench) -> None:
    newcomer = NodeId(ACCOUNT, "shop", "virtualNode", "cart-v3")
    bench.follow(newcomer)
    assert bench.projection.current(newcomer) is None
    bench.world.create(newcomer.key, node_spec())
    bench.replica.fold()
    assert bench.projection.current(newcomer) is not None
    bench.world.delete(newcomer.key)
    bench.replica.fold()
    assert bench.projection.current(newcomer) is None
    assert bench.told == [newcomer, newcomer]


def test_a_node_without_subscribers_is_forgotten(bench: Bench) -> None:
    one = bench.projection.subscribe(EDGE, bench.told.append)
    two = bench.projection.subscribe(EDGE, bench.told.append)
    bench.projection.current(EDGE)
    one.close()
    one.close()
    assert bench.projection.nodes == {EDGE}
    two.close()
    assert bench.projection.nodes == frozenset()
    assert bench.compiler.forgotten == [EDGE]
    bench.world.delete(key("gatewayRoute", "cart", parent="edge"))
    bench.replica.fold()
    assert bench.told == []


def test_one_nodes_failure_is_an_alarm_of_its_own_and_the_node_keeps_what_it_had(bench: Bench) -> None:
    bench.follow(V1, EDGE)
    before = bench.projection.current(EDGE)
    assert before is not None
    bench.compiler.fails_for.add(EDGE)
    kept: NodeSnapshot | None = None
    for weight in (1, 2):
        bench.world.update(key("route", "all", parent="cart"), route_spec({"cart-v1": weight, "cart-v2": 50}))
        bench.replica.fold()
        kept = bench.projection.current(EDGE)
        assert kept is not None
        assert kept.resources == before.resources
        (alarm,) = kept.alarms
        assert str(bench.replica.state.position) in alarm
        assert "ZeroDivisionError" in alarm
    assert kept is not None
    assert bench.projection.alarms == {EDGE: kept.alarms}
    assert bench.projection.current(V1) is not None
    bench.compiler.fails_for.clear()
    bench.world.create(key("virtualNode", "unrelated"), node_spec())
    bench.replica.fold()
    cured = bench.projection.current(EDGE)
    assert cured is not None
    assert cured.alarms == ()
    assert cured.resources != before.resources


def test_a_node_that_never_could_be_compiled_is_not_said_to_be_absent(bench: Bench) -> None:
    bench.compiler.fails_for.add(EDGE)
    bench.projection.subscribe(EDGE, bench.told.append)
    for _ in range(2):
        with pytest.raises(NotReady, match="edge"):
            bench.projection.current(EDGE)


def test_a_raised_level_compiles_everybody(bench: Bench) -> None:
    bench.follow(V1, EDGE)
    before, after = State(level=1), State(level=2)
    for listener in bench.replica._listeners:
        listener(before, after, ())  # type: ignore[operator]
    assert set(bench.told) == {V1, EDGE}


def test_resource_bytes_are_shared_between_nodes(bench: Bench) -> None:
    """The compiler's promise, seen through the projection: equal resources are one object."""
    bench.follow(V1, V2, EDGE)
    held: dict[tuple[str, str, str], set[int]] = {}
    for node in (V1, V2, EDGE):
        shot = bench.projection.current(node)
        assert shot is not None
        for resource in shot.resources.values():
            held.setdefault(resource[:3], set()).add(id(resource.body))
    assert all(len(copies) == 1 for copies in held.values())
    assert xds_resource(TYPE_CLUSTER, "x", b"y") == xds_resource(TYPE_CLUSTER, "x", b"y")


def test_what_is_held_back_stays_when_the_last_proxy_goes_and_comes_back(bench: Bench) -> None:
    """A missing reference keeps the routes that were sound, and a proxy's reconnection must not lose them."""
    world = bench.world
    by_port = {"virtualNode": "cart-v1", "weight": 1, "port": 8080}
    pinned = {"httpRoute": {"match": {"prefix": "/"}, "action": {"weightedTargets": [by_port]}}}
    world.update(key("route", "all", parent="cart"), pinned)
    bench.replica.fold()
    subscription = bench.projection.subscribe(EDGE, bench.told.append)
    sound = bench.projection.current(EDGE)
    world.update(key("virtualNode", "cart-v1"), node_spec(9090))
    bench.replica.fold()
    kept = bench.projection.current(EDGE)
    assert sound is not None
    assert kept is not None
    assert kept.alarms
    assert sound.resources.items() <= kept.resources.items()
    subscription.close()
    bench.projection.subscribe(EDGE, bench.told.append)
    again = bench.projection.current(EDGE)
    assert again is not None
    assert again.resources == kept.resources
