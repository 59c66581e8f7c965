"""One ADS stream on the network: bytes of requests in, events to the machine, its actions done. A shell: it decides
nothing about the protocol. One write at a time; what is written next is decided when the last write is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Generic, Protocol

import grpc
import structlog
from google.protobuf.message import DecodeError

from identity.node_id import NodeId
from projector.feed.port import NodeUpdate, SnapshotFeed, Subscription
from runtime.clock import Clock, Entropy
from runtime.limits import (
    XDS_CONFIRM_RETRY_S,
    XDS_CONFIRM_TIMEOUT_S,
    XDS_ERROR_DETAIL_CHARS,
    XDS_FIRST_REQUEST_S,
    XDS_REMOVAL_GRACE_S,
)
from xds.actions import (
    Acked,
    Action,
    Close,
    Code,
    Confirm,
    Confirmed,
    Event,
    GraceOver,
    Nacked,
    NotConfirmed,
    Received,
    Request,
    Response,
    Send,
    Settled,
    Updated,
    Watch,
    Written,
)
from xds.connected import ConnectedProxy, Refusal
from xds.metrics import XdsMetrics
from xds.session import Session
from xds.view import SHORT_NAMES

log = structlog.get_logger(__name__)

Context = grpc.aio.ServicerContext[bytes, bytes]


class Ports(Protocol):
    """What a stream needs of its server."""

    @property
    def feed(self) -> SnapshotFeed: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def entropy(self) -> Entropy: ...

    @property
    def metrics(self) -> XdsMetrics: ...

    @property
    def send_timeout_s(self) -> float: ...


class _Over(Exception):  # noqa: N818 - not an error: ends the tasks of a stream together
    pass


class Stream(Generic[Request, Response]):
    """Runs `session` until the proxy leaves or the machine closes. `request_type` parses requests."""

    def __init__(
        self,
        session: Session[Request, Response],
        request_type: type[Request],
        proxy: ConnectedProxy,
        ports: Ports,
    ) -> None:
        self._session: Session[Request, Response] = session
        self._request_type: type[Request] = request_type
        self._proxy, self._ports = proxy, ports
        self._outbox: Send[Response] | None = None
        self._ending: Close | None = None
        self._left = False
        self._wake = asyncio.Event()
        self._confirm_wanted = asyncio.Event()
        self._confirm_after_failure = False
        self._bound = asyncio.Event()
        self._subscription: Subscription | None = None
        self._log = log.bind(node=str(proxy.node), mode=proxy.mode, peer=proxy.peer)

    async def run(self, requests: AsyncIterator[bytes], context: Context) -> Close | None:
        """Serve the stream; how to close it, or None when the proxy ended it. CancelledError when it broke."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(requests), name="xds-read")
                tasks.create_task(self._confirm(), name="xds-confirm")
                tasks.create_task(self._time_out(), name="xds-grace")
                await self._write(context)
                raise _Over  # noqa: TRY301 - this is how a task group is left
        except* _Over:
            pass
        finally:
            if self._subscription is not None:
                self._subscription.close()
        return self._ending

    # --- tasks

    async def _read(self, requests: AsyncIterator[bytes]) -> None:
        async for packed in requests:
            try:
                request = self._request_type.FromString(packed)
            except DecodeError:
                self._end(Code.INVALID_ARGUMENT, "the request is not a discovery request")
                return
            self._handle(Received(request))
        self._left = True
        self._wake.set()

    async def _write(self, context: Context) -> None:
        while self._ending is None and not self._left:
            send, self._outbox = self._outbox, None
            if send is None:
                await self._wake.wait()
                self._wake.clear()
                continue
            packed = send.response.SerializeToString()
            try:
                async with asyncio.timeout(self._ports.send_timeout_s):
                    await context.write(packed)
            except TimeoutError:
                seconds = self._ports.send_timeout_s
                self._end(Code.DEADLINE_EXCEEDED, f"the proxy took no bytes for {seconds:g} s: connect again")
                return
            labels = (self._session.mode, SHORT_NAMES[send.type_url])
            self._ports.metrics.pushes.labels(*labels).inc()
            self._ports.metrics.pushed_bytes.labels(*labels).inc(len(packed))
            self._handle(Written())

    async def _confirm(self) -> None:
        """Have the head confirmed whenever the machine wants it; failures are paused after, with jitter."""
        while True:
            await self._confirm_wanted.wait()
            self._confirm_wanted.clear()
            if self._confirm_after_failure:
                await self._ports.clock.sleep(XDS_CONFIRM_RETRY_S * (1 + self._ports.entropy.jitter()))
            answer = await self._ports.feed.confirm(XDS_CONFIRM_TIMEOUT_S)
            if not answer.ok:
                self._ports.metrics.unconfirmed.inc()
            self._handle(Confirmed(answer.position, answer.registry) if answer.ok else NotConfirmed())

    async def _time_out(self) -> None:
        """End a stream that says nothing; later, the grace for removals."""
        try:
            async with asyncio.timeout(XDS_FIRST_REQUEST_S):
                await self._bound.wait()
        except TimeoutError:
            self._end(Code.DEADLINE_EXCEEDED, f"no request came within {XDS_FIRST_REQUEST_S:g} s")
            return
        await self._ports.clock.sleep(XDS_REMOVAL_GRACE_S)
        self._handle(GraceOver())

    # --- what the machine says

    def _on_update(self, update: NodeUpdate) -> None:
        try:
            self._handle(Updated(update))
        except Exception:
            # Outside this stream's tasks: nobody would end it, and its proxy would stay as it is for ever.
            self._end(Code.INTERNAL, "this frontend failed to make a response: connect again")
            raise

    def _handle(self, event: Event[Request]) -> None:
        for action in self._session.handle(event):
            self._do(action)

    def _do(self, action: Action[Response]) -> None:
        match action:
            case Send():
                self._outbox = action
                self._wake.set()
            case Acked(type_url, position):
                self._proxy.acked[SHORT_NAMES[type_url]] = position
                self._ports.metrics.acks.labels(self._session.mode, SHORT_NAMES[type_url]).inc()
            case Nacked():
                self._note_refusal(action)
            case Settled(position):
                self._proxy.settled, self._proxy.refusal = position, None
            case Watch(node):
                self._watch(node)
            case Confirm(after_failure):
                self._confirm_after_failure = after_failure
                self._confirm_wanted.set()
            case Close(code, message):
                self._end(code, message)

    def _watch(self, node: NodeId) -> None:
        self._log.info("proxy connected")
        self._bound.set()
        self._subscription = self._ports.feed.watch(node, self._on_update)

    def _note_refusal(self, nack: Nacked) -> None:
        short, detail = SHORT_NAMES[nack.type_url], nack.detail[:XDS_ERROR_DETAIL_CHARS]
        self._ports.metrics.nacks.labels(self._session.mode, short).inc()
        self._proxy.refusal = Refusal(short, nack.names, nack.position, detail, self._ports.clock.now_us())
        self._log.warning(
            "proxy refused config", type=short, resources=nack.names, position=str(nack.position), detail=detail
        )

    def end(self, code: Code, message: str) -> None:
        """End the stream from outside: what was begun to be written is not cut."""
        self._end(code, message)

    def _end(self, code: Code, message: str) -> None:
        if self._ending is None:
            self._ending = Close(code, message)
        self._wake.set()


def status_of(code: Code) -> grpc.StatusCode:
    """gRPC's own value of a code."""
    return next(status for status in grpc.StatusCode if _number(status) == code)


def _number(status: grpc.StatusCode) -> int:
    number: Any = status.value[0]
    return int(number)
