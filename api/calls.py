"""One call and its answer, as values: what every handler takes and gives. No HTTP beyond this module's encoders."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from identity.caller import Caller
from mesh.errors import (
    BadRequest,
    IntegrityError,
    MeshlogError,
    TooManyRequests,
    Unavailable,
    error_code,
)
from mesh.position import Position

RETRY_AFTER_S = 1
UNKNOWN_OPERATION = "UnknownOperationException"
_UNAVAILABLE = 503


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose caller is known and who may make it. `members` are the input: path, query and body together."""

    request_id: str
    source_ip: str
    caller: Caller
    members: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """A success. `position` is the log position that the answer holds at."""

    document: Mapping[str, Any]
    position: Position
    headers: Mapping[str, str] = field(default_factory=dict)


class Wire(NamedTuple):
    """A response as it goes out."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


Handler = Callable[[Call], Awaitable[Answer]]


class UnknownOperation(NamedTuple):
    """A method and path that no operation has."""

    method: str
    path: str


def query_members(query: str) -> dict[str, str]:
    """The query string's members; BadRequest when one is there twice or is not UTF-8."""
    members: dict[str, str] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=64)
    except ValueError as error:
        raise BadRequest("The query string must be at most 64 members of percent-encoded UTF-8.") from error
    for name, value in pairs:
        if name in members:
            raise BadRequest(f"{name[:80]}: is there twice in the query string; keep one.")
        members[name] = value
    return members


def encode_answer(answer: Answer, request_id: str, now_us: int) -> Wire:
    """A success is always 200 with the bare document."""
    headers = {**answer.headers, "x-meshlog-position": str(answer.position)}
    return _wire(200, answer.document, headers, request_id, now_us)


def encode_error(error: MeshlogError, request_id: str, now_us: int) -> Wire:
    """AWS's error shape: `x-amzn-ErrorType`, and {"message", "__type"}."""
    # A log that must not be believed is no fault of the call: other servers may still be right, so 503 (I7).
    broken = isinstance(error, IntegrityError)
    status = _UNAVAILABLE if broken else error.http_status
    code = Unavailable.code if broken else error_code(error)
    headers = {"x-amzn-errortype": code}
    if status == _UNAVAILABLE or isinstance(error, TooManyRequests):
        headers["retry-after"] = str(RETRY_AFTER_S)
    if error.http_status == 413:
        headers["connection"] = "close"
    return _wire(status, {"message": error.message, "__type": code}, headers, request_id, now_us)


def encode_unknown_operation(unknown: UnknownOperation, request_id: str, now_us: int) -> Wire:
    """404 for what no route declares, as AWS answers it."""
    message = f"There is no operation {unknown.method} {unknown.path[:200]} in this API."
    document = {"message": message, "__type": UNKNOWN_OPERATION}
    return _wire(404, document, {"x-amzn-errortype": UNKNOWN_OPERATION}, request_id, now_us)


def encode_fault(request_id: str, now_us: int) -> Wire:
    """What a caller is told of a bug of ours: that there is one, and the id to find it by."""
    document = {
        "message": f"Something went wrong inside the server; the request id {request_id} finds it in the server's log.",
        "__type": MeshlogError.code,
    }
    return _wire(500, document, {"x-amzn-errortype": MeshlogError.code}, request_id, now_us)


def _wire(status: int, document: Mapping[str, Any], headers: Mapping[str, str], request_id: str, now_us: int) -> Wire:
    body = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode(errors="backslashreplace")
    lines = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "date": formatdate(now_us // 1_000_000, usegmt=True),
        "x-amzn-requestid": request_id,
        **headers,
    }
    return Wire(status, [(name.encode(), value.encode()) for name, value in lines.items()], body)
