"""The compiler as a function: the same state gives the same bytes, and a change concerns whom it says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identity.node_id import NodeId
from mesh.events import EVENT_TYPES, MESH_ROLLED_BACK, TAGS_CHANGED, Event
from mesh.position import Position
from projector.envoy.changes import OF_MANY, OF_NONE, OF_ONE, OF_PKI, OF_SHARES, changed_keys
from projector.envoy.compiler import Compiler
from projector.envoy.render import Renderer
from projector.snapshot import TYPE_CLUSTER, TYPE_ROUTE, NodeSnapshot
from tests.projector.envoy.meshes import (
    ACCOUNT,
    RENDERER,
    Log,
    by_node,
    by_router,
    canary,
    compiled,
    gateway,
    gateway_id,
    gateway_route,
    key,
    listener,
    node,
    node_id,
    route,
    router,
)
from tests.projector.envoy.readable import cluster_references, of_type, route_references, vhosts

REPOSITORY = Path(__file__).parents[3]
ALL = (gateway_id(), node_id("cart-v1"), node_id("cart-v2"), node_id("stock"))


def bodies(snapshot: NodeSnapshot | None) -> Any:
    return None if snapshot is None else (dict(snapshot.resources), snapshot.alarms)


def test_a_node_that_does_not_exist_has_no_snapshot_and_is_concerned_by_its_creation() -> None:
    log, compiler = canary(), Compiler(RENDERER)
    assert compiler.compile(log.state, node_id("later")) is None
    assert compiler.affected({key("virtualNode", "later")}) == {node_id("later")}


def test_a_snapshot_says_of_which_position_it_is() -> None:
    log = canary()
    assert compiled(log, gateway_id()).position == log.state.position


def test_processes_with_other_hash_seeds_make_the_same_bytes() -> None:
    script = (
        "from tests.projector.envoy.test_golden import CASES\n"
        "from tests.projector.envoy.meshes import compiled\n"
        "for name in ('gateway-rewrites', 'sidecar-busy'):\n"
        "    mesh, of = CASES[name]\n"
        "    for (url, resource), made in compiled(mesh(), of).resources.items():\n"
        "        print(name, url, resource, made.version)\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script],
            cwd=REPOSITORY,
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(REPOSITORY)},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert len(outputs.pop().splitlines()) > 15


def test_a_resource_is_serialised_once_whoever_needs_it() -> None:
    log, renderer = canary(), Renderer()
    log.create(key("virtualNode", "caller"), node(backends=("stock.shop.local",)))
    compiler = Compiler(renderer)
    first = compiler.compile(log.state, node_id("cart-v2"))
    second = compiler.compile(log.state, node_id("caller"))
    assert first is not None
    assert second is not None
    shared = (TYPE_CLUSTER, "cds_egress_shop_stock_http_8080")
    assert first.resources[shared] is second.resources[shared]
    before = renderer.serialised
    Compiler(renderer).compile(log.state, node_id("caller"))
    assert renderer.serialised == before


def test_a_weight_change_serialises_one_virtual_host() -> None:
    log, renderer = canary(), Renderer()
    compiler = Compiler(renderer)
    compiler.compile(log.state, gateway_id())
    before = renderer.serialised
    log.update(key("route", "all", "cart"), route({"cart-v1": 0, "cart-v2": 100}))
    compiler.compile(log.state, gateway_id())
    assert renderer.serialised == before + 1


def test_the_memo_is_bounded_and_forgetting_changes_nothing() -> None:
    log = canary()
    tight = Compiler(Renderer(plans_max=1, size_max_bytes=10_000))
    narrow = Compiler(Renderer(plans_max=1_000, size_max_bytes=1))
    for of in ALL:
        wanted = bodies(compiled(log, of))
        assert bodies(tight.compile(log.state, of)) == wanted
        assert bodies(narrow.compile(log.state, of)) == wanted


# --- whom a change concerns


def watched(log: Log) -> Compiler:
    compiler = Compiler(RENDERER)
    for of in ALL:
        compiler.compile(log.state, of)
    return compiler


@pytest.mark.parametrize(
    ("changed", "concerned"),
    [
        (key("mesh", "shop"), set(ALL)),
        (key("route", "all", "cart"), {gateway_id()}),
        (key("route", "new", "cart"), {gateway_id()}),
        (key("gatewayRoute", "new", "edge"), {gateway_id()}),
        (key("virtualService", "stock.shop.local"), {node_id("cart-v2")}),
        (key("virtualNode", "stock"), {node_id("stock"), node_id("cart-v2")}),
        (key("virtualNode", "cart-v1"), {node_id("cart-v1"), gateway_id()}),
        (key("virtualNode", "stranger"), set()),
        (key("route", "all", "strange-router"), set()),
        (key("virtualNode", "stock", mesh="other"), set()),
    ],
)
def test_a_change_concerns_those_who_depend_on_it_and_no_others(changed: Any, concerned: set[NodeId]) -> None:
    assert watched(canary()).affected({changed}) == concerned


def test_a_weight_change_in_a_large_mesh_concerns_its_callers_only() -> None:
    log = canary()
    for index in range(50):
        log.create(key("virtualNode", f"n{index}"), node(backends=("stock.shop.local",)))
    compiler = watched(log)
    for index in range(50):
        compiler.compile(log.state, node_id(f"n{index}"))
    assert compiler.affected({key("route", "all", "cart")}) == {gateway_id()}


def test_a_forgotten_node_is_concerned_by_nothing() -> None:
    compiler = watched(canary())
    compiler.forget(gateway_id())
    compiler.forget(gateway_id("never-seen"))
    assert compiler.affected({key("route", "all", "cart")}) == set()


def test_of_every_event_type_it_is_known_what_it_changes() -> None:
    """A type that is added and not thought of in `changes` fails here."""
    assert sorted([*OF_ONE, *OF_MANY, *OF_SHARES, *OF_PKI, *OF_NONE]) == sorted(EVENT_TYPES)


def test_changed_keys_of_events_are_those_of_specs() -> None:
    log = canary()
    event = log.update(key("virtualNode", "stock"), node())

    def other(kind: str, data: Mapping[str, Any] | None) -> Event:
        return Event(Position(1, 99), 1, 1, kind, 1, ACCOUNT, "a", "ip", "r", None, data)

    change: dict[str, Any] = {"key": list(key("route", "all", "cart")), "uid": "u", "spec": None}
    tags = other(TAGS_CHANGED, {"key": list(key("virtualNode", "cart-v1")), "set": {}, "unset": []})
    back = other(MESH_ROLLED_BACK, {"account": ACCOUNT, "mesh": "shop", "to": [1, 2], "changes": [change]})
    assert changed_keys([event, tags, back, other(TAGS_CHANGED, None)]) == {
        key("virtualNode", "stock"),
        key("route", "all", "cart"),
    }


# --- what names something missing


def test_with_a_previous_snapshot_a_route_to_what_went_missing_stays_as_it_was() -> None:
    log = canary()
    before = compiled(log, gateway_id())
    log.update(key("virtualNode", "cart-v1"), {})
    log.create(key("gatewayRoute", "stock", "edge"), gateway_route("stock.shop.local", {"prefix": "/stock"}))
    after = compiled(log, gateway_id(), before)
    old, new = (vhosts(each, "rds_egress_http_15001") for each in (before, after))
    assert new["cart.shop.local"] == old["cart.shop.local"]
    assert "stock.shop.local" in new
    kept = (TYPE_CLUSTER, "cds_egress_shop_cart-v1_http_8080")
    assert after.resources[kept] is before.resources[kept]
    assert any("rds_egress_http_15001: virtual host cart.shop.local" in alarm for alarm in after.alarms)
    assert any(alarm.startswith("mesh/shop/virtualNode/cart-v1: spec.listeners") for alarm in after.alarms)
    assert cluster_references(after) <= set(of_type(after, TYPE_CLUSTER))
    log.update(key("virtualNode", "cart-v1"), node(host="cart-v1.shop.internal"))
    assert bodies(compiled(log, gateway_id(), after)) == bodies(compiled(log, gateway_id()))


def test_a_snapshot_that_was_broken_itself_is_no_previous_to_keep() -> None:
    log = canary()
    log.update(key("virtualNode", "cart-v1"), {})
    broken = compiled(log, gateway_id())
    log.update(key("route", "all", "cart"), route({"cart-v1": 1, "cart-v2": 99}))
    assert bodies(compiled(log, gateway_id(), broken)) == bodies(compiled(log, gateway_id()))


def test_what_is_not_supported_never_keeps_an_earlier_version() -> None:
    log = canary()
    before = compiled(log, gateway_id())
    tls = {"mode": "STRICT", "certificate": {"acm": {"certificateArn": "arn:aws:acm:::c"}}}
    log.update(key("virtualNode", "cart-v1"), node(listener(tls=tls)))
    assert bodies(compiled(log, gateway_id(), before)) == bodies(compiled(log, gateway_id()))


# --- any mesh, any order of changes

SERVICES = ("s0", "s1", "s2")
NODES = ("n0", "n1", "n2")
ROUTERS = ("r0", "r1")


def node_specs() -> st.SearchStrategy[dict[str, Any]]:
    ports = st.lists(st.sampled_from([8080, 8081]), max_size=2, unique=True)
    protocols = st.sampled_from(["http", "http2", "grpc", "tcp"])

    def build(listeners: list[int], protocol: str, backends: list[str], found: bool) -> dict[str, Any]:
        spec = node(*(listener(port, protocol) for port in listeners), backends=tuple(backends))
        spec["listeners"] = [listener(port, protocol) for port in listeners]
        if not found:
            del spec["serviceDiscovery"]
        return spec

    return st.builds(build, ports, protocols, st.lists(st.sampled_from(SERVICES), max_size=3), st.booleans())


def match_specs() -> st.SearchStrategy[dict[str, Any]]:
    return st.sampled_from(
        [
            {"prefix": "/"},
            {"prefix": "/a"},
            {"path": {"exact": "/a"}},
            {"prefix": "/", "method": "PUT"},
            {"prefix": "/", "headers": [{"name": "x"}]},
            {"prefix": "/", "port": 8081},
        ]
    )


def changes() -> st.SearchStrategy[tuple[Any, dict[str, Any]]]:
    """One resource's key and its new spec."""
    weights = st.dictionaries(st.sampled_from(NODES), st.integers(0, 3), min_size=1)
    services = st.one_of(st.just({}), st.sampled_from(NODES).map(by_node), st.sampled_from(ROUTERS).map(by_router))
    priorities = st.sampled_from([0, 1000])
    routes = st.builds(lambda to, match, first: route(to, match, priority=first), weights, match_specs(), priorities)
    listening = st.sampled_from([router(), router(1, 2)])
    rewrites = st.sampled_from([None, {"hostname": {"defaultTargetHostname": "DISABLED"}}])
    return st.one_of(
        st.tuples(st.sampled_from([key("virtualNode", name) for name in NODES]), node_specs()),
        st.tuples(st.sampled_from([key("virtualService", name) for name in SERVICES]), services),
        st.tuples(st.sampled_from([key("virtualRouter", name) for name in ROUTERS]), listening),
        st.tuples(st.sampled_from([key("route", name, of) for name in "xy" for of in ROUTERS]), routes),
        st.tuples(st.just(key("mesh", "shop")), st.sampled_from([{}, {"egressFilter": {"type": "ALLOW_ALL"}}])),
        st.tuples(
            st.sampled_from([key("gatewayRoute", name, "edge") for name in "uv"]),
            st.builds(gateway_route, st.sampled_from(SERVICES), match_specs(), rewrites),
        ),
    )


@settings(max_examples=30)
@given(st.lists(changes(), min_size=1, max_size=15))
def test_after_any_changes_the_memo_tells_what_a_fresh_compiler_tells_and_nobody_is_forgotten(
    made: list[tuple[Any, dict[str, Any]]],
) -> None:
    log = Log((key("virtualGateway", "edge"), gateway()), *((key("virtualRouter", name), router()) for name in ROUTERS))
    nodes = [gateway_id(), *(node_id(name) for name in NODES)]
    running = Compiler(RENDERER)
    known = {of: running.compile(log.state, of) for of in nodes}
    for of_key, spec in made:
        change = log.update if of_key in log.state.resources else log.create
        concerned = running.affected(changed_keys([change(of_key, spec)]))
        for of in nodes:
            fresh = Compiler(RENDERER).compile(log.state, of)
            if of in concerned:
                known[of] = running.compile(log.state, of)
            assert bodies(known[of]) == bodies(fresh), f"{of} after {of_key}"
    for snapshot in known.values():
        if snapshot is not None:
            assert cluster_references(snapshot) <= set(of_type(snapshot, TYPE_CLUSTER))
            assert route_references(snapshot) == set(of_type(snapshot, TYPE_ROUTE))
