"""The projector as a frontend sees it: the shape of a feed of per-node snapshots. Values and Protocols only.

`projector/feed/client.py` implements it over gRPC; `xds` consumes it; simulation and tests bring their own. Nothing
here does I/O, and nothing here knows where snapshots come from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from identity.node_id import NodeId
from mesh.position import Position
from projector.snapshot import NOWHERE, NodeSnapshot, Reach


@dataclass(frozen=True, slots=True)
class NodeUpdate:
    """One node as of `position`: all that it is to have, or `snapshot` None when the mesh has no such node there.

    Never partial: before the first whole answer for a node there is no update at all.
    """

    node: NodeId
    position: Position
    snapshot: NodeSnapshot | None
    registry: Position = NOWHERE
    """As of where in the registry's log; NOWHERE for a node that has nothing of it."""

    @property
    def reach(self) -> Reach:
        """As of where in both logs."""
        return Reach(self.position, self.registry)


class Confirmation(NamedTuple):
    """The answer to `SnapshotFeed.confirm`.

    `ok` True: `position` is a head that a quorum read, begun after the call, found (and `registry` likewise one of the
    registry's log, where that is known), and every open watch's listener has
    been called with what its node has there (or later). `ok` False: that could not be had in time (no quorum, no
    projector); `position` is the last position known, which may be old.
    """

    ok: bool
    position: Position
    registry: Position = NOWHERE


NodeListener = Callable[[NodeUpdate], None]
"""Called in the event loop, with the whole current state of the node, at every change. Must not block nor raise."""


class Subscription(Protocol):
    """An open watch."""

    def close(self) -> None:
        """End the watch: the listener is not called again. Harmless when repeated."""
        ...


class SnapshotFeed(Protocol):
    """Where a frontend gets snapshots from. One instance a process; every method is called in the event loop."""

    @property
    def ready(self) -> bool:
        """True once a projector with loaded state serves this feed; before that, frontends refuse streams."""
        ...

    def watch(self, node: NodeId, listener: NodeListener) -> Subscription:
        """Follow `node`. What is already known of it is given to `listener` before this returns, or soon after."""
        ...

    async def confirm(self, timeout_s: float) -> Confirmation:
        """Learn a head that was current after this call began. Calls that wait together share one quorum read.

        Never raises for an unreachable projector or etcd: that is `Confirmation(ok=False, …)`.
        """
        ...
