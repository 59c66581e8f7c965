"""Outlier detection: a server whose answers are errors is left alone for a while."""

from __future__ import annotations

from typing import Any

from tests.traffic.fields import proves
from tests.traffic.namespaces import EXTERNAL_V4
from tests.traffic.proofs.pools import NO_RETRY
from tests.traffic.specs import listener, millis, node, route, router, seconds, service
from tests.traffic.world import Declared, World

PORTS = {"orders": 8080, "stock": 8081}


def detecting(world: World, name: str, servers: int, **detection: Any) -> list[Declared]:
    """The service `name`, of so many servers without sidecars."""
    world.dns.set(f"{name}-servers", *EXTERNAL_V4[:servers])
    given = {
        "maxServerErrors": 2,
        "interval": seconds(3600),
        "baseEjectionDuration": seconds(3600),
        "maxEjectionPercent": 100,
        **detection,
    }
    port = PORTS[name]
    listens = listener(port, outlierDetection=given)
    host = world.host(f"{name}-servers")
    return [
        node(f"{name}-node", listens, host=host, dns={"responseType": "ENDPOINTS"}),
        router(name, listener(port)),
        route(name, f"{name}-node", retryPolicy=NO_RETRY),
        service(name, router=name),
    ]


def ask(world: World, name: str, bad: str = "") -> tuple[int, str]:
    """A request that is a server error at one address, if any; its status, and where it went."""
    answer = world.ask(name, port=PORTS[name], do={"status": 500, "at": bad} if bad else None)
    return answer.status, str(answer.saw.get("at", ""))


def ejected(world: World, name: str, bad: str) -> bool:
    """Whether nothing goes to `bad` any more."""
    return all(ask(world, name)[1] != bad for _ in range(8))


def eject(world: World, name: str, bad: str) -> None:
    """Have errors at `bad` until it is left alone."""

    def tried() -> bool:
        for _ in range(8):
            ask(world, name, bad)
        return ejected(world, name, bad)

    world.eventually(tried, f"the ejection of {bad}")


def returned(world: World, name: str, bad: str) -> None:
    world.eventually(lambda: not ejected(world, name, bad), f"the return of {bad}")


BAD, WORSE = EXTERNAL_V4[1], EXTERNAL_V4[3]


@proves("virtualNode.listeners[].outlierDetection.maxServerErrors")
def so_many_errors_eject(world: World) -> None:
    world.mesh(node("front", backends=["orders"]), *detecting(world, "orders", 2, maxServerErrors=4))
    errors = [ask(world, "orders", BAD)[0] for _ in range(30)]
    assert errors.count(500) == 4


@proves(
    "virtualNode.listeners[].outlierDetection.interval.value",
    "virtualNode.listeners[].outlierDetection.baseEjectionDuration.value",
)
def an_ejected_server_comes_back(world: World) -> None:
    timing = {"interval": millis(100), "baseEjectionDuration": millis(300)}
    world.mesh(node("front", backends=["orders"]), *detecting(world, "orders", 2, **timing))
    eject(world, "orders", BAD)
    returned(world, "orders", BAD)


@proves("virtualNode.listeners[].outlierDetection.{member}.unit", member=("interval", "baseEjectionDuration"))
def ejections_are_counted_in_their_unit(world: World, member: str) -> None:
    """A server that is out for an hour is still out when another, ejected later for some seconds, is back."""
    brief = {"interval": millis(100), "baseEjectionDuration": millis(100)}
    world.mesh(
        node("front", backends=["orders", "stock"]),
        *detecting(world, "orders", 2, **{**brief, member: seconds(1500)}),
        *detecting(world, "stock", 2, **{**brief, member: millis(3500)}),
    )
    eject(world, "orders", BAD)
    eject(world, "stock", BAD)
    returned(world, "stock", BAD)
    assert ejected(world, "orders", BAD)


@proves("virtualNode.listeners[].outlierDetection.maxEjectionPercent")
def so_many_are_ejected_at_most(world: World) -> None:
    world.mesh(node("front", backends=["orders"]), *detecting(world, "orders", 4))
    eject(world, "orders", BAD)
    eject(world, "orders", WORSE)
    assert {ask(world, "orders")[1] for _ in range(16)} == {EXTERNAL_V4[0], EXTERNAL_V4[2]}
