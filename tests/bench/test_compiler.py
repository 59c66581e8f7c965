"""The compiler's bench runs, small: what its figures are of belongs together, and every ring is a mesh."""

from __future__ import annotations

import json

import pytest

from bench import compiler
from bench.compiler_mesh import BACKENDS, Ring
from projector.envoy.compiler import Compiler
from projector.snapshot import TYPE_CLUSTER


@pytest.mark.parametrize("nodes", [2, 11, 30])
def test_in_a_ring_of_any_size_every_node_has_its_backends_and_nothing_is_held_back(nodes: int) -> None:
    ring = Ring(nodes)
    for node in ring.ids:
        snapshot = Compiler().compile(ring.state, node, registry=ring.registry)
        assert snapshot is not None
        assert snapshot.alarms == ()
        egress = [name for name in snapshot.of_type(TYPE_CLUSTER) if name.startswith("cds_egress_ring_node-")]
        assert len(egress) == min(BACKENDS + 1, nodes)


def test_events_touch_as_many_nodes_in_a_larger_mesh_and_change_what_they_say() -> None:
    benches = {nodes: compiler.Bench(nodes) for nodes in (30, 60)}
    for bench in benches.values():
        bench.whole()
    told = {what: compiler.by_turns(benches, change, 8) for what, change in compiler.CHANGES.items()}
    costs = {what: each[30] for what, each in told.items()}
    for each in told.values():
        small, large = each.values()
        assert {(cost.touched, cost.changed) for cost in small} == {(cost.touched, cost.changed) for cost in large}
        assert all(cost.compile_ms >= cost.serialise_ms >= 0 for cost in large)
    assert {cost.touched for cost in costs["a tag"]} == {0}
    assert {(cost.touched, cost.changed) for cost in costs["weights of a route"]} == {(BACKENDS, BACKENDS)}
    assert all(cost.changed >= BACKENDS for cost in costs["an instance of Cloud Map"])
    assert {cost.changed for cost in costs["time-out of a listener"]} == {1}
    assert {cost.changed for cost in costs["outlier detection of a target"]} == {BACKENDS + 1}


def test_the_lines_of_a_run() -> None:
    host, whole, *events = map(json.loads, compiler.measure([12], 4))
    assert host["host"]["sizes"] == [12]
    assert whole["nodes"] == 12
    assert whole["sent_bytes"] > whole["bytes"] > 0
    assert whole["yardstick_serialise_s"] > 0
    assert [line["event"] for line in events] == [*compiler.CHANGES]
    assert all(line["n"] == 4 for line in events)
