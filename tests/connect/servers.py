"""API servers that behave as a test says, on loopback, and the local endpoint in front of them."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from connect.app import ConnectApp
from connect.relay import Patience, Relay
from connect.requests import CallerKey
from connect.upstream import Upstream
from runtime.clock import SystemClock, SystemEntropy
from runtime.http_server import HttpServer
from tests.conditions import await_until

PROBE = "/?Action=GetCallerIdentity"


class Seen(NamedTuple):
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Stub:
    """`behave(seen)` gives (status, document), or one of the words "hang", "reset", "half". None: it listens not."""

    def __init__(self) -> None:
        self.behave: Callable[[Seen], tuple[int, object] | str] = lambda _: (200, {"ok": True})
        self.probes: tuple[int, object] | str = (200, {})
        self.seen: list[Seen] = []
        self.connections = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """As a process that is killed: nobody listens, and connections break."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        seen = Seen(method, target, headers, await reader.readexactly(int(headers.get("content-length", 0))))
        is_probe = target.startswith(PROBE)
        if not is_probe:
            self.seen.append(seen)
        outcome = self.probes if is_probe else self.behave(seen)
        if outcome == "hang":
            await reader.read()
            return False
        if outcome == "reset":
            writer.transport.abort()
            return False
        status, document = outcome if isinstance(outcome, tuple) else (200, {"half": True})
        body = json.dumps(document).encode()
        extra = f"x-amzn-requestid: {self.port}\r\ncontent-type: application/json\r\n"
        writer.write(f"HTTP/1.1 {status} x\r\n{extra}content-length: {len(body)}\r\n\r\n".encode())
        writer.write(body[:-3] if outcome == "half" else body)
        await writer.drain()
        return outcome != "half"


class Endpoint(NamedTuple):
    """The local endpoint; `said` is what its user was told."""

    port: int
    said: list[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


KEY = CallerKey("MLOGAAAABBBBCCCCDDDD", "our secret", "eu-west-1")


@asynccontextmanager
async def connected(
    urls: Sequence[str],
    *,
    key: CallerKey = KEY,
    tls: ssl.SSLContext | None = None,
    probing: bool = False,
    allow_remote: bool = False,
    **patience: float,
) -> AsyncIterator[Endpoint]:
    clock, said = SystemClock(), list[str]()
    relay = Relay([Upstream(url, clock, tls) for url in urls], key, clock, said.append, Patience(**patience))
    app = ConnectApp(relay, clock, SystemEntropy(), allow_remote=allow_remote)
    server = HttpServer(app, ("127.0.0.1", 0), clock=clock, entropy=SystemEntropy())
    probes = [asyncio.ensure_future(probe) for probe in relay.probes()] if probing else []
    if not probing:
        for probe in relay.probes():
            probe.close()
    serving = asyncio.ensure_future(server.serve())
    await await_until(lambda: server.started)
    try:
        yield Endpoint(server.port, said)
    finally:
        server.should_exit = True
        await serving
        for each in probes:
            each.cancel()
        await asyncio.gather(*probes, return_exceptions=True)
        relay.close()


@asynccontextmanager
async def stubs(count: int) -> AsyncIterator[list[Stub]]:
    made = [Stub() for _ in range(count)]
    try:
        for stub in made:
            await stub.start()
        yield made
    finally:
        for stub in made:
            await stub.stop()
