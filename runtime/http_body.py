"""Request bodies off the wire, within a size, a time and a share of memory. Nothing larger is ever held.

A body that says it is too large is refused before its first byte is read; one that does not say is cut off at the cap.
What is refused unread is answered at once, its rest thrown away, and the connection closed: the rest is not a request.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

from starlette.types import Message, Receive, Scope, Send

from mesh.errors import BadRequest, BodyTooLarge, RequestTimeout, Unavailable
from runtime.http_answers import Wire
from runtime.limits import (
    BODIES_BYTES_MAX,
    BODIES_SOURCE_BYTES_MAX,
    BODY_SIZE_BYTES,
    BODY_TIMEOUT_S,
    LINGER_S,
    LINGER_SIZE_BYTES,
    LINGER_UNDECLARED_BYTES,
)


class BodyMemory:
    """The bytes of all bodies that are held now, and of each source. `give_back` what `read_body` returned."""

    def __init__(self, total: int = BODIES_BYTES_MAX, of_one_source: int = BODIES_SOURCE_BYTES_MAX) -> None:
        self._free, self._of_one_source = total, of_one_source
        self._held: Counter[str] = Counter()

    def take(self, source: str, size_bytes: int) -> None:
        """Unavailable where there is no room for so many more."""
        if size_bytes > self._free or self._held[source] + size_bytes > self._of_one_source:
            self._forget(source)
            raise Unavailable("This server holds as many request bodies as it can; nothing was done. Try again.")
        self._free -= size_bytes
        self._held[source] += size_bytes

    def give_back(self, source: str, size_bytes: int) -> None:
        self._free += size_bytes
        self._held[source] -= size_bytes
        self._forget(source)

    def _forget(self, source: str) -> None:
        if not self._held[source]:
            del self._held[source]


def check_declared(scope: Scope) -> None:
    """BodyTooLarge where Content-Length tells, before anything is read; BadRequest where it tells nothing."""
    values = {value for name, value in scope["headers"] if name == b"content-length"}
    if not values:
        return
    value = values.pop()
    if values or not value.isdigit():
        raise BadRequest("The Content-Length header must be one whole number.")
    size_bytes = int(value[:20])
    _check_size(size_bytes, f"{size_bytes} bytes")


async def read_body(receive: Receive, memory: BodyMemory, source: str, timeout_s: float = BODY_TIMEOUT_S) -> bytes:
    """The whole body, held in `memory`; BodyTooLarge as soon as the cap is passed, RequestTimeout for a slow one."""
    chunks: list[bytes] = []
    size_bytes = 0
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in _chunks(receive):
                memory.take(source, len(chunk))
                chunks.append(chunk)
                size_bytes += len(chunk)
                _check_size(size_bytes, "larger")
    except TimeoutError:
        memory.give_back(source, size_bytes)
        raise RequestTimeout(f"The request body did not arrive within {timeout_s:g} s; send it again.") from None
    except BaseException:
        memory.give_back(source, size_bytes)
        raise
    return b"".join(chunks)


async def send_answer(wire: Wire, send: Send) -> None:
    """Send a whole answer."""
    await send({"type": "http.response.start", "status": wire.status, "headers": wire.headers})
    await send({"type": "http.response.body", "body": wire.body})


async def send_unread(wire: Wire, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer at once, drop what still comes, close the connection: its rest is not a request."""
    await send({"type": "http.response.start", "status": wire.status, "headers": wire.closing().headers})
    await send({"type": "http.response.body", "body": wire.body, "more_body": True})
    await _discard(scope, receive)
    await send({"type": "http.response.body", "body": b""})


async def _discard(scope: Scope, receive: Receive) -> None:
    """Read on and throw away, within bounds, so that a client that sends before it reads gets its answer."""
    size_bytes = 0
    declared = any(name == b"content-length" for name, _ in scope["headers"])
    bound_bytes = LINGER_SIZE_BYTES if declared else LINGER_UNDECLARED_BYTES
    try:
        async with asyncio.timeout(LINGER_S):
            async for chunk in _chunks(receive):
                size_bytes += len(chunk)
                if size_bytes > bound_bytes:
                    return
    except (TimeoutError, BadRequest):
        return


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise BadRequest("The connection closed before the whole request body arrived.")
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


def _check_size(size_bytes: int, what: str) -> None:
    if size_bytes > BODY_SIZE_BYTES:
        raise BodyTooLarge(
            f"A request body may have at most {BODY_SIZE_BYTES} bytes, and this one is {what}: send less."
        )
