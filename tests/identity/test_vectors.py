"""AWS's published SigV4 test suite: our derivation makes its canonical requests, strings to sign and signatures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from identity.canonical import derive
from identity.sigv4 import SignedRequest, claim_of
from identity.verification import verify
from mesh.errors import NotAuthenticated
from mesh.principals import AccessKey

SUITE: Any = json.loads((Path(__file__).parent / "aws4_testsuite.json").read_text(encoding="utf-8"))
VECTORS: dict[str, dict[str, str]] = SUITE["vectors"]
KEY = AccessKey("AKIDEXAMPLE", SUITE["secret"], "123456789012", "arn:aws:iam::123456789012:user/example", True)
NOW_US = 1440938160 * 1_000_000

UNSENDABLE = {"get-utf8", "normalize-path/get-space", "get-vanilla-utf8-query"}
"""Their request line has bytes that HTTP does not allow there; clients encode them first."""
FOLDED = {
    f"normalize-path/{name}"
    for name in ("get-relative", "get-relative-relative", "get-slash", "get-slash-dot-slash", "get-slash-pointless-dot",
                 "get-slashes")
}  # fmt: skip
"""Their path has segments that a signature does not cover, so we refuse them, rightly signed as they are."""
FOREIGN = {"get-vanilla-with-session-token", "post-sts-token/post-sts-header-before"}
"""They carry a session token that AWS issued."""


def request_of(vector: dict[str, str]) -> SignedRequest:
    head, _, body = vector["request"].partition("\n\n")
    line, *lines = head.split("\n")
    method, target = line.removesuffix(" HTTP/1.1").split(" ", 1)
    path, _, query = target.partition("?")
    headers: list[tuple[str, str]] = []
    for text in lines:
        if text.startswith(" "):  # obsolete folding
            headers[-1] = (headers[-1][0], f"{headers[-1][1]} {text.strip()}")
        else:
            name, _, value = text.partition(":")
            headers.append((name.lower(), value))
    # The suite's own harness adds the token to one of the requests.
    signed = [text.partition(":") for text in vector["canonical_request"].split("\n") if text.startswith("x-amz-sec")]
    headers += [(name, value) for name, _, value in signed if name not in dict(headers)]
    headers.append(("authorization", vector["authorization"]))
    return SignedRequest(method, path, query, headers, body.encode())


@pytest.mark.parametrize("name", sorted(VECTORS.keys() - UNSENDABLE))
def test_the_derivation_is_awss(name: str) -> None:
    vector = VECTORS[name]
    request = request_of(vector)
    made = derive(request, claim_of(request), KEY.secret)
    assert made.canonical_request == vector["canonical_request"]
    assert made.string_to_sign == vector["string_to_sign"]
    assert made.signature == vector["authorization"].rpartition("=")[2]


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_verification_takes_what_http_can_carry_and_a_signature_covers(name: str) -> None:
    request = request_of(VECTORS[name])
    try:
        caller = verify(request, lambda key_id: KEY if key_id == KEY.access_key_id else None, NOW_US, ("service",))
    except NotAuthenticated:
        assert name in UNSENDABLE | FOLDED | FOREIGN
    else:
        assert name not in UNSENDABLE | FOLDED | FOREIGN
        assert caller.principal == KEY.principal
