"""Handing batches between API servers: gRPC with mutual TLS under the roles' root, API servers only, both ends.

A hand-over saves a server that keeps losing races from losing more; it is never needed for an answer to be right. The
head that is compared, and the token in the log, are the safety: so a batch may be lost, done twice, or done after its
asker has given up on it, and each command is still one event. What must never happen: that an asker is told "done" or
"declined" of a batch of which something may yet be written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import grpc
import structlog

from api.commands import CommandService
from api.outcomes import Outcome, Ticket
from api.peer_wire import METHOD, HandedBatch, HandedCommand, decode_answer, decode_batch, encode_answer, encode_batch
from api.ports import Declined
from identity.role_id import ROLE_API, role_of
from mesh.errors import BadRequest, MeshlogError, OutcomeUnknown, Unavailable
from mesh.position import ORIGIN, Position
from runtime.clock import Clock
from runtime.limits import (
    MEMBERS_READ_S,
    PEER_CALLS_MAX,
    PEER_DIAL_S,
    PEER_MESSAGE_BYTES_MAX,
    PEER_PENALTY_S,
    PEERS_ASKED_MAX,
)

log = structlog.get_logger(__name__)

ROLES_ALLOWED: Mapping[str, frozenset[str]] = {METHOD: frozenset({ROLE_API})}
"""Every method of this port, and the roles whose certificates may call it."""

_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_receive_message_length", PEER_MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", PEER_MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
)
SERVER_OPTIONS: Sequence[tuple[str, Any]] = (
    *_OPTIONS,
    ("grpc.max_concurrent_streams", 4),  # an asker has one batch away at a time
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.so_reuseport", 0),
)
CHANNEL_OPTIONS: Sequence[tuple[str, Any]] = (
    *_OPTIONS,
    ("grpc.ssl_target_name_override", f"{ROLE_API}.meshlog"),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
)

Context = grpc.aio.ServicerContext[bytes, bytes]


class PeerServer(grpc.GenericRpcHandler):
    """The taker: does other servers' commands as if their callers had called here."""

    def __init__(self, commands: CommandService, trust_domain: str) -> None:
        self._commands, self._trust_domain = commands, trust_domain
        self._server: grpc.aio.Server | None = None

    async def start(self, address: str, credentials: grpc.ServerCredentials, *beside: grpc.GenericRpcHandler) -> int:
        """Listen on `address` (host:port, port 0 picks one) and return the port. `beside`: served on it as well."""
        self._server = grpc.aio.server(options=list(SERVER_OPTIONS), maximum_concurrent_rpcs=PEER_CALLS_MAX)
        self._server.add_generic_rpc_handlers((self, *beside))
        port = self._server.add_secure_port(address, credentials)
        await self._server.start()
        return port

    async def stop(self, grace_s: float | None = None) -> None:
        """End all calls; their askers do the work themselves."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(grace_s)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """grpc's routing: the one method, bytes in and out."""
        if handler_call_details.method != METHOD:
            return None
        return grpc.unary_unary_rpc_method_handler(self._take)

    async def _take(self, packed: bytes, context: Context) -> bytes:
        uris = [value.decode("utf-8", "replace") for value in context.auth_context().get("peer_spiffe_id", ())]
        if role_of(uris, self._trust_domain) not in ROLES_ALLOWED[METHOD]:
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED, "only an API server's certificate hands batches over"
            )
        if not self._commands.winning:
            return encode_answer(None)
        try:
            batch = decode_batch(packed)
        except BadRequest as error:
            log.warning("an API server sent no batch", error=error.message)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
        ends = await asyncio.gather(*(self._do(handed, batch.timeout_s) for handed in batch.commands))
        if not all(ends):
            await context.abort(grpc.StatusCode.ABORTED, "some of the batch may yet be written")
        return encode_answer(max((end for end in ends if isinstance(end, Position)), default=ORIGIN))

    async def _do(self, handed: HandedCommand, within_s: float) -> Position | bool:
        """Where its event is; True if there is none and will be none; False if nobody knows."""
        try:
            outcome: Outcome = await self._commands.submit(
                handed.command, handed.origin, within_s=within_s, may_hand_over=False
            )
        except OutcomeUnknown:
            return False
        except MeshlogError:
            return True
        return outcome.position


class Peers:
    """The asker: knows the other API servers and finds one that takes a batch. Use from one event loop."""

    def __init__(self, credentials: Callable[[], grpc.ChannelCredentials], clock: Clock) -> None:
        self._credentials, self._clock = credentials, clock
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._order: list[str] = []
        self._shunned_until_s: dict[str, float] = {}

    @property
    def any(self) -> bool:
        """Whether one could be asked now."""
        return bool(self._willing())

    async def know(self, addresses: Iterable[str]) -> None:
        """The other living API servers, host:port of their peer ports."""
        living = set(addresses)
        self._order = [address for address in self._order if address in living]
        self._order += sorted(living.difference(self._order))
        for address in self._channels.keys() - living:
            await self._channels.pop(address).close()

    async def run(self, living: Callable[[], Awaitable[Iterable[str]]]) -> None:
        """Keep the list at what `living` gives, until cancelled."""
        while True:
            try:
                await self.know(await living())
            except MeshlogError as error:
                log.info("API servers not listed", reason=error.message)
            await self._clock.sleep(MEMBERS_READ_S)

    async def close(self) -> None:
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close()

    async def hand_over(self, tickets: Sequence[Ticket], timeout_s: float) -> Position | Declined:
        """See `api.ports.Peers`. Whoever took the last batch is asked first."""
        give_up_s = self._clock.monotonic_s() + timeout_s
        for address in self._willing()[:PEERS_ASKED_MAX]:
            left_s = give_up_s - self._clock.monotonic_s()
            if left_s <= 2 * PEER_DIAL_S:
                break
            channel = await self._ready(address)
            if channel is None:
                continue
            commands = tuple(HandedCommand(ticket.command, ticket.origin) for ticket in tickets)
            # The taker's time ends first, so that it can still say how it ended.
            done = await self._ask(address, channel, HandedBatch(commands, (left_s - PEER_DIAL_S) * 0.9), left_s)
            if done is not None:
                self._order.sort(key=lambda other: other != address)
                return done
        return Declined()

    async def _ask(
        self, address: str, channel: grpc.aio.Channel, batch: HandedBatch, timeout_s: float
    ) -> Position | None:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        try:
            return decode_answer(await call(encode_batch(batch), timeout=timeout_s))
        except grpc.aio.AioRpcError as error:
            self._shun(address)
            if error.code() in _NOT_TAKEN:
                log.warning("an API server takes no batches", address=address, reason=error.details())
                return None
            raise Unavailable(f"{address}: {error.code().name}: {error.details()}") from error
        except BadRequest as error:
            self._shun(address)
            raise Unavailable(f"{address}: {error.message}") from error

    async def _ready(self, address: str) -> grpc.aio.Channel | None:
        """A channel that is connected: nothing was sent on one that is not."""
        channel = self._channels.get(address)
        if channel is None:
            channel = grpc.aio.secure_channel(address, self._credentials(), options=CHANNEL_OPTIONS)
            self._channels[address] = channel
        try:
            async with asyncio.timeout(PEER_DIAL_S):
                await channel.channel_ready()
        except TimeoutError:
            self._shun(address)
            # A new one next time, with the certificates that are in the files then.
            await self._channels.pop(address).close()
            return None
        return channel

    def _shun(self, address: str) -> None:
        self._shunned_until_s[address] = self._clock.monotonic_s() + PEER_PENALTY_S

    def _willing(self) -> list[str]:
        now_s = self._clock.monotonic_s()
        return [address for address in self._order if self._shunned_until_s.get(address, now_s) <= now_s]


_NOT_TAKEN = (
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)
"""Said by a taker before it does anything."""
