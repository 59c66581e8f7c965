"""Health and metrics of one role over plain HTTP/1.1: /livez, /readyz, /metrics, /status. Read-only, no secrets (I6).

/livez says that the event loop turns, and touches nothing else; /readyz says whether this process should get work, with
the reason for each check that fails; machines read the status code only. One request a connection, bounded in size,
time and number, so that a port scan costs nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from runtime.limits import HEALTH_CONNECTIONS_MAX, HEALTH_REQUEST_BYTES_MAX, HEALTH_TIMEOUT_S

Check = Callable[[], str | None]
"""None when all is well, else a short reason, for people."""


class _Answer(NamedTuple):
    status: HTTPStatus
    content_type: str
    body: bytes


class HealthServer:
    """Serves `checks` (by name), `status` (JSON-like) and the metrics of `registry`."""

    def __init__(
        self,
        checks: Mapping[str, Check],
        status: Callable[[], Mapping[str, Any]],
        registry: CollectorRegistry,
    ) -> None:
        self._checks, self._status, self._registry = checks, status, registry
        self._connections = 0
        self._server: asyncio.Server | None = None

    def failing(self) -> dict[str, str]:
        """The reason of each check that fails; empty when ready."""
        reasons = {name: check() for name, check in self._checks.items()}
        return {name: reason for name, reason in reasons.items() if reason is not None}

    async def start(self, host: str, port: int) -> int:
        """Listen; port 0 picks one. Returns the port."""
        self._server = await asyncio.start_server(self._connection, host, port, limit=HEALTH_REQUEST_BYTES_MAX)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections > HEALTH_CONNECTIONS_MAX:
                return
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                request = await reader.readuntil(b"\r\n\r\n")
                writer.write(_response(self._answer(request), request.startswith(b"HEAD ")))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # too slow, too large or gone: no answer is owed
        finally:
            self._connections -= 1
            writer.close()

    def _answer(self, request: bytes) -> _Answer:
        method, _, rest = request.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method not in (b"GET", b"HEAD"):
            return _text(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD")
        match path:
            case b"/livez":
                return _text(HTTPStatus.OK, "ok")
            case b"/readyz":
                failing = self.failing()
                # What fails comes first: that is the line that a terse client shows.
                names = sorted(self._checks, key=lambda name: (name not in failing, name))
                lines = [f"{name}: {failing.get(name, 'ok')}" for name in names]
                status = HTTPStatus.SERVICE_UNAVAILABLE if failing else HTTPStatus.OK
                return _text(status, "\n".join(lines) or "ok")
            case b"/metrics":
                return _Answer(HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self._registry))
            case b"/status":
                body = json.dumps(self._status(), sort_keys=True).encode()
                return _Answer(HTTPStatus.OK, "application/json", body)
        return _text(HTTPStatus.NOT_FOUND, "here are /livez, /readyz, /metrics and /status")


def _text(status: HTTPStatus, text: str) -> _Answer:
    return _Answer(status, "text/plain; charset=utf-8", f"{text}\n".encode())


def _response(answer: _Answer, head_only: bool) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\ncontent-type: {answer.content_type}\r\n"
        f"content-length: {len(answer.body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if head_only else answer.body)
