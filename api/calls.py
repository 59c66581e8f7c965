"""One call and its answer, as values: what every handler takes and gives. No HTTP beyond this module's encoders."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from identity.caller import Caller
from mesh.errors import BadRequest
from mesh.iam.evaluate import Circumstances
from mesh.position import Position
from mesh.state import State
from runtime.http_answers import Wire, encode_document

UNKNOWN_OPERATION = "UnknownOperationException"


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose caller is known and who may make it. `members` are the input: path, query and body together.

    `allowed` raises what refuses the call if the caller may not make it by some state: rights may go while it waits.
    """

    request_id: str
    source_ip: str
    caller: Caller
    members: Mapping[str, Any]
    circumstances: Circumstances
    allowed: Callable[[State], None]
    invocation: str = ""
    """What AWS's SDKs send along: one id for a call and all its repetitions; '' from anybody else."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A success. `position` is the log position that the answer holds at."""

    document: Mapping[str, Any]
    position: Position
    headers: Mapping[str, str] = field(default_factory=dict)


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
    return encode_document(200, answer.document, headers, request_id, now_us)


def encode_unknown_operation(unknown: UnknownOperation, request_id: str, now_us: int) -> Wire:
    """404 for what no route declares, as AWS answers it."""
    message = f"There is no operation {unknown.method} {unknown.path[:200]} in this API."
    document = {"message": message, "__type": UNKNOWN_OPERATION}
    return encode_document(404, document, {"x-amzn-errortype": UNKNOWN_OPERATION}, request_id, now_us)
