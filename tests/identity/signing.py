"""Requests signed by botocore at a time of the test's choosing, by header and by presigned URL."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from botocore.auth import SIGV4_TIMESTAMP, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from identity.sigv4 import APPMESH, SignedRequest
from mesh.principals import AccessKey

KEY = AccessKey(
    "AKIAMESHLOGADMIN0001", "s3cr3t/with+odd=chars", "123456789012", "arn:aws:iam::123456789012:user/admin", True
)
NOW = datetime.datetime(2026, 11, 22, 13, 5, 0, tzinfo=datetime.UTC)
NOW_US = int(NOW.timestamp()) * 1_000_000
HOST = "127.0.0.1:7411"


def _sign_at(signer: Any, request: Any, at: datetime.datetime) -> None:
    """What botocore's `add_auth` does, but for the clock."""
    request.context["timestamp"] = at.strftime(SIGV4_TIMESTAMP)
    signer._modify_request_before_signing(request)
    text = signer.string_to_sign(request, signer.canonical_request(request))
    signer._inject_signature_to_request(request, signer.signature(text, request))


def sign(
    method: str = "PUT",
    target: str = "/v20190125/meshes?meshOwner=123456789012",
    body: bytes = b'{"meshName":"m"}',
    headers: Mapping[str, str] | None = None,
    *,
    key: AccessKey = KEY,
    at: datetime.datetime = NOW,
    service: str = APPMESH,
    region: str = "eu-north-1",
    token: str | None = None,
) -> SignedRequest:
    """What botocore puts on the wire for this call."""
    request = AWSRequest(method, f"http://{HOST}{target}", headers=dict(headers or {}), data=body)
    _sign_at(SigV4Auth(Credentials(key.access_key_id, key.secret, token), service, region), request, at)
    parts = urlsplit(target)
    sent = [("host", HOST), *((name.lower(), value) for name, value in request.headers.items())]
    return SignedRequest(method, parts.path, parts.query, sent, body)


def presign(
    target: str = "/v20190125/meshes?limit=10",
    *,
    key: AccessKey = KEY,
    at: datetime.datetime = NOW,
    service: str = APPMESH,
    token: str | None = None,
    lives_s: int = 3600,
) -> SignedRequest:
    """What whoever is given botocore's presigned URL puts on the wire."""
    request = AWSRequest("GET", f"http://{HOST}{target}")
    credentials = Credentials(key.access_key_id, key.secret, token)
    _sign_at(SigV4QueryAuth(credentials, service, "eu-north-1", expires=lives_s), request, at)
    parts = urlsplit(request.url)
    return SignedRequest("GET", parts.path, parts.query, [("host", HOST)], b"")


def with_header(request: SignedRequest, name: str, value: str | None) -> SignedRequest:
    """The request with one header replaced, added (when absent) or dropped (None)."""
    rest = [pair for pair in request.headers if pair[0] != name]
    return request._replace(headers=rest if value is None else [*rest, (name, value)])


def mutants(text: str) -> list[str]:
    """The text with one character changed, every one of them in several ways."""
    return [
        text[:at] + chr(value) + text[at + 1 :]
        for at in range(len(text))
        for value in {ord(text[at]) ^ bit for bit in (1, 2, 4, 8, 16, 32, 64, 128)} | {0x20, 0x2E, 0x2F, 0x85, 0xA0}
        if chr(value) != text[at]
    ]
