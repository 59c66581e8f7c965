"""A tiny HTTP upstream that answers every request with its own name.

Stage: the application behind the mesh. Turns an HTTP/1.1 request into `200`, the header `x-upstream: <name>` and the
name as body. It listens on both address families, since an unset ipPreference makes Envoy ask for IPv6 first. It must
never outlive the process that started it: as a process of its own (`python -m chaos.upstream`) it ends when its
standard input closes.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import subprocess
import sys
from types import TracebackType

from mesh.errors import Unavailable

NAME_HEADER = "x-upstream"
MAX_REQUEST_HEAD_BYTES = 64 * 1024
READY_TIMEOUT_S = 60.0
BACKLOG = 4096
"""Connections that wait while the upstream is stalled. A full queue drops them, and the proxy in front, whose time to
connect is a second, would answer 503 for what is the fault of neither.
"""


def dual_stack_socket(port: int) -> socket.socket:
    """A listening socket for IPv6 and IPv4 loopback clients alike; port 0 picks a free one. Without IPv6, IPv4
    alone.
    """
    if socket.has_dualstack_ipv6():
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
    return socket.create_server(("127.0.0.1", port), backlog=BACKLOG)


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
    body = name.encode()
    response = (
        f"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n{NAME_HEADER}: {name}\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = _content_length(head)
            if length:
                await reader.readexactly(length)
            writer.write(response)
            await writer.drain()
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ValueError):
        pass
    finally:
        writer.close()


async def serve(name: str, listener: socket.socket) -> None:
    """Answer until cancelled."""
    server = await asyncio.start_server(
        lambda reader, writer: _answer(reader, writer, name),
        sock=listener,
        limit=MAX_REQUEST_HEAD_BYTES,
        backlog=BACKLOG,  # asyncio listens anew, with 100 if it is not told
    )
    async with server:
        await server.serve_forever()


async def _until_stdin_closes() -> None:
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, sys.stdin.buffer.read)


async def _main(name: str, port: int) -> None:
    listener = dual_stack_socket(port)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    serving = asyncio.ensure_future(serve(name, listener))
    try:
        await _until_stdin_closes()
    finally:
        serving.cancel()


class UpstreamProcess:
    """An upstream in a process of its own. `port` is known once constructed; use as a context manager, or `stop()`."""

    def __init__(self, name: str, port: int = 0) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", "chaos.upstream", "--name", name, "--port", str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A Ctrl-C at the terminal must reach whoever orders the cleaning up, and not pull the upstream away first.
            start_new_session=True,
        )
        assert self._process.stdout is not None  # noqa: S101 - PIPE was asked for
        line = self._process.stdout.readline()
        if not line.strip():
            raise Unavailable(
                f"upstream {name} did not start (exit {self._process.wait(READY_TIMEOUT_S)}): port {port}"
            )
        self.port = int(line)

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        """End it; safe to call twice."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def __enter__(self) -> UpstreamProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    asyncio.run(_main(arguments.name, arguments.port))
