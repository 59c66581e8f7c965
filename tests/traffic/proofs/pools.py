"""Connection pools: how much of one kind an application (or what is behind a gateway) has at once, and no more."""

from __future__ import annotations

import contextlib
import json
import select
import socket
from typing import Any

from tests.traffic.fields import proves
from tests.traffic.http2 import Client
from tests.traffic.proofs.routes import shop, two_nodes
from tests.traffic.specs import gateway, gateway_route, listener, node, route, seconds, service
from tests.traffic.world import World

NO_RETRY = {"maxRetries": 0, "perRetryTimeout": seconds(15), "httpRetryEvents": ["client-error"]}
AT_ONCE = 4
IN_PLACE_S = 0.2
"""For a request to be refused, or to be seen to wait."""


def pooled(world: World, side: str, kind: str, limits: dict[str, int]) -> dict[str, Any]:
    """A pool on red's listener, or on the gateway's; gives where a client asks."""
    pool = {"connectionPool": {kind: limits}}
    mine, its = (pool, {}) if side == "virtualNode" else ({}, pool)
    limited = node("red", listener(8080, kind, **mine), host=world.host("red"))
    kept: dict[str, Any] = {} if kind == "tcp" else {"retryPolicy": NO_RETRY}
    if side == "virtualNode":
        world.mesh(*shop(world, route("orders", "red", kind=kind, **kept), kind=kind), limited)
        return {}
    world.mesh(
        *two_nodes(world, kind),
        service("orders", node="red"),
        gateway(listener(8088, kind, **its)),
        gateway_route("orders", kind=kind),
    )
    return {"pod": "outside", "port": 8088, "to": world.pods["edge"].v4}


def statuses(world: World, asked_by: list[socket.socket], held: str, refused: int) -> list[int]:
    """What HTTP/1.1 requests get, of which the held ones are let go as soon as `refused` others were answered."""
    wait = select.poll()
    for each in asked_by:
        wait.register(each, select.POLLIN)

    def answered() -> bool:
        return len(wait.poll(0)) >= refused

    try:
        world.eventually(answered, f"{refused} answers while the others are held")
    finally:
        world.apps["red"].release(held)
    return sorted(int(each.recv(65536).split(b" ")[1]) for each in asked_by)


def too_many(world: World, side: str, limits: dict[str, int], refused: int) -> None:
    where = pooled(world, side, "http", limits)
    held = world.fresh("held")
    wish = json.dumps({"hold": held, "key": held})
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(AT_ONCE):
            port, to = where.get("port", 8080), where.get("to", "10.201.255.1")
            connection = stack.enter_context(world.connect(where.get("pod", "front"), port, to))
            connection.sendall(f"GET / HTTP/1.1\r\nhost: orders\r\nx-do: {wish}\r\n\r\n".encode())
            connections.append(connection)
            # A connection that is still being made counts as a waiting request: so let each come to its place.
            world.eventually(lambda: world.apps["red"].asked[held], "the first request's arrival")
            select.select([connection], [], [], IN_PLACE_S)
        assert statuses(world, connections, held, refused) == [200] * (AT_ONCE - refused) + [503] * refused


@proves(
    "{side}.listeners[].connectionPool.http.maxConnections",
    "{side}.listeners[].connectionPool.http.maxPendingRequests",
    side=("virtualNode", "virtualGateway"),
)
def no_more_connections_and_waiting_requests(world: World, side: str) -> None:
    too_many(world, side, {"maxConnections": 1, "maxPendingRequests": 1}, refused=2)


@proves(
    "{side}.listeners[].connectionPool.{kind}.maxRequests",
    side=("virtualNode", "virtualGateway"),
    kind=("http2", "grpc"),
)
def no_more_requests(world: World, side: str, kind: str) -> None:
    where = pooled(world, side, kind, {"maxRequests": 2})
    held = world.fresh("held")
    wish = [("x-do", json.dumps({"hold": held}))]
    with world.http2(**where) as client:
        streams = [
            client.start_call("orders", "/a.B/C", wish) if kind == "grpc" else client.start("orders", "/", headers=wish)
            for _ in range(AT_ONCE)
        ]
        try:
            client.read_any(lambda: sum(client.reply(each).ended for each in streams) == 2)
        finally:
            world.apps["red"].release(held)
        assert sorted(_passed(client, each, kind) for each in streams) == [False, False, True, True]


def _passed(client: Client, stream: int, kind: str) -> bool:
    reply = client.read(stream)
    return reply.grpc_status == 0 if kind == "grpc" else reply.status == 200


@proves("virtualNode.listeners[].connectionPool.tcp.maxConnections")
def no_more_tcp_connections(world: World) -> None:
    pooled(world, "virtualNode", "tcp", {"maxConnections": 1})
    with world.connect("front") as first:
        first.sendall(b"x\n")
        assert first.recv(100) == b"red: x\n"
        with world.connect("front") as second:
            second.sendall(b"x\n")
            assert _received(second) == b""
        first.sendall(b"y\n")
        assert first.recv(100) == b"red: y\n"


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(100)
    except ConnectionError:
        return b""
