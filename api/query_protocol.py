"""AWS's query protocol, which STS speaks: a form becomes members, and a JSON answer of ours becomes its XML. Pure.

Answers are made as on every other route and rewritten last, so that limits, authentication and refusals are one code.
A success is {operation: result}; an error {"message", "__type"} under the codes that STS has for the same thing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from mesh.errors import BadRequest
from runtime.http_answers import Wire
from runtime.limits import STS_MEMBERS_MAX

NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"
VERSION = "2011-06-15"

CODES: Mapping[str, str] = {
    "BadRequestException": "ValidationError",
    "ForbiddenException": "AccessDenied",
    "MissingAuthenticationTokenException": "MissingAuthenticationToken",
    "IncompleteSignatureException": "IncompleteSignature",
    "InvalidSignatureException": "SignatureDoesNotMatch",
    "UnrecognizedClientException": "InvalidClientTokenId",
    "ExpiredTokenException": "ExpiredToken",
    "TooManyRequestsException": "Throttling",
    "ServiceUnavailableException": "ServiceUnavailable",
    "InternalServerErrorException": "InternalFailure",
    "UnknownOperationException": "InvalidAction",
}
"""STS's code for each of ours; the others are the same in both."""

_FORM = "application/x-www-form-urlencoded"
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ERROR_TYPE = b"x-amzn-errortype"


def form_members(query: str, body: bytes, content_type: str) -> dict[str, str]:
    """The members of a query and of a form in the body, each once; BadRequest otherwise."""
    if body and content_type.partition(";")[0].strip().lower() != _FORM:
        raise BadRequest(f"The request body must be a form: send it as {_FORM}.")
    members: dict[str, str] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=STS_MEMBERS_MAX)
        pairs += parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=STS_MEMBERS_MAX)
    except ValueError as error:
        raise BadRequest(f"The form must be at most {STS_MEMBERS_MAX} members of percent-encoded UTF-8.") from error
    for name, value in pairs:
        if name in members:
            raise BadRequest(f"{name[:80]}: is there twice in the request; keep one.")
        members[name] = value
    return members


def as_xml(wire: Wire) -> Wire:
    """The same answer as STS gives it."""
    document = json.loads(wire.body)
    headers = dict(wire.headers)
    request_id = headers[b"x-amzn-requestid"].decode()
    if wire.status == 200:
        [(operation, result)] = document.items()
        inner = {f"{operation}Result": result, "ResponseMetadata": {"RequestId": request_id}}
        body = _document(f"{operation}Response", inner)
    else:
        code = CODES.get(document["__type"], document["__type"])
        side = "Sender" if wire.status < 500 else "Receiver"
        error = {"Type": side, "Code": code, "Message": document["message"]}
        body = _document("ErrorResponse", {"Error": error, "RequestId": request_id})
        headers[_ERROR_TYPE] = code.encode()
    headers[b"content-type"] = b"text/xml"
    headers[b"content-length"] = str(len(body)).encode()
    status = 400 if document.get("__type") == "UnknownOperationException" else wire.status
    return Wire(status, list(headers.items()), body)


def _document(name: str, members: Mapping[str, Any]) -> bytes:
    return f'<{name} xmlns="{NAMESPACE}">\n{"".join(_elements(members, 1))}</{name}>\n'.encode()


def _elements(members: Mapping[str, Any], depth: int) -> Iterator[str]:
    indent = "  " * depth
    for name, value in members.items():
        if isinstance(value, Mapping):
            yield f"{indent}<{name}>\n{''.join(_elements(value, depth + 1))}{indent}</{name}>\n"
        else:
            yield f"{indent}<{name}>{escape(_NOT_XML.sub('?', str(value)))}</{name}>\n"
