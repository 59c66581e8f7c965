"""Request bodies: bytes off the wire within a size and a time, then JSON within a depth. Nothing larger is ever held.

A body that says it is too large is refused before its first byte is read; one that does not say is cut off at the cap.
Every refusal names what is wrong and where.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

from starlette.types import Message, Receive, Scope

from mesh.errors import BadRequest, BodyTooLarge
from runtime.limits import (
    BODY_DEPTH,
    BODY_SIZE_BYTES,
    BODY_TIMEOUT_S,
    LINGER_S,
    LINGER_SIZE_BYTES,
    LINGER_UNDECLARED_BYTES,
)

_INTEGERS = range(-(2**63), 2**63)
"""What msgpack, and every reader of the log, can hold."""


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """The whole body; BodyTooLarge before reading where Content-Length tells, else as soon as the cap is passed."""
    declared = _content_length(scope)
    if declared is not None and declared > BODY_SIZE_BYTES:
        raise _too_large(f"{declared} bytes")
    chunks: list[bytes] = []
    size_bytes = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in _chunks(receive):
                size_bytes += len(chunk)
                if size_bytes > BODY_SIZE_BYTES:
                    raise _too_large("larger")
                chunks.append(chunk)
    except TimeoutError:
        raise BadRequest(f"The request body did not arrive within {BODY_TIMEOUT_S:g} s; send it again.") from None
    return b"".join(chunks)


async def discard_body(scope: Scope, receive: Receive) -> None:
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


async def _chunks(receive: Receive) -> Any:
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise BadRequest("The connection closed before the whole request body arrived.")
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


def _content_length(scope: Scope) -> int | None:
    values = {value for name, value in scope["headers"] if name == b"content-length"}
    if not values:
        return None
    value = values.pop()
    if values or not value.isdigit():
        raise BadRequest("The Content-Length header must be one whole number.")
    return int(value[:20])


def _too_large(what: str) -> BodyTooLarge:
    return BodyTooLarge(f"A request body may have at most {BODY_SIZE_BYTES} bytes, and this one is {what}: send less.")


def parse_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object (an empty body is an empty one); BadRequest otherwise."""
    if not body.strip():
        return {}
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant)
    except UnicodeDecodeError as error:
        raise BadRequest(f"The request body is not UTF-8: byte {error.start} is wrong.") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise BadRequest(f"The request body is not JSON: {error.msg} at {where}.") from error
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:  # Python refuses to read numbers of thousands of digits
        raise BadRequest("The request body has a number with too many digits.") from error
    if not isinstance(value, dict):
        raise BadRequest("The request body must be a JSON object.")
    _check(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRequest(f"{json.dumps(twice[:80])}: is there twice in one object of the request body; keep one.")
    return value


def _constant(name: str) -> Any:
    raise BadRequest(f"The request body has {name}, which is not JSON.")


def _check(value: dict[str, Any]) -> None:
    """Refuse what no record could carry. Without recursion: depth is the caller's."""
    level: list[Any] = [value]
    for _ in range(BODY_DEPTH):
        level = [child for item in level for child in _children(item)]
        if not level:
            return
    raise _too_deep()


def _children(item: Any) -> Iterator[Any]:
    children: Iterable[Any] = item.values() if isinstance(item, dict) else item
    if isinstance(item, dict):
        for name in item:
            _check_scalar(name)
    for child in children:
        if isinstance(child, (dict, list)):
            yield child
        else:
            _check_scalar(child)


def _check_scalar(value: Any) -> None:
    if isinstance(value, str) and not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise BadRequest(f"{json.dumps(value[:40])}: is not Unicode; it has half of a surrogate pair.")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadRequest("The request body has a number that is too large.")
    if isinstance(value, int) and value not in _INTEGERS:
        raise BadRequest("The request body has a whole number that is too large.")


def _too_deep() -> BadRequest:
    return BadRequest(f"The request body is nested deeper than {BODY_DEPTH} levels.")
