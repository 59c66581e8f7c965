"""The frontend's end of one feed stream as a pure machine: frames in, facts out. No socket, clock or task.

It keeps a view of every node that this stream has told of, patched frame by frame, and shares one copy of each resource
between all nodes and streams of the frontend. What of it is delivered to whom is `projector/feed/watches.py`'s to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from identity.node_id import NodeId
from mesh.errors import BadRequest
from mesh.position import ORIGIN, Position
from projector.feed.wire import (
    Confirmed,
    Heartbeat,
    ProjectorFrame,
    ProjectorHello,
    SnapshotFrame,
    Subscribe,
    Unsubscribe,
)
from projector.snapshot import NOWHERE, NodeSnapshot, Reach, XdsResource


class ResourcePool:
    """One copy of each resource, however many nodes and streams have it. Counted, so that what nobody has goes."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str, str], tuple[XdsResource, int]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def take(self, resource: XdsResource) -> XdsResource:
        """The shared copy; give it back with `release`."""
        name = resource[:3]
        shared, count = self._held.get(name, (resource, 0))
        if shared.body != resource.body:
            raise BadRequest(f"feed: two contents of one version of {resource.name}")
        self._held[name] = (shared, count + 1)
        return shared

    def release(self, resource: XdsResource) -> None:
        name = resource[:3]
        shared, count = self._held[name]
        if count > 1:
            self._held[name] = (shared, count - 1)
        else:
            del self._held[name]


@dataclass(frozen=True, slots=True)
class View:
    """A node as this stream has told it: as of `position`, `snapshot` None when there is no such node.

    `registry`: as of where in the registry's log; NOWHERE for a node that has nothing of it.
    """

    position: Position
    snapshot: NodeSnapshot | None
    registry: Position = NOWHERE

    @property
    def reach(self) -> Reach:
        return Reach(self.position, self.registry)


@dataclass(frozen=True, slots=True)
class Greeted:
    """The projector's hello, the first or a later one."""

    hello: ProjectorHello


@dataclass(frozen=True, slots=True)
class Viewed:
    """The node has a new view."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Covered:
    """Every view holds as of `position`. `age_s` is the confirmed head's, None when the frame does not tell."""

    position: Position
    age_s: float | None


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to the confirm `id`."""

    id: int
    position: Position
    ok: bool
    registry: Position = NOWHERE


FeedEvent = Greeted | Viewed | Covered | Answered


class FrontendSession:
    """One projector's stream, seen from the frontend."""

    def __init__(self, pool: ResourcePool) -> None:
        self._pool = pool
        self._subscriptions: dict[NodeId, int] = {}
        self._last_subscription = 0
        self._views: dict[NodeId, View] = {}
        self._greeted = False
        self._covered = Reach(ORIGIN)
        self.position = ORIGIN

    @property
    def greeted(self) -> bool:
        return self._greeted

    @property
    def views(self) -> Mapping[NodeId, View]:
        """What this stream has told, by node. A node that is followed and not here was not answered yet."""
        return self._views

    def as_of(self, node: NodeId) -> Reach:
        """Where the node's view is known to hold: at the position it was taken at, or a later one that covers all."""
        view = self._views[node]
        reach = view.reach.joined(self._covered)
        return reach if view.registry != NOWHERE else Reach(reach.mesh)

    def subscribe(self, node: NodeId) -> Subscribe | None:
        """The frame to send, or None when the node is followed already."""
        if node in self._subscriptions:
            return None
        self._last_subscription += 1
        self._subscriptions[node] = self._last_subscription
        return Subscribe(node, self._last_subscription)

    def unsubscribe(self, node: NodeId) -> Unsubscribe | None:
        """The frame to send, or None when the node was not followed."""
        if self._subscriptions.pop(node, None) is None:
            return None
        self._drop(node)
        return Unsubscribe(node)

    def close(self) -> None:
        """Give back everything; the session is of no use after it."""
        for node in list(self._views):
            self._drop(node)

    def _drop(self, node: NodeId) -> None:
        view = self._views.pop(node, None)
        if view is not None and view.snapshot is not None:
            for resource in view.snapshot.resources.values():
                self._pool.release(resource)

    def received(self, frame: ProjectorFrame) -> list[FeedEvent]:
        """Take a frame; BadRequest when it breaks the protocol: the stream must then end."""
        if isinstance(frame, ProjectorHello):
            self._greeted = True
            return [Greeted(frame)]
        if not self._greeted:
            raise BadRequest("feed: a projector's stream begins with a hello")
        match frame:
            case SnapshotFrame():
                return self._patch(frame)
            case Confirmed():
                covered: list[FeedEvent] = []
                if frame.ok:
                    covered = self._cover(Reach(frame.position, frame.registry), None)
                return [*covered, Answered(frame.id, frame.position, frame.ok, frame.registry)]
            case Heartbeat():
                return self._cover(Reach(frame.position, frame.registry), frame.age_ms / 1000)

    def _cover(self, reach: Reach, age_s: float | None) -> list[FeedEvent]:
        self._covered = self._covered.joined(reach)
        self.position = max(self.position, reach.mesh)
        return [Covered(reach.mesh, age_s)]

    def _patch(self, frame: SnapshotFrame) -> list[FeedEvent]:
        node = frame.node
        if self._subscriptions.get(node) != frame.subscription:
            return []  # of a subscription that has ended: what follows it may have been missed
        before = self._views.get(node)
        if before is not None and not Reach(frame.position, frame.registry).covers(before.reach):
            raise BadRequest(f"feed: {node} went back from {before.reach} to {frame.position} within one stream")
        self.position = max(self.position, frame.position)
        if not frame.known:
            self._drop(node)
            self._views[node] = View(frame.position, None)
            return [Viewed(node)]
        if frame.full:
            resources: dict[tuple[str, str], XdsResource] = {}
        elif before is None or before.snapshot is None:
            raise BadRequest(f"feed: changes to {node}, of which nothing was sent")
        else:
            resources = dict(before.snapshot.resources)
        for name in frame.removals:
            resources.pop(name, None)
        resources.update({(resource.type_url, resource.name): resource for resource in frame.upserts})
        shared = {name: self._pool.take(resource) for name, resource in sorted(resources.items())}
        self._drop(node)
        self._views[node] = View(
            frame.position, NodeSnapshot(node, frame.position, shared, frame.alarms), frame.registry
        )
        return [Viewed(node)]
