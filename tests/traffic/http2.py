"""HTTP/2 and gRPC without TLS, both sides, on the `h2` library: a server for asyncio and a client for plain sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events

Headers = Sequence[tuple[str, str]]
READ_BYTES = 65536


def framed(message: bytes) -> bytes:
    """A gRPC message, not compressed."""
    return struct.pack(">BI", 0, len(message)) + message


def unframed(data: bytearray) -> list[bytes]:
    """The whole messages at the front of `data`, which loses them."""
    found = []
    while len(data) >= 5 and len(data) >= 5 + (size := struct.unpack(">I", data[1:5])[0]):
        found.append(bytes(data[5 : 5 + size]))
        del data[: 5 + size]
    return found


def _texts(headers: Any) -> list[tuple[str, str]]:
    return [(str(name), str(value)) for name, value in headers]


class Request:
    """One stream of a server's connection."""

    def __init__(self, server: _Server, stream: int, headers: list[tuple[str, str]]) -> None:
        self.headers = headers
        self._server, self._stream = server, stream
        self.incoming: asyncio.Queue[bytes | None] = asyncio.Queue()
        """The body as it comes; None is its end."""

    async def read(self) -> bytes:
        """The whole body."""
        body = b""
        while (data := await self.incoming.get()) is not None:
            body += data
        return body

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        h2c = self._server.connection
        h2c.send_headers(self._stream, [(":status", str(status)), ("content-length", str(len(body))), *headers])
        h2c.send_data(self._stream, body, end_stream=True)
        self._server.flush()

    def grpc(self, messages: Sequence[bytes], status: int = 0) -> None:
        """The answer of a call, whole."""
        h2c = self._server.connection
        start = [(":status", "200"), ("content-type", "application/grpc")]
        if not messages:
            h2c.send_headers(self._stream, [*start, ("grpc-status", str(status))], end_stream=True)
        else:
            h2c.send_headers(self._stream, start)
            for message in messages:
                h2c.send_data(self._stream, framed(message))
            h2c.send_headers(self._stream, [("grpc-status", str(status))], end_stream=True)
        self._server.flush()

    async def echo(self) -> None:
        """Send every message back as it comes, and OK at the end."""
        h2c = self._server.connection
        h2c.send_headers(self._stream, [(":status", "200"), ("content-type", "application/grpc")])
        self._server.flush()
        while (data := await self.incoming.get()) is not None:
            h2c.send_data(self._stream, data)
            self._server.flush()
        h2c.send_headers(self._stream, [("grpc-status", "0")], end_stream=True)
        self._server.flush()

    def refuse(self) -> None:
        """A stream that was not looked at."""
        self._server.connection.reset_stream(self._stream, h2.errors.ErrorCodes.REFUSED_STREAM)
        self._server.flush()

    def abort(self) -> None:
        """End the whole connection."""
        self._server.writer.transport.abort()


class _Server:
    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self.connection: Any = h2.connection.H2Connection(config=config)

    def flush(self) -> None:
        self.writer.write(self.connection.data_to_send())


async def serve_http2(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    first: bytes,
    handle: Callable[[Request], Awaitable[None]],
) -> None:
    """One connection, whose first bytes were read already."""
    server = _Server(writer)
    server.connection.initiate_connection()
    streams: dict[int, tuple[Request, asyncio.Task[None]]] = {}

    async def one(request: Request) -> None:
        # What the peer has reset in the meantime needs no answer.
        with contextlib.suppress(h2.exceptions.ProtocolError, ConnectionError):
            await handle(request)

    try:
        data = first
        while data:
            for event in server.connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    request = Request(server, event.stream_id, _texts(event.headers))
                    streams[event.stream_id] = (request, asyncio.ensure_future(one(request)))
                elif isinstance(event, h2.events.DataReceived):
                    server.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    streams[event.stream_id][0].incoming.put_nowait(event.data)
                elif isinstance(event, h2.events.StreamEnded):
                    streams[event.stream_id][0].incoming.put_nowait(None)
                elif isinstance(event, h2.events.StreamReset) and event.stream_id in streams:
                    streams[event.stream_id][1].cancel()
            server.flush()
            data = await reader.read(READ_BYTES)
    finally:
        for _, task in streams.values():
            task.cancel()


@dataclass
class Reply:
    """What came back on one stream. `reset`: it ended with this error code."""

    headers: dict[str, str] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        return int(self.headers.get(":status", "0"))

    @property
    def grpc_status(self) -> int:
        return int({**self.headers, **self.trailers}.get("grpc-status", "-1"))

    @property
    def saw(self) -> dict[str, Any]:
        """What the application says that it saw; {} where it did not answer."""
        body = bytes(self.data)
        if self.headers.get("content-type", "").startswith("application/grpc"):
            messages = unframed(bytearray(body))
            body = messages[0] if messages else b""
        found: dict[str, Any] = json.loads(body) if body.startswith(b"{") else {}
        return found


class Client:
    """A connection of a client; use as a context manager. Streams run side by side."""

    def __init__(self, connected: socket.socket, scheme: str = "http") -> None:
        self._socket = connected
        self._scheme = scheme
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self._connection: Any = h2.connection.H2Connection(config=config)
        self._connection.initiate_connection()
        self._replies: dict[int, Reply] = {}
        self._flush()

    def start(self, authority: str, path: str, method: str = "GET", headers: Headers = (), ends: bool = True) -> int:
        """Send a request; `ends` False: its body follows. The stream's number."""
        stream: int = self._connection.get_next_available_stream_id()
        pseudo = [(":method", method), (":scheme", self._scheme), (":authority", authority), (":path", path)]
        self._connection.send_headers(stream, [*pseudo, *headers], end_stream=ends)
        self._replies[stream] = Reply()
        self._flush()
        return stream

    def start_call(self, authority: str, path: str, metadata: Headers = (), messages: Sequence[bytes] = (b"",)) -> int:
        """Begin a gRPC call, with these messages and the end of them."""
        headers = [("content-type", "application/grpc"), ("te", "trailers"), *metadata]
        stream = self.start(authority, path, "POST", headers, ends=False)
        for message in messages:
            self.send(stream, framed(message))
        self.end(stream)
        return stream

    def send(self, stream: int, data: bytes) -> None:
        self._connection.send_data(stream, data)
        self._flush()

    def end(self, stream: int) -> None:
        self._connection.end_stream(stream)
        self._flush()

    def reply(self, stream: int) -> Reply:
        """What has come so far."""
        return self._replies[stream]

    def read(self, stream: int, until: Callable[[Reply], bool] | None = None) -> Reply:
        """The stream's reply, once it has ended or is as wanted. TimeoutError after the socket's own deadline."""
        reply = self._replies[stream]
        self.read_any(lambda: reply.ended or (until is not None and until(reply)))
        return reply

    def read_any(self, until: Callable[[], bool]) -> None:
        """Take what comes on any stream, until it is as wanted."""
        while not until():
            data = self._socket.recv(READ_BYTES)
            if not data:
                raise ConnectionResetError("the connection ended before the answer")
            for event in self._connection.receive_data(data):
                self._take(event)
            self._flush()

    def _take(self, event: Any) -> None:
        reply = self._replies.get(getattr(event, "stream_id", 0) or 0)
        if reply is None:
            return
        if isinstance(event, h2.events.ResponseReceived):
            reply.headers = dict(_texts(event.headers))
        elif isinstance(event, h2.events.TrailersReceived):
            reply.trailers = dict(_texts(event.headers))
        elif isinstance(event, h2.events.DataReceived):
            reply.data += event.data
            self._connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            reply.reset, reply.ended = int(event.error_code), True
        elif isinstance(event, h2.events.StreamEnded):
            reply.ended = True

    def _flush(self) -> None:
        self._socket.sendall(self._connection.data_to_send())

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
