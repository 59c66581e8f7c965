"""The HTTP server around an app: uvicorn, with the bounded connections of `runtime.http_connection`, and its end.

It drains in order: `announce_end`, then `should_exit`. Nothing here looks at what a request asks for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from runtime.clock import Clock, Entropy
from runtime.http_answers import CLOSE
from runtime.http_connection import BoundedHttp, HttpBounds, Shared
from runtime.limits import (
    HTTP_BACKLOG,
    HTTP_HEAD_S,
    HTTP_HEADERS_BYTES,
    HTTP_KEEP_ALIVE_S,
    HTTP_TURNED_AWAY_S,
)

_LOOK_S = 0.01
"""Between looks whether all is answered, at the end."""


class HttpServer(uvicorn.Server):
    """uvicorn without its own signal handling, for whoever supervises it. Port 0 lets the kernel choose.

    Plain HTTP unless `tls` is given. The app itself writes `Date`, by the clock that judges signatures; there is no
    Server header.
    """

    def __init__(
        self,
        app: ASGIApp,
        address: tuple[str, int],
        *,
        clock: Clock,
        entropy: Entropy,
        tls: ssl.SSLContext | None = None,
        bounds: HttpBounds | None = None,
    ) -> None:
        self.tls = tls
        self._ending = asyncio.Event()
        self._bounds = bounds or HttpBounds()
        shared = Shared(clock, entropy, self._bounds)
        # Strangers must not be able to fill the log: what is no HTTP is counted and told to its sender.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        config = uvicorn.Config(
            app,
            host=address[0],
            port=address[1],
            http=cast(type[asyncio.Protocol], partial(BoundedHttp, shared=shared)),
            ws="none",
            lifespan="on",
            loop="asyncio",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            backlog=HTTP_BACKLOG,
            timeout_keep_alive=HTTP_KEEP_ALIVE_S,
            h11_max_incomplete_event_size=HTTP_HEADERS_BYTES,
        )
        super().__init__(config)

    async def startup(self, sockets: Any = None) -> None:  # noqa: ARG002 - uvicorn's signature
        """As uvicorn's, with a bound on handshakes, which its own has not. OSError where the address is taken."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise RuntimeError("the app did not start")
        config, secured = self.config, self.tls is not None
        protocol = partial(
            cast(Any, config.http_protocol_class),
            config=config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        try:
            listener = await asyncio.get_running_loop().create_server(
                protocol,
                host=config.host,
                port=config.port,
                backlog=config.backlog,
                ssl=self.tls,
                ssl_handshake_timeout=HTTP_HEAD_S if secured else None,
                ssl_shutdown_timeout=HTTP_TURNED_AWAY_S if secured else None,
            )
        except OSError:
            await self.lifespan.shutdown()
            raise
        self.servers = [listener]
        self.started = True

    @property
    def should_exit(self) -> bool:
        """Set it to end in order: nobody new is let in, what is in flight is answered."""
        return self._ending.is_set()

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        if value:
            self._ending.set()

    def announce_end(self) -> None:
        """From now on each answer is the last one of its connection. New connections are still taken."""
        self.server_state.default_headers[:] = [CLOSE]

    async def main_loop(self) -> None:
        """Until `should_exit`: there is nothing to do each second, since the app writes all headers."""
        await self._ending.wait()

    async def shutdown(self, sockets: Any = None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Answer what is in flight, within `drain_s`; what takes longer is cancelled, and answers that."""
        self.announce_end()
        for listener in self.servers:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        if not await self._idle_within(self._bounds.drain_s):
            for task in list(self.server_state.tasks):
                task.cancel()
            await self._idle_within(HTTP_TURNED_AWAY_S)
        for connection in list(self.server_state.connections):
            cast(BoundedHttp, connection).transport.abort()
        await self.lifespan.shutdown()

    async def _idle_within(self, wait_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while self.server_state.connections or self.server_state.tasks:  # noqa: ASYNC110 - uvicorn's own sets
                    await asyncio.sleep(_LOOK_S)
                return True
        return False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: see the class."""
        yield

    @property
    def port(self) -> int:
        """The bound port, once `started`."""
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port
