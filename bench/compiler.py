"""The compiler's figures as JSON lines: whole meshes, then events that touch as many nodes at every size.

All times are CPU times of one core, so that other work on the host counts little. Beside them, as a yardstick from the
same run: the very same Envoy messages, ready built, turned into bytes by the library alone.

python -m bench.compiler [--nodes N …] [--events N]
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import betterproto2

from bench import figures
from bench.compiler_mesh import Ring
from identity.node_id import NodeId
from mesh.events import Event
from mesh.evolve import evolve
from mesh.registry.state import ServiceKey
from projector.envoy import protos
from projector.envoy.changes import changed_keys
from projector.envoy.compiler import Compiler
from projector.envoy.plans import Plan
from projector.envoy.render import Renderer
from projector.envoy.warm import warm_up
from projector.snapshot import TYPE_CLUSTER, TYPE_ENDPOINT, TYPE_LISTENER, TYPE_ROUTE, NodeSnapshot, XdsResource

SIZES = (10, 100, 1_000, 10_000)
EVENTS = 200
GROWTH_GOAL, CPU_GOAL_MS = 0.10, 2.0
GROWTH_FROM, GROWTH_TO = 100, 10_000
_PAGE_BYTES = 4096
_MESSAGES: Mapping[str, type[betterproto2.Message]] = {
    TYPE_CLUSTER: protos.cluster.Cluster,
    TYPE_ENDPOINT: protos.endpoint.ClusterLoadAssignment,
    TYPE_LISTENER: protos.listener.Listener,
    TYPE_ROUTE: protos.route.RouteConfiguration,
}

Change = Callable[[Ring, int, int], Event | ServiceKey]
CHANGES: Mapping[str, Change] = {
    "weights of a route": Ring.weights,
    "time-out of a listener": Ring.listener_timeout,
    "outlier detection of a target": Ring.outlier_detection,
    "a route, new or gone": Ring.new_route,
    "a tag": Ring.tag,
    "an instance of Cloud Map": Ring.instance,
}


class Cost(NamedTuple):
    """CPU of one event in milliseconds. `serialise_ms` is a part of `compile_ms`; `touched` nodes were compiled."""

    fold_ms: float
    compile_ms: float
    serialise_ms: float
    touched: int
    changed: int

    @property
    def planning_ms(self) -> float:
        """All but serialising."""
        return self.fold_ms + self.compile_ms - self.serialise_ms


class TimedRenderer(Renderer):
    """A renderer that counts the CPU of what it has to make anew."""

    def __init__(self) -> None:
        super().__init__()
        self.spent_s = 0.0

    def _make(self, plan: Plan) -> XdsResource:
        began_s = time.process_time()
        made = super()._make(plan)
        self.spent_s += time.process_time() - began_s
        return made


class Bench:
    """A ring of `nodes` nodes, each compiled once, and a compiler that remembers them."""

    def __init__(self, nodes: int) -> None:
        self.ring = Ring(nodes)
        self.renderer = TimedRenderer()
        self.compiler = Compiler(self.renderer)
        self.known: dict[NodeId, NodeSnapshot | None] = {}

    def whole(self) -> dict[str, float | int]:
        """Compile every node: CPU, bytes and memory."""
        gc.collect()
        before_bytes = _resident_bytes()
        began_s = time.process_time()
        self.known = {node: self._compile(node) for node in self.ring.ids}
        spent_s = time.process_time() - began_s
        gc.collect()
        grown_bytes = _resident_bytes() - before_bytes
        sent = [resource for each in self.known.values() if each for resource in each.resources.values()]
        distinct = {id(resource): resource for resource in sent}.values()
        return {
            "cpu_s": round(spent_s, 3),
            "serialise_s": round(self.renderer.spent_s, 3),
            "yardstick_serialise_s": round(bare_s(distinct), 3),
            "node_ms": round(spent_s / self.ring.nodes * 1e3, 3),
            "bytes": sum(len(resource.body) for resource in distinct),
            "sent_bytes": sum(len(resource.body) for resource in sent),
            "resources": len(distinct),
            "memory_node_kib": round(grown_bytes / 1024 / self.ring.nodes, 1),
        }

    def event(self, event: Event | ServiceKey) -> Cost:
        """Fold it, ask whom it concerns, compile those: what a projector does. (The registry's is folded already.)"""
        serialised_s = self.renderer.spent_s
        began_s = time.process_time()
        if isinstance(event, Event):
            self.ring.state = evolve(self.ring.state, event)
        folded_s = time.process_time()
        if isinstance(event, Event):
            touched = self.compiler.affected(changed_keys([event]))
        else:
            touched = self.compiler.affected((), {event})
        made = {node: self._compile(node) for node in sorted(touched)}
        ended_s = time.process_time()
        changed = sum(_resources(made[node]) != _resources(self.known[node]) for node in made)
        self.known |= made
        serialised_s = self.renderer.spent_s - serialised_s
        return Cost((folded_s - began_s) * 1e3, (ended_s - folded_s) * 1e3, serialised_s * 1e3, len(touched), changed)

    def _compile(self, node: NodeId) -> NodeSnapshot | None:
        return self.compiler.compile(self.ring.state, node, self.known.get(node), registry=self.ring.registry)


def by_turns(benches: Mapping[int, Bench], change: Change, count: int, seed: int = 1) -> Mapping[int, list[Cost]]:
    """The cost of `count` events in each mesh, all over it, each with a content that was not there before.

    One event here, one there: whatever else the host does meanwhile, it does to every size.
    """
    chosen = random.Random(seed)  # noqa: S311 - no secret
    costs: dict[int, list[Cost]] = {nodes: [] for nodes in benches}
    for turn in range(count):
        for nodes, bench in benches.items():
            costs[nodes].append(bench.event(change(bench.ring, chosen.randrange(nodes), turn)))
    return costs


def bare_s(resources: Iterable[XdsResource]) -> float:
    """CPU seconds that the library takes to turn the same messages, ready built, into bytes."""
    messages = [_MESSAGES[each.type_url].parse(each.body) for each in resources if each.type_url in _MESSAGES]
    began_s = time.process_time()
    for message in messages:
        bytes(message)
    return time.process_time() - began_s


def measure(sizes: Sequence[int], events: int) -> Iterator[str]:
    """The lines of the bench."""
    yield figures.host(sizes=list(sizes), events=events)
    benches: dict[int, Bench] = {}
    for nodes in sizes:
        bench = benches[nodes] = Bench(nodes)
        warm_up(bench.compiler)
        bench.renderer.spent_s = 0.0
        yield json.dumps({"compile": "a whole mesh, node by node", "nodes": nodes, **bench.whole()})
    for what, change in CHANGES.items():
        told = by_turns(benches, change, events)
        for nodes, costs in told.items():
            yield json.dumps({"event": what, "nodes": nodes, "n": len(costs), **_summary(costs)})
        if {GROWTH_FROM, GROWTH_TO} <= told.keys():
            yield json.dumps({"grows": what, **_growth(told[GROWTH_FROM], told[GROWTH_TO])})


def _growth(small: Sequence[Cost], large: Sequence[Cost]) -> dict[str, float | int | bool]:
    from_ms, to_ms = (statistics.median(cost.planning_ms for cost in costs) for costs in (small, large))
    return {
        "from_nodes": GROWTH_FROM,
        "to_nodes": GROWTH_TO,
        "growth": round(to_ms / from_ms - 1, 3),
        "goal_growth": GROWTH_GOAL,
        "goal_met": to_ms <= from_ms * (1 + GROWTH_GOAL),
    }


def _summary(costs: Sequence[Cost]) -> dict[str, float | int | bool]:
    planning_ms = sorted(cost.planning_ms for cost in costs)
    median_ms = statistics.median(planning_ms)
    return {
        "touched": statistics.median(cost.touched for cost in costs),
        "changed": statistics.median(cost.changed for cost in costs),
        "cpu_p50_ms": round(median_ms, 3),
        "cpu_p99_ms": round(planning_ms[int(0.99 * len(planning_ms))], 3),
        "cpu_mean_ms": round(statistics.fmean(planning_ms), 3),
        "fold_p50_ms": round(statistics.median(cost.fold_ms for cost in costs), 3),
        "serialise_p50_ms": round(statistics.median(cost.serialise_ms for cost in costs), 3),
        "goal_ms": CPU_GOAL_MS,
        "goal_met": median_ms <= CPU_GOAL_MS,
    }


def _resources(snapshot: NodeSnapshot | None) -> object:
    return None if snapshot is None else snapshot.resources


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.compiler", description=__doc__)
    parser.add_argument("--nodes", type=int, action="append", help=f"virtual nodes; {SIZES} without any")
    parser.add_argument("--events", type=int, default=EVENTS, help="of each kind, at each size")
    chosen = parser.parse_args(arguments)
    for line in measure(chosen.nodes or SIZES, chosen.events):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
