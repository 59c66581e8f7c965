"""The projector's end of one feed stream as a pure machine: frames and facts in, actions and frames out. No I/O.

It knows which nodes one frontend follows, what it was last sent of each, which of them are dirty, and which confirms
and heartbeats are due. It is *pulled* (`next_frame`) when the transport can take a frame, so a slow frontend costs a
set of dirty nodes, never a queue, and gets the newest.

The order that confirms and heartbeats promise: a `Confirmed` or `Heartbeat` with position P is sent only after, for
every node subscribed before, a frame taken at P or later (or the knowledge that the last one sent still holds there).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from identity.node_id import NodeId
from mesh.errors import BadRequest, LimitExceeded, NotReady
from mesh.position import Position
from projector.feed.source import SnapshotSource
from projector.feed.wire import (
    FEED_LEVEL,
    Confirm,
    Confirmed,
    FrontendFrame,
    FrontendHello,
    Heartbeat,
    ProjectorFrame,
    ProjectorHello,
    SnapshotFrame,
    Subscribe,
    Unsubscribe,
)
from projector.snapshot import NOWHERE, TYPE_ENDPOINT, NodeSnapshot
from runtime.limits import (
    FEED_ALARMS_MAX,
    FEED_CONFIRM_TIMEOUT_S,
    FEED_CONFIRMS_MAX,
    FEED_NAME_BYTES_MAX,
    FEED_NODES_MAX,
)


@dataclass(frozen=True, slots=True)
class Register:
    """The frontend has come to stay."""

    hello: FrontendHello


@dataclass(frozen=True, slots=True)
class Follow:
    """Keep this node current and call `changed` for it."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Forget:
    """This stream no longer needs the node."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class AskHead:
    """Begin a quorum read now (or join one begun after now); give the outcome to `head_answer`."""

    id: int
    timeout_s: float


SessionAction = Register | Follow | Forget | AskHead


@dataclass(slots=True)
class _Followed:
    subscription: int
    answered: bool = False
    sent: NodeSnapshot | None = None
    unsent: tuple[NodeSnapshot | None, bool] = (None, False)
    """`sent` and `answered` before the last frame, should that not have been written."""


@dataclass(frozen=True, slots=True)
class _Due:
    """Something to say once everything dirtied before `barrier` has been sent."""

    barrier: int
    position: Position
    confirm_id: int | None
    ok: bool = True
    registry: Position = NOWHERE


class ProjectorSession:
    """One frontend's stream, seen from the projector."""

    def __init__(self, projector_id: str, zone: str, projectors: tuple[tuple[str, str], ...]) -> None:
        self._id, self._zone, self._projectors = projector_id, zone, projectors
        self._frontend: FrontendHello | None = None
        self._followed: dict[NodeId, _Followed] = {}
        self._dirty: dict[NodeId, int] = {}
        self._dirtied = 0
        self._due: deque[_Due] = deque()
        self._asked: set[int] = set()
        self._hello_due = False
        self._beat_due = False

    @property
    def frontend(self) -> FrontendHello | None:
        """Who is at the other end; None before its hello."""
        return self._frontend

    @property
    def nodes(self) -> frozenset[NodeId]:
        return frozenset(self._followed)

    def received(self, frame: FrontendFrame) -> list[SessionAction]:
        """Take a frame; BadRequest when it breaks the protocol: the stream must then end."""
        if isinstance(frame, FrontendHello):
            return self._greet(frame)
        if self._frontend is None:
            raise BadRequest("feed: a stream begins with a hello")
        match frame:
            case Subscribe():
                return self._subscribe(frame)
            case Unsubscribe():
                self._dirty.pop(frame.node, None)
                return [Forget(frame.node)] if self._followed.pop(frame.node, None) else []
            case Confirm():
                if len(self._asked) >= FEED_CONFIRMS_MAX or frame.id in self._asked:
                    raise LimitExceeded(f"feed: over {FEED_CONFIRMS_MAX} confirms unanswered, or one asked twice")
                self._asked.add(frame.id)
                return [AskHead(frame.id, min(frame.timeout_ms / 1000, FEED_CONFIRM_TIMEOUT_S))]

    def _greet(self, hello: FrontendHello) -> list[SessionAction]:
        if hello.level < 1:
            raise BadRequest(f"feed: the frontend '{hello.id}' speaks no level that this build knows")
        if self._frontend is not None and self._frontend.id != hello.id:
            raise BadRequest("feed: one stream is one frontend's")
        first, self._frontend = self._frontend is None, hello
        self._hello_due = self._hello_due or first
        self._beat_due = self._beat_due or first
        return [] if hello.probe else [Register(hello)]

    def _subscribe(self, frame: Subscribe) -> list[SessionAction]:
        known = frame.node in self._followed
        if not known and len(self._followed) >= FEED_NODES_MAX:
            raise LimitExceeded(f"feed: one stream follows at most {FEED_NODES_MAX} nodes")
        self._followed[frame.node] = _Followed(frame.subscription)
        self.changed(frame.node)
        return [] if known else [Follow(frame.node)]

    def changed(self, node: NodeId) -> None:
        """The node may have changed. Told before anything later is confirmed."""
        if node in self._followed and node not in self._dirty:
            self._dirty[node] = self._dirtied
            self._dirtied += 1

    def head_answer(
        self, confirm_id: int, position: Position | None, folded: Position, registry: Position = NOWHERE
    ) -> None:
        """The outcome of an `AskHead`: the confirmed head, folded, or None; `folded` is what a refusal tells.

        `registry`: what is folded of the registry's log.
        """
        self._asked.discard(confirm_id)
        ok = position is not None
        self._due.append(_Due(self._dirtied if ok else 0, position or folded, confirm_id, ok, registry))

    def beat(self, folded: Position, registry: Position = NOWHERE) -> None:
        """A heartbeat is due. One that still waits for its turn is not doubled."""
        if self._frontend is not None and not any(due.confirm_id is None for due in self._due):
            self._due.append(_Due(self._dirtied, folded, None, registry=registry))

    def projectors_known(self, projectors: tuple[tuple[str, str], ...]) -> None:
        """Say hello again if the list has changed."""
        if projectors != self._projectors:
            self._projectors = projectors
            self._hello_due = self._frontend is not None

    def next_frame(self, source: SnapshotSource) -> ProjectorFrame | None:
        """The next frame to write, or None until something happens. Each call hands over what it returns."""
        if self._hello_due:
            self._hello_due = False
            level = min(FEED_LEVEL, self._frontend.level if self._frontend else FEED_LEVEL)
            return ProjectorHello(level, self._id, self._zone, self._projectors)
        if self._beat_due:
            self._beat_due = False
            self.beat(source.position, source.registry)
        while True:
            oldest = next(iter(self._dirty.items()), None)
            # Barriers rise along `_due` but for refusals (0), which wait for nothing but their turn.
            if self._due and (oldest is None or oldest[1] >= self._due[0].barrier):
                return self._say(self._due.popleft(), source)
            if oldest is None:
                return None
            del self._dirty[oldest[0]]
            frame = self._snapshot(oldest[0], source)
            if frame is not None:
                return frame

    def _say(self, due: _Due, source: SnapshotSource) -> ProjectorFrame:
        if due.confirm_id is not None:
            return Confirmed(due.confirm_id, due.position, due.ok, due.registry)
        return Heartbeat(due.position, age_ms(source.confirmed_age_s), due.registry)

    def not_sent(self, node: NodeId) -> None:
        """The last snapshot frame of `node` could not be written: the next one is made against what was before it."""
        followed = self._followed.get(node)
        if followed is not None:
            followed.sent, followed.answered = followed.unsent

    def _snapshot(self, node: NodeId, source: SnapshotSource) -> SnapshotFrame | None:
        followed = self._followed[node]
        try:
            position, registry, snapshot = source.position, source.registry, source.current(node)
        except NotReady:
            return None  # silence about this one node; the others, and what is confirmed, go on
        followed.unsent = (before, answered) = (followed.sent, followed.answered)
        followed.sent, followed.answered = snapshot, True
        subscription = followed.subscription
        if snapshot is None:
            if answered and before is None:
                return None
            return SnapshotFrame(node, subscription, position, known=False, full=True)
        alarms = _alarms(snapshot.alarms)
        if not snapshot.of_type(TYPE_ENDPOINT):
            registry = NOWHERE  # nothing in it is of the registry, so a registry that stands still holds nothing up
        if not answered or before is None:
            everything = tuple(snapshot.resources[name] for name in sorted(snapshot.resources))
            return SnapshotFrame(node, subscription, position, True, True, everything, (), alarms, registry)
        upserts = tuple(
            resource
            for name, resource in sorted(snapshot.resources.items())
            if (old := before.resources.get(name)) is None or old.version != resource.version
        )
        removals = tuple(sorted(name for name in before.resources if name not in snapshot.resources))
        if not upserts and not removals and snapshot.alarms == before.alarms:
            return None
        return SnapshotFrame(node, subscription, position, True, False, upserts, removals, alarms, registry)


def age_ms(age_s: float) -> int:
    """Milliseconds for the wire; an age that is not known (infinite) is ten years."""
    return int(min(age_s, 315_360_000.0) * 1000)


def _alarms(alarms: tuple[str, ...]) -> tuple[str, ...]:
    shown = alarms if len(alarms) <= FEED_ALARMS_MAX else alarms[: FEED_ALARMS_MAX - 1]
    # A character takes four bytes at most.
    clipped = tuple(alarm[: FEED_NAME_BYTES_MAX // 4] for alarm in shown)
    return clipped if len(shown) == len(alarms) else (*clipped, f"and {len(alarms) - len(shown)} more alarms")
