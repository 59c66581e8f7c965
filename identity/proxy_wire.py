"""What a frontend asks an API server about proxies that sign (SigV4 in gRPC metadata), and what it is told. msgpack.

    frontend -> API server   check: the signed call as it came, and the node.id that the proxy says it is
    API server -> frontend   granted: the node that it is, and a grant; or refused: a gRPC status and a sentence
    frontend -> API server   standing: grants of open streams
    API server -> frontend   fallen: those that count no more, by their place in the question

A frontend holds no keys: it passes up what it was shown and keeps nothing of it but the grant, which it cannot read.
Bytes in, checked values out; who may speak is the shells' to check.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgpack

from identity.node_id import NODE_KINDS, NodeId
from mesh.errors import BadRequest
from runtime.limits import GRANTS_ASKED_MAX, PROXY_CHECK_BYTES_MAX, PROXY_HEADERS_MAX, PROXY_NAMES_MAX

CHECK = "/meshlog.proxies.v1.Credentials/Check"
STANDING = "/meshlog.proxies.v1.Credentials/Standing"


class Presented(NamedTuple):
    """What a proxy showed. `hosts`: names that it may have dialled, one of which it signed."""

    node: str
    method: str
    hosts: tuple[str, ...]
    headers: tuple[tuple[str, str], ...]
    source_ip: str


class Granted(NamedTuple):
    """Who the proxy is. `principal` is for logs; `grant` for later questions, opaque to the frontend."""

    node: NodeId
    principal: str
    grant: bytes


class Refused(NamedTuple):
    """The gRPC status to end the stream with, and why."""

    status: int
    message: str


def encode_check(presented: Presented) -> bytes:
    """The message."""
    return _pack([presented.node, presented.method, presented.hosts, presented.headers, presented.source_ip])


def decode_check(packed: bytes) -> Presented:
    """Read it; BadRequest if it is none."""
    node, method, hosts, headers, source_ip = _unpack(packed, 5)
    texts = _all_text([node, method, source_ip, *_listed(hosts, PROXY_NAMES_MAX)])
    pairs = [tuple(pair) for pair in _listed(headers, PROXY_HEADERS_MAX) if isinstance(pair, list) and len(pair) == 2]
    if not texts or len(pairs) != len(headers) or not all(_all_text(pair) for pair in pairs):
        raise BadRequest("proxies: the message is no question about a proxy")
    return Presented(node, method, tuple(hosts), tuple((name, value) for name, value in pairs), source_ip)


def encode_verdict(verdict: Granted | Refused) -> bytes:
    """The answer to a check."""
    if isinstance(verdict, Refused):
        return _pack(["refused", *verdict, b""])
    return _pack(["granted", list(verdict.node), verdict.principal, verdict.grant])


def decode_verdict(packed: bytes) -> Granted | Refused:
    """Read it; BadRequest if it is none."""
    kind, first, text, grant = _unpack(packed, 4)
    if kind == "refused" and type(first) is int and isinstance(text, str):
        return Refused(first, text)
    if kind != "granted" or not _is_node(first) or not isinstance(text, str) or not isinstance(grant, bytes):
        raise BadRequest("proxies: the answer is none")
    return Granted(NodeId(*first), text, grant)


def encode_grants(grants: list[bytes]) -> bytes:
    """The question whether grants still count."""
    return _pack([grants])


def decode_grants(packed: bytes) -> list[bytes]:
    """Read it; BadRequest if it is none."""
    (grants,) = _unpack(packed, 1)
    if not all(isinstance(grant, bytes) for grant in _listed(grants, GRANTS_ASKED_MAX)):
        raise BadRequest("proxies: the message is no list of grants")
    return list(grants)


def encode_fallen(fallen: dict[int, Refused]) -> bytes:
    """The answer: which of them fell, and why."""
    return _pack([[[place, *refused] for place, refused in fallen.items()]])


def decode_fallen(packed: bytes) -> dict[int, Refused]:
    """Read it; BadRequest if it is none."""
    (rows,) = _unpack(packed, 1)
    fallen = {}
    for row in _listed(rows, GRANTS_ASKED_MAX):
        if not isinstance(row, list) or [type(each) for each in row] != [int, int, str]:
            raise BadRequest("proxies: the answer is none")
        fallen[row[0]] = Refused(row[1], row[2])
    return fallen


def _pack(fields: Any) -> bytes:
    packed: bytes = msgpack.packb(fields)
    return packed


def _unpack(packed: bytes, count: int) -> list[Any]:
    if len(packed) > PROXY_CHECK_BYTES_MAX:
        raise BadRequest(f"proxies: a message of {len(packed)} bytes is over the limit of {PROXY_CHECK_BYTES_MAX}")
    try:
        fields = msgpack.unpackb(packed)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise BadRequest("proxies: the message is not msgpack") from error
    if not isinstance(fields, list) or len(fields) != count:
        raise BadRequest("proxies: the message has other fields than it should")
    return fields


def _listed(value: Any, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise BadRequest("proxies: the message lists too much, or nothing")
    return value


def _all_text(values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


def _is_node(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and _all_text(value) and value[2] in NODE_KINDS
