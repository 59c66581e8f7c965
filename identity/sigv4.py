"""SigV4 as it arrives: an HTTP request becomes what its signature claims, or NotAuthenticated. The claim is read from
the Authorization header or a presigned URL's query; nothing here is believed yet: `identity.verification` does that.

Rules: AWS General Reference, "Signing AWS API requests".
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import unquote

from mesh.errors import NotAuthenticated
from runtime.limits import PRESIGNED_LIFETIME_S

APPMESH = "appmesh"
MESHLOG = "meshlog"
STS = "sts"
CLOUD_MAP = "servicediscovery"

MISSING = "MissingAuthenticationTokenException"
INCOMPLETE = "IncompleteSignatureException"

TIMESTAMP = "%Y%m%dT%H%M%SZ"
AMZ = "x-amz-"
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
DATE_HEADER, BODY_HASH_HEADER, TOKEN_HEADER = "x-amz-date", "x-amz-content-sha256", "x-amz-security-token"

_ALGORITHM = "AWS4-HMAC-SHA256"
_AUTHORIZATION = re.compile(
    rf"{_ALGORITHM} Credential=(?P<credential>[^ ,]+), ?SignedHeaders=(?P<headers>[^ ,]+), ?"
    r"Signature=(?P<signature>[0-9a-f]{64})"
)
_CREDENTIAL = re.compile(
    r"(?P<key>[A-Za-z0-9]{4,128})/(?P<date>\d{8})/(?P<region>[A-Za-z0-9-]{1,64})/(?P<service>[A-Za-z0-9-]{1,64})"
    r"/aws4_request",
    re.ASCII,
)
_SIGNATURE = re.compile(r"[0-9a-f]{64}", re.ASCII)
_BASIC_TIME = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
_WHOLE = re.compile(r"\d{1,9}", re.ASCII)

_QUERY = "X-Amz-"
_QUERY_SIGNATURE, _QUERY_TOKEN = "X-Amz-Signature", "X-Amz-Security-Token"
_QUERY_NEEDED = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders")
_QUERY_SIGNS = {*_QUERY_NEEDED, _QUERY_SIGNATURE, _QUERY_TOKEN}


class SignedRequest(NamedTuple):
    """The request as it came over the wire: `path` and `query` still percent-encoded, header names in lower case.

    `streams`: its body is a stream, which goes on after the signature was made and is not covered by it.
    """

    method: str
    path: str
    query: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    streams: bool = False

    def values(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for header, value in self.headers if header == name]

    def single(self, name: str) -> str | None:
        """The value of a header that may be there once; NotAuthenticated if it is there twice."""
        values = self.values(name)
        if len(values) > 1:
            raise incomplete(f"The request has {len(values)} '{name}' headers; send one.")
        return values[0] if values else None


class Claim(NamedTuple):
    """What a signature says of itself. `lifetime_s`: of a presigned URL, from its `timestamp` on; None for a header.

    `query` is what the signature covers of the request's query; `token` the session token that came along.
    """

    key_id: str
    region: str
    service: str
    signed: tuple[str, ...]
    signature: str
    timestamp: str
    query: str
    lifetime_s: int | None = None
    token: str | None = None


def incomplete(message: str) -> NotAuthenticated:
    """The error for what is not a signature, or vouches for too little."""
    return NotAuthenticated(message, INCOMPLETE)


def claim_of(request: SignedRequest) -> Claim:
    """What the request's signature claims; NotAuthenticated if there is none, or none that can be read."""
    authorization = request.single("authorization")
    presigned = [pair for pair in request.query.split("&") if _name(pair) in _QUERY_SIGNS]
    if authorization is None:
        if presigned:
            return _presigned(request, presigned)
        raise NotAuthenticated(
            "Missing Authentication Token: sign the request with SigV4; `meshlog env` prints an endpoint and a key.",
            MISSING,
        )
    if presigned:
        raise incomplete("The request is signed twice, by its Authorization header and by its query; sign it once.")
    parts = _AUTHORIZATION.fullmatch(authorization)
    if not parts:
        raise incomplete(
            f"The Authorization header must read '{_ALGORITHM} "
            "Credential=<key>/<date>/<region>/<service>/aws4_request, SignedHeaders=<names>, Signature=<64 hex>'."
        )
    key_id, date, region, service = _credential(parts["credential"])
    signed = tuple(parts["headers"].split(";"))
    timestamp = _timestamp(request, signed)
    _check_date(date, timestamp)
    token = request.single(TOKEN_HEADER)
    return Claim(key_id, region, service, signed, parts["signature"], timestamp, request.query, None, token)


def without_signature(request: SignedRequest) -> SignedRequest:
    """The request without what a presigned URL adds to its query: what the call itself says."""
    if _QUERY not in request.query:
        return request
    said = [pair for pair in request.query.split("&") if _name(pair) not in _QUERY_SIGNS]
    return request._replace(query="&".join(said))


def _presigned(request: SignedRequest, pairs: Sequence[str]) -> Claim:
    said: dict[str, str] = {}
    for pair in pairs:
        name = _name(pair)
        if name in said:
            raise incomplete(f"'{name}' is there twice in the query; presign the URL once.")
        said[name] = unquote(pair.partition("=")[2])
    missing = [name for name in (*_QUERY_NEEDED, _QUERY_SIGNATURE) if name not in said]
    if missing:
        raise incomplete(f"A presigned URL must have {', '.join(missing)} in its query.")
    if said["X-Amz-Algorithm"] != _ALGORITHM:
        raise incomplete(f"X-Amz-Algorithm must be {_ALGORITHM}.")
    if not _SIGNATURE.fullmatch(said[_QUERY_SIGNATURE]):
        raise incomplete("X-Amz-Signature must be 64 hexadecimal digits in lower case.")
    timestamp, expires = said["X-Amz-Date"], said["X-Amz-Expires"]
    if not _is_time(timestamp):
        raise incomplete("X-Amz-Date must be a time such as 20261122T130500Z.")
    if not _WHOLE.fullmatch(expires) or not 1 <= int(expires) <= PRESIGNED_LIFETIME_S:
        raise incomplete(f"X-Amz-Expires must be 1 to {PRESIGNED_LIFETIME_S} seconds.")
    key_id, date, region, service = _credential(said["X-Amz-Credential"])
    _check_date(date, timestamp)
    if request.values(TOKEN_HEADER):
        raise incomplete(f"A presigned URL has its session token in the query, as {_QUERY_TOKEN}, and in no header.")
    signed = tuple(said["X-Amz-SignedHeaders"].split(";"))
    covered = "&".join(pair for pair in request.query.split("&") if _name(pair) != _QUERY_SIGNATURE)
    return Claim(
        key_id,
        region,
        service,
        signed,
        said[_QUERY_SIGNATURE],
        timestamp,
        covered,
        int(expires),
        said.get(_QUERY_TOKEN),
    )


def _name(pair: str) -> str:
    return unquote(pair.partition("=")[0])


def _credential(text: str) -> tuple[str, str, str, str]:
    """Key id, date, region and service."""
    credential = _CREDENTIAL.fullmatch(text)
    if not credential:
        raise incomplete("Credential must be <key id>/<yyyymmdd>/<region>/<service>/aws4_request.")
    return credential["key"], credential["date"], credential["region"], credential["service"]


def _check_date(date: str, timestamp: str) -> None:
    if timestamp[:8] != date:
        raise incomplete("The date in Credential is not the date that the request was signed on.")


def _is_time(text: str) -> bool:
    try:
        datetime.datetime.strptime(text, TIMESTAMP)  # noqa: DTZ007 - only its validity counts
    except ValueError:
        return False
    return _BASIC_TIME.fullmatch(text) is not None


def _timestamp(request: SignedRequest, signed: tuple[str, ...]) -> str:
    """The signing time in SigV4's basic form, from the x-amz-date header, else from Date."""
    name = DATE_HEADER if request.values(DATE_HEADER) else "date"
    text = request.single(name)
    if text is None:
        raise incomplete("The request has neither an 'x-amz-date' nor a 'date' header.")
    if name not in signed:
        raise incomplete(f"The '{name}' header must be among SignedHeaders.")
    if _is_time(text):
        return text
    if name != DATE_HEADER:
        try:
            at = parsedate_to_datetime(text)  # naive where the zone is -0000, which means UTC
            return (at.astimezone(datetime.UTC) if at.tzinfo else at).strftime(TIMESTAMP)
        except (ValueError, OverflowError):
            pass
    raise incomplete(f"The '{name}' header must be a time such as 20261122T130500Z.")
