"""What Cloud Map's callers are told of an error that is not Cloud Map's own, in both protocols."""

from __future__ import annotations

import json

import pytest

from api.cloud_map_wire import as_cbor, as_json
from mesh.errors import BadRequest, Forbidden, MeshlogError, NoQuorum, NotAuthenticated, TooManyRequests
from mesh.registry.errors import DuplicateRequest
from runtime.cbor import decode
from runtime.http_answers import encode_document, encode_error

ERRORS: list[tuple[MeshlogError, str, int]] = [
    (TooManyRequests("slow down"), "RequestLimitExceeded", 429),
    (Forbidden("no"), "AccessDeniedException", 400),
    (NotAuthenticated("no", "InvalidSignatureException"), "InvalidSignatureException", 400),
    (NotAuthenticated("no", "ExpiredTokenException"), "ExpiredTokenException", 400),
    (BadRequest("no"), "InvalidInput", 400),
    (NoQuorum("later"), "ServiceUnavailableException", 503),
    (DuplicateRequest("no", DuplicateOperationId="o-1"), "DuplicateRequest", 409),
]


@pytest.mark.parametrize(("error", "code", "status"), ERRORS, ids=[code for _, code, _ in ERRORS])
def test_errors(error: MeshlogError, code: str, status: int) -> None:
    wire = encode_error(error, "r-1", 0)
    spoken = [(told := as_json(wire), json.loads(told.body)), (told := as_cbor(wire), decode(told.body, 8))]
    for told, document in spoken:
        headers = dict(told.headers)
        assert (told.status, document["__type"], headers[b"x-amzn-errortype"]) == (status, code, code.encode())
        assert document["message"] == document["Message"] == error.message
        assert headers[b"content-length"] == str(len(told.body)).encode()
        assert headers[b"x-amzn-requestid"] == b"r-1"
        assert document.get("DuplicateOperationId") == error.members.get("DuplicateOperationId")


def test_times_are_times_and_what_only_has_their_name_is_not() -> None:
    told = {"CreateDate": 1.5, "Attributes": {"CreateDate": "today"}}
    told_in_cbor = as_cbor(encode_document(200, told, {}, "r-1", 0))
    assert decode(told_in_cbor.body, 8) == told
    assert told_in_cbor.body.count(b"\xc1\xfb") == 1
