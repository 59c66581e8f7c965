"""An API server's HTTP edge as a process has it: its listener, its certificate, and its end in order.

On SIGTERM /readyz turns first and answers begin to say that they are the last of their connection; then nobody new is
let in, and what is in flight is answered.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any

from starlette.types import ASGIApp

from runtime.clock import Clock, Entropy
from runtime.http_connection import HttpBounds
from runtime.http_server import HttpServer
from runtime.limits import (
    HTTP_CERTIFICATE_LOOK_S,
    HTTP_DRAIN_ANNOUNCE_S,
    HTTP_TURNED_AWAY_MAX,
    OTHER_FILES,
    SHUTDOWN_GRACE_S,
)
from runtime.settings import ApiSettings, LimitSettings, split_address
from runtime.supervise import Supervisor
from runtime.tls import ServerCertificate


def serve_http(
    app: ASGIApp, settings: ApiSettings, clock: Clock, entropy: Entropy, supervisor: Supervisor
) -> HttpServer:
    """The server, not yet started; its certificate is looked after by `supervisor`."""
    certificate = ServerCertificate(settings.http_tls) if settings.http_tls else None
    if certificate is not None:
        supervisor.start(_keep_current(certificate, clock), "certificate")
    limits = settings.limits or LimitSettings()
    _allow_open_files(limits.connections + HTTP_TURNED_AWAY_MAX + OTHER_FILES)
    return HttpServer(
        app,
        split_address(settings.listen),
        clock=clock,
        entropy=entropy,
        tls=certificate.context if certificate else None,
        bounds=HttpBounds(connections=limits.connections, connections_per_source=limits.connections_per_source),
    )


async def drain(server: HttpServer, serving: asyncio.Task[Any], clock: Clock) -> None:
    """End `server` in order, within SHUTDOWN_GRACE_S and what uvicorn itself takes."""
    server.announce_end()
    if not serving.done():
        await clock.sleep(HTTP_DRAIN_ANNOUNCE_S)
    server.should_exit = True
    await asyncio.wait([serving], timeout=SHUTDOWN_GRACE_S)


def _allow_open_files(wanted: int) -> None:
    """Raise this process's own bound on open files, as far as it may: at the usual 1024, accepting would stop first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )


async def _keep_current(certificate: ServerCertificate, clock: Clock) -> None:
    while True:
        await clock.sleep(HTTP_CERTIFICATE_LOOK_S)
        certificate.refresh()
