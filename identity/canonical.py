"""SigV4's arithmetic: a request, and what its signature claims, become the signature that a secret would have made.

botocore's own signer does it, from the raw request and exactly the headers that the caller says it signed, so that
what AWS's SDKs sign is what is checked. It must never look at the claimed signature.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, NamedTuple

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials

from identity.sigv4 import Claim, SignedRequest

_SPACES = re.compile(r"[ \t]+")


class Derivation(NamedTuple):
    """The steps to a signature, as AWS's test vectors name them. The last one is as good as the request's own."""

    canonical_request: str
    string_to_sign: str
    signature: str


class _Signer(SigV4Auth):  # type: ignore[misc]  # botocore carries no types
    """botocore's signer, told which headers to sign and what the body's hash is."""

    def __init__(self, secret: str, claim: Claim, body_hash: str) -> None:
        super().__init__(Credentials(claim.key_id, secret), claim.service, claim.region)
        self._signed = claim.signed
        self._body_hash = body_hash

    def headers_to_sign(self, request: AWSRequest) -> HTTPHeaders:
        chosen = HTTPHeaders()
        for name, value in request.headers.items():
            if name in self._signed:
                chosen[name] = value
        return chosen

    def payload(self, request: AWSRequest) -> str:  # noqa: ARG002 - botocore's signature
        return self._body_hash

    def _header_value(self, value: str) -> str:
        # Only spaces and tabs fold: botocore's str.split would take control and non-ASCII bytes for spaces too.
        return _SPACES.sub(" ", value.strip(" \t"))


def derive(request: SignedRequest, claim: Claim, secret: str) -> Derivation:
    """What `secret` makes of the request, with the claim's headers, scope and time."""
    url = f"http://signed.invalid{request.path}" + (f"?{claim.query}" if claim.query else "")
    signable: Any = AWSRequest(request.method, url)
    for name, value in request.headers:
        signable.headers[name] = value
    signable.context["timestamp"] = claim.timestamp
    signer = _Signer(secret, claim, hashlib.sha256(request.body).hexdigest())
    canonical: str = signer.canonical_request(signable)
    text: str = signer.string_to_sign(signable, canonical)
    return Derivation(canonical, text, signer.signature(text, signable))
