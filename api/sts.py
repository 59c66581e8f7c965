"""STS on the same endpoint, as far as SDKs, the aws CLI and Terraform need it: who am I, and temporary credentials.

POST /  Action=GetCallerIdentity                        → {UserId, Account, Arn}
        Action=GetSessionToken&DurationSeconds=…        → {Credentials}
        Action=AssumeRole&RoleArn=…&RoleSessionName=…   → {Credentials, AssumedRoleUser, PackedPolicySize}
            &DurationSeconds=…&Policy=…&ExternalId=…
GET  /?Action=…                                         the same (presigned URLs)

AWS's query protocol (`api.query_protocol`). The credentials are Meshlog's own and open nothing at AWS; nothing is
stored, so a session needs no cleaning up. Anybody with an access key may ask who it is, as at AWS.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import structlog

from api.appmesh import confirmed_state
from api.authorization import requester_of
from api.calls import Answer, Call
from api.ports import ApiPorts
from api.query_protocol import VERSION, form_members
from api.routes import Found, Route, Router
from api.sessions import SessionKeyring
from identity.caller import Caller
from identity.session import Session, draw_temporary_key, seal
from identity.sigv4 import STS, SignedRequest, claim_of
from mesh.errors import BadRequest, Forbidden, NotReady
from mesh.iam.assume import may_assume
from mesh.iam.policy import check_policy
from mesh.kinds import ResourceKey
from mesh.limits import SESSION_POLICY_MAX_CHARS
from mesh.principals import IamName, iam_name
from runtime.limits import (
    SESSION_CHAINED_S_MAX,
    SESSION_S_DEFAULT,
    SESSION_S_MAX,
    SESSION_S_MIN,
    SESSION_TOKEN_S_DEFAULT,
    SESSION_TOKEN_S_MAX,
)

log = structlog.get_logger(__name__)

PATH = "/"
GET_CALLER_IDENTITY, GET_SESSION_TOKEN, ASSUME_ROLE = "GetCallerIdentity", "GetSessionToken", "AssumeRole"

_ENVELOPE = ("Action", "Version")
_SESSION_NAME = re.compile(r"[A-Za-z0-9_+=,.@-]{2,64}", re.ASCII)
_EXTERNAL_ID = re.compile(r"[A-Za-z0-9_+=,.@:/-]{2,1224}", re.ASCII)


class MalformedPolicy(BadRequest):
    """A session policy that is none."""

    code = "MalformedPolicyDocument"


class _Operation(NamedTuple):
    """An operation's handler, and the members that it takes; None takes any, since none counts."""

    handle: Callable[[Call], Awaitable[Answer]]
    members: tuple[str, ...] | None


class StsApi:
    """The handlers, bound to one server's ports."""

    def __init__(self, ports: ApiPorts) -> None:
        self._ports = ports
        self._operations: Mapping[str, _Operation] = {
            GET_CALLER_IDENTITY: _Operation(self._caller_identity, None),
            GET_SESSION_TOKEN: _Operation(self._session_token, ("DurationSeconds",)),
            ASSUME_ROLE: _Operation(
                self._assume_role, ("RoleArn", "RoleSessionName", "DurationSeconds", "Policy", "ExternalId")
            ),
        }

    def router(self) -> Router:
        """Each operation by POST and by GET: all have one path, so the request's form tells which it is."""
        routes = {(method, name): self._route(method, name) for method in ("POST", "GET") for name in self._operations}

        def find(request: SignedRequest) -> Found | None:
            if request.path != PATH or request.values("x-amz-target"):  # another API's operation
                return None
            said = _form(request)
            if "Action" not in said:
                claim_of(request)  # who signs nothing is told that first: its form may not even have been read
            found = routes.get((request.method, said.get("Action", "")))
            return Found(found, {}) if found and said.get("Version") == VERSION else None

        return Router(tuple(routes.values()), find)

    def _route(self, method: str, name: str) -> Route:
        operation = self._operations[name]

        def read(request: SignedRequest, path_members: Mapping[str, str]) -> dict[str, Any]:  # noqa: ARG001
            members = {member: value for member, value in _form(request).items() if member not in _ENVELOPE}
            unknown = sorted(members.keys() - set(operation.members or members))
            if unknown:
                raise BadRequest(f"{', '.join(unknown)[:200]}: {name} does not take this here; leave it out.")
            return members

        path = f"{PATH}?Action={name}&Version={VERSION}"
        return Route(method, path, f"{STS}:{name}", (STS,), read, _no_keys, operation.handle)

    async def _caller_identity(self, call: Call) -> Answer:
        state, caller = self._ports.replica.state, call.caller
        result = {"UserId": user_id(caller), "Account": caller.account, "Arn": caller.principal}
        return Answer({GET_CALLER_IDENTITY: result}, state.position)

    async def _session_token(self, call: Call) -> Answer:
        caller = call.caller
        if caller.session is not None:
            raise Forbidden("Cannot call GetSessionToken with session credentials: call with a long-lived access key.")
        lives_s = whole(call.members, "DurationSeconds", SESSION_TOKEN_S_DEFAULT, SESSION_S_MIN, SESSION_TOKEN_S_MAX)
        session = self._drawn(caller, lives_s)._replace(parent_key_id=caller.access_key_id, admin=caller.admin)
        return Answer({GET_SESSION_TOKEN: self._credentials(session)}, self._ports.replica.state.position)

    async def _assume_role(self, call: Call) -> Answer:
        caller, members = call.caller, call.members
        role, name = _role(members), _session_name(members)
        most_s = SESSION_CHAINED_S_MAX if caller.session and caller.session.name else SESSION_S_MAX
        lives_s = whole(members, "DurationSeconds", SESSION_S_DEFAULT, SESSION_S_MIN, most_s)
        policy = _session_policy(members.get("Policy"))
        state = await confirmed_state(self._ports)
        external_id = _external_id(members)
        asking, now = requester_of(caller), call.circumstances
        may_assume(state, asking, role.arn, now, session_name=name, external_id=external_id)
        session = self._drawn(caller, lives_s)._replace(
            account=role.account,
            principal=f"arn:aws:sts::{role.account}:assumed-role/{role.name}/{name}",
            identity=role.arn,
            name=name,
            policy=policy,
            role_created_us=state.principals[role.arn].created_us,
        )
        log.info(
            "role assumed", request_id=call.request_id, by=caller.principal, principal=session.principal,
            access_key_id=session.access_key_id, expires=iso_seconds(session.expires_us),
        )  # fmt: skip
        user = {"AssumedRoleId": f"{role.name}:{name}", "Arn": session.principal}
        result = self._credentials(session) | {"AssumedRoleUser": user}
        if policy is not None:
            result["PackedPolicySize"] = max(1, 100 * len(policy) // SESSION_POLICY_MAX_CHARS)
        return Answer({ASSUME_ROLE: result}, state.position)

    def _drawn(self, caller: Caller, lives_s: int) -> Session:
        """A new session of the caller's own."""
        now_us = self._ports.clock.now_us()
        return Session(
            *draw_temporary_key(self._ports.entropy),
            account=caller.account,
            principal=caller.principal,
            identity=caller.identity,
            name="",
            issued_us=now_us,
            expires_us=now_us + lives_s * 1_000_000,
        )

    def _credentials(self, session: Session) -> dict[str, Any]:
        if self._ports.keys is None:
            raise NotReady("This server was given no keys to seal sessions with. Try another one.")
        keys = SessionKeyring(self._ports.keys.keyring, self._ports.clock)
        credentials = {
            "AccessKeyId": session.access_key_id,
            "SecretAccessKey": session.secret,
            "SessionToken": seal(session, keys, self._ports.entropy),
            "Expiration": iso_seconds(session.expires_us),
        }
        return {"Credentials": credentials}


def user_id(caller: Caller) -> str:
    """What `aws:userid` is in policies: a user's name; a role's, with its session's after a colon."""
    name = caller.identity.rpartition("/")[2]
    return f"{name}:{caller.session.name}" if caller.session and caller.session.name else name


def whole(members: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    """A member that is a whole number within bounds; BadRequest otherwise."""
    text = members.get(name, str(default))
    if not (text.isascii() and text.isdigit()) or not least <= int(text[:9]) <= most:
        raise BadRequest(f"{name}: '{text[:40]}' must be a whole number from {least} to {most}.")
    return int(text)


def iso_seconds(time_us: int) -> str:
    """A time as STS writes it."""
    return datetime.datetime.fromtimestamp(time_us // 1_000_000, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _role(members: Mapping[str, str]) -> IamName:
    role = iam_name(members.get("RoleArn", ""))
    if role is None or role.kind != "role":
        raise BadRequest(
            f"RoleArn: '{members.get('RoleArn', '')[:200]}' is invalid; write arn:aws:iam::<account>:role/<name>."
        )
    return role


def _session_name(members: Mapping[str, str]) -> str:
    name = members.get("RoleSessionName", "")
    if not _SESSION_NAME.fullmatch(name):
        raise BadRequest(f"RoleSessionName: '{name[:80]}' must be 2 to 64 letters, digits and the characters _+=,.@-")
    return name


def _external_id(members: Mapping[str, str]) -> str | None:
    given = members.get("ExternalId")
    if given is not None and not _EXTERNAL_ID.fullmatch(given):
        raise BadRequest("ExternalId: must be 2 to 1224 letters, digits and the characters _+=,.@:/-")
    return given


def _session_policy(text: str | None) -> str | None:
    """The document, checked, without the white space that would make every request longer."""
    if text is None:
        return None
    try:
        check_policy(text, SESSION_POLICY_MAX_CHARS)
    except BadRequest as error:
        raise MalformedPolicy(f"Policy: {error.message}") from error
    return json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False)


def _form(request: SignedRequest) -> dict[str, str]:
    content_type = request.single("content-type") or ""
    return form_members(request.query, request.body, content_type)


def _no_keys(caller: Caller, members: Mapping[str, Any]) -> list[ResourceKey]:  # noqa: ARG001
    return []
