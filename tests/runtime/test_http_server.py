"""What strangers may do to the HTTP server with raw sockets: too large, too slow, too many, half read. And its end."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from cluster import pki
from mesh.errors import BodyTooLarge, RequestTimeout, Unavailable
from runtime.clock import SystemClock, SystemEntropy
from runtime.http_body import BodyMemory, read_body
from runtime.http_connection import HttpBounds, source_of
from runtime.http_server import HttpServer
from runtime.limits import BODY_SIZE_BYTES, HTTP_BODY_PIECES_MAX, HTTP_HEADERS_BYTES, HTTP_HEADERS_MAX
from runtime.settings import TlsFiles
from runtime.tls import ServerCertificate
from tests.conditions import PATIENCE_S, await_until

REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
HELD = b"GET /held HTTP/1.1\r\nhost: x\r\n\r\n"
LARGE = b"x" * (8 * 1024 * 1024)


class App:
    """Reads the body, answers with its length; `/large` with LARGE; `/held` once `go` is set."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.running = self.served = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": f"{message['type']}.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.running += 1
        size = 0
        while (message := await receive())["type"] == "http.request":
            size += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        if scope["path"] == "/held":
            await self.go.wait()
        body = LARGE if scope["path"] == "/large" else str(size).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        self.running, self.served = self.running - 1, self.served + 1


@asynccontextmanager
async def serving(app: App, tls: ssl.SSLContext | None = None, **bounds: Any) -> AsyncIterator[HttpServer]:
    server = HttpServer(
        app, ("127.0.0.1", 0), clock=SystemClock(), entropy=SystemEntropy(), tls=tls, bounds=HttpBounds(**bounds)
    )
    task = asyncio.ensure_future(server.serve())
    await await_until(lambda: server.started)
    try:
        yield server
    finally:
        app.go.set()
        server.should_exit = True
        await task


async def dial(server: HttpServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    anybody = None
    if server.tls is not None:
        anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    return await asyncio.open_connection("127.0.0.1", server.port, ssl=anybody)


async def reply(server: HttpServer, sent: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send, read to the end of the connection, close."""
    reader, writer = await dial(server)
    writer.write(sent)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return parse(answer)


async def answered(server: HttpServer) -> tuple[int, dict[str, str], bytes]:
    return await reply(server, REQUEST.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))


def parse(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), dict(line.lower().split(": ", 1) for line in lines), body


def assert_refused(answer: tuple[int, dict[str, str], bytes], status: int, code: str) -> None:
    """In AWS's shape, as the last answer of the connection."""
    assert answer[0] == status, answer
    assert answer[1]["connection"] == "close"
    assert json.loads(answer[2])["__type"] == code
    assert answer[1]["x-amzn-errortype"] == code.lower()


BOMBS = {
    "one long header": b"GET / HTTP/1.1\r\nhost: x\r\na: " + b"x" * HTTP_HEADERS_BYTES + b"\r\n\r\n",
    "an endless request line": b"GET /" + b"x" * (2 * HTTP_HEADERS_BYTES),
    "many headers": b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a:\r\n" * HTTP_HEADERS_MAX + b"\r\n",
    "a length and chunks": b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n",
    "two lengths": b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\n",
    "a folded header": b"GET / HTTP/1.1\r\nhost: x\r\n a: b\r\n\x00\r\n\r\n",
    "HTTP/2 without asking": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a chunk of no size": b"PUT / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    "a body in crumbs": b"PUT / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    + b"1\r\na\r\n" * (HTTP_BODY_PIECES_MAX + 1),
}  # fmt: skip


@pytest.mark.parametrize("sent", BOMBS.values(), ids=BOMBS)
async def test_bombs_are_answered_and_their_connection_closed(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(App()) as server:
        with caplog.at_level(logging.WARNING):
            assert_refused(await reply(server, sent), 400, "BadRequestException")
        assert caplog.records == [], "strangers do not write our log"
        assert (await answered(server))[0] == 200


async def test_as_many_headers_and_pieces_as_allowed_pass() -> None:
    headers = b"a:\r\n" * (HTTP_HEADERS_MAX - 3)
    sent = b"PUT / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n" + headers + b"\r\n"
    async with serving(App()) as server:
        status, _, body = await reply(server, sent + b"1\r\na\r\n" * HTTP_BODY_PIECES_MAX + b"0\r\n\r\n")
    assert (status, body) == (200, str(HTTP_BODY_PIECES_MAX).encode())


async def test_more_connections_than_there_are_places_are_told_so() -> None:
    app = App()
    async with serving(app, connections=2) as server:
        held = [await dial(server) for _ in range(2)]
        for _, writer in held:
            writer.write(HELD)
        await await_until(lambda: app.running == 2)
        assert_refused(await reply(server, REQUEST), 503, "ServiceUnavailableException")
        app.go.set()
        for reader, writer in held:
            assert (await reader.readline()).split()[1] == b"200"
            writer.close()
        await await_until(lambda: not server.server_state.connections)
        assert (await answered(server))[0] == 200


async def test_one_address_does_not_get_all_places() -> None:
    app = App()
    async with serving(app, connections_per_source=1) as server:
        _, writer = await dial(server)
        writer.write(HELD)
        await await_until(lambda: app.running == 1)
        refused = await reply(server, REQUEST)
        assert_refused(refused, 429, "TooManyRequestsException")
        assert refused[1]["retry-after"] == "1"
        elsewhere = await asyncio.open_connection("127.0.0.1", server.port, local_addr=("127.0.0.2", 0))
        elsewhere[1].write(REQUEST)
        assert (await elsewhere[0].readline()).split()[1] == b"200"
        for each in (writer, elsewhere[1]):
            each.close()


@pytest.mark.parametrize("bound", ["connections", "connections_per_source"])
async def test_idle_connections_make_room_the_longest_idle_first(bound: str) -> None:
    """So whoever only holds connections open keeps nobody out."""
    app = App()
    bounds: Any = {bound: 3}
    async with serving(app, **bounds) as server:
        busy, silent, used = [await dial(server) for _ in range(3)]
        busy[1].write(HELD)
        await await_until(lambda: app.running == 1)
        used[1].write(REQUEST)
        await used[0].readuntil(b"\r\n\r\n0")
        assert (await answered(server))[0] == 200
        assert await silent[0].read() == b""
        used[1].write(REQUEST)
        assert (await used[0].readline()).split()[1] == b"200", "used later, and so still there"
        app.go.set()
        assert (await busy[0].readline()).split()[1] == b"200"
        for _, writer in (busy, silent, used):
            writer.close()


async def test_whoever_does_not_read_is_cut_off() -> None:
    app = App()
    async with serving(app, write_s=0.3) as server:
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", server.port))
            deaf.sendall(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
            await await_until(lambda: app.served == 1)
            await await_until(lambda: not server.server_state.connections, what="it was cut off")


async def test_a_slow_reader_that_reads_on_gets_everything() -> None:
    async with serving(App(), write_s=2.0) as server:
        reader, writer = await dial(server)
        writer.write(b"GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        size = 0
        while piece := await reader.read(256 * 1024):
            size += len(piece)
            await asyncio.sleep(0.08)  # 32 of these are longer than the time that it may read nothing in
        assert size > len(LARGE)
        writer.close()


async def test_at_its_end_a_server_says_so_and_answers_what_is_in_flight() -> None:
    app = App()
    async with serving(app) as server:
        idle, busy = [await dial(server) for _ in range(2)]
        busy[1].write(HELD)
        await await_until(lambda: app.running == 1)
        server.announce_end()
        idle[1].write(REQUEST)
        status, headers, _ = parse(await idle[0].read())
        assert (status, headers["connection"]) == (200, "close")
        late = await dial(server)
        late[1].write(REQUEST)
        assert parse(await late[0].read())[1]["connection"] == "close", "new callers are still heard"

        waiting, port = await dial(server), server.port
        server.should_exit = True
        assert await asyncio.wait_for(waiting[0].read(), PATIENCE_S) == b"", "idle connections are closed"
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        app.go.set()
        assert parse(await busy[0].read())[0] == 200
        for _, writer in (idle, busy, late, waiting):
            writer.close()


async def test_over_tls_connections_end_as_they_do_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = TlsFiles(certificate=tmp_path / "a.crt", key=tmp_path / "a.key", authority=tmp_path / "ca.crt")
    now_us, entropy = SystemClock().now_us(), SystemEntropy()
    authority = pki.create_authority("test", now_us, entropy)
    pki.save_issued(pki.issue(authority, pki.http_leaf([]), now_us, entropy), authority, files)
    app = App()
    async with serving(app, ServerCertificate(files).context, connections=2, write_s=0.3) as server:
        for bomb in BOMBS.values():
            assert_refused(await reply(server, bomb), 400, "BadRequestException")
        await await_until(lambda: app.running == 0)
        before, deaf = app.served, await dial(server)
        deaf[1].write(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        await await_until(lambda: app.served == before + 1)
        busy, idle = [await dial(server) for _ in range(2)]  # the deaf one is done, and makes room
        busy[1].write(HELD)
        await await_until(lambda: app.running == 1)
        assert (await answered(server))[0] == 200, "the idle one makes room"
        assert await idle[0].read() == b""
        waiting = await dial(server)
        server.should_exit = True
        assert await waiting[0].read() == b""
        app.go.set()
        assert parse(await busy[0].read())[0] == 200
        for _, writer in (deaf, busy, idle, waiting):
            writer.transport.abort()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def told(*chunks: bytes, more: bool = False) -> Receive:
    """An ASGI `receive` that gives these, and then the end, or nothing ever again."""
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    left = iter([*messages, *([] if more else [{"type": "http.request", "body": b"", "more_body": False}])])

    async def receive() -> Any:
        message = next(left, None)
        if message is None:
            await asyncio.Event().wait()
        return message

    return receive


async def test_bodies_have_a_time_a_size_and_a_share_of_the_memory() -> None:
    memory = BodyMemory(total=2 * BODY_SIZE_BYTES, of_one_source=100)
    with pytest.raises(RequestTimeout, match=r"did not arrive within 0\.05 s"):
        await read_body(told(b"a", more=True), memory, "a", timeout_s=0.05)
    assert await read_body(told(b"x" * 60), memory, "a") == b"x" * 60
    with pytest.raises(Unavailable, match="as many request bodies as it can"):
        await read_body(told(b"y" * 60), memory, "a")
    assert await read_body(told(b"y" * 60), memory, "b") == b"y" * 60, "another address has its own share"
    memory.give_back("a", 60)
    assert await read_body(told(b"y" * 100), memory, "a") == b"y" * 100, "what failed before holds nothing"
    with pytest.raises(BodyTooLarge):
        await read_body(told(b"x" * BODY_SIZE_BYTES, b"x"), BodyMemory(), "a")


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("", ""),
    ],
)
def test_an_ipv6_host_is_one_source_whichever_of_its_addresses_it_uses(address: str, source: str) -> None:
    assert source_of(address) == source
