"""A real S3-compatible server for tests (versitygw over a directory), and a proxy before it that breaks requests.

    with S3Server(tmp_path) as server:
        server.url("prefix")                       # s3://meshlog/prefix?endpoint=http://127.0.0.1:…
        async with FaultProxy(server.port, fate_of) as proxy:
            server.url("prefix", proxy.port)       # the same bucket, through the proxy

The binary is .cache/bin/s3, built once by `make setup-dev`; a missing one is a failure, never a skip. Its account is in
`CREDENTIALS`, which are put into the environment as an operator would.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from pathlib import Path
from types import TracebackType

from runtime.ports import free_port
from tests.conditions import eventually
from tests.etcd_cluster import REPOSITORY

BUCKET = "meshlog"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test-archiver", "AWS_SECRET_ACCESS_KEY": "a-planted-secret-of-the-archive"}


class S3Server:
    """One server process over `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def url(self, prefix: str, port: int | None = None) -> str:
        return f"s3://{BUCKET}/{prefix}?endpoint=http://127.0.0.1:{port or self.port}&region=us-east-1"

    def __enter__(self) -> S3Server:
        binary = REPOSITORY / ".cache" / "bin" / "s3"
        assert binary.is_file(), f"no S3 server at {binary}: build it with `make setup-dev`"
        (self._directory / BUCKET).mkdir(parents=True)
        self.process = subprocess.Popen(
            [binary, f"127.0.0.1:{self.port}", str(self._directory)],
            env=os.environ | CREDENTIALS,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        eventually(self._answers, what="the S3 server")
        return self

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


class Fate(Enum):
    """What becomes of one request."""

    WELL = "answered"
    REFUSED = "500, never seen by the server"
    LANDED = "done by the server, answered 500"
    SLOW = "answered after a while"
    SILENT = "done by the server, never answered"
    CUT_UPLOAD = "half of it reaches the server, then both connections end"
    CUT_ANSWER = "done by the server, half of the answer comes back"


_ERROR = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class FaultProxy:
    """Forwards HTTP requests, one a connection, each to its fate by number and method."""

    def __init__(self, port: int, fate_of: Callable[[int, str], Fate], slow_s: float = 0.05) -> None:
        self._upstream = port
        self._fate_of = fate_of
        self._slow_s = slow_s
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.seen: list[tuple[str, Fate]] = []
        self.port = 0

    async def __aenter__(self) -> FaultProxy:
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving = asyncio.current_task()
        assert serving is not None
        self._connections.add(serving)
        try:
            with suppress(asyncio.CancelledError):  # the proxy ends; asyncio reports a cancelled handler as an error
                await self._serve(reader, writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            self._connections.discard(serving)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            body = await reader.readexactly(int(length[1])) if length else b""
            method = head.split(b" ", 1)[0].decode()
            fate = self._fate_of(len(self.seen), method)
            self.seen.append((method, fate))
            await self._meet(fate, head[:-2] + b"Connection: close\r\n\r\n", body, writer)
            await writer.drain()

    async def _meet(self, fate: Fate, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        if fate is Fate.REFUSED:
            writer.write(_ERROR)
            return
        if fate is Fate.CUT_UPLOAD:
            await self._forward(head + body[: len(body) // 2], whole=False)
            return
        answer = await self._forward(head + body, whole=True)
        if fate is Fate.SILENT:
            await asyncio.sleep(1.0)
            return
        if fate is Fate.SLOW:
            await asyncio.sleep(self._slow_s)
        if fate is Fate.LANDED:
            answer = _ERROR
        writer.write(answer[: len(answer) // 2] if fate is Fate.CUT_ANSWER else answer)

    async def _forward(self, request: bytes, *, whole: bool) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        try:
            writer.write(request)
            await writer.drain()
            return await reader.read() if whole else b""
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
