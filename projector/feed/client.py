"""The frontend's end of the feed on the network: a `SnapshotFeed` over whichever projector is best.

This shell dials, writes and reads what the machines say: `Failover` picks projectors, `FrontendSession` keeps what one
of them tells, `Watches` decides what listeners hear, `Confirms` shares questions. It must never deliver anything
because a projector went away, nor anything older than was delivered.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import grpc
import structlog

from identity.node_id import NodeId
from identity.role_id import ROLE_PROJECTOR
from mesh.errors import BadRequest
from mesh.position import ORIGIN, Position
from projector.feed.confirms import Confirms
from projector.feed.failover import Dial, Drop, Failover, FailoverAction, Prepare, Promote
from projector.feed.following import Answered, Covered, FrontendSession, Greeted, ResourcePool, Viewed
from projector.feed.port import Confirmation, NodeListener, Subscription
from projector.feed.watches import Watches
from projector.feed.wire import (
    FEED_LEVEL,
    METHOD,
    Confirm,
    FrontendFrame,
    FrontendHello,
    decode_from_projector,
    encode,
)
from projector.snapshot import Reach
from runtime.clock import Clock, Entropy
from runtime.limits import FEED_FRAME_BYTES_MAX, FEED_NODES_MAX, FEED_REQUEST_BYTES_MAX, FEED_TICK_S
from runtime.supervise import Supervisor

log = structlog.get_logger(__name__)

Call = grpc.aio.StreamStreamCall[bytes, bytes]
ChannelFactory = Callable[[str, str], grpc.aio.Channel]
"""(zone, host:port) to a new channel. Called at each dial, so that renewed certificates are used."""

CHANNEL_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_receive_message_length", FEED_FRAME_BYTES_MAX),
    ("grpc.max_send_message_length", FEED_REQUEST_BYTES_MAX),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Or a new channel would inherit the connection back-off of the one that just failed.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)


def secure_channels(credentials: Callable[[], grpc.ChannelCredentials]) -> ChannelFactory:
    """Channels that take only a certificate of the projector role (its DNS name), whatever the address."""
    options = (*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", f"{ROLE_PROJECTOR}.meshlog"))
    return lambda _zone, address: grpc.aio.secure_channel(address, credentials(), options=options)


class _Link:
    """One stream: its session, what is still to be written, and whether it is to close."""

    def __init__(self, dial: Dial, pool: ResourcePool) -> None:
        self.dial = dial
        self.session = FrontendSession(pool)
        self.outbox: deque[FrontendFrame] = deque()
        self.wake = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.probing = dial.probe
        self.unprepared: set[NodeId] | None = None
        self.held: set[NodeId] = set()

    def send(self, frame: FrontendFrame | None) -> None:
        if frame is None:
            return
        if len(self.outbox) > 4 * FEED_NODES_MAX:
            raise BadRequest("feed: the projector does not read what it is sent")
        self.outbox.append(frame)
        self.wake.set()


class _Watching:
    """A listener's subscription."""

    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close

    def close(self) -> None:
        self._close()


class FeedClient:
    """A `SnapshotFeed`. `run` belongs under the role's Supervisor; the rest is called in the same event loop.

    `projectors` is the static list of (zone, host:port); what projectors tell of each other is added to it.
    """

    def __init__(
        self,
        *,
        zone: str,
        projectors: Sequence[tuple[str, str]],
        channels: ChannelFactory,
        clock: Clock,
        entropy: Entropy,
        frontend_id: str,
        frontend_address: str,
    ) -> None:
        self._zone, self._channels, self._clock = zone, channels, clock
        self._id, self._address = frontend_id, frontend_address
        self._failover = Failover(zone, projectors, entropy.jitter)
        self._watches, self._confirms, self._pool = Watches(), Confirms(), ResourcePool()
        self._links: dict[int, _Link] = {}
        self._current: _Link | None = None
        self._callers: dict[int, asyncio.Future[Reach]] = {}
        self._position = ORIGIN
        self._tasks: Supervisor | None = None

    # --- the port

    @property
    def ready(self) -> bool:
        """A projector serves this feed now (however old its head: what is old is still the last good state)."""
        return self._current is not None

    @property
    def position(self) -> Position:
        """The highest position that any projector has told of."""
        return self._position

    @property
    def age_s(self) -> float:
        """Age of the confirmed head that the present projector has; infinite without one."""
        return self._failover.age_s(self._clock.monotonic_s())

    @property
    def projector(self) -> tuple[str, str] | None:
        """(zone, address) of the projector that is listened to."""
        return (self._current.dial.zone, self._current.dial.address) if self._current else None

    @property
    def projectors(self) -> dict[str, str]:
        """Zone by address of every projector that this frontend would try."""
        return self._failover.projectors

    def watch(self, node: NodeId, listener: NodeListener) -> Subscription:
        """Follow `node`; what is known of it is given to `listener` before this returns."""
        key, first = self._watches.open(node, listener)
        if first:
            for link in self._subscribed_links():
                link.send(link.session.subscribe(node))

        def close() -> None:
            if self._watches.close(node, key):
                for link in self._subscribed_links():
                    link.held.discard(node)
                    link.send(link.session.unsubscribe(node))

        return _Watching(close)

    async def confirm(self, timeout_s: float) -> Confirmation:
        """See `SnapshotFeed.confirm`. Tries other projectors, as they become current, until `timeout_s` has passed."""
        caller = self._confirms.call(self._clock.monotonic_s() + timeout_s)
        answer = self._callers[caller] = asyncio.get_running_loop().create_future()
        try:
            self._ask()
            async with asyncio.timeout(timeout_s):
                confirmed = await answer
                return Confirmation(True, confirmed.mesh, confirmed.registry)
        except TimeoutError:
            return Confirmation(False, self._position)
        finally:
            self._confirms.gone(caller)
            del self._callers[caller]

    async def run(self) -> None:
        """Keep a projector until cancelled."""
        async with Supervisor() as tasks:
            self._tasks = tasks
            try:
                while True:
                    self._apply(self._failover.tick(self._clock.monotonic_s()))
                    self._ask()
                    await self._clock.sleep(FEED_TICK_S)
            finally:
                self._tasks = None
                for link in list(self._links.values()):
                    self._close(link)

    # --- what the machines say

    def _subscribed_links(self) -> list[_Link]:
        return [link for link in self._links.values() if link is self._current or link.unprepared is not None]

    def _apply(self, actions: list[FailoverAction]) -> None:
        for action in actions:
            match action:
                case Dial():
                    self._dial(action)
                case Prepare(number):
                    self._prepare(self._links[number])
                case Promote(number):
                    self._promote(self._links[number])
                case Drop(number):
                    self._close(self._links.get(number))

    def _dial(self, dial: Dial) -> None:
        if self._tasks is None:
            return
        link = self._links[dial.link] = _Link(dial, self._pool)
        link.send(FrontendHello(FEED_LEVEL, self._id, self._zone, self._address, probe=dial.probe))
        link.task = self._tasks.start(self._talk(link), f"feed-{dial.address}")

    def _settle(self, link: _Link) -> None:
        """The link comes to stay: say so, and subscribe for everything."""
        if link.probing:
            link.probing = False
            link.send(FrontendHello(FEED_LEVEL, self._id, self._zone, self._address))
        for node in sorted(self._watches.nodes):
            link.send(link.session.subscribe(node))

    def _prepare(self, link: _Link) -> None:
        link.unprepared = set(self._watches.nodes)
        self._settle(link)
        self._check_prepared(link, ())

    def _promote(self, link: _Link) -> None:
        before, self._current = self._current, link
        log.info("listening to a projector", address=link.dial.address, projector_zone=link.dial.zone)
        if before is not None:
            before.held.clear()
        self._settle(link)
        self._confirms.stream_changed()
        for node in list(link.session.views):
            self._deliver(link, node)
        self._ask()

    def _close(self, link: _Link | None) -> None:
        """Forget the link. Listeners keep what they have."""
        if link is None or self._links.pop(link.dial.link, None) is None:
            return
        if self._current is link:
            self._current = None
        link.session.close()
        if link.task is not None:
            link.task.cancel()

    def _lost(self, link: _Link, reason: str) -> None:
        if link.dial.link not in self._links:
            return
        log.info("lost a projector", address=link.dial.address, reason=reason)
        link.task = None
        self._close(link)
        self._apply(self._failover.lost(link.dial.link, self._clock.monotonic_s()))

    def _ask(self) -> None:
        link = self._current
        due = self._confirms.due(self._clock.monotonic_s()) if link is not None else None
        if link is not None and due is not None:
            confirm_id, timeout_s = due
            link.send(Confirm(confirm_id, int(timeout_s * 1000)))

    # --- what a stream says

    def _received(self, link: _Link, packed: bytes) -> None:
        now_s = self._clock.monotonic_s()
        heard_age_s: float | None = None
        for event in link.session.received(decode_from_projector(packed)):
            match event:
                case Greeted(hello):
                    self._apply(self._failover.greeted(link.dial.link, hello.projectors, now_s))
                case Viewed(node):
                    self._deliver(link, node)
                    self._check_prepared(link, (node,))
                case Covered(age_s=told_age_s):
                    heard_age_s = told_age_s
                    self._covered(link)
                case Answered(confirm_id, position, ok, registry):
                    self._answered(link, confirm_id, Reach(position, registry), ok)
        self._position = max(self._position, link.session.position)
        self._apply(self._failover.heard(link.dial.link, heard_age_s, now_s))

    def _deliver(self, link: _Link, node: NodeId) -> None:
        """Offer the link's view to the node's listeners, if the link counts; keep in mind what is held back."""
        if link is not self._current:
            return
        if self._watches.offer(node, link.session.views[node], link.session.as_of(node)):
            link.held.discard(node)
        else:
            link.held.add(node)

    def _covered(self, link: _Link) -> None:
        for node in list(link.held):
            self._deliver(link, node)
        self._check_prepared(link, link.unprepared or ())

    def _check_prepared(self, link: _Link, nodes: Iterable[NodeId]) -> None:
        """A candidate is prepared when each node watched since `Prepare` is there, none of them going back."""
        if link.unprepared is None or link is self._current:
            return
        for node in list(nodes):
            watched = node in self._watches.nodes
            there = node in link.session.views and self._watches.accepts(node, link.session.as_of(node))
            if there or not watched:
                link.unprepared.discard(node)
        if not link.unprepared:
            self._apply(self._failover.prepared(link.dial.link, self._clock.monotonic_s()))

    def _answered(self, link: _Link, confirm_id: int, reach: Reach, ok: bool) -> None:
        if link is not self._current:
            return
        # A node still held back would make the promise of `confirm` a lie; the question is asked again.
        for caller in self._confirms.answered(confirm_id, ok and not link.held, self._clock.monotonic_s()):
            answer = self._callers.get(caller)
            if answer is not None and not answer.done():
                answer.set_result(reach)
        self._ask()

    # --- the network

    async def _talk(self, link: _Link) -> None:
        reason = "the projector ended the stream"
        channel = self._channels(link.dial.zone, link.dial.address)
        try:
            call: Call = channel.stream_stream(METHOD)()
            async with Supervisor() as writing:
                writing.start(_write(link, call), "feed-write")
                while isinstance(packed := await call.read(), bytes):
                    self._received(link, packed)
                # The end of a stream; its status raises.
                reason = f"{(await call.code()).name}: {await call.details()}"
        except grpc.aio.AioRpcError as error:
            reason = f"{error.code().name}: {error.details()}"
        except (BadRequest, asyncio.InvalidStateError) as error:
            reason = str(error)
        finally:
            await channel.close()
        self._lost(link, reason)


async def _write(link: _Link, call: Call) -> None:
    """Write what is in the outbox, as fast as the transport takes it. The reading side learns why a stream ended."""
    try:
        while True:
            while link.outbox:
                await call.write(encode(link.outbox.popleft()))
            link.wake.clear()
            await link.wake.wait()
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        return
