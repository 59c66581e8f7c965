"""Ids and ARNs of the registry's resources. Pure text.

namespace  ns-<16>   arn:aws:servicediscovery:<region>:<account>:namespace/ns-<16>
service    srv-<16>  arn:aws:servicediscovery:<region>:<account>:service/srv-<16>
operation  <32>-<8>
"""

from __future__ import annotations

import base64
import hashlib
import re

from mesh.commands import Context
from mesh.position import Position

SERVICE_NAME = "servicediscovery"
NAMESPACE, SERVICE = "namespace", "service"

_ARN = re.compile(
    r"arn:aws[a-z-]*:servicediscovery:[a-z0-9-]*:(?P<account>[0-9]{12}):(?P<kind>namespace|service)/(?P<id>[^/]+)"
)
_ID_CHARS, _OPERATION_CHARS, _OPERATION_TAIL = 16, 32, 8


def arn(region: str, account: str, kind: str, resource_id: str) -> str:
    """The ARN of a namespace or a service."""
    return f"arn:aws:{SERVICE_NAME}:{region}:{account}:{kind}/{resource_id}"


def id_of(text: str) -> str:
    """An id as it is, or the one in an ARN: the API takes either."""
    match = _ARN.fullmatch(text)
    return match["id"] if match else text


def arn_id(text: str) -> str | None:
    """The id in an ARN of a namespace or service; None if the text is no such ARN."""
    match = _ARN.fullmatch(text)
    return match["id"] if match else None


def fresh_namespace_id(context: Context, at: Position) -> str:
    return f"ns-{_drawn('namespace', context, at)[:_ID_CHARS]}"


def fresh_service_id(context: Context, at: Position) -> str:
    return f"srv-{_drawn('service', context, at)[:_ID_CHARS]}"


def fresh_operation_id(context: Context, at: Position) -> str:
    drawn = _drawn("operation", context, at)
    return f"{drawn[:_OPERATION_CHARS]}-{drawn[_OPERATION_CHARS : _OPERATION_CHARS + _OPERATION_TAIL]}"


def _drawn(kind: str, context: Context, at: Position) -> str:
    """No two alike: a position is decided on once on a timeline, and the token tells two timelines apart."""
    token = context.token.digest.hex() if context.token else context.uid
    text = f"{kind}/{context.account}/{at}/{token}/{context.uid}"
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode().lower()
