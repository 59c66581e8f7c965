"""How long things may take: a value that is too short for a slow application, and a unit without which it would be."""

from __future__ import annotations

from typing import Any

from tests.traffic.fields import proves
from tests.traffic.proofs.routes import ALL, shop
from tests.traffic.specs import listener, millis, node, route, seconds
from tests.traffic.world import World

SLOW = {"delay_s": 5.0}
"""Shorter than App Mesh's default of 15 s, much longer than the short timeouts here."""
BRISK = {"delay_s": 0.3}
SHORT, LONG = millis(300), seconds(20)
"""LONG without its unit would be 20 ms."""


def in_time(world: World, kind: str, do: dict[str, float]) -> bool:
    """Whether a request is answered, or ended by a proxy."""
    if kind == "grpc":
        return world.call("orders", do=do).grpc_status == 0
    status = (world.ask2 if kind == "http2" else world.ask)("orders", do=do).status
    assert status in (200, 504)
    return status == 200


def on_the_route(world: World, kind: str, member: str, value: dict[str, Any]) -> None:
    world.mesh(*shop(world, route("orders", "red", kind=kind, timeout={member: value}), kind=kind))


def on_the_listener(world: World, kind: str, member: str, value: dict[str, Any]) -> None:
    timeout = {kind: {member: value}}
    world.mesh(
        *shop(world, route("orders", "red", kind=kind), kind=kind),
        node("red", listener(8080, kind, timeout=timeout), host=world.host("red")),
    )


@proves("route.{kind}Route.timeout.{member}.value", kind=ALL, member=("perRequest", "idle"))
def a_route_ends_what_takes_too_long(world: World, kind: str, member: str) -> None:
    on_the_route(world, kind, member, SHORT)
    assert not in_time(world, kind, SLOW)


@proves("route.{kind}Route.timeout.{member}.unit", kind=ALL, member=("perRequest", "idle"))
def a_route_counts_in_its_unit(world: World, kind: str, member: str) -> None:
    on_the_route(world, kind, member, LONG)
    assert in_time(world, kind, BRISK)


@proves("virtualNode.listeners[].timeout.{kind}.{member}.value", kind=ALL, member=("perRequest", "idle"))
def a_listener_ends_what_takes_too_long(world: World, kind: str, member: str) -> None:
    on_the_listener(world, kind, member, SHORT)
    assert not in_time(world, kind, SLOW)


@proves("virtualNode.listeners[].timeout.{kind}.{member}.unit", kind=ALL, member=("perRequest", "idle"))
def a_listener_counts_in_its_unit(world: World, kind: str, member: str) -> None:
    on_the_listener(world, kind, member, LONG)
    assert in_time(world, kind, BRISK)


def idle(world: World, side: str, value: dict[str, Any]) -> None:
    """A mesh of TCP, with an idle timeout on the route or on the target's listener."""
    mine = {"timeout": {"tcp": {"idle": value}}} if side == "listener" else {}
    members: dict[str, Any] = {"timeout": {"idle": value}} if side == "route" else {}
    world.mesh(
        *shop(world, route("orders", "red", kind="tcp", **members), kind="tcp"),
        node("red", listener(8080, "tcp", **mine), host=world.host("red")),
    )


def silent_tcp_ends(world: World, side: str) -> None:
    idle(world, side, SHORT)
    with world.connect("front") as connection:
        connection.sendall(b"x\n")
        assert connection.recv(100) == b"red: x\n"
        assert connection.recv(100) == b"", "nothing said for long: the connection ends"


def silent_tcp_stays(world: World, side: str) -> None:
    idle(world, side, LONG)
    with world.connect("front") as connection:
        connection.sendall(b"wait 0.3\n")
        assert connection.recv(100) == b"red: wait 0.3\n"


@proves("route.tcpRoute.timeout.idle.value")
def a_tcp_route_ends_what_is_silent(world: World) -> None:
    silent_tcp_ends(world, "route")


@proves("route.tcpRoute.timeout.idle.unit")
def a_tcp_route_counts_in_its_unit(world: World) -> None:
    silent_tcp_stays(world, "route")


@proves("virtualNode.listeners[].timeout.tcp.idle.value")
def a_tcp_listener_ends_what_is_silent(world: World) -> None:
    silent_tcp_ends(world, "listener")


@proves("virtualNode.listeners[].timeout.tcp.idle.unit")
def a_tcp_listener_counts_in_its_unit(world: World) -> None:
    silent_tcp_stays(world, "listener")
