"""The HTTP edge: an ASGI app over one table of routes. What differs between routes is in the table; the order is here.

    size of the body (413) → rate of the address (429) → body → route (404) → signature → rate of the principal (429)
    → input → authorisation of all that it names → handler

Whatever goes wrong comes out in AWS's error shape; a caller never sees a stack trace. Nothing here reads the log.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import unquote

import structlog
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from api.access_keys import AccessKeysApi
from api.admin import AdminApi
from api.admission import Admission
from api.appmesh import AppMeshApi
from api.audit import AuditApi
from api.authentication import Authenticator
from api.authorization import authorise_now, authorise_unread, still_allowed
from api.calls import (
    UNKNOWN_OPERATION,
    Answer,
    Call,
    UnknownOperation,
    encode_answer,
    encode_unknown_operation,
)
from api.cloud_map import CloudMapApi
from api.cloud_map_wire import speaker
from api.commands import CommandService
from api.domain import MESH_DOMAIN, REGISTRY_DOMAIN
from api.events import EventsApi
from api.iam import IamApi
from api.key_use import KeyUse
from api.keys import KeysApi
from api.openapi import OpenApi
from api.past import PastStates
from api.pki import PkiApi
from api.ports import ApiPorts
from api.proxy_config import ProxyConfigApi
from api.query_protocol import as_xml
from api.quotas import QuotasApi
from api.registry import RegistryApi
from api.rewind import RewindApi
from api.routes import Found, Route, Router
from api.sharing import SharingApi
from api.sts import PATH as STS_PATH
from api.sts import StsApi
from api.trail import Attempt, claimed_key
from identity.sigv4 import SignedRequest, without_signature
from mesh.errors import CallerError, MeshlogError, NotAuthenticated, OutcomeUnknown, error_code
from mesh.iam.evaluate import Circumstances
from runtime.http_answers import Wire, encode_error, encode_fault
from runtime.http_body import BodyMemory, check_declared, read_body, send_answer, send_unread
from runtime.logging import where
from runtime.settings import LimitSettings
from runtime.supervise import Supervisor

log = structlog.get_logger(__name__)

_INVOCATION = re.compile(r"[A-Za-z0-9-]{8,64}", re.ASCII)

_STOPPED = (
    "This server was stopped while it worked on the call. Whether it was carried out is not known: a call with a "
    "clientToken is safely repeated with the same one, at another server; look before repeating one without."
)


class Edge:
    """The ASGI callable for HTTP requests. `routes` is everything that it answers."""

    def __init__(self, ports: ApiPorts, routers: Sequence[Router]) -> None:
        self._ports = ports
        self._routers = routers
        self._authenticator = Authenticator(ports)
        self.routes: tuple[Route, ...] = tuple(route for router in routers for route in router.routes)
        self.admission = Admission(ports.limits or LimitSettings(), ports.clock)
        self._memory = BodyMemory()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        attempt = _attempt(scope, self._ports.entropy.uuid(), self._ports.clock.now_us())
        names = {name.lower(): _text(value) for name, value in scope["headers"]}
        speak = speaker(attempt.path, names) or (as_xml if attempt.path == STS_PATH else _as_it_is)
        try:
            check_declared(scope)
            self.admission.check_source(attempt.source_ip, attempt.claimed_key)
            if not _carries_signature(scope):
                await send_unread(speak(await self._wire(scope, b"", attempt)), scope, receive, send)
                return
            body = await read_body(receive, self._memory, attempt.source_ip)
        except MeshlogError as error:
            self._refused(attempt, error)
            wire = encode_error(error, attempt.request_id, self._ports.clock.now_us())
            await send_unread(speak(wire), scope, receive, send)
            return
        try:
            wire = await self._wire(scope, body, attempt)
        finally:
            self._memory.give_back(attempt.source_ip, len(body))
        await send_answer(speak(wire), send)

    def _refused(self, attempt: Attempt, error: MeshlogError) -> None:
        """Accepted calls are the log; what a caller did wrong goes to the audit, what we could not do to neither."""
        if self._ports.audit is not None and isinstance(error, CallerError):
            self._ports.audit.calls.refused(attempt, error_code(error), error.message)

    async def _wire(self, scope: Scope, body: bytes, attempt: Attempt) -> Wire:
        now_us, request_id = self._ports.clock.now_us(), attempt.request_id
        try:
            answer = await self._answer(scope, body, attempt)
        except MeshlogError as error:
            self._refused(attempt, error)
            if error.http_status >= 500:
                log.warning("call failed", request_id=request_id, kind=type(error).__name__, error=error.message)
            return encode_error(error, request_id, now_us)
        except Exception as error:
            # Not its text: it may hold configuration (I6).
            log.error("call broke", request_id=request_id, kind=type(error).__name__, place=where(error))  # noqa: TRY400
            return encode_fault(request_id, now_us)
        except asyncio.CancelledError:  # the server ends, and has waited as long as it may
            return encode_error(OutcomeUnknown(_STOPPED), request_id, now_us)
        if isinstance(answer, UnknownOperation):
            if self._ports.audit is not None:
                self._ports.audit.calls.refused(attempt, UNKNOWN_OPERATION, "")
            return encode_unknown_operation(answer, request_id, now_us)
        return encode_answer(answer, request_id, self._ports.clock.now_us())

    async def _answer(self, scope: Scope, body: bytes, attempt: Attempt) -> Answer | UnknownOperation:
        request = _signed_request(scope, body)
        found = self._find(request)
        if found is None:
            return UnknownOperation(request.method, request.path)
        route = found.route
        attempt.action, attempt.members = route.action, found.path_members
        try:
            caller = attempt.caller = await self._authenticator.caller(request, route.services)
        except NotAuthenticated as error:
            raise self.admission.not_authenticated(attempt.source_ip, error) from None
        self.admission.verified(attempt.source_ip, attempt.claimed_key)
        with self.admission.of(caller):
            circumstances = self._circumstances(attempt, scope)
            try:
                members = attempt.members = route.read(without_signature(request), found.path_members)
                targets = list(route.targets(caller, members))
            except CallerError:
                authorise_unread(self._ports.replica.state, caller, route.action)
                raise
            judged = await authorise_now(self._ports, caller, route.action, targets, circumstances)
            allowed = still_allowed(judged, caller, route.action, targets, circumstances)
            call = Call(
                attempt.request_id, attempt.source_ip, caller, members, circumstances, allowed, _invocation(request)
            )
            answer = await route.handle(call)
            if route.method == "GET":  # a write was asked about where it was decided
                allowed(self._ports.replica.state)
            return answer

    def _circumstances(self, attempt: Attempt, scope: Scope) -> Circumstances:
        return Circumstances(
            source_ip=attempt.source_ip,
            time_us=self._ports.clock.now_us(),
            secure=scope.get("scheme") == "https",
            user_agent=attempt.user_agent,
            region=self._ports.region,
        )

    def _find(self, request: SignedRequest) -> Found | None:
        for router in self._routers:
            found = router.find(request)
            if found is not None:
                return found
        return None


def _attempt(scope: Scope, request_id: str, now_us: int) -> Attempt:
    client = scope.get("client")
    headers = {name.lower(): _text(value) for name, value in scope["headers"]}
    return Attempt(
        request_id=request_id,
        time_us=now_us,
        source_ip=client[0] if client else "",
        method=scope["method"],
        path=scope["raw_path"].decode("latin-1"),
        user_agent=headers.get(b"user-agent", ""),
        claimed_key=claimed_key(headers.get(b"authorization", "") or unquote(scope["query_string"].decode("latin-1"))),
    )


def _as_it_is(wire: Wire) -> Wire:
    return wire


def _carries_signature(scope: Scope) -> bool:
    """Whether there is anything to verify: a call without is refused before its body is read."""
    return b"X-Amz-Signature=" in scope["query_string"] or any(name == b"authorization" for name, _ in scope["headers"])


def _signed_request(scope: Scope, body: bytes) -> SignedRequest:
    path = scope["raw_path"].decode("latin-1")
    headers = [(name.decode("latin-1").lower(), _text(value)) for name, value in scope["headers"]]
    return SignedRequest(scope["method"], path, scope["query_string"].decode("latin-1"), headers, body)


def _invocation(request: SignedRequest) -> str:
    found = [value for name, value in request.headers if name == "amz-sdk-invocation-id"]
    return found[0] if len(found) == 1 and _INVOCATION.fullmatch(found[0]) else ""


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def create_app(ports: ApiPorts) -> Starlette:
    """The whole app. Its lifespan runs the command service; `app.state.edge` and `app.state.commands` are its parts."""
    commands = CommandService(
        MESH_DOMAIN,
        ports.replica,
        ports.writer,
        ports.clock,
        ports.entropy,
        deadline_s=ports.command_deadline_s,
        peers=ports.peers,
        members=ports.members,
    )
    key_use = KeyUse(ports, commands)
    past = PastStates(ports.history, ports.checkpoints)
    apis = (
        AppMeshApi(ports, commands),
        AdminApi(ports, commands),
        EventsApi(ports),
        RewindApi(ports, commands, past),
        ProxyConfigApi(ports, past),
        AccessKeysApi(ports, commands),
        IamApi(ports, commands),
        AuditApi(ports),
        QuotasApi(ports, commands),
        PkiApi(ports, commands),
        SharingApi(ports, commands),
    )
    routers = [api.router() for api in apis]
    registry = None
    if ports.registry is not None:
        registry = CommandService(
            REGISTRY_DOMAIN,
            ports.registry.replica,
            ports.registry.writer,
            ports.clock,
            ports.entropy,
            deadline_s=ports.command_deadline_s,
        )
        routers += [
            CloudMapApi(ports, ports.registry, registry).router(),
            RegistryApi(ports, ports.registry).router(),
        ]
    routers.append(KeysApi(ports, commands, registry).router())
    routers.append(StsApi(ports).router())  # the last: it takes whatever else is sent to its path for its own
    described = OpenApi(ports, [route for router in routers for route in router.routes])
    edge = Edge(ports, (*routers, described.router()))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:  # noqa: ARG001 - starlette's signature
        async with Supervisor() as supervisor:
            supervisor.start(commands.run(), "commands")
            supervisor.start(key_use.run(), "key use")
            if registry is not None:
                supervisor.start(registry.run(), "registry commands")
            yield

    app = Starlette(lifespan=lifespan)
    # Paths are matched as they came, still encoded: starlette's own routes would cut names at an encoded slash.
    app.router.default = edge
    app.router.redirect_slashes = False
    app.state.edge = edge
    app.state.commands = commands
    app.state.registry_commands = registry
    app.state.key_use = key_use
    return app
