"""Applications of pods: one server for every protocol, which tells what it saw and does what a request asks for.

The first bytes of a connection say which protocol it is: HTTP/1.1 (with WebSocket upgrades), HTTP/2 and gRPC without
TLS, or lines of text, which are echoed. An HTTP answer is `Seen` as JSON. The header `x-do` (JSON, see `Wish`) makes
the application slow, wrong or broken for one request or the first few of a kind.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import itertools
import json
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.traffic.http2 import Request, serve_http2
from tests.traffic.loop import Loop
from tests.traffic.namespaces import NetNamespace

WISH = "x-do"
HEALTH_PATH = "/ping"
GRPC_HEALTH = "/grpc.health.v1.Health/Check"
GREETING = b"welcome to "
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH")
_NAMES = {200: "OK"}


@dataclass
class Wish:
    """What a request's `x-do` says. `times`: only the first so many with the same `key` are treated so."""

    key: str = ""
    times: int = 10**9
    at: str = ""
    """Only where the connection came to this address."""
    status: int = 200
    grpc_status: int = 0
    delay_s: float = 0.0
    hold: str = ""
    """Answer when the test releases this name."""
    reset: str = ""
    """`refuse` (HTTP/2: a refused stream) or `close` (the connection)."""


@dataclass
class Seen:
    """What an application saw of a request. `at` is the address that the connection came to."""

    app: str
    port: int
    at: str
    peer: str
    connection: int
    version: str
    method: str
    path: str
    authority: str
    headers: dict[str, str] = field(default_factory=dict)
    server_name: str | None = None


class App:
    """The application of one pod (or of the outside world), on as many ports as it is told to open."""

    def __init__(self, name: str, namespace: NetNamespace, loop: Loop) -> None:
        self.name = name
        self.unwell: set[str] = set()
        """Addresses at which its health checks fail: HEALTH_PATH of HTTP, and gRPC's own."""
        self.slow: dict[str, float] = {}
        """For how many seconds health checks wait at an address."""
        self.asked: Counter[str] = Counter()
        """Requests by the key of their wish, by path, and by version and path."""
        self.answered: Counter[str] = Counter()
        """Those that were not held or late any more, by path."""
        self.connections: Counter[int] = Counter()
        """Connections by port."""
        self._namespace, self._loop = namespace, loop
        self._servers: dict[tuple[int, str], asyncio.Server] = {}
        self._connected: set[asyncio.StreamWriter] = set()
        self._held: dict[str, asyncio.Event] = {}
        self._serial = itertools.count(1)

    def open(
        self, *ports: int, greets: bool = False, tls: Any = None, hosts: Sequence[str] = ("0.0.0.0", "::")
    ) -> None:
        """Listen on these ports of every address, or of these. `greets`: a TCP server that speaks first."""
        for port in ports:
            for host in hosts:
                listener = self._namespace.listen(host, port)
                self._servers[port, host] = self._loop.run(self._serve(listener, greets, tls))

    def shut(self, port: int, host: str | None = None) -> None:
        """Stop listening there, on all addresses or one, and cut what is connected."""

        def close() -> None:
            for place in [each for each in self._servers if each[0] == port and host in (None, each[1])]:
                self._servers.pop(place).close()
            for writer in list(self._connected):
                at, of = writer.get_extra_info("sockname")[:2]
                if of == port and host in (None, at):
                    writer.transport.abort()

        self._loop.call(close)

    def release(self, name: str) -> None:
        """Let go what is held, and what will be."""
        self._loop.call(lambda: self._hold(name).set())

    def close(self) -> None:
        for port, host in list(self._servers):
            self.shut(port, host)

    def _hold(self, name: str) -> asyncio.Event:
        return self._held.setdefault(name, asyncio.Event())

    async def _serve(self, listener: socket.socket, greets: bool, tls: Any) -> asyncio.Server:
        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._connected.add(writer)
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
                await self._take(reader, writer, greets)
            self._connected.discard(writer)
            writer.close()

        return await asyncio.start_server(take, sock=listener, ssl=tls)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, greets: bool) -> None:
        local, peer = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
        tls = writer.get_extra_info("ssl_object")
        seen = Seen(
            app=self.name,
            port=local[1],
            at=local[0],
            peer=peer[0],
            connection=next(self._serial),
            version="",
            method="",
            path="",
            authority="",
            server_name=getattr(tls, "asked_for", None),
        )
        self.connections[seen.port] += 1
        if greets:
            writer.write(GREETING + self.name.encode() + b"\n")
            await _echo(reader, writer, self.name)
            return
        first = await reader.readline()
        if first == _HTTP2_PREFACE[: len(first)] and first:
            rest = await reader.readexactly(len(_HTTP2_PREFACE) - len(first))
            await serve_http2(reader, writer, first + rest, lambda request: self._http2(seen, request))
        elif first.split(b" ")[0] in _METHODS and first.endswith(b"HTTP/1.1\r\n"):
            await self._http1(reader, writer, first, seen)
        elif first:
            await _echo(reader, writer, self.name, first)

    async def _http2(self, seen: Seen, request: Request) -> None:
        headers = dict(request.headers)
        saw = Seen(**{**asdict(seen), "version": "HTTP/2", "method": headers[":method"], "path": headers[":path"]})
        saw.authority = headers.get(":authority", "")
        saw.headers = {name: value for name, value in headers.items() if not name.startswith(":")}
        grpc = saw.headers.get("content-type", "").startswith("application/grpc")
        wish = await self._heed(saw)
        if wish.reset == "refuse":
            request.refuse()
        elif wish.reset == "close":
            request.abort()
        elif grpc and saw.path == GRPC_HEALTH:
            await request.read()
            request.grpc([b"\x08\x02" if saw.at in self.unwell else b"\x08\x01"])
        elif grpc and wish.status == 200:
            await self._grpc(request, saw, wish)
        else:
            await request.read()
            body = _told(saw)
            request.answer(self._status(saw, wish), [("content-type", "application/json"), ("x-app", self.name)], body)

    async def _grpc(self, request: Request, saw: Seen, wish: Wish) -> None:
        """Unary calls are told what was seen; streams (`…Stream`) get each message back as it comes."""
        if wish.grpc_status:
            await request.read()
            request.grpc([], wish.grpc_status)
        elif saw.path.endswith("Stream"):
            await request.echo()
        else:
            await request.read()
            request.grpc([_told(saw)])

    async def _http1(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes, seen: Seen
    ) -> None:
        while first:
            method, path, _ = first.decode().split(" ", 2)
            head = await reader.readuntil(b"\r\n\r\n")
            lines = [line.decode("latin-1").partition(":") for line in head.split(b"\r\n") if line]
            headers = {name.strip().lower(): value.strip() for name, _, value in lines}
            saw = Seen(**{**asdict(seen), "version": "HTTP/1.1", "method": method, "path": path, "headers": headers})
            saw.authority = headers.get("host", "")
            await reader.readexactly(int(headers.get("content-length", "0")))
            wish = await self._heed(saw)
            if wish.reset:
                return
            if headers.get("upgrade", "").lower() == "websocket":
                writer.write(_switched(headers["sec-websocket-key"]))
                await _echo_bytes(reader, writer)
                return
            status, body = self._status(saw, wish), _told(saw)
            writer.write(
                f"HTTP/1.1 {status} {_NAMES.get(status, 'Status')}\r\ncontent-type: application/json\r\n"
                f"x-app: {self.name}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
                + (b"" if method == "HEAD" else body)
            )
            await writer.drain()
            first = await reader.readline()

    def _status(self, saw: Seen, wish: Wish) -> int:
        unwell = saw.path.startswith(HEALTH_PATH) and saw.at in self.unwell
        return 503 if unwell else wish.status

    async def _heed(self, saw: Seen) -> Wish:
        """The wish of a request, as far as it still counts."""
        wish = Wish(**json.loads(saw.headers.get(WISH, "{}")))
        self.asked[saw.path] += 1
        self.asked[f"{saw.version} {saw.path}"] += 1
        if saw.path.startswith(HEALTH_PATH) and saw.at in self.slow:
            await asyncio.sleep(self.slow[saw.at])
        self.answered[saw.path] += 1
        if wish.at not in ("", saw.at):
            return Wish()
        if wish.key:
            self.asked[wish.key] += 1
            if self.asked[wish.key] > wish.times:
                return Wish()
        if wish.hold:
            await self._hold(wish.hold).wait()
        if wish.delay_s:
            await asyncio.sleep(wish.delay_s)
        return wish


def _told(saw: Seen) -> bytes:
    return json.dumps(asdict(saw)).encode()


def _switched(key: str) -> bytes:
    accepted = base64.b64encode(hashlib.sha1(key.encode() + _WEBSOCKET_GUID).digest())  # noqa: S324 - RFC 6455
    head = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    return head + b"sec-websocket-accept: " + accepted + b"\r\n\r\n"


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str, first: bytes = b"") -> None:
    """Lines come back with the application's name before them, `wait <seconds>` after so long."""
    line = first or await reader.readline()
    while line:
        if line.startswith(b"wait "):
            await asyncio.sleep(float(line.split()[1]))
        writer.write(name.encode() + b": " + line)
        await writer.drain()
        line = await reader.readline()


async def _echo_bytes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
