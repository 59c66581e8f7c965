"""SigV4, the server's side: a header-signed request becomes the caller who signed it, or NotAuthenticated. No I/O.

The canonical request is made by botocore's own signer, from the raw request and exactly the headers that the caller
says it signed, so that what AWS's SDKs sign is what is checked. Nothing here may tell an unknown access key from a
wrong signature, nor say that a request is late before its signature is known to be right.

Rules: AWS General Reference, "Signing AWS API requests"; window ±5 minutes; any region; presigned URLs and session
tokens are refused with a reason.
"""

from __future__ import annotations

import calendar
import datetime
import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from botocore.auth import SIGV4_TIMESTAMP, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials

from identity.caller import Caller
from mesh.errors import NotAuthenticated
from mesh.state import AccessKey
from runtime.limits import SIGV4_WINDOW_S

APPMESH = "appmesh"
MESHLOG = "meshlog"

MISSING = "MissingAuthenticationTokenException"
INCOMPLETE = "IncompleteSignatureException"
INVALID = "InvalidSignatureException"
UNVERIFIABLE = "UnrecognizedClientException"
DISABLED = "InvalidClientTokenId"

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<credential>[^ ,]+), ?SignedHeaders=(?P<headers>[^ ,]+), ?"
    r"Signature=(?P<signature>[0-9a-f]{64})"
)
_CREDENTIAL = re.compile(
    r"(?P<key>[A-Za-z0-9]{4,128})/(?P<date>\d{8})/(?P<region>[A-Za-z0-9-]{1,64})/(?P<service>[A-Za-z0-9-]{1,64})"
    r"/aws4_request",
    re.ASCII,
)
_BASIC_TIME = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
_VISIBLE = re.compile(r"[\x21-\x7e]*")
_SPACES = re.compile(r"[ \t]+")
_UNKNOWN_KEY_SECRET = "no such key, but the time that checking takes must not tell"  # noqa: S105 - signs nothing
_AMZ = "x-amz-"
_DATE, _BODY_HASH, _SESSION = "x-amz-date", "x-amz-content-sha256", "x-amz-security-token"

_REFUSED = (
    "The access key is not known here, or the request signature we calculated does not match the signature you "
    "provided. Check your access key id, your secret access key and the signing method: `meshlog env` prints the ones "
    "that this cluster accepts."
)


class SignedRequest(NamedTuple):
    """The request as it came over the wire: `path` and `query` still percent-encoded, header names in lower case."""

    method: str
    path: str
    query: str
    headers: Sequence[tuple[str, str]]
    body: bytes


class _Claim(NamedTuple):
    """What the Authorization header says, parsed and not yet believed."""

    key_id: str
    region: str
    service: str
    signed: tuple[str, ...]
    signature: str
    timestamp: str


KeyLookup = Callable[[str], AccessKey | None]


def verify(request: SignedRequest, lookup: KeyLookup, now_us: int, services: Sequence[str] = (APPMESH,)) -> Caller:
    """The caller who signed `request`; NotAuthenticated with SigV4's own error name otherwise.

    `services` are the service names that the signature's scope may carry.
    """
    claim = _claim(request)
    _check_coverage(request, claim, services)
    key = lookup(claim.key_id)
    expected = _signature(request, claim, key.secret if key else _UNKNOWN_KEY_SECRET)
    genuine = hmac.compare_digest(expected, claim.signature)
    if key is None or not genuine or not _body_matches(request):
        raise NotAuthenticated(_REFUSED, INVALID)
    _check_time(claim.timestamp, now_us)
    if key.disabled_us is not None:  # told to its holder only: the signature was right
        raise NotAuthenticated(
            f"The access key {key.access_key_id} is disabled. Ask an admin of account {key.account} for another one.",
            DISABLED,
        )
    return Caller(key.account, key.principal, key.principal, key.access_key_id, key.admin, claim.region)


def _incomplete(message: str) -> NotAuthenticated:
    return NotAuthenticated(message, INCOMPLETE)


def _values(request: SignedRequest, name: str) -> list[str]:
    return [value for header, value in request.headers if header == name]


def _single(request: SignedRequest, name: str) -> str | None:
    values = _values(request, name)
    if len(values) > 1:
        raise _incomplete(f"The request has {len(values)} '{name}' headers; send one.")
    return values[0] if values else None


def _claim(request: SignedRequest) -> _Claim:
    authorization = _single(request, "authorization")
    if authorization is None:
        if "X-Amz-Signature=" in request.query:
            raise _incomplete("Presigned URLs are not accepted; sign the request with an Authorization header.")
        raise NotAuthenticated(
            "Missing Authentication Token: sign the request with SigV4; `meshlog env` prints an endpoint and a key.",
            MISSING,
        )
    if _values(request, _SESSION) or "X-Amz-Security-Token=" in request.query:
        raise NotAuthenticated(
            "The request carries a session token. AWS's temporary credentials cannot be verified by anybody but AWS: "
            "call with an access key that Meshlog issued (`meshlog env` prints one) and unset AWS_SESSION_TOKEN.",
            UNVERIFIABLE,
        )
    parts = _AUTHORIZATION.fullmatch(authorization)
    if not parts:
        raise _incomplete(
            "The Authorization header must read 'AWS4-HMAC-SHA256 "
            "Credential=<key>/<date>/<region>/<service>/aws4_request, SignedHeaders=<names>, Signature=<64 hex>'."
        )
    credential = _CREDENTIAL.fullmatch(parts["credential"])
    if not credential:
        raise _incomplete("Credential must be <key id>/<yyyymmdd>/<region>/<service>/aws4_request.")
    signed = tuple(parts["headers"].split(";"))
    timestamp = _timestamp(request, signed)
    if timestamp[:8] != credential["date"]:
        raise _incomplete("The date in Credential is not the date that the request was signed on.")
    return _Claim(credential["key"], credential["region"], credential["service"], signed, parts["signature"], timestamp)


def _timestamp(request: SignedRequest, signed: tuple[str, ...]) -> str:
    """The signing time in SigV4's basic form, from the x-amz-date header, else from Date."""
    name = _DATE if _values(request, _DATE) else "date"
    text = _single(request, name)
    if text is None:
        raise _incomplete("The request has neither an 'x-amz-date' nor a 'date' header.")
    if name not in signed:
        raise _incomplete(f"The '{name}' header must be among SignedHeaders.")
    try:
        if _BASIC_TIME.fullmatch(text):
            datetime.datetime.strptime(text, SIGV4_TIMESTAMP)  # noqa: DTZ007 - only its validity counts
            return text
        if name != _DATE:
            at = parsedate_to_datetime(text)  # naive where the zone is -0000, which means UTC
            return (at.astimezone(datetime.UTC) if at.tzinfo else at).strftime(SIGV4_TIMESTAMP)
    except (ValueError, OverflowError):
        pass
    raise _incomplete(f"The '{name}' header must be a time such as 20261122T130500Z.")


def _check_coverage(request: SignedRequest, claim: _Claim, services: Sequence[str]) -> None:
    """Refuse what a right signature would not vouch for."""
    if claim.service not in services:
        raise _incomplete(f"The request is signed for the service '{claim.service}'; sign it for '{services[0]}'.")
    if list(claim.signed) != sorted(set(claim.signed)):
        raise _incomplete("SignedHeaders must be lower-case header names, sorted, each once.")
    names = {name for name, _ in request.headers}
    for name in claim.signed:
        if name not in names:
            raise _incomplete(f"SignedHeaders names '{name}', which the request does not have.")
    if "host" not in claim.signed:
        raise _incomplete("The 'host' header must be among SignedHeaders.")
    for name in ("host", _DATE, _BODY_HASH):
        _single(request, name)
    for name in sorted(names):
        if name.startswith(_AMZ) and name not in claim.signed:
            raise _incomplete(f"The '{name}' header must be among SignedHeaders, as every x-amz- header must.")
    # botocore's canonical form folds these away; what arrives must not mean something else than what was signed.
    segments = request.path.split("/")[1:]
    if not request.path.startswith("/") or {".", ".."} & set(segments) or "" in segments[:-1]:
        raise _incomplete("The path has an empty, '.' or '..' segment, which a signature does not cover.")
    target = request.path + request.query
    if not _VISIBLE.fullmatch(target) or "#" in target or "?" in request.path or not request.method.isupper():
        raise _incomplete("The method must be upper case; path and query visible ASCII with the rest percent-encoded.")


def _body_matches(request: SignedRequest) -> bool:
    stated = _single(request, _BODY_HASH)
    return stated is None or hmac.compare_digest(stated.encode(), hashlib.sha256(request.body).hexdigest().encode())


def _check_time(timestamp: str, now_us: int) -> None:
    signed_s = calendar.timegm(datetime.datetime.strptime(timestamp, SIGV4_TIMESTAMP).timetuple())  # noqa: DTZ007
    now_s = now_us // 1_000_000
    if abs(now_s - signed_s) <= SIGV4_WINDOW_S:
        return
    now, minutes = _basic(now_s), SIGV4_WINDOW_S // 60
    if signed_s < now_s:
        edge = _basic(now_s - SIGV4_WINDOW_S)
        text = f"Signature expired: {timestamp} is now earlier than {edge} ({now} - {minutes} min.)"
    else:
        edge = _basic(now_s + SIGV4_WINDOW_S)
        text = f"Signature not yet current: {timestamp} is still later than {edge} ({now} + {minutes} min.)"
    raise NotAuthenticated(f"{text} Set the clock of the machine that signs.", INVALID)


def _basic(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime(SIGV4_TIMESTAMP)


class _Verifier(SigV4Auth):  # type: ignore[misc]  # botocore carries no types
    """botocore's signer, told which headers to sign and what the body's hash is."""

    def __init__(self, secret: str, claim: _Claim, body_hash: str) -> None:
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


def _signature(request: SignedRequest, claim: _Claim, secret: str) -> str:
    url = f"http://signed.invalid{request.path}" + (f"?{request.query}" if request.query else "")
    signable: Any = AWSRequest(request.method, url)
    for name, value in request.headers:
        signable.headers[name] = value
    signable.context["timestamp"] = claim.timestamp
    verifier = _Verifier(secret, claim, hashlib.sha256(request.body).hexdigest())
    canonical = verifier.canonical_request(signable)
    signature: str = verifier.signature(verifier.string_to_sign(signable, canonical), signable)
    return signature
