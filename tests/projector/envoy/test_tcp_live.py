"""TCP through real sidecars: connections redirected by iptables, servers that speak first, weights, shared ports."""

from __future__ import annotations

import collections
import http.client
import shutil
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conditions import eventually
from tests.netns import Namespace, available
from tests.projector.envoy.meshes import Log, by_node, by_router, canary, compiled, key, listener, node, node_id
from tests.projector.envoy.test_envoy_accepts import running, upstream
from tests.projector.envoy.test_tcp import tcp_route

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(
        not available() or shutil.which("iptables") is None, reason="needs root, `ip` and `iptables` for namespaces"
    ),
]

SERVICE = "10.99.0.1"
"""What the services' host names would resolve to: anything, since the sidecar looks at the port alone."""
PORT, SHARED = 5432, 8080


@contextmanager
def speaks_first(who: str, namespace: Namespace) -> Iterator[int]:
    """A server that says its name before it is asked, then echoes."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(f"{who}\n".encode())
            for line in self.rfile:
                self.wfile.write(line)

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port: int = server.server_address[1]
    namespace.carry(port)
    try:
        yield port
    finally:
        server.shutdown()
        server.server_close()


def greeting(port: int) -> str:
    """What a connection is told first; and that it echoes. '' when it is turned away."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as connection,
            connection.makefile("rwb") as file,
        ):
            who = file.readline().decode().strip()
            if who:
                file.write(b"ping\n")
                file.flush()
                assert file.readline() == b"ping\n"
            return who
    except ConnectionError:
        return ""


def taken(port: int) -> socket.socket | None:
    """A connection that the application has greeted, to be closed; None if it was turned away."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    if connection.recv(4) == b"app\n":
        return connection
    connection.close()
    return None


def shop(one: int, two: int, web: int, weights: dict[str, int]) -> Log:
    return canary(
        (key("virtualNode", "db-1"), node(listener(one, "tcp"), host="127.0.0.1")),
        (key("virtualNode", "db-2"), node(listener(two, "tcp"), host="127.0.0.1")),
        (key("virtualRouter", "db"), {"listeners": [listener(PORT, "tcp"), listener(SHARED, "tcp")]}),
        (key("route", "all", "db"), tcp_route(weights)),
        (key("virtualService", "db.shop.local"), by_router("db")),
        (key("virtualNode", "web"), node(listener(web), host="127.0.0.1")),
        (key("virtualRouter", "web"), {"listeners": [listener(SHARED)]}),
        (
            key("route", "all", "web"),
            {
                "httpRoute": {
                    "match": {"prefix": "/"},
                    "action": {"weightedTargets": [{"virtualNode": "web", "weight": 1}]},
                }
            },
        ),
        (key("virtualService", "web.shop.local"), by_router("web")),
        (key("virtualNode", "app"), node(backends=("db.shop.local", "web.shop.local"), host="app.internal")),
    )


def test_connections_go_to_targets_by_weight_and_to_servers_that_speak_first_at_once(tmp_path: Path) -> None:
    with (
        Namespace("meshlog-tcp") as namespace,
        speaks_first("one", namespace) as one,
        speaks_first("two", namespace) as two,
        upstream("web", namespace) as web,
    ):
        namespace.redirect(SERVICE, 15001)
        log = shop(one, two, web, {"db-1": 3, "db-2": 1})
        with running(namespace, compiled(log, node_id("app")), tmp_path) as (_, server):
            port = namespace.expose(PORT, SERVICE)
            began_s = time.monotonic()
            seen = collections.Counter(greeting(port) for _ in range(80))
            assert time.monotonic() - began_s < 40, "no connection waited for an inspector"
            # A quarter of 80 is 20, with a standard deviation of 3.9: this is four of them either way.
            assert 4 <= seen["two"] <= 36
            assert seen["one"] + seen["two"] == 80

            shared = namespace.expose(SHARED, SERVICE)
            asked = http.client.HTTPConnection("127.0.0.1", shared, timeout=20)
            asked.request("GET", "/", headers={"host": "web.shop.local"})
            assert b'"who": "web"' in asked.getresponse().read()
            asked.close()
            assert greeting(shared) in ("one", "two"), "what is no HTTP goes to the TCP service of the same port"

            log.update(key("route", "all", "db"), tcp_route({"db-2": 1}))
            server.serve(compiled(log, node_id("app")))
            eventually(server.settled, what="the Envoy's acknowledgement")
            assert {greeting(port) for _ in range(10)} == {"two"}


def test_a_tcp_listener_hands_the_application_its_connections_and_no_more_than_its_limit(tmp_path: Path) -> None:
    with Namespace("meshlog-tcpin") as namespace, speaks_first("app", namespace) as app:
        namespace.redirect(SERVICE, 15000)
        log = canary((key("virtualService", "db.shop.local"), by_node("db")))
        limits = {
            "timeout": {"tcp": {"idle": {"unit": "s", "value": 2}}},
            "connectionPool": {"tcp": {"maxConnections": 1}},
        }
        log.create(key("virtualNode", "db"), node(listener(app, "tcp", **limits), host="db.internal"))
        with running(namespace, compiled(log, node_id("db")), tmp_path):
            port = namespace.expose(app, SERVICE)
            first = eventually(lambda: taken(port), what="the application's greeting")
            assert first is not None
            with first:
                assert greeting(port) == "", "a second connection at once is over the limit"
                assert first.recv(1) == b"", "a silent connection ends after its idle timeout"
