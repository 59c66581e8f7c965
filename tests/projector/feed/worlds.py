"""What the feed's tests share: nodes, snapshots, and a projector whose log is a list of what it was told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from identity.node_id import NodeId
from mesh.errors import NoQuorum, NotReady
from mesh.position import Position
from projector.snapshot import NOWHERE, TYPE_CLUSTER, NodeSnapshot, xds_resource

CART = NodeId("123456789012", "shop", "virtualNode", "cart")
EDGE = NodeId("123456789012", "shop", "virtualGateway", "edge")
STOCK = NodeId("123456789012", "shop", "virtualNode", "stock")


def at(position: int) -> Position:
    return Position(1, position)


def snapshot(node: NodeId, position: int, *names: str, text: str = "", alarms: tuple[str, ...] = ()) -> NodeSnapshot:
    """A snapshot with one cluster for each name; `text` is in each body."""
    resources = [xds_resource(TYPE_CLUSTER, name, f"{name}={text}".encode()) for name in names]
    return NodeSnapshot(node, at(position), {(each.type_url, each.name): each for each in resources}, alarms)


def bodies(shot: NodeSnapshot | None) -> dict[str, str]:
    """Body by name, as text."""
    assert shot is not None
    return {resource.name: resource.body.decode() for resource in shot.resources.values()}


@dataclass
class World:
    """The truth that any number of `ToldSource`s follow: for each position the node that it changed, and to what."""

    history: list[tuple[NodeId, NodeSnapshot | None]] = field(default_factory=list)

    def change(self, node: NodeId, *names: str, text: str = "") -> int:
        """Set what the node has; returns the position."""
        self.history.append((node, snapshot(node, len(self.history) + 1, *names, text=text)))
        return len(self.history)

    def delete(self, node: NodeId) -> int:
        self.history.append((node, None))
        return len(self.history)


class _Subscription:
    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close

    def close(self) -> None:
        self._close()


class ToldSource:
    """A SnapshotSource that has folded a world as far as the test says."""

    def __init__(self, world: World, folded: int = 0) -> None:
        self.world, self.folded = world, folded
        self.ready = True
        self.registry = NOWHERE
        self.confirmed_age_s = 0.0
        self.quorum = True
        self.folds_to_the_head = True
        self.broken: set[NodeId] = set()
        self.reads = 0
        self._listeners: dict[NodeId, list[Callable[[NodeId], None]]] = {}

    @property
    def position(self) -> Position:
        return at(self.folded)

    @property
    def nodes(self) -> set[NodeId]:
        return {node for node, listeners in self._listeners.items() if listeners}

    def subscribe(self, node: NodeId, changed: Callable[[NodeId], None]) -> _Subscription:
        self._listeners.setdefault(node, []).append(changed)
        return _Subscription(lambda: self._listeners[node].remove(changed))

    def current(self, node: NodeId) -> NodeSnapshot | None:
        if node in self.broken:
            raise NotReady(f"{node} cannot be compiled")
        found = [shot for changed, shot in self.world.history[: self.folded] if changed == node]
        return found[-1] if found else None

    async def confirmed(self, timeout_s: float) -> Position:
        self.reads += 1
        if not self.quorum:
            raise NoQuorum("etcd does not answer")
        if self.folds_to_the_head:
            self.fold()
        return self.position

    def fold(self, to: int | None = None) -> None:
        """Fold up to `to`, or all there is."""
        before, self.folded = self.folded, len(self.world.history) if to is None else to
        for node, _ in self.world.history[before : self.folded]:
            for changed in list(self._listeners.get(node, ())):
                changed(node)
