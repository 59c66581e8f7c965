"""One connection of the HTTP server: uvicorn's protocol with bounds on what a caller can make large, slow or many.

Bytes become ASGI calls, within bounds on a head's size, lines and time, on the pieces of a body, on connections in all
and from one address, and on how long an answer may lie unread. Whatever is refused here gets AWS's error shape. It
never looks at what a request asks for.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from dataclasses import dataclass, field
from typing import Any, cast

import h11
from prometheus_client import Counter as Metric
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from mesh.errors import BadRequest, MeshlogError, TooManyRequests, Unavailable
from runtime.clock import Clock, Entropy
from runtime.http_answers import encode_error
from runtime.http_body import send_unread
from runtime.limits import (
    HTTP_BODY_PIECES_MAX,
    HTTP_CONNECTIONS_MAX,
    HTTP_DRAIN_S,
    HTTP_HEAD_S,
    HTTP_HEADERS_BYTES,
    HTTP_HEADERS_MAX,
    HTTP_SOURCE_CONNECTIONS_MAX,
    HTTP_TURNED_AWAY_MAX,
    HTTP_TURNED_AWAY_S,
    HTTP_WRITE_S,
)

TURNED_AWAY = Metric("meshlog_http_turned_away", "Connections and requests refused before they were looked at", ["why"])


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpBounds:
    """What one server takes."""

    connections: int = HTTP_CONNECTIONS_MAX
    connections_per_source: int = HTTP_SOURCE_CONNECTIONS_MAX
    head_s: float = HTTP_HEAD_S
    write_s: float = HTTP_WRITE_S
    drain_s: float = HTTP_DRAIN_S


@dataclass(slots=True)
class _Source:
    """The connections of one address: how many, and the idle ones, the longest idle first."""

    connections: int = 0
    idle: dict[BoundedHttp, None] = field(default_factory=dict)


@dataclass(slots=True)
class Shared:
    """What the connections of one server have in common."""

    clock: Clock
    entropy: Entropy
    bounds: HttpBounds
    sources: dict[str, _Source] = field(default_factory=dict)


def source_of(address: str) -> str:
    """Who an address counts as: itself, or for IPv6 its /64, of which one host has all addresses."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Network((parsed, 64), strict=False).network_address)
    return address


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
        if not self._transport.is_closing():  # asyncio's TLS transport does not survive being closed twice
            self._flush()
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)


class BoundedConnection(h11.Connection):
    """h11, with bounds on what it leaves unbounded: the lines of a head and the pieces of a body.

    A request with a length and with chunks is refused, for another server on its way may have read it otherwise; so is
    one of HTTP/2, which h11 would take for a request of ours.
    """

    _pieces = 0

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Data):
            self._pieces += 1
            if self._pieces > HTTP_BODY_PIECES_MAX:
                raise h11.RemoteProtocolError("too many pieces")
        elif isinstance(event, h11.Request):
            self._pieces = 0
            names = [name for name, _ in event.headers]
            # h11's own bound counts only while a head is incomplete: one that came in one piece passes it.
            size_bytes = len(event.target) + sum(len(name) + len(value) + 4 for name, value in event.headers)
            framed_twice = b"transfer-encoding" in names and b"content-length" in names
            known = event.http_version in (b"1.0", b"1.1")
            if size_bytes > HTTP_HEADERS_BYTES or len(names) > HTTP_HEADERS_MAX or framed_twice or not known:
                raise h11.RemoteProtocolError("head")
        return event


def _end_idle(source: _Source) -> bool:
    """Close the longest idle connection of `source`; False if there is none."""
    oldest = next(iter(source.idle), None)
    if oldest is not None:
        oldest.leave()
    return oldest is not None


class BoundedHttp(H11Protocol):
    """uvicorn's protocol for one connection, with whole answers and deadlines.

    A head has one from the connection's first moment on (uvicorn's own keep-alive timer ends with the first byte of
    the next request): half a header line must not hold a place for ever. What lies unread by its caller has another.
    """

    def __init__(self, *args: Any, shared: Shared, **named: Any) -> None:
        super().__init__(*args, **named)
        self.conn = BoundedConnection(h11.SERVER, HTTP_HEADERS_BYTES)
        self._shared = shared
        self._name, self._source = "", _Source()
        self._head_s = shared.bounds.head_s
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(WholeAnswers(transport, self.loop))
        self._name = source_of(self.client[0]) if self.client else ""
        self._source = self._shared.sources.setdefault(self._name, _Source())
        self._source.connections += 1
        self._find_place()
        self._source.idle[self] = None
        self._watch_head()

    def _find_place(self) -> None:
        """Where all places are taken, the longest idle connection goes; where none is idle, this one is told so."""
        bounds = self._shared.bounds
        if self._source.connections > bounds.connections_per_source and not _end_idle(self._source):
            self._turn_away("source connections", TooManyRequests(
                f"There are {bounds.connections_per_source} connections from {self._name} already. Use them again in "
                "place of new ones."
            ))  # fmt: skip
        elif len(self.connections) > bounds.connections + HTTP_TURNED_AWAY_MAX:
            TURNED_AWAY.labels("cut").inc()
            self.transport.abort()
        elif len(self.connections) > bounds.connections and not _end_idle(self._greediest()):
            self._turn_away("connections", Unavailable(
                f"This server has {bounds.connections} connections and takes no more. Close idle ones, or call another "
                "server."
            ))  # fmt: skip

    def _greediest(self) -> _Source:
        """Of the addresses with idle connections, the one with most of all."""
        sources = (each for each in self._shared.sources.values() if each.idle)
        return max(sources, key=lambda each: each.connections, default=self._source)

    def leave(self) -> None:
        """Close it, and give up its place now."""
        TURNED_AWAY.labels("idle").inc()
        self.transport.close()
        self._watch_write()
        self._give_up_place()

    def _give_up_place(self) -> None:
        if self not in self.connections:
            return
        self.connections.discard(self)
        self._source.idle.pop(self, None)
        self._source.connections -= 1
        if not self._source.connections:
            del self._shared.sources[self._name]

    def _waits(self) -> bool:
        """Whether a request's head is there that has no whole answer yet."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self._write_timer is not None:
            self._write_timer.cancel()
        self._give_up_place()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._waits():
            self._source.idle.pop(self, None)
        self._watch_head()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_write()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None and not self.transport.is_closing():
            self._write_timer.cancel()
            self._write_timer = None

    def shutdown(self) -> None:
        with contextlib.suppress(h11.LocalProtocolError):  # in the middle of what it sends: the close below ends that
            super().shutdown()
        if not self._waits():
            self.transport.close()
            self._watch_write()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch_write()
        elif not self._waits():
            self._source.idle[self] = None

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP never reaches the app; its caller gets AWS's error shape all the same."""
        TURNED_AWAY.labels("not http").inc()
        if self._waits():
            self.cycle.disconnected = True  # whoever works on its head must not answer too
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            error = BadRequest(
                f"{msg} Check the request line and the headers: at most {HTTP_HEADERS_BYTES} bytes in "
                f"{HTTP_HEADERS_MAX} lines, and either a Content-Length or chunks, of reasonable size."
            )
            wire = encode_error(error, self._shared.entropy.uuid(), self._shared.clock.now_us()).closing()
            for event in (
                h11.Response(status_code=wire.status, headers=wire.headers, reason=b"Bad Request"),
                h11.Data(data=wire.body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
        self._watch_write()

    def _turn_away(self, why: str, error: MeshlogError) -> None:
        """Answer the connection's first request with `error`, whatever it asks for."""
        TURNED_AWAY.labels(why).inc()
        self._head_s = HTTP_TURNED_AWAY_S
        wire = encode_error(error, self._shared.entropy.uuid(), self._shared.clock.now_us())

        async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
            await send_unread(wire, scope, receive, send)

        self.app = cast(Any, refuse)

    def _watch_head(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._disarm()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self._head_s, self._too_slow)

    def _disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing() and not self._waits():
            self.transport.close()
            self._watch_write()

    def _watch_write(self) -> None:
        if self._write_timer is None:
            left = self.transport.get_write_buffer_size()
            self._write_timer = self.loop.call_later(self._shared.bounds.write_s, self._check_written, left)

    def _check_written(self, before: int) -> None:
        self._write_timer = None
        if self.transport.get_write_buffer_size() < before:
            self._watch_write()  # slow, but it reads
        else:
            self.transport.abort()
