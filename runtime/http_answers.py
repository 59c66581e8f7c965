"""Answers as they go out over HTTP, in AWS's shapes: a document or an error becomes status, headers and body. Pure.

Every HTTP endpoint of ours answers through this module, so that SDKs read all of them alike. An error's text is its
message; what went wrong inside is never told (I6).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from email.utils import formatdate
from typing import Any, NamedTuple

from mesh.errors import IntegrityError, MeshlogError, TooManyRequests, Unavailable, error_code

RETRY_AFTER_S = 1
CLOSE = (b"connection", b"close")
_UNAVAILABLE = 503
_CLOSING = (408, 413)


class Wire(NamedTuple):
    """A response as it goes out."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def closing(self) -> Wire:
        """The same, as the last answer on its connection."""
        return self._replace(headers=[*(header for header in self.headers if header[0] != CLOSE[0]), CLOSE])


def encode_error(error: MeshlogError, request_id: str, now_us: int) -> Wire:
    """AWS's error shape: `x-amzn-ErrorType`, and {"message", "__type"}; Retry-After where trying again may help."""
    # A log that must not be believed is no fault of the call: other servers may still be right, so 503 (I7).
    broken = isinstance(error, IntegrityError)
    status = _UNAVAILABLE if broken else error.http_status
    code = Unavailable.code if broken else error_code(error)
    headers = {"x-amzn-errortype": code}
    if isinstance(error, TooManyRequests):
        headers["retry-after"] = str(error.retry_after_s)
    elif status == _UNAVAILABLE:
        headers["retry-after"] = str(RETRY_AFTER_S)
    if error.http_status in _CLOSING:
        headers["connection"] = "close"
    document = {**error.members, "message": error.message, "__type": code}
    return encode_document(status, document, headers, request_id, now_us)


def encode_fault(request_id: str, now_us: int) -> Wire:
    """What a caller is told of a bug of ours: that there is one, and the id to find it by."""
    document = {
        "message": f"Something went wrong inside the server; the request id {request_id} finds it in the server's log.",
        "__type": MeshlogError.code,
    }
    return encode_document(500, document, {"x-amzn-errortype": MeshlogError.code}, request_id, now_us)


def encode_document(
    status: int, document: Mapping[str, Any], headers: Mapping[str, str], request_id: str, now_us: int
) -> Wire:
    """A JSON document under its request id and date."""
    body = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode(errors="backslashreplace")
    lines = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "date": formatdate(now_us // 1_000_000, usegmt=True),
        "x-amzn-requestid": request_id,
        **headers,
    }
    return Wire(status, [(name.encode(), value.encode()) for name, value in lines.items()], body)
