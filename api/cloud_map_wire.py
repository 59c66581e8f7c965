"""The Cloud Map API on the wire: AWS JSON 1.1 and Smithy's RPC v2 CBOR, which newer SDKs prefer. Pure.

    POST /                      X-Amz-Target: Route53AutoNaming_v20170314.<Operation>          JSON in, JSON out
    POST /service/Route53AutoNaming_v20170314/operation/<Operation>    Smithy-Protocol: rpc-v2-cbor      CBOR both ways

As with STS (`api.query_protocol`), answers are made as on every other route and rewritten last.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from api.body import check_object, parse_object
from identity.sigv4 import SignedRequest
from mesh.errors import BadRequest
from runtime.cbor import CborError, EpochSeconds, decode, encode
from runtime.http_answers import Wire
from runtime.limits import BODY_DEPTH

TARGET = "Route53AutoNaming_v20170314"
TARGET_HEADER = "x-amz-target"
JSON_PATH = "/"
CBOR_PATH = f"/service/{TARGET}/operation/"

CODES: Mapping[str, str] = {
    "BadRequestException": "InvalidInput",
    "ForbiddenException": "AccessDeniedException",
    "TooManyRequestsException": "RequestLimitExceeded",
}
"""Cloud Map's code for each of ours; the others are the same in both, or Cloud Map has none for it."""

_JSON, _CBOR = "application/x-amz-json-1.1", "application/cbor"
_TIMES = frozenset({"CreateDate", "UpdateDate"})
_REFUSED = (403, 404)
_OURS_404 = "UnknownOperationException"
_NAME = re.compile(r"[A-Za-z0-9]{1,64}", re.ASCII)


def operation_of(request: SignedRequest) -> str | None:
    """The operation that a request names, whether there is such a one or not; None if it is for another API."""
    if request.method != "POST":
        return None
    if request.path.startswith(CBOR_PATH):
        name = request.path.removeprefix(CBOR_PATH)
    elif request.path == JSON_PATH:
        name = (request.single(TARGET_HEADER) or "").removeprefix(f"{TARGET}.")
    else:
        return None
    return name if _NAME.fullmatch(name) else None


def members_of(request: SignedRequest) -> dict[str, Any]:
    """The input: the whole body; BadRequest where it is none. No body is an empty input."""
    if not request.path.startswith(CBOR_PATH):
        return parse_object(request.body)
    if not request.body:
        return {}
    try:
        value = decode(request.body, BODY_DEPTH)
    except CborError as error:
        raise BadRequest(f"The request body is not CBOR: {error}.") from error
    if not isinstance(value, dict):
        raise BadRequest("The request body must be a CBOR map.")
    return check_object(value)


def speaker(path: str, headers: Mapping[bytes, str]) -> Callable[[Wire], Wire] | None:
    """What rewrites the answers to a request of that path and those headers; None if it is for another API."""
    if path.startswith(CBOR_PATH):
        return as_cbor
    return as_json if path == JSON_PATH and TARGET_HEADER.encode() in headers else None


def as_json(wire: Wire) -> Wire:
    """The same answer as Cloud Map gives it in JSON 1.1."""
    status, document = _told(wire)
    return _rewritten(wire, status, document, _JSON, json.dumps(document, separators=(",", ":")).encode())


def as_cbor(wire: Wire) -> Wire:
    """The same answer as Cloud Map gives it in RPC v2 CBOR."""
    status, document = _told(wire)
    rewritten = _rewritten(wire, status, document, _CBOR, encode(_timed(document)))
    return rewritten._replace(headers=[*rewritten.headers, (b"smithy-protocol", b"rpc-v2-cbor")])


def _told(wire: Wire) -> tuple[int, dict[str, Any]]:
    document: dict[str, Any] = json.loads(wire.body)
    code = document.get("__type") if wire.status != 200 else None
    if code is None:
        return wire.status, document
    # Both spellings: errors of the model have the one, those of any service the other.
    told = {**document, "__type": CODES.get(code, code), "Message": document["message"]}
    own = wire.status in _REFUSED and (code.endswith("TokenException") or code in _CREDENTIALS)
    return 400 if own or code in ("ForbiddenException", _OURS_404) else wire.status, told


_CREDENTIALS = frozenset({"UnrecognizedClientException", "IncompleteSignatureException", "InvalidSignatureException"})


def _rewritten(wire: Wire, status: int, document: Mapping[str, Any], content_type: str, body: bytes) -> Wire:
    headers = dict(wire.headers)
    headers[b"content-type"] = content_type.encode()
    headers[b"content-length"] = str(len(body)).encode()
    if status != 200 and "__type" in document:
        headers[b"x-amzn-errortype"] = document["__type"].encode()
    return Wire(status, list(headers.items()), body)


def _timed(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _timed(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [_timed(item) for item in value]
    return EpochSeconds(value) if name in _TIMES and isinstance(value, (int, float)) else value
