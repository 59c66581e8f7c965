"""The projector's end of the feed on the network: `ProjectorSession` behind `grpc.aio`, mutual TLS, the roles' root.

This shell decodes, checks who calls, waits for the transport, and does what the session says. It must never decide what
a frontend is told. One stream has two tasks: one reads, one writes; what blocks is only ever that one stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import grpc
import structlog

from identity.node_id import NodeId
from identity.role_id import ROLE_FRONTEND, role_of
from mesh.errors import BadRequest, LimitExceeded, MeshlogError
from projector.feed.port import Subscription
from projector.feed.session import AskHead, Follow, Forget, ProjectorSession, Register
from projector.feed.source import FrontendRegistry, SnapshotSource
from projector.feed.wire import METHOD, SnapshotFrame, decode_from_frontend, encode
from runtime.clock import Clock
from runtime.limits import (
    FEED_FRAME_BYTES_MAX,
    FEED_HEAD_READ_S,
    FEED_HEAD_READ_TIMEOUT_S,
    FEED_HEARTBEAT_S,
    FEED_REQUEST_BYTES_MAX,
    FEED_STREAMS_MAX,
)
from runtime.supervise import Supervisor

log = structlog.get_logger(__name__)

ROLES_ALLOWED: Mapping[str, frozenset[str]] = {METHOD: frozenset({ROLE_FRONTEND})}
"""Every method of this port, and the roles whose certificates may call it."""

SERVER_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_receive_message_length", FEED_REQUEST_BYTES_MAX),
    ("grpc.max_send_message_length", FEED_FRAME_BYTES_MAX),
    ("grpc.max_concurrent_streams", 4),  # a frontend needs one, and one more for a moment while it moves
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.so_reuseport", 0),
)

Context = grpc.aio.ServicerContext[bytes, bytes]


class FeedServer(grpc.GenericRpcHandler):
    """Serves one `SnapshotSource` to frontends.

    `projectors` gives the (zone, host:port) of the live projectors, for frontends to keep. `run` belongs under the
    role's Supervisor: it beats, and keeps the confirmed head young.
    """

    def __init__(
        self,
        *,
        source: SnapshotSource,
        registry: FrontendRegistry,
        projectors: Callable[[], Sequence[tuple[str, str]]],
        projector_id: str,
        zone: str,
        trust_domain: str,
        clock: Clock,
    ) -> None:
        self._source, self._registry, self._projectors = source, registry, projectors
        self._id, self._zone, self._trust_domain, self._clock = projector_id, zone, trust_domain, clock
        self._streams: set[_Stream] = set()
        self._connections: dict[str, int] = {}
        self._server: grpc.aio.Server | None = None

    @property
    def frontends(self) -> dict[str, str]:
        """Address by id of the frontends that this projector serves now."""
        hellos = [stream.session.frontend for stream in self._streams if stream.registered]
        return {hello.id: hello.address for hello in hellos if hello is not None}

    async def start(self, address: str, credentials: grpc.ServerCredentials) -> int:
        """Listen on `address` (host:port, port 0 picks one) and return the port."""
        self._server = grpc.aio.server(options=list(SERVER_OPTIONS))
        self._server.add_generic_rpc_handlers((self,))
        port = self._server.add_secure_port(address, credentials)
        await self._server.start()
        return port

    async def stop(self, grace_s: float | None = None) -> None:
        """End all streams; frontends go to another projector at once."""
        # Let go of the server while its loop runs: grpc shuts it down once more when it is collected.
        server, self._server = self._server, None
        if server is not None:
            await server.stop(grace_s)

    async def run(self) -> None:
        """Beat and read heads until cancelled."""
        async with Supervisor() as tasks:
            tasks.start(self._read_heads(), "feed-head")
            tasks.start(self._beat(), "feed-beat")
            await tasks.wait()

    async def _beat(self) -> None:
        while True:
            projectors = tuple(self._projectors())
            for stream in list(self._streams):
                stream.session.projectors_known(projectors)
                stream.session.beat(self._source.position, self._source.registry)
                stream.wake.set()
            await self._clock.sleep(FEED_HEARTBEAT_S)

    async def _read_heads(self) -> None:
        failing = False
        while True:
            try:
                await self._source.confirmed(FEED_HEAD_READ_TIMEOUT_S)
                failing = False
            except MeshlogError as error:
                if not failing:
                    log.warning("the head of the log is not confirmed", error=str(error))
                failing = True
            await self._clock.sleep(FEED_HEAD_READ_S)

    # --- one stream

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """grpc's routing: the one method, bytes in and out."""
        if handler_call_details.method != METHOD:
            return None
        return grpc.stream_stream_rpc_method_handler(self._subscribe)

    async def _subscribe(self, requests: AsyncIterator[bytes], context: Context) -> None:
        role = role_of(_uris(context), self._trust_domain)
        if role not in ROLES_ALLOWED[METHOD]:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "only a frontend's certificate opens the feed")
        if len(self._streams) >= FEED_STREAMS_MAX:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "this projector serves all the frontends it can")
        if not self._source.ready:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "this projector has not folded the log yet")
        stream = _Stream(ProjectorSession(self._id, self._zone, tuple(self._projectors())), self._source)
        self._streams.add(stream)
        try:
            async with Supervisor() as tasks:
                tasks.start(self._read(stream, requests, tasks), "feed-read")
                await stream.write(context)
            if stream.refusal is not None:
                log.warning("a frontend broke the feed's protocol", error=stream.refusal)
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, stream.refusal)
        finally:
            self._streams.discard(stream)
            stream.close()
            if stream.registered and stream.session.frontend is not None:
                self._unregister(stream.session.frontend.id)

    async def _read(self, stream: _Stream, requests: AsyncIterator[bytes], tasks: Supervisor) -> None:
        try:
            async for packed in requests:
                for action in stream.session.received(decode_from_frontend(packed)):
                    match action:
                        case Register(hello):
                            self._register(stream, hello.id, hello.zone, hello.address)
                        case Follow(node):
                            stream.follow(node)
                        case Forget(node):
                            stream.forget(node)
                        case AskHead():
                            tasks.start(self._ask_head(stream, action), "feed-confirm")
                stream.wake.set()
        except BadRequest as error:
            stream.refusal = error.message
        finally:
            stream.ended = True
            stream.wake.set()

    async def _ask_head(self, stream: _Stream, ask: AskHead) -> None:
        try:
            position = await self._source.confirmed(ask.timeout_s)
        except MeshlogError:
            position = None
        stream.session.head_answer(ask.id, position, self._source.position, self._source.registry)
        stream.wake.set()

    def _register(self, stream: _Stream, frontend_id: str, zone: str, address: str) -> None:
        if not stream.registered:
            stream.registered = True
            self._connections[frontend_id] = self._connections.get(frontend_id, 0) + 1
        self._registry.frontend_connected(frontend_id, zone, address)

    def _unregister(self, frontend_id: str) -> None:
        self._connections[frontend_id] -= 1
        if not self._connections[frontend_id]:
            del self._connections[frontend_id]
            self._registry.frontend_disconnected(frontend_id)


class _Stream:
    """One frontend's stream: its session, and what wakes its writer."""

    def __init__(self, session: ProjectorSession, source: SnapshotSource) -> None:
        self.session, self._source = session, source
        self.wake = asyncio.Event()
        self.ended = False
        self.registered = False
        self.refusal: str | None = None
        self._subscriptions: dict[NodeId, Subscription] = {}

    def follow(self, node: NodeId) -> None:
        self._subscriptions[node] = self._source.subscribe(node, self._changed)

    def forget(self, node: NodeId) -> None:
        self._subscriptions.pop(node).close()

    def close(self) -> None:
        for subscription in self._subscriptions.values():
            subscription.close()
        self._subscriptions.clear()

    def _changed(self, node: NodeId) -> None:
        self.session.changed(node)
        self.wake.set()

    async def write(self, context: Context) -> None:
        """Write what the session has to say, as fast as the transport takes it, until the frontend is gone."""
        while not self.ended:
            frame = self.session.next_frame(self._source)
            if frame is None:
                await self.wake.wait()
                self.wake.clear()
                continue
            try:
                packed = encode(frame)
            except LimitExceeded as error:
                # Only a node's set can be too large. The frontend keeps the set it has; the others go on.
                if not isinstance(frame, SnapshotFrame):
                    raise
                self.session.not_sent(frame.node)
                log.error("a node's resources do not fit a feed frame", node=str(frame.node), reason=error.message)  # noqa: TRY400
                continue
            await context.write(packed)


def _uris(context: Context) -> list[str]:
    """The URI SANs of the caller's certificate, which grpc has verified against the roles' root."""
    properties = context.auth_context()
    return [value.decode("utf-8", "replace") for value in properties.get("peer_spiffe_id", ())]
