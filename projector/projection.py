"""States to snapshots, for the nodes that somebody follows: a fold marks what it may have changed, a look compiles it.

Compiling waits until a stream can take the result, so a burst of events costs one compilation per node, and the newest
wins. What one node's compilation does wrong never touches another: that node keeps what it had, with an alarm.

There are two logs, that of the meshes and the registry's, and neither waits for the other: one that has stopped leaves
what it had folded, and what the other brings goes out. Before the registry was read for the first time, nothing is
known of anybody's endpoints, which is not the same as that there are none: who needs them is told nothing.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Never, Protocol

import structlog

from identity.node_id import NodeId
from mesh.errors import MeshlogError, NotReady
from mesh.events import Event
from mesh.fold import S_co
from mesh.kinds import ResourceKey
from mesh.position import ORIGIN, Position
from mesh.registry.changes import changed_services
from mesh.registry.state import RegistryState, ServiceKey
from mesh.state import State
from projector.envoy.changes import changed_keys
from projector.feed.port import Subscription
from projector.replica import are_all
from projector.snapshot import NOWHERE, NodeSnapshot
from runtime.limits import LEFT_NODES_MAX
from runtime.logging import where

log = structlog.get_logger(__name__)


class FoldedLog(Protocol[S_co]):
    """What a projection needs of `projector.replica.Replica`."""

    @property
    def state(self) -> S_co: ...

    @property
    def ready(self) -> bool: ...

    @property
    def confirmed_age_s(self) -> float: ...

    def subscribe(self, listener: Callable[[S_co, S_co, Sequence[Event]], None]) -> Callable[[], None]: ...

    async def confirmed(self, timeout_s: float) -> Position: ...


class FoldedRegistry(FoldedLog[RegistryState], Protocol):
    """The same of the registry."""

    @property
    def halted(self) -> str | None: ...


class UnreadRegistry(RegistryState):
    """In the place of a registry that was never read: whoever asks it for anything is told so."""

    def discovered(self, key: ServiceKey) -> Never:
        raise NotReady(f"the registry has not been read yet, which {key.service} of {key.namespace} is in")


class NodeCompiler(Protocol):
    """What a projection needs of `projector.envoy.compiler.Compiler`."""

    def compile(
        self, state: State, node: NodeId, previous: NodeSnapshot | None = None, registry: RegistryState = ...
    ) -> NodeSnapshot | None: ...

    def affected(self, changed: Iterable[ResourceKey], services: Iterable[ServiceKey] = ...) -> set[NodeId]:
        """Whom a change of these resources, or of these services' instances, concerns, among the nodes compiled and
        not forgotten."""
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
    """A `SnapshotSource` (projector/feed/source.py) over a replica of each log and the compiler."""

    def __init__(
        self, replica: FoldedLog[State], compiler: NodeCompiler, registry: FoldedRegistry | None = None
    ) -> None:
        self._replica, self._compiler, self._registry = replica, compiler, registry
        self._instead = UnreadRegistry() if registry is not None else RegistryState()
        self._nodes: dict[NodeId, _Node] = {}
        self._failing: set[NodeId] = set()
        self._left: OrderedDict[NodeId, NodeSnapshot] = OrderedDict()
        self._last_key = 0
        replica.subscribe(self._folded)
        if registry is not None:
            registry.subscribe(self._registry_folded)

    @property
    def ready(self) -> bool:
        return self._replica.ready

    @property
    def position(self) -> Position:
        return self._replica.state.position

    @property
    def registry(self) -> Position:
        return self._registry_state.position if self._registry_is_read else NOWHERE

    @property
    def _registry_is_read(self) -> bool:
        """Also one that stopped on the way is as far as any process gets."""
        registry = self._registry
        return registry is not None and (registry.ready or registry.state.position > ORIGIN)

    @property
    def _registry_state(self) -> RegistryState:
        return self._registry.state if self._registry is not None and self._registry_is_read else self._instead

    @property
    def confirmed_age_s(self) -> float:
        """The older of the two logs' heads; one that has stopped does not count, since no other projector has it."""
        ages_s = [self._replica.confirmed_age_s]
        if self._registry is not None and self._registry.halted is None:
            ages_s.append(self._registry.confirmed_age_s)
        return max(ages_s)

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
        """See `SnapshotSource.confirmed`."""
        position, _ = await asyncio.gather(self._replica.confirmed(timeout_s), self._confirm_registry(timeout_s))
        return position

    async def _confirm_registry(self, timeout_s: float) -> None:
        registry = self._registry
        if registry is None or registry.halted is not None:
            return
        try:
            await registry.confirmed(timeout_s)
        except MeshlogError:
            if registry.halted is None:
                raise

    def _compile(self, node: NodeId, entry: _Node) -> None:
        state = self._replica.state
        try:
            entry.known = self._compiler.compile(state, node, entry.known, self._registry_state)
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
        self._mark(affected)

    def _registry_folded(self, before: RegistryState, after: RegistryState, events: Sequence[Event]) -> None:
        if before.level != after.level or not are_all(before, events):
            self._mark(set(self._nodes))
            return
        services = changed_services(events)
        self._mark(self._compiler.affected((), services) | self._failing if services else set())

    def _mark(self, affected: set[NodeId]) -> None:
        for node in sorted(affected):
            entry = self._nodes.get(node)
            if entry is None:
                continue
            entry.stale = True
            for tell in list(entry.listeners.values()):
                tell(node)


def _without_earlier(alarms: tuple[str, ...], node: NodeId) -> tuple[str, ...]:
    return tuple(alarm for alarm in alarms if not alarm.startswith(f"{node} cannot be compiled at "))
