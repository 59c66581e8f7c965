"""A caller's request becomes ours: its signature is taken off, and ours put on. Pure; botocore signs.

What is passed on is what the caller asked for: method, path, query, body, and the headers that say something about
them. Whose key the caller signed with is not looked at, and goes nowhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

_SIGNATURE = frozenset({"authorization", "x-amz-date", "date", "x-amz-security-token", "x-amz-content-sha256"})
_SIGNATURE_QUERY = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders",
                    "X-Amz-Signature", "X-Amz-Security-Token")  # fmt: skip
_OF_ONE_HOP = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade", "host", "content-length", "expect",
})  # fmt: skip
_INVOCATION = "amz-sdk-invocation-id"
_CLOUD_MAP_PATH = "/service/Route53AutoNaming_v20170314/"
_READS = frozenset({"GET", "HEAD"})
_DEFAULT_PORTS = {"http": 80, "https": 443}

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class CallerKey:
    """The key that is signed with."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    region: str
    session_token: str = field(default="", repr=False)


class Request(NamedTuple):
    """`target` is path and query as they came, percent-encoded; header names are in lower case."""

    method: str
    target: str
    headers: Headers
    body: bytes


class Reply(NamedTuple):
    """A whole answer."""

    status: int
    headers: Headers
    body: bytes


def stripped(request: Request) -> Request:
    """The request without its signature, in headers or query, and without what concerns one connection only."""
    named = {
        token.strip().lower() for name, value in request.headers if name == "connection" for token in value.split(",")
    }
    gone = _SIGNATURE | _OF_ONE_HOP | named
    headers = [(name, value) for name, value in request.headers if name not in gone]
    path, mark, query = request.target.partition("?")
    kept = [part for part in query.split("&") if part.partition("=")[0] not in _SIGNATURE_QUERY]
    return request._replace(target=path + (mark and "?" * bool(kept)) + "&".join(kept), headers=headers)


def signed(request: Request, url: str, key: CallerKey) -> Request:
    """The same request for the server at the base `url`, signed by `key`, complete with Host and Content-Length."""
    folded: dict[str, str] = {}
    for name, value in request.headers:
        folded[name] = f"{folded[name]}, {value}" if name in folded else value
    # Only what must be signed is: a header's odd bytes mean another thing to each library.
    covered = {name: value for name, value in folded.items() if name == "content-type" or name.startswith("x-amz-")}
    signable: Any = AWSRequest(request.method, url + request.target, data=request.body, headers=covered)
    credentials = Credentials(key.access_key_id, key.secret_access_key, key.session_token or None)
    SigV4Auth(credentials, service_of(request), key.region).add_auth(signable)
    rest = [(name, value) for name, value in folded.items() if name not in covered]
    ours = [("host", host_of(url)), ("content-length", str(len(request.body)))]
    return request._replace(
        headers=[*ours, *rest, *((name.lower(), value) for name, value in signable.headers.items())]
    )


def service_of(request: Request) -> str:
    """The service name that a request is signed for: by its path, and where two have one, by a header."""
    path = request.target.partition("?")[0]
    if path.startswith("/meshlog/"):
        return "meshlog"
    if path.startswith(_CLOUD_MAP_PATH) or any(name == "x-amz-target" for name, _ in request.headers):
        return "servicediscovery"
    return "sts" if path == "/" else "appmesh"


def host_of(url: str) -> str:
    """The Host header of a base URL, as botocore signs it: without its scheme's own port."""
    parts = urlsplit(url)
    own = parts.port is None or parts.port == _DEFAULT_PORTS.get(parts.scheme)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return host if own else f"{host}:{parts.port}"


def repeatable(request: Request) -> bool:
    """Whether sending it twice does it once: a read, a call of STS, which keeps nothing, a body with a token, or a call
    of App Mesh or Cloud Map under an SDK's id, which the API takes for one."""
    service = service_of(request)
    if request.method in _READS or service == "sts":
        return True
    if service in ("appmesh", "servicediscovery") and any(
        name == _INVOCATION and value for name, value in request.headers
    ):
        return True
    try:
        body = json.loads(request.body)
    except (ValueError, RecursionError):
        return False
    return isinstance(body, dict) and isinstance(body.get("clientToken"), str) and bool(body["clientToken"])


def passed_on(headers: Headers) -> list[tuple[bytes, bytes]]:
    """A server's headers as our caller gets them."""
    kept = ((name.lower(), value) for name, value in headers if name.lower() not in _OF_ONE_HOP)
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in kept]
