"""One watch that outlives members: answers of etcd in, whole changes out, each once and in order.

`WatchCursor` is sans-I/O: it knows where to resume, drops what was delivered already, joins fragments and tells a
compaction from a lost member. `WatchThread` is the shell: a thread reads the stream (the etcd3 package's stubs are
synchronous) and hands over to the event loop through a bounded mailbox. A stream that breaks or falls silent is left
for another member at once, resumed at the last change's revision + 1, never at a progress mark.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import Any, NamedTuple

import grpc
import structlog

from cluster.etcd import protos
from cluster.etcd.choice import MemberChoice
from cluster.etcd.failures import Verdict, denied, describe, judge
from cluster.etcd.translation import key_event
from cluster.etcd.values import KeyEvent, RevisionCompacted, WatchUpdate
from runtime import limits
from runtime.clock import Clock

log = structlog.get_logger(__name__)

_HAS_LEADER = (("hasleader", "true"),)
_MAILBOX_POLL_S = 0.2


class Leave(NamedTuple):
    """Go on at another member."""

    reason: str


class Denied(NamedTuple):
    """This user may not watch this range, at any member."""

    reason: str


class WatchCursor:
    """Where a watch stands. `next_revision` is where to resume."""

    def __init__(self, from_revision: int) -> None:
        self.next_revision = from_revision
        self._parts: list[KeyEvent] = []

    def on_stream(self) -> None:
        """A new stream begins: parts of an unfinished answer will come again."""
        self._parts.clear()

    def on_response(self, response: Any) -> WatchUpdate | RevisionCompacted | Leave | Denied | None:
        """What an answer means; None: nothing yet (the watch was created, or the answer goes on)."""
        if response.canceled:
            if response.compact_revision:
                return RevisionCompacted(response.compact_revision)
            if "PermissionDenied" in response.cancel_reason or "permission denied" in response.cancel_reason:
                return Denied(response.cancel_reason)
            return Leave(response.cancel_reason or "the member ended the watch")
        if response.created:
            return None
        # A member that lags may start below what was asked for (etcd before 3.5.22 and 3.6.2), and a resumed watch may
        # repeat itself.
        fresh = [key_event(event) for event in response.events if event.kv.mod_revision >= self.next_revision]
        self._parts.extend(fresh)
        if response.fragment:
            return None
        events, self._parts = tuple(self._parts), []
        if not events and response.events:
            return None
        if events:
            self.next_revision = events[-1].item.mod_revision + 1
        return WatchUpdate(events, response.header.revision)


class _Stream:
    """One stream to one member."""

    def __init__(self, started_s: float) -> None:
        self.call: Any = None
        self.over = threading.Event()
        self.last_word_s = started_s
        self.stalled = False


class _Mailbox:
    """Bounded, from one thread to one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, capacity: int) -> None:
        self._loop = loop
        self._slots = threading.Semaphore(capacity)
        self._items: deque[WatchUpdate | Exception] = deque()
        self._filled = asyncio.Event()

    def put(self, item: WatchUpdate | Exception, closed: threading.Event) -> None:
        """From the thread: wait for room, unless `closed`."""
        while not self._slots.acquire(timeout=_MAILBOX_POLL_S):
            if closed.is_set():
                return
        self._items.append(item)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads any more
            self._loop.call_soon_threadsafe(self._filled.set)

    async def get(self, timeout_s: float) -> WatchUpdate | Exception | None:
        """From the loop: the next item; None after `timeout_s` without one."""
        if not self._items:
            self._filled.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._filled.wait()
        if not self._items:
            return None
        self._slots.release()
        return self._items.popleft()


class WatchThread:
    """Runs one watch; `updates` is its only reader. `stub_of` gives the Watch callable of a member by index."""

    def __init__(
        self,
        create: Any,
        choice: MemberChoice,
        addresses: Sequence[str],
        stub_of: Callable[[int], Any],
        clock: Clock,
    ) -> None:
        self._create = create
        self._choice = choice
        self._addresses = addresses
        self._stub_of = stub_of
        self._clock = clock
        self._cursor = WatchCursor(create.start_revision)
        self._closed = threading.Event()
        self._stream: _Stream | None = None

    async def updates(self) -> AsyncGenerator[WatchUpdate, None]:
        """What changes, for ever. RevisionCompacted, SettingsError or TimelineMoved end it."""
        mailbox = _Mailbox(asyncio.get_running_loop(), limits.WATCH_BACKLOG)
        thread = threading.Thread(target=self._run, args=(mailbox,), name="etcd-watch", daemon=True)
        thread.start()
        try:
            while not self._closed.is_set():
                item = await mailbox.get(limits.WATCH_PROGRESS_S)
                if item is None:
                    self._leave_if_stalled()
                elif isinstance(item, Exception):
                    raise item
                else:
                    yield item
        finally:
            self.close()

    def close(self) -> None:
        """End the thread; from any thread, any number of times."""
        self._closed.set()
        stream = self._stream
        if stream is not None:
            stream.over.set()
            if stream.call is not None:
                stream.call.cancel()

    def _leave_if_stalled(self) -> None:
        stream = self._stream
        if stream is None or stream.call is None:
            return
        if self._clock.monotonic_s() - stream.last_word_s > limits.WATCH_STALL_S:
            stream.stalled = True
            stream.call.cancel()

    def _run(self, mailbox: _Mailbox) -> None:
        try:
            self._follow_for_ever(mailbox)
        except Exception as end:
            # Whatever it is, the reader must hear of it: a thread that dies in silence is a log that stands still.
            mailbox.put(end, self._closed)

    def _follow_for_ever(self, mailbox: _Mailbox) -> None:
        pause_s = 0.0
        while not self._closed.wait(pause_s):
            index = self._choice.order(self._clock.monotonic_s())[0]
            before = self._cursor.next_revision
            reason, heard = self._follow(index, mailbox)
            if self._closed.is_set():
                return
            log.warning("watch left a member", member=self._addresses[index], reason=reason, resume=before)
            self._choice.failed(index, self._clock.monotonic_s())
            # At once to another member after a good stream; ever slower while none gives one.
            pause_s = 0.0 if heard else min(max(2 * pause_s, limits.ETCD_RETRY_PAUSE_S), limits.ETCD_RETRY_PAUSE_MAX_S)

    def _follow(self, index: int, mailbox: _Mailbox) -> tuple[str, bool]:
        """Read one stream until it ends; why it did, and whether anything came over it."""
        stream = self._stream = _Stream(self._clock.monotonic_s())
        heard = False
        self._cursor.on_stream()
        term = self._choice.term
        try:
            stream.call = self._stub_of(index)(self._requests(stream), metadata=_HAS_LEADER)
            if self._closed.is_set():
                stream.call.cancel()
            for response in stream.call:
                stream.last_word_s = self._clock.monotonic_s()
                if not self._choice.believe(response.header.cluster_id, response.header.raft_term, term):
                    return "it is in an older Raft term than the others", heard
                term = self._choice.term
                end = self._take(response, index, mailbox)
                if end is not None:
                    return end, heard
                if not heard:
                    heard = True
                    self._choice.answered(index)
        except grpc.RpcError as error:
            code, details = describe(error)
            if judge(code, details) is Verdict.DENIED:
                raise denied("a watch", self._addresses[index], details) from error
            return ("it fell silent" if stream.stalled else details), heard
        finally:
            stream.over.set()
            if stream.call is not None:
                stream.call.cancel()
        return "it ended the stream", heard

    def _take(self, response: Any, index: int, mailbox: _Mailbox) -> str | None:
        outcome = self._cursor.on_response(response)
        match outcome:
            case None:
                return None
            case WatchUpdate():
                mailbox.put(outcome, self._closed)
                return None
            case Leave(reason):
                return reason
            case Denied(reason):
                raise denied("a watch", self._addresses[index], reason)
            case RevisionCompacted():
                raise outcome

    def _requests(self, stream: _Stream) -> Iterator[Any]:
        """The stream's requests, drawn by gRPC in a thread of its own: the watch, then a question now and then."""
        create = protos.rpc.WatchCreateRequest()
        create.CopyFrom(self._create)
        create.start_revision = self._cursor.next_revision
        yield protos.rpc.WatchRequest(create_request=create)
        while not stream.over.wait(limits.WATCH_PROGRESS_S):
            yield protos.rpc.WatchRequest(progress_request=protos.rpc.WatchProgressRequest())
