"""The local endpoint as an ASGI app: takes any caller on this machine, and passes on what it asks.

Whoever reaches it acts with the user's key, so it is for this machine alone: it answers nobody who names it otherwise
than by a loopback address, and no web page (a browser says so with Origin), since any site could make one call it.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.types import Receive, Scope, Send

from connect.relay import Relay
from connect.requests import Request, passed_on
from mesh.errors import Forbidden, MeshlogError
from runtime.clock import Clock, Entropy
from runtime.http_answers import Wire, encode_error
from runtime.http_body import BodyMemory, check_declared, read_body, send_answer, send_unread
from runtime.limits import BODIES_BYTES_MAX


class ConnectApp:
    """Serves requests through `relay`. `allow_remote`: callers on other machines are welcome too."""

    def __init__(self, relay: Relay, clock: Clock, entropy: Entropy, *, allow_remote: bool = False) -> None:
        self._relay, self._clock, self._entropy = relay, clock, entropy
        self._allow_remote = allow_remote
        self._memory = BodyMemory(of_one_source=BODIES_BYTES_MAX)  # everybody is one address here

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        try:
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
            self._check_caller(dict(headers))
            check_declared(scope)
            body = await read_body(receive, self._memory, "")
        except MeshlogError as error:
            await send_unread(self._refusal(error), scope, receive, send)
            return
        query = scope["query_string"].decode("latin-1")
        target = scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
        try:
            reply = await self._relay.send(Request(scope["method"], target, headers, body))
            length = (b"content-length", str(len(reply.body)).encode())
            wire = Wire(reply.status, [*passed_on(reply.headers), length], reply.body)
        except MeshlogError as error:
            wire = self._refusal(error)
        finally:
            self._memory.give_back("", len(body))
        await send_answer(wire, send)

    def _refusal(self, error: MeshlogError) -> Wire:
        return encode_error(error, self._entropy.uuid(), self._clock.now_us())

    def _check_caller(self, headers: dict[str, str]) -> None:
        if self._allow_remote:
            return
        if "origin" in headers:
            raise Forbidden("This endpoint signs with its user's key, and so answers no web page.")
        if not is_loopback(urlsplit(f"//{headers.get('host', '')}").hostname or ""):
            raise Forbidden(
                "This endpoint signs with its user's key, and so answers on this machine only: call it by a loopback "
                "address such as 127.0.0.1, or start it with --allow-remote."
            )


def is_loopback(host: str) -> bool:
    """Whether a name or address can only mean this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _live(receive: Receive, send: Send) -> None:
    """ASGI's lifespan, of which nothing is needed."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
