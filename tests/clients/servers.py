"""API servers that run beside a test, in a thread with an event loop of its own: a client blocks, a server must not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mesh.errors import MeshlogError
from runtime.http_answers import encode_error
from runtime.settings import TlsFiles
from tests.api.conftest import Cloud, running
from tests.conditions import PATIENCE_S

START_S = PATIENCE_S


@contextmanager
def api_server(directory: Path, tls: TlsFiles | None = None, **options: Any) -> Iterator[Cloud]:
    """A whole API server over a store in memory. `options`: as `running` has them."""
    ready: Future[tuple[Cloud, Callable[[], object]]] = Future()

    async def serve() -> None:
        stop = asyncio.Event()
        async with running(directory, tls=tls, **options) as cloud:
            ready.set_result((cloud, partial(asyncio.get_running_loop().call_soon_threadsafe, stop.set)))
            await stop.wait()

    with ThreadPoolExecutor(1) as thread:
        serving = thread.submit(asyncio.run, serve())
        either: list[Future[Any]] = [ready, serving]
        wait(either, START_S, FIRST_COMPLETED)
        if serving.done():
            serving.result()
        cloud, stop = ready.result(0)
        try:
            yield cloud
        finally:
            stop()
            serving.result(START_S)


class Refusing(ThreadingHTTPServer):
    """Answers every request with `error`, as the API's edge writes it."""

    error: MeshlogError
    daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Refusal(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Refusing

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        wire = encode_error(self.server.error, "11112222-3333-4444-5555-666677778888", 1_764_000_000_000_000)
        head = [f"HTTP/1.1 {wire.status} Refused".encode(), *(name + b": " + value for name, value in wire.headers)]
        self.wfile.write(b"\r\n".join([*head, b"", wire.body]))

    do_GET = do_DELETE = do_PUT  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def refusing_server() -> Iterator[Refusing]:
    """A server whose answers a test chooses."""
    with Refusing(("127.0.0.1", 0), _Refusal) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(START_S)
