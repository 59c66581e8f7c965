"""The HTTP edge: an ASGI app over one table of routes. What differs between routes is in the table; the order is here.

    size of the body (413) → route (404) → signature → authorisation → input → authorisation of what it names → handler

Whatever goes wrong comes out in AWS's error shape; a caller never sees a stack trace. Nothing here reads the log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from api.access_keys import AccessKeysApi
from api.admin import AdminApi
from api.appmesh import AppMeshApi
from api.audit import AuditApi
from api.authorization import authorise
from api.body import discard_body, read_body
from api.calls import (
    UNKNOWN_OPERATION,
    Answer,
    Call,
    UnknownOperation,
    Wire,
    encode_answer,
    encode_error,
    encode_fault,
    encode_unknown_operation,
)
from api.commands import CommandService
from api.events import EventsApi
from api.keys import KeysApi
from api.ports import ApiPorts
from api.rewind import RewindApi
from api.routes import Found, Route, Router
from api.trail import Attempt, claimed_key
from identity.caller import Caller
from identity.sigv4 import SignedRequest, verify
from mesh.errors import CallerError, MeshlogError, NotReady, error_code
from mesh.state import AccessKey
from runtime.logging import where
from runtime.supervise import Supervisor

log = structlog.get_logger(__name__)


class Edge:
    """The ASGI callable for HTTP requests. `routes` is everything that it answers."""

    def __init__(self, ports: ApiPorts, routers: Sequence[Router]) -> None:
        self._ports = ports
        self._routers = routers
        self.routes: tuple[Route, ...] = tuple(route for router in routers for route in router.routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        attempt = _attempt(scope, self._ports.entropy.uuid(), self._ports.clock.now_us())
        try:
            body = await read_body(scope, receive)
        except MeshlogError as error:
            self._refused(attempt, error)
            wire = encode_error(error, attempt.request_id, self._ports.clock.now_us())
            await self._refuse_unread(wire, scope, receive, send)
            return
        wire = await self._wire(scope, body, attempt)
        await send({"type": "http.response.start", "status": wire.status, "headers": wire.headers})
        await send({"type": "http.response.body", "body": wire.body})

    async def _refuse_unread(self, wire: Wire, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer at once, drop what still comes, close the connection: its rest is not a request."""
        headers = [*(header for header in wire.headers if header[0] != b"connection"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": wire.status, "headers": headers})
        await send({"type": "http.response.body", "body": wire.body, "more_body": True})
        await discard_body(scope, receive)
        await send({"type": "http.response.body", "body": b""})

    def _refused(self, attempt: Attempt, error: MeshlogError) -> None:
        """Accepted calls are the log; what a caller did wrong goes to the audit, what we could not do to neither."""
        if self._ports.audit is not None and isinstance(error, CallerError):
            self._ports.audit.calls.refused(attempt, error_code(error), error.message)

    async def _wire(self, scope: Scope, body: bytes, attempt: Attempt) -> Wire:
        now_us, request_id = self._ports.clock.now_us(), attempt.request_id
        try:
            answer = await self._answer(scope, body, attempt, now_us)
        except MeshlogError as error:
            self._refused(attempt, error)
            if error.http_status >= 500:
                log.warning("call failed", request_id=request_id, kind=type(error).__name__, error=error.message)
            return encode_error(error, request_id, now_us)
        except Exception as error:
            # Not its text: it may hold configuration (I6).
            log.error("call broke", request_id=request_id, kind=type(error).__name__, place=where(error))  # noqa: TRY400
            return encode_fault(request_id, now_us)
        if isinstance(answer, UnknownOperation):
            if self._ports.audit is not None:
                self._ports.audit.calls.refused(attempt, UNKNOWN_OPERATION, "")
            return encode_unknown_operation(answer, request_id, now_us)
        return encode_answer(answer, request_id, self._ports.clock.now_us())

    async def _answer(self, scope: Scope, body: bytes, attempt: Attempt, now_us: int) -> Answer | UnknownOperation:
        request = _signed_request(scope, body)
        found = self._find(request)
        if found is None:
            return UnknownOperation(request.method, request.path)
        route = found.route
        attempt.action, attempt.members = route.action, found.path_members
        caller = attempt.caller = self._verify(request, route, now_us)
        authorise(caller, route.action)
        members = attempt.members = route.read(request, found.path_members)
        authorise(caller, route.action, route.keys(caller, members))
        return await route.handle(Call(attempt.request_id, attempt.source_ip, caller, members))

    def _find(self, request: SignedRequest) -> Found | None:
        for router in self._routers:
            found = router.find(request.method, request.path)
            if found is not None:
                return found
        return None

    def _verify(self, request: SignedRequest, route: Route, now_us: int) -> Caller:
        keys = self._ports.replica.state.access_keys
        if not keys:
            raise NotReady("This server has not read the log yet, and so knows no access key. Try again in a second.")

        def lookup(access_key_id: str) -> AccessKey | None:
            return keys.get(access_key_id)

        return verify(request, lookup, now_us, route.services)


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
        claimed_key=claimed_key(headers.get(b"authorization", "")),
    )


def _signed_request(scope: Scope, body: bytes) -> SignedRequest:
    path = scope["raw_path"].decode("latin-1")
    headers = [(name.decode("latin-1").lower(), _text(value)) for name, value in scope["headers"]]
    return SignedRequest(scope["method"], path, scope["query_string"].decode("latin-1"), headers, body)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def create_app(ports: ApiPorts) -> Starlette:
    """The whole app. Its lifespan runs the command service; `app.state.edge` and `app.state.commands` are its parts."""
    commands = CommandService(
        ports.replica, ports.writer, ports.clock, ports.entropy, ports.command_deadline_s, peers=ports.peers
    )
    apis = (
        AppMeshApi(ports, commands),
        AdminApi(ports, commands),
        EventsApi(ports),
        RewindApi(ports, commands),
        AccessKeysApi(ports, commands),
        AuditApi(ports),
        KeysApi(ports, commands),
    )
    edge = Edge(ports, tuple(api.router() for api in apis))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:  # noqa: ARG001 - starlette's signature
        async with Supervisor() as supervisor:
            supervisor.start(commands.run(), "commands")
            yield

    app = Starlette(lifespan=lifespan)
    # Paths are matched as they came, still encoded: starlette's own routes would cut names at an encoded slash.
    app.router.default = edge
    app.router.redirect_slashes = False
    app.state.edge = edge
    app.state.commands = commands
    return app
