"""The xDS frontend on the network: ADS in both protocols behind TLS, mutual or signed. Proxies in, machines around a
feed.

A shell around `Session`: it authenticates before it reads anything, bounds what one caller can take, and keeps the
table of connected proxies. It must never answer a method without a rule, nor a stream before the feed is ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Never

import grpc
import structlog

from identity.node_id import NodeId
from projector.feed.port import SnapshotFeed
from runtime.clock import Clock, Entropy
from runtime.limits import (
    SHUTDOWN_GRACE_S,
    XDS_CONNECTION_AGE_GRACE_S,
    XDS_CONNECTION_AGE_S,
    XDS_CONNECTION_IDLE_S,
    XDS_HANDSHAKE_S,
    XDS_KEEPALIVE_S,
    XDS_KEEPALIVE_TIMEOUT_S,
    XDS_METADATA_BYTES_MAX,
    XDS_PING_INTERVAL_MIN_S,
    XDS_RECEIVE_BYTES_MAX,
    XDS_SEND_TIMEOUT_S,
    XDS_STREAMS_PER_CONNECTION,
)
from runtime.logging import where
from xds.actions import Close, Code
from xds.admission import Admission
from xds.connected import ConnectedProxies, ConnectedProxy
from xds.delta import DeltaSession
from xds.freshness import NodeMemory
from xds.identification import Identification, Identified, RequestType
from xds.metrics import XdsMetrics
from xds.signed import SignedStreams, Signing
from xds.sotw import SotwSession
from xds.stream import Context, Stream, status_of
from xds.wire.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest

log = structlog.get_logger(__name__)

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService"
METHOD_SOTW = f"{ADS}/StreamAggregatedResources"
METHOD_DELTA = f"{ADS}/DeltaAggregatedResources"
METHODS = (METHOD_SOTW, METHOD_DELTA)
"""Every method of these ports. All want a proxy's certificate or signature; anything else wants a certificate, and is
UNIMPLEMENTED."""

NONCE_PREFIX_BYTES = 6
STOP_POLL_S = 0.01


def server_options(
    connection_age_s: float = XDS_CONNECTION_AGE_S, connection_age_grace_s: float = XDS_CONNECTION_AGE_GRACE_S
) -> Sequence[tuple[str, Any]]:
    """gRPC's own bounds."""
    return (
        ("grpc.max_receive_message_length", XDS_RECEIVE_BYTES_MAX),
        ("grpc.max_send_message_length", -1),  # a SotW cluster set cannot be cut
        ("grpc.max_concurrent_streams", XDS_STREAMS_PER_CONNECTION),
        ("grpc.max_metadata_size", XDS_METADATA_BYTES_MAX),
        ("grpc.max_connection_age_ms", int(connection_age_s * 1000)),
        ("grpc.max_connection_age_grace_ms", int(connection_age_grace_s * 1000)),
        ("grpc.max_connection_idle_ms", int(XDS_CONNECTION_IDLE_S * 1000)),
        ("grpc.server_handshake_timeout_ms", int(XDS_HANDSHAKE_S * 1000)),
        ("grpc.keepalive_time_ms", int(XDS_KEEPALIVE_S * 1000)),
        ("grpc.keepalive_timeout_ms", int(XDS_KEEPALIVE_TIMEOUT_S * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", int(XDS_PING_INTERVAL_MIN_S * 1000)),
        ("grpc.so_reuseport", 0),
    )


class XdsServer(grpc.GenericRpcHandler):
    """Serves the snapshots of `feed` to proxies whose certificates are of `trust_domain`.

    `start`, then leave it to the event loop; `stop` ends all streams. `proxies` is the table for status. With `signing`
    proxies without a certificate may sign (`xds.signed`); then run `signed.run` under the role's supervisor.
    """

    def __init__(
        self,
        *,
        feed: SnapshotFeed,
        trust_domain: str,
        clock: Clock,
        entropy: Entropy,
        metrics: XdsMetrics,
        memory: NodeMemory | None = None,
        admission: Admission | None = None,
        send_timeout_s: float = XDS_SEND_TIMEOUT_S,
        signing: Signing | None = None,
    ) -> None:
        self.feed, self.clock, self.entropy, self.metrics = feed, clock, entropy, metrics
        self.send_timeout_s = send_timeout_s
        self.proxies = ConnectedProxies()
        self._identification = Identification(trust_domain, signing, clock)
        self.signed = SignedStreams(signing.gate, clock) if signing else None
        self.signed_port = 0
        self._memory = NodeMemory() if memory is None else memory
        self._admission = Admission(clock) if admission is None else admission
        self._server: grpc.aio.Server | None = None

    async def start(
        self,
        address: str,
        credentials: grpc.ServerCredentials,
        options: Sequence[tuple[str, Any]] | None = None,
        *,
        signed: tuple[str, grpc.ServerCredentials] | None = None,
    ) -> int:
        """Listen on `address` (host:port; port 0 picks one) and return the port. `credentials` must demand client
        certificates of the proxies' root: see `runtime.tls.server_credentials`. `signed`: where, and as whom, to listen
        for proxies that sign (`signed_port`); on one port gRPC for Python asks for certificates always or never."""
        self._server = grpc.aio.server(options=list(options or server_options()))
        self._server.add_generic_rpc_handlers((self,))
        port = self._server.add_secure_port(address, credentials)
        if signed is not None:
            self.signed_port = self._server.add_secure_port(*signed)
        await self._server.start()
        return port

    async def stop(self, grace_s: float | None = None) -> None:
        """Take no more streams, give those open `grace_s`, then cut them: the proxies go to another frontend."""
        if self._server is None:
            return
        await self._server.stop(grace_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN_GRACE_S):
                while len(self.proxies):  # their handlers are cancelled, not yet gone
                    await self.clock.sleep(STOP_POLL_S)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """gRPC's routing. Bytes in and out: nothing is parsed before the caller is known."""
        behaviours: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
            METHOD_SOTW: self._sotw,
            METHOD_DELTA: self._delta,
        }
        behaviour: Any = behaviours.get(str(handler_call_details.method), self._unimplemented)
        return grpc.stream_stream_rpc_method_handler(behaviour)

    # --- methods

    async def _sotw(self, requests: AsyncIterator[bytes], context: Context) -> None:
        found = await self._identified(METHOD_SOTW, DiscoveryRequest, requests, context)
        await self._admitted(context)
        session = SotwSession(found.node, self._memory, self._nonce_prefix())
        with self.proxies.present(self._proxy(found.node, session.mode, context)) as proxy:
            await self._serve(Stream(session, DiscoveryRequest, proxy, self), proxy, found, context)

    async def _delta(self, requests: AsyncIterator[bytes], context: Context) -> None:
        found = await self._identified(METHOD_DELTA, DeltaDiscoveryRequest, requests, context)
        await self._admitted(context)
        session = DeltaSession(found.node, self._memory, self._nonce_prefix())
        with self.proxies.present(self._proxy(found.node, session.mode, context)) as proxy:
            await self._serve(Stream(session, DeltaDiscoveryRequest, proxy, self), proxy, found, context)

    async def _unimplemented(self, _requests: AsyncIterator[bytes], context: Context) -> None:
        named = self._identification.by_certificate(context)
        if isinstance(named, Close):
            await self._refuse(context, named)
        await self._refuse(context, Close(Code.UNIMPLEMENTED, f"only {' and '.join(METHODS)} are served here"))

    # --- one stream

    async def _identified(
        self, method: str, request_type: RequestType, requests: AsyncIterator[bytes], context: Context
    ) -> Identified:
        found = await self._identification.identify(method, request_type, requests, context)
        return found if isinstance(found, Identified) else await self._refuse(context, found)

    async def _admitted(self, context: Context) -> None:
        if not self.feed.ready:
            await self._refuse(context, Close(Code.UNAVAILABLE, "this frontend has no projector yet: try another"))
        reason = self._admission.refusal(len(self.proxies))
        if reason is not None:
            await self._refuse(context, Close(Code.RESOURCE_EXHAUSTED, reason))

    async def _refuse(self, context: Context, close: Close) -> Never:
        self.metrics.refused.labels(close.code.name).inc()
        await context.abort(status_of(close.code), close.message)

    async def _serve(
        self, stream: Stream[Any, Any], proxy: ConnectedProxy, found: Identified, context: Context
    ) -> None:
        gauge, code = self.metrics.streams.labels(proxy.mode), "CANCELLED"
        gauge.inc()
        self.metrics.opened.labels(proxy.mode).inc()
        try:
            asked_after: AbstractContextManager[None] = nullcontext()
            if self.signed is not None and found.grant is not None:
                asked_after = self.signed.present(found.grant, stream.end)
            with asked_after:
                close = await self._run(stream, proxy, found.requests, context)
            code = close.code.name if close else "OK"
            if close is not None:
                await context.abort(status_of(close.code), close.message)
        finally:
            gauge.dec()
            self.metrics.closed.labels(proxy.mode, code).inc()
            log.info(
                "proxy disconnected", node=str(proxy.node), mode=proxy.mode, peer=proxy.peer, code=code,
                position=str(proxy.settled) if proxy.settled else None,
            )  # fmt: skip

    async def _run(
        self, stream: Stream[Any, Any], proxy: ConnectedProxy, requests: AsyncIterator[bytes], context: Context
    ) -> Close | None:
        """A bug of ours must not look like the proxy's fault, and is told in full here only."""
        try:
            return await stream.run(requests, context)
        except Exception as error:
            kind, place = type(error).__name__, where(error)
            log.error("stream failed", node=str(proxy.node), mode=proxy.mode, peer=proxy.peer, kind=kind, place=place)  # noqa: TRY400
            return Close(Code.INTERNAL, "the frontend failed on this stream: connect again")

    def _proxy(self, node: NodeId, mode: str, context: Context) -> ConnectedProxy:
        return ConnectedProxy(node, mode, context.peer(), self.clock.now_us())

    def _nonce_prefix(self) -> str:
        return self.entropy.token_bytes(NONCE_PREFIX_BYTES).hex()
