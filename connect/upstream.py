"""One API server, over HTTP/1.1 connections that are kept. Blocking: called from threads.

The path goes out byte for byte as it was signed, which is why this is http.client and no library above it. Every
failure says whether anything was sent: only what was certainly not sent may be sent elsewhere.
"""

from __future__ import annotations

import contextlib
import http.client
import select
import ssl
import threading
from collections import deque
from typing import Any
from urllib.parse import urlsplit

from connect.requests import Reply, Request
from runtime.clock import Clock
from runtime.limits import CONNECT_ANSWER_BYTES_MAX, CONNECT_DIAL_S, CONNECT_IDLE_S


class NotSentError(Exception):
    """Nobody was there: nothing was sent."""


class BrokenError(Exception):
    """The connection broke, or no whole answer came in time: whether it was carried out is not known."""


class Upstream:
    """The server at a base `url`; `tls` verifies it where that is https."""

    def __init__(self, url: str, clock: Clock, tls: ssl.SSLContext | None = None) -> None:
        self.url = url
        self._clock, self._tls = clock, tls
        self._parts = urlsplit(url)
        self._idle: deque[tuple[http.client.HTTPConnection, float]] = deque()
        self._lock = threading.Lock()

    def send(self, request: Request, timeout_s: float) -> Reply:
        """One exchange. NotSentError, BrokenError."""
        connection = self._take() or self._dial()
        try:
            assert connection.sock is not None  # noqa: S101 - both give connected ones
            connection.sock.settimeout(timeout_s)
            reply, again = _exchange(connection, request)
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            raise BrokenError(_reason(error)) from error
        except BaseException:
            connection.close()
            raise
        if again:
            with self._lock:
                self._idle.append((connection, self._clock.monotonic_s()))
        else:
            connection.close()
        return reply

    def close(self) -> None:
        """Close what is kept."""
        with self._lock:
            idle, self._idle = self._idle, deque()
        for connection, _ in idle:
            connection.close()

    def _take(self) -> http.client.HTTPConnection | None:
        """The connection that was used last, if the server has not closed it and is not about to."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection, since_s = self._idle.pop()
            if self._clock.monotonic_s() - since_s < CONNECT_IDLE_S and not _readable(connection):
                return connection
            connection.close()

    def _dial(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        connection: http.client.HTTPConnection
        if self._parts.scheme == "https":
            connection = http.client.HTTPSConnection(host, port, timeout=CONNECT_DIAL_S, context=self._tls)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=CONNECT_DIAL_S)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise NotSentError(_reason(error)) from error
        return connection


def _exchange(connection: http.client.HTTPConnection, request: Request) -> tuple[Reply, bool]:
    """The answer, and whether the connection can be used again."""
    connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
    for name, value in request.headers:
        connection.putheader(name, value.encode("latin-1"))
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have answered before it read all
        connection.endheaders(request.body or None)
    answer = connection.getresponse()
    body = answer.read(CONNECT_ANSWER_BYTES_MAX + 1)
    if len(body) > CONNECT_ANSWER_BYTES_MAX:
        raise http.client.HTTPException(f"an answer of more than {CONNECT_ANSWER_BYTES_MAX} bytes")
    if answer.length:
        raise http.client.IncompleteRead(body, answer.length)
    return Reply(answer.status, answer.getheaders(), body), not answer.will_close and answer.isclosed()


def _readable(connection: http.client.HTTPConnection) -> bool:
    """Bytes, or an end, that came while nobody asked for anything."""
    poll: Any = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate does not verify ({error.verify_message})"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
