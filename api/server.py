"""The HTTP server around the app: uvicorn with bounds on everything that a caller can make large or slow."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.calls import encode_error
from mesh.errors import BadRequest
from runtime.clock import SystemClock, SystemEntropy
from runtime.limits import (
    HTTP_BACKLOG,
    HTTP_CONNECTIONS_MAX,
    HTTP_HEAD_S,
    HTTP_HEADERS_BYTES,
    HTTP_KEEP_ALIVE_S,
    SHUTDOWN_GRACE_S,
)
from runtime.settings import TlsFiles


def server_config(app: ASGIApp, host: str, port: int, tls: TlsFiles | None = None) -> uvicorn.Config:
    """uvicorn's settings. Port 0 lets the kernel choose. Plain HTTP unless `tls` is given (1.2 or newer).

    The app itself writes `Date`, by the clock that judges signatures; there is no Server header.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=HeaderDeadline,  # h11 is the parser that takes a bound on headers
        ws="none",
        lifespan="on",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=HTTP_BACKLOG,
        limit_concurrency=HTTP_CONNECTIONS_MAX,
        timeout_keep_alive=HTTP_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(SHUTDOWN_GRACE_S),
        h11_max_incomplete_event_size=HTTP_HEADERS_BYTES,
        ssl_certfile=tls.certificate if tls else None,
        ssl_keyfile=tls.key if tls else None,
    )
    if tls:
        config.load()
        assert config.ssl is not None  # noqa: S101 - a certificate was given
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    return config


class HeaderDeadline(H11Protocol):
    """uvicorn's protocol, with a deadline on a request's head: half a header line must not hold a place for ever.

    Armed while nothing or a part of a head is there, from the connection's first moment on; uvicorn's own keep-alive
    timer ends with the first byte of the next request.
    """

    head_s = HTTP_HEAD_S
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP never reaches the app; its caller gets AWS's error shape all the same."""
        error = BadRequest(
            f"{msg} Check the request line, the headers and their size (at most {HTTP_HEADERS_BYTES} bytes)."
        )
        wire = encode_error(error, SystemEntropy().uuid(), SystemClock().now_us())
        headers = [*wire.headers, (b"connection", b"close")]
        for event in (
            h11.Response(status_code=wire.status, headers=headers, reason=b"Bad Request"),
            h11.Data(data=wire.body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _watch_head(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._disarm()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.head_s, self._too_slow)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()


class ApiServer(uvicorn.Server):
    """uvicorn without its own signal handling: the role's supervisor owns the signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: see the class."""
        yield

    @property
    def port(self) -> int:
        """The bound port, once `started`."""
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port
