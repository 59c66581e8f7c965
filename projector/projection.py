"""State to snapshots, for the nodes that somebody follows: a fold marks what it may have changed, a look compiles it.

Compiling waits until a stream can take the result, so a burst of events costs one compilation per node, and the newest
wins. What one node's compilation does wrong never touches another: that node keeps what it had, with an alarm.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import structlog

from identity.node_id import NodeId
from mesh.errors import NotReady
from mesh.events import Event
from mesh.kinds import ResourceKey
from mesh.position import Position
from mesh.state import State
from projector.envoy.changes import changed_keys
from projector.feed.port import Subscription
from projector.replica import are_all
from projector.snapshot import NodeSnapshot
from runtime.limits import LEFT_NODES_MAX
from runtime.logging import where

log = structlog.get_logger(__name__)


class FoldedLog(Protocol):
    """What a projection needs of `projector.replica.Replica`."""

    @property
    def state(self) -> State: ...

    @property
    def ready(self) -> bool: ...

    @property
    def confirmed_age_s(self) -> float: ...

    def subscribe(self, listener: Callable[[State, State, Sequence[Event]], None]) -> Callable[[], None]: ...

    async def confirmed(self, timeout_s: float) -> Position: ...


class NodeCompiler(Protocol):
    """What a projection needs of `projector.envoy.compiler.Compiler`."""

    def compile(self, state: State, node: NodeId, previous: NodeSnapshot | None = None) -> NodeSnapshot | None: ...

    def affected(self, changed: Iterable[ResourceKey]) -> set[NodeId]:
        """Whom a change of these concerns, among the nodes compiled and not forgotten."""
        ...

    def forget(self, node: NodeId) -> None: ...


@dataclass(slots=True)
class _Node:
    """A followed node. `known` is what was compiled last (None: no such node); `compiled` False: never yet."""

    listeners: dict[int, Callable[[NodeId], None]] = field(default_factory=dict)
    compiled: bool = False
    stale: bool = True
    known: NodeSnapshot | None = None


class _Followed:
    """One subscription to one node."""

    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close

    def close(self) -> None:
        self._close()


class Projection:
    """A `SnapshotSource` (projector/feed/source.py) over a replica and the compiler."""

    def __init__(self, replica: FoldedLog, compiler: NodeCompiler) -> None:
        self._replica, self._compiler = replica, compiler
        self._nodes: dict[NodeId, _Node] = {}
        self._failing: set[NodeId] = set()
        self._left: OrderedDict[NodeId, NodeSnapshot] = OrderedDict()
        self._last_key = 0
        replica.subscribe(self._folded)

    @property
    def ready(self) -> bool:
        return self._replica.ready

    @property
    def position(self) -> Position:
        return self._replica.state.position

    @property
    def confirmed_age_s(self) -> float:
        return self._replica.confirmed_age_s

    @property
    def nodes(self) -> frozenset[NodeId]:
        """The nodes that somebody follows."""
        return frozenset(self._nodes)

    @property
    def alarms(self) -> dict[NodeId, tuple[str, ...]]:
        """What is held back, by node, as of each node's last compilation."""
        return {node: entry.known.alarms for node, entry in self._nodes.items() if entry.known and entry.known.alarms}

    def subscribe(self, node: NodeId, changed: Callable[[NodeId], None]) -> Subscription:
        """See `SnapshotSource.subscribe`.

        The last subscriber's end leaves only what was compiled last: what a missing reference holds back must still be
        there when the node's proxy comes back a moment later.
        """
        entry = self._nodes.setdefault(node, _Node(known=self._left.pop(node, None)))
        self._last_key += 1
        key = self._last_key
        entry.listeners[key] = changed

        def close() -> None:
            entry.listeners.pop(key, None)
            if not entry.listeners and self._nodes.get(node) is entry:
                del self._nodes[node]
                self._failing.discard(node)
                self._compiler.forget(node)
                self._leave(node, entry.known)

        return _Followed(close)

    def _leave(self, node: NodeId, known: NodeSnapshot | None) -> None:
        if known is not None:
            self._left[node] = known
        while len(self._left) > LEFT_NODES_MAX:
            self._left.popitem(last=False)

    def current(self, node: NodeId) -> NodeSnapshot | None:
        """See `SnapshotSource.current`."""
        entry = self._nodes[node]
        if entry.stale:
            entry.stale = False
            self._compile(node, entry)
        if not entry.compiled:
            raise NotReady(f"{node} cannot be compiled at {self.position}, and never could: see the projector's log")
        return entry.known

    async def confirmed(self, timeout_s: float) -> Position:
        return await self._replica.confirmed(timeout_s)

    def _compile(self, node: NodeId, entry: _Node) -> None:
        state = self._replica.state
        try:
            entry.known = self._compiler.compile(state, node, entry.known)
            entry.compiled = True
            self._failing.discard(node)
        except Exception as error:
            # Neither the error's text nor its trace: they may hold configuration (I6).
            kind, place = type(error).__name__, where(error)
            log.error("a node cannot be compiled", node=str(node), at=str(state.position), kind=kind, place=place)  # noqa: TRY400
            self._failing.add(node)
            if entry.known is not None:
                alarm = (
                    f"{node} cannot be compiled at {state.position} ({type(error).__name__}): its proxies keep what "
                    f"they had at {entry.known.position}; undo the change or report this"
                )
                entry.known = replace(entry.known, alarms=(*_without_earlier(entry.known.alarms, node), alarm))

    def _folded(self, before: State, after: State, events: Sequence[Event]) -> None:
        if before.level != after.level or not are_all(before, events):
            affected = set(self._nodes)
        else:
            # What cannot be compiled may not have read all that it depends on: any change may be its cure.
            changed = changed_keys(events)
            affected = self._compiler.affected(changed) | self._failing if changed else set()
        for node in sorted(affected):
            entry = self._nodes.get(node)
            if entry is None:
                continue
            entry.stale = True
            for tell in list(entry.listeners.values()):
                tell(node)


def _without_earlier(alarms: tuple[str, ...], node: NodeId) -> tuple[str, ...]:
    return tuple(alarm for alarm in alarms if not alarm.startswith(f"{node} cannot be compiled at "))
