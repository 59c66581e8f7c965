"""SigV4, the server's side: a signed request becomes the caller who signed it, or NotAuthenticated. No I/O.

Nothing here may tell an unknown access key from a wrong signature, nor say that a request is late, a key disabled or
a session over before the signature is known to be right. Window: ±5 minutes, or a presigned URL's own lifetime; any
region; session tokens are Meshlog's own (`identity.session`), since nobody but AWS can verify AWS's.
"""

from __future__ import annotations

import calendar
import datetime
import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from typing import Protocol

from identity.caller import Caller, SessionFacts
from identity.canonical import derive
from identity.session import TEMPORARY_PREFIX, Session, is_token
from identity.sigv4 import (
    AMZ,
    APPMESH,
    BODY_HASH_HEADER,
    DATE_HEADER,
    TIMESTAMP,
    UNSIGNED_PAYLOAD,
    Claim,
    SignedRequest,
    claim_of,
    incomplete,
)
from mesh.errors import NotAuthenticated
from mesh.principals import AccessKey
from runtime.limits import SIGV4_WINDOW_S

INVALID = "InvalidSignatureException"
UNVERIFIABLE = "UnrecognizedClientException"
DISABLED = "InvalidClientTokenId"
EXPIRED = "ExpiredTokenException"

_AWS_TEMPORARY_PREFIX = "ASIA"
_VISIBLE = re.compile(r"[\x21-\x7e]*")
_UNKNOWN_KEY_SECRET = "no such key, but the time that checking takes must not tell"  # noqa: S105 - signs nothing

_REFUSED = (
    "The access key is not known here, or the request signature we calculated does not match the signature you "
    "provided. Check your access key id, your secret access key and the signing method: `meshlog env` prints the ones "
    "that this cluster accepts."
)
_FOREIGN = (
    "The request carries a session token that Meshlog did not issue. AWS's temporary credentials cannot be verified by "
    "anybody but AWS: call with an access key that Meshlog issued (`meshlog env` prints one) and unset "
    "AWS_SESSION_TOKEN, or, where a program needs its AWS credentials too, point it at `meshlog connect`."
)

KeyLookup = Callable[[str], AccessKey | None]


class Sessions(Protocol):
    """What knows the session tokens that this cluster issued."""

    def opened(self, token: str) -> Session | None:
        """The session that a token holds; None if this cluster did not seal it."""
        ...

    def problem(self, session: Session) -> str | None:
        """Why a session counts no more although its time is not over (its role or key is gone); None if it counts."""
        ...


class NoSessions:
    """Knows none."""

    def opened(self, token: str) -> Session | None:  # noqa: ARG002
        return None

    def problem(self, session: Session) -> str | None:  # noqa: ARG002
        return None


def verify(
    request: SignedRequest,
    lookup: KeyLookup,
    now_us: int,
    services: Sequence[str] = (APPMESH,),
    sessions: Sessions = NoSessions(),  # noqa: B008 - it has no state
) -> Caller:
    """The caller who signed `request`; NotAuthenticated with SigV4's own error name otherwise.

    `services` are the service names that the signature's scope may carry.
    """
    claim = claim_of(request)
    _check_token(claim)
    _check_coverage(request, claim, services)
    session = _session_of(claim, sessions)
    key = lookup(claim.key_id) if claim.token is None else None
    secret = session.secret if session else key.secret if key else _UNKNOWN_KEY_SECRET
    genuine = hmac.compare_digest(derive(request, claim, secret).signature, claim.signature)
    if (key is None and session is None) or not genuine or not _body_matches(request):
        raise NotAuthenticated(_REFUSED, INVALID)
    # From here on it is the key's holder who is told.
    _check_time(claim, now_us)
    if session is not None:
        return caller_in(session, claim.region, now_us, sessions)
    assert key is not None  # noqa: S101 - or there is a session
    return caller_with(key, claim.region)


def caller_with(key: AccessKey, region: str) -> Caller:
    """Whoever holds a long-lived key; NotAuthenticated if it opens nothing any more."""
    if key.disabled_us is not None:
        raise NotAuthenticated(
            f"The access key {key.access_key_id} is disabled. Ask an admin of account {key.account} for another one.",
            DISABLED,
        )
    return Caller(key.account, key.principal, key.principal, key.access_key_id, key.admin, region)


def _check_token(claim: Claim) -> None:
    """Refuse, with a reason, temporary credentials that cannot be Meshlog's: by their form, which is no secret."""
    foreign_token = claim.token is not None and not is_token(claim.token)
    if foreign_token or claim.key_id.startswith(_AWS_TEMPORARY_PREFIX):
        raise NotAuthenticated(_FOREIGN, UNVERIFIABLE)
    if claim.token is None and claim.key_id.startswith(TEMPORARY_PREFIX):
        raise NotAuthenticated(
            "The access key is a temporary one, and the request has no session token: send the SessionToken that came "
            "with it (AWS_SESSION_TOKEN, x-amz-security-token).",
            UNVERIFIABLE,
        )


def _session_of(claim: Claim, sessions: Sessions) -> Session | None:
    session = sessions.opened(claim.token) if claim.token is not None else None
    return session if session is not None and session.access_key_id == claim.key_id else None


def caller_in(session: Session, region: str, now_us: int, sessions: Sessions) -> Caller:
    """Whoever holds a session; NotAuthenticated if it is over, or its grounds are."""
    if session.expires_us <= now_us:
        raise NotAuthenticated(
            f"The security token included in the request is expired, since {_basic(session.expires_us // 1_000_000)}. "
            "Assume the role again.",
            EXPIRED,
        )
    problem = sessions.problem(session)
    if problem is not None:
        raise NotAuthenticated(f"The security token included in the request is invalid: {problem}", DISABLED)
    facts = SessionFacts(session.name, session.expires_us, session.policy, session.issued_us)
    return Caller(
        session.account, session.principal, session.identity, session.access_key_id, session.admin, region, facts
    )


def _check_coverage(request: SignedRequest, claim: Claim, services: Sequence[str]) -> None:
    """Refuse what a right signature would not vouch for."""
    if claim.service not in services:
        raise incomplete(f"The request is signed for the service '{claim.service}'; sign it for '{services[0]}'.")
    if list(claim.signed) != sorted(set(claim.signed)):
        raise incomplete("SignedHeaders must be lower-case header names, sorted, each once.")
    names = {name for name, _ in request.headers}
    for name in claim.signed:
        if name not in names:
            raise incomplete(f"SignedHeaders names '{name}', which the request does not have.")
    if "host" not in claim.signed:
        raise incomplete("The 'host' header must be among SignedHeaders.")
    for name in ("host", DATE_HEADER, BODY_HASH_HEADER):
        request.single(name)
    for name in sorted(names):
        if name.startswith(AMZ) and name not in claim.signed:
            raise incomplete(f"The '{name}' header must be among SignedHeaders, as every x-amz- header must.")
    # botocore's canonical form folds these away; what arrives must not mean something else than what was signed.
    segments = request.path.split("/")[1:]
    if not request.path.startswith("/") or {".", ".."} & set(segments) or "" in segments[:-1]:
        raise incomplete("The path has an empty, '.' or '..' segment, which a signature does not cover.")
    target = request.path + request.query
    if not _VISIBLE.fullmatch(target) or "#" in target or "?" in request.path or not request.method.isupper():
        raise incomplete("The method must be upper case; path and query visible ASCII with the rest percent-encoded.")


def _body_matches(request: SignedRequest) -> bool:
    stated = request.single(BODY_HASH_HEADER)
    if request.streams and stated == UNSIGNED_PAYLOAD:
        return True
    return stated is None or hmac.compare_digest(stated.encode(), hashlib.sha256(request.body).hexdigest().encode())


def _check_time(claim: Claim, now_us: int) -> None:
    timestamp, window_s = claim.timestamp, SIGV4_WINDOW_S
    signed_s = calendar.timegm(datetime.datetime.strptime(timestamp, TIMESTAMP).timetuple())  # noqa: DTZ007
    now_s = now_us // 1_000_000
    lives_s = window_s if claim.lifetime_s is None else claim.lifetime_s
    if -window_s <= now_s - signed_s <= lives_s:
        return
    now, minutes = _basic(now_s), window_s // 60
    if signed_s > now_s:
        edge = _basic(now_s + window_s)
        text = f"Signature not yet current: {timestamp} is still later than {edge} ({now} + {minutes} min.)"
    elif claim.lifetime_s is None:
        edge = _basic(now_s - window_s)
        text = f"Signature expired: {timestamp} is now earlier than {edge} ({now} - {minutes} min.)"
    else:
        text = f"Signature expired: {_basic(signed_s + lives_s)} ({timestamp} + {lives_s} s) is now earlier than {now}."
        raise NotAuthenticated(f"{text} Presign the URL again.", INVALID)
    raise NotAuthenticated(f"{text} Set the clock of the machine that signs.", INVALID)


def _basic(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime(TIMESTAMP)
