"""What a frontend's listeners have been told of each node, and what they may be told next. Pure.

The rules: a listener gets whole snapshots only; a node never goes back below the position it was delivered at,
whichever projector now speaks (what is older is held back until that projector has caught up); losing a projector
delivers nothing; "no such node" is delivered like any other news, never because of a reconnect.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import structlog

from identity.node_id import NodeId
from projector.feed.following import View
from projector.feed.port import NodeListener, NodeUpdate
from projector.snapshot import NodeSnapshot, Reach
from runtime.limits import FEED_HIGH_WATER_NODES_MAX
from runtime.logging import where

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Watch:
    listeners: dict[int, NodeListener] = field(default_factory=dict)
    last: NodeUpdate | None = None


class Watches:
    """Listeners by node, the last update of each, and the high-water mark of nodes served lately."""

    def __init__(self, remembered_max: int = FEED_HIGH_WATER_NODES_MAX) -> None:
        self._watches: dict[NodeId, _Watch] = {}
        self._marks: OrderedDict[NodeId, Reach] = OrderedDict()
        self._remembered_max = remembered_max
        self._last_key = 0

    @property
    def nodes(self) -> frozenset[NodeId]:
        return frozenset(self._watches)

    def last(self, node: NodeId) -> NodeUpdate | None:
        """What the node's listeners were told last."""
        watch = self._watches.get(node)
        return watch.last if watch else None

    def open(self, node: NodeId, listener: NodeListener) -> tuple[int, bool]:
        """A key to `close` with, and whether the node had no listener before. Tells the listener what is known."""
        watch = self._watches.get(node)
        first = watch is None
        if watch is None:
            watch = self._watches[node] = _Watch()
        self._last_key += 1
        watch.listeners[self._last_key] = listener
        if watch.last is not None:
            _tell(listener, watch.last)
        return self._last_key, first

    def close(self, node: NodeId, key: int) -> bool:
        """True when the node's last listener went. Harmless when repeated."""
        watch = self._watches.get(node)
        if watch is None or watch.listeners.pop(key, None) is None or watch.listeners:
            return False
        del self._watches[node]
        if watch.last is not None:
            self._remember(node, watch.last.reach)
        return True

    def accepts(self, node: NodeId, reach: Reach) -> bool:
        """Whether something as of `reach` may be delivered: it is not older than what was."""
        mark = self._mark(node)
        return mark is None or reach.covers(mark)

    def offer(self, node: NodeId, view: View, covered: Reach) -> bool:
        """Deliver `view`, known to hold as of `covered`, if it may be and says something new. False: held back."""
        watch = self._watches.get(node)
        if watch is None:
            return True
        reach = view.reach.joined(covered)
        if not self.accepts(node, reach):
            return False
        news = watch.last is None or _differ(watch.last.snapshot, view.snapshot)
        self._marks.pop(node, None)
        watch.last = NodeUpdate(node, reach.mesh, view.snapshot, reach.registry)
        if news:
            for listener in list(watch.listeners.values()):
                _tell(listener, watch.last)
        return True

    def _mark(self, node: NodeId) -> Reach | None:
        watch = self._watches.get(node)
        if watch is not None and watch.last is not None:
            return watch.last.reach
        return self._marks.get(node)

    def _remember(self, node: NodeId, reach: Reach) -> None:
        self._marks[node] = reach
        while len(self._marks) > self._remembered_max:
            self._marks.popitem(last=False)


def _tell(listener: NodeListener, update: NodeUpdate) -> None:
    try:
        listener(update)
    except Exception as error:
        # One proxy's stream must not take the others' news with it. (A stream that fails here ends itself.)
        log.error("a listener failed", node=str(update.node), kind=type(error).__name__, place=where(error))  # noqa: TRY400


def _differ(before: NodeSnapshot | None, after: NodeSnapshot | None) -> bool:
    if before is None or after is None:
        return before is not after
    if before.alarms != after.alarms or before.resources.keys() != after.resources.keys():
        return True
    return any(resource.version != after.resources[name].version for name, resource in before.resources.items())
