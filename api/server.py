"""The HTTP server around the app: uvicorn with bounds on everything that a caller can make large or slow."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.calls import encode_error
from mesh.errors import BadRequest
from runtime.clock import Clock, Entropy
from runtime.limits import (
    HTTP_BACKLOG,
    HTTP_CONNECTIONS_MAX,
    HTTP_HEAD_S,
    HTTP_HEADERS_BYTES,
    HTTP_KEEP_ALIVE_S,
    SHUTDOWN_GRACE_S,
)
from runtime.settings import TlsFiles


def server_config(
    app: ASGIApp,
    address: tuple[str, int],
    *,
    clock: Clock,
    entropy: Entropy,
    tls: TlsFiles | None = None,
    head_s: float = HTTP_HEAD_S,
) -> uvicorn.Config:
    """uvicorn's settings. Port 0 lets the kernel choose. Plain HTTP unless `tls` is given (1.2 or newer).

    The app itself writes `Date`, by the clock that judges signatures; there is no Server header.
    """
    # h11 is the parser that takes a bound on headers.
    protocol = partial(BoundedHttp, clock=clock, entropy=entropy, head_s=head_s)
    host, port = address
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=cast(type[asyncio.Protocol], protocol),
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


class WholeAnswers(asyncio.Transport):
    """A transport that hands the kernel all that was written in one turn of the loop as one piece.

    uvicorn writes an answer's head and its body apart. A server killed between the two would leave a head that says
    200 and no body, and botocore takes such an answer for a resource without fields.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(bytes(data))

    def _flush(self) -> None:
        parts, self._parts = self._parts, []
        if parts:
            self._transport.write(b"".join(parts))

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)


class BoundedHttp(H11Protocol):
    """uvicorn's protocol, with whole answers, and a deadline on a request's head: half a header line must not hold a
    place for ever.

    The deadline is armed while nothing or a part of a head is there, from the connection's first moment on; uvicorn's
    own keep-alive timer ends with the first byte of the next request.
    """

    def __init__(self, *args: Any, clock: Clock, entropy: Entropy, head_s: float, **named: Any) -> None:
        super().__init__(*args, **named)
        self._clock, self._entropy, self._head_s = clock, entropy, head_s
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(WholeAnswers(transport, self.loop))
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
        wire = encode_error(error, self._entropy.uuid(), self._clock.now_us())
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
            self._deadline = self.loop.call_later(self._head_s, self._too_slow)

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
