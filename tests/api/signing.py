"""Raw HTTP requests, signed as asked for, to an API server on loopback: what boto3 would refuse to send."""

from __future__ import annotations

import asyncio
import datetime
import http.client
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from botocore.auth import SIGV4_TIMESTAMP, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.api.conftest import ADMIN, REGION, Server

TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return self.headers["x-amzn-errortype"]


@dataclass(frozen=True)
class Signing:
    """How to sign. `shift_s`: how far the signer's clock is ahead. `amz_target`: a header that is signed as well."""

    key: tuple[str, str] | None = (ADMIN.access_key_id, ADMIN.secret)
    service: str = "appmesh"
    shift_s: float = 0.0
    session_token: str | None = None
    amz_target: str | None = None


class _Shifted(SigV4Auth):  # type: ignore[misc]  # botocore carries no types
    shift_s = 0.0

    def add_auth(self, request: Any) -> None:
        at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self.shift_s)
        request.context["timestamp"] = at.strftime(SIGV4_TIMESTAMP)
        self._modify_request_before_signing(request)
        canonical = self.canonical_request(request)
        self._inject_signature_to_request(request, self.signature(self.string_to_sign(request, canonical), request))


def signed_headers(url: str, method: str, target: str, body: bytes, signing: Signing) -> dict[str, str]:
    """The headers that botocore adds."""
    headers = {"content-type": "application/json"}
    if signing.amz_target is not None:
        headers["x-amz-target"] = signing.amz_target
    request = AWSRequest(method, url + target, data=body, headers=headers)
    if signing.key is not None:
        signer = _Shifted(Credentials(*signing.key, signing.session_token), signing.service, REGION)
        signer.shift_s = signing.shift_s
        signer.add_auth(request)
    return dict(request.headers.items())


async def ask(
    server: Server, method: str, target: str, body: bytes | dict[str, Any] = b"", signing: Signing | None = None
) -> Reply:
    """One request on a connection of its own."""
    content = json.dumps(body).encode() if isinstance(body, dict) else body
    headers = signed_headers(server.url, method, target, content, signing or Signing())
    return await asyncio.to_thread(_exchange, server.url, method, target, content, headers)


def _exchange(url: str, method: str, target: str, body: bytes, headers: dict[str, str]) -> Reply:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)
    try:
        connection.request(method, target, body or None, headers)
        answer = connection.getresponse()
        names = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(answer.status, names, answer.read())
    finally:
        connection.close()
