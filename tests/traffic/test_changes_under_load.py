"""Changes while requests run: no request fails where the order of pushes can see to it; elsewhere they are counted.

See "Changes under load" in docs/app-mesh-compatibility.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.traffic.load import load
from tests.traffic.namespaces import EXTERNAL_V4
from tests.traffic.proofs import tls
from tests.traffic.proofs.registry import NAMESPACE, at, found_by, registered
from tests.traffic.proofs.routes import shop, two_nodes
from tests.traffic.specs import backend, gateway, gateway_route, listener, node, route, router, service
from tests.traffic.world import World, available, key

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(not available(), reason="needs root, `ip`, `iptables` and `setpriv` for pods"),
]

TIMES = 6


def test_weights_move_without_a_failed_request(world: World) -> None:
    world.mesh(*shop(world, route("orders", {"red": 1, "blue": 0})))
    with load(world) as running:
        for turn in range(TIMES):
            world.update(route("orders", {"red": turn % 2, "blue": 1 - turn % 2}))
            running.more()
    assert running.failed == {}
    assert running.answers.keys() == {"red", "blue"}


def test_routes_come_and_go_without_a_failed_request(world: World) -> None:
    world.mesh(*shop(world, route("orders", "red", priority=9)))
    for_all = route("orders", "blue", name="new", priority=1)
    with load(world) as running:
        for _ in range(TIMES // 2):
            world.create(for_all)
            running.more()
            world.delete(for_all[0])
            running.more()
    assert running.failed == {}
    assert running.answers.keys() == {"red", "blue"}


def test_a_target_is_replaced_and_deleted_without_a_failed_request(world: World) -> None:
    world.mesh(*shop(world, route("orders", "red")))
    before = "red"
    with load(world) as running:
        for turn in range(TIMES):
            after = node(f"target-{turn}", listener(), host=f"{('blue', 'red')[turn % 2]}.t{turn}.mesh.test")
            world.create(after)
            world.update(route("orders", after[0].name))
            if before != "red":
                world.delete(key("virtualNode", before))
            before = after[0].name
            running.more()
    assert running.failed == {}
    assert running.answers.keys() == {"red", "blue"}


def test_listeners_and_backends_come_and_go_without_a_failed_request(world: World) -> None:
    world.mesh(*shop(world, route("orders", [{"virtualNode": "red", "weight": 1, "port": 8080}])))
    host = world.control.state.resources[key("virtualNode", "red")].spec["serviceDiscovery"]["dns"]["hostname"]
    front = node("front", listener(), host="front.mesh.test", backends=["orders"])
    more = node("front", listener(), host="front.mesh.test", backends=["orders", "stock"])
    with load(world) as running:
        world.create(router("stock", listener(8082)), service("stock", router="stock"))
        for turn in range(TIMES):
            several = [listener(), *([listener(8081)] if turn % 2 == 0 else [])]
            world.update(node("red", *several, host=host), (front, more)[turn % 2])
            running.more()
        world.update(front)
        world.delete(key("virtualService", "stock"), key("virtualRouter", "stock"))
        running.more()
    assert running.failed == {}


def at_the_gateway(world: World) -> dict[str, Any]:
    """A gateway whose one route leads to red; where its clients ask."""
    world.mesh(
        *two_nodes(world, "http"),
        service("red-service", node="red"),
        service("blue-service", node="blue"),
        gateway_route("red-service", name="r0", priority=TIMES),
    )
    return {"pod": "outside", "port": 8088, "host": world.pods["edge"].v4}


def test_a_gateways_routes_and_listeners_change_without_a_failed_request(world: World) -> None:
    with load(world, "any", at_the_gateway(world)) as running:
        for turn in range(1, TIMES):
            world.create(gateway_route(f"{('red', 'blue')[turn % 2]}-service", name=f"r{turn}", priority=TIMES - turn))
            world.delete(key("gatewayRoute", f"r{turn - 1}", "edge"))
            running.more()
        pool: dict[str, Any] = {"connectionPool": {"http": {"maxConnections": 100}}}
        for limits in (pool, {}):
            world.update(gateway(listener(8088, **limits)))
            running.more()
    assert running.failed == {}
    assert running.answers.keys() == {"red", "blue"}


def test_servers_register_and_leave_without_a_failed_request(world: World) -> None:
    one, two = EXTERNAL_V4[:2]
    name = registered(world, at(one))
    found_by(world, name)
    with load(world) as running:
        for turn in range(TIMES):
            world.control.register(NAMESPACE, name, f"new-{turn}", **at((two, one)[turn % 2]))
            running.more()
            world.control.deregister(NAMESPACE, name, f"new-{turn - 1}" if turn else "i-0")
            running.more()
    assert running.failed == {}


def test_tls_is_introduced_step_by_step_without_a_failed_request(world: World) -> None:
    files = world.certificates.files("server")
    host = world.tls_host
    policy = {"tls": {"validation": world.certificates.trust("ours")}}

    def red(mode: str) -> None:
        world.update(node("red", listener(8080, tls={"mode": mode, "certificate": files}), host=host))

    def front(*backends: object) -> None:
        world.update(node("front", backends=list(backends)))  # type: ignore[arg-type]

    world.mesh(node("front", backends=["orders"]), node("red", listener(), host=host), service("orders", node="red"))
    with load(world) as running:
        steps: tuple[Callable[[], None], ...] = (
            lambda: red("PERMISSIVE"),
            lambda: front(backend("orders", policy)),
            lambda: red("STRICT"),
            lambda: red("PERMISSIVE"),
            lambda: front("orders"),
        )
        for step in steps:
            step()
            running.more()
    assert running.failed == {}


def test_a_certificate_is_issued_anew_without_a_failed_request(world: World) -> None:
    own = tls.certificate(world)
    trust = {"trust": {"acm": {"certificateAuthorityArns": [tls.ACM_AUTHORITY]}}}
    assert tls.status(world, tls.POLICIES[0], {"validation": trust}, {"mode": "STRICT", "certificate": own}) == 200
    with load(world) as running:
        for _ in range(TIMES):
            serial = tls.issue(world, tls.authority(world, tls.ACM_AUTHORITY), create=False)
            world.eventually(lambda serial=serial: tls.shown(world, "red") == serial, "the new certificate")  # type: ignore[misc]
            running.more()
    assert running.failed == {}


def test_what_cannot_be_without_failures_is_counted(
    world: World, record_property: Callable[[str, object], None]
) -> None:
    """Two proxies learn of one change, and neither before the other: these changes have a gentle way, and this is not
    it."""
    files = world.certificates.files("server")
    host = world.tls_host
    plain, strict = listener(), listener(8080, tls={"mode": "STRICT", "certificate": files})
    world.mesh(node("front", backends=["orders"]), node("red", plain, host=host), service("orders", node="red"))
    with load(world) as running:
        for each in (strict, plain, strict):
            world.update(node("red", each, host=host))
            running.more()
    counted = {"from plain text to STRICT and back at once": (sum(running.failed.values()), running.answers.total())}
    with load(world, "any", at_the_gateway(world)) as running:
        for turn in range(TIMES):
            world.update(gateway_route(f"{('blue', 'red')[turn % 2]}-service", name="r0"))
            running.more()
    counted["a gateway route is given another service at once"] = (
        sum(running.failed.values()),
        running.answers.total(),
    )
    assert running.failed.keys() <= {"failed: 404"}
    world.mesh(*shop(world, route("orders", "red")))
    with load(world) as running:
        world.delete(key("route", "all", "orders"))
        running.more()
    counted["the last route of a service in use is deleted"] = (
        sum(running.failed.values()),
        running.answers.total(),
    )
    assert running.failed.keys() == {"failed: 404"}
    record_property("failed of all", counted)
    print(counted)
