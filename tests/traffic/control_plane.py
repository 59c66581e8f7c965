"""The product from an API call's command to a proxy's stream, in one process: decide, fold, compile, serve over xDS.

A change is a command that `decide` takes (with every check of the API), its events are folded, the projection compiles
for whoever is connected, and the frontend pushes over mutual TLS. What is left out is the log between `decide` and
fold, and the feed's wire: a unix socket carries ADS into the pods. `sees` is the seam of the mutations: what the
compiler's fold is given of each event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from identity.node_id import NodeId
from mesh.commands import Command, Context, Create, Delete, Update
from mesh.decide import decide
from mesh.events import LEVEL, SCHEMAS, Event
from mesh.evolve import evolve
from mesh.frozen import thaw
from mesh.kinds import KINDS, ResourceKey
from mesh.position import Position
from mesh.registry.commands import (
    CreateNamespace,
    CreateService,
    DeregisterInstance,
    RegisterInstance,
    RegistryCommand,
)
from mesh.registry.decide import decide as registry_decide
from mesh.registry.events import SCHEMAS as REGISTRY_SCHEMAS
from mesh.registry.evolve import evolve as registry_evolve
from mesh.registry.state import NamespaceKey, RegistryState, ServiceKey
from mesh.state import State
from projector.envoy.compiler import Compiler
from projector.feed.port import Confirmation, NodeListener, NodeUpdate, Subscription
from projector.projection import Projection
from runtime.clock import SystemClock, SystemEntropy
from runtime.tls import server_credentials
from tests.traffic.loop import Loop
from tests.xds.feeds import TRUST_DOMAIN, Certificates
from xds.connected import ConnectedProxy
from xds.metrics import XdsMetrics
from xds.server import XdsServer

ACCOUNT = "123456789012"
PRINCIPAL = f"arn:aws:iam::{ACCOUNT}:user/ann"
_ORDER = ("mesh", "virtualNode", "virtualRouter", "virtualService", "route", "virtualGateway", "gatewayRoute")
"""In which a mesh is made; the other way round it is taken down."""

Specs = Mapping[ResourceKey, Mapping[str, Any]]
Sees = Callable[[Event], Event]
Listener = Callable[[State, State, Sequence[Event]], None]


class _Fold:
    """What the compiler knows: a `FoldedLog` for the projection."""

    ready, confirmed_age_s = True, 0.0

    def __init__(self) -> None:
        self.state = State()
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def confirmed(self, timeout_s: float) -> Position:
        return self.state.position

    def take(self, events: Sequence[Event]) -> None:
        before = self.state
        for event in events:
            self.state = evolve(self.state, event)
        for listener in self._listeners:
            listener(before, self.state, events)


class _Registry:
    """The registry beside it: a `FoldedRegistry`, by commands of Cloud Map's API."""

    ready, confirmed_age_s, halted = True, 0.0, None

    def __init__(self) -> None:
        self.state = RegistryState()
        self._listeners: list[Callable[[RegistryState, RegistryState, Sequence[Event]], None]] = []

    def subscribe(
        self, listener: Callable[[RegistryState, RegistryState, Sequence[Event]], None]
    ) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def confirmed(self, timeout_s: float) -> Position:
        return self.state.position

    def do(self, command: RegistryCommand) -> None:
        before, events = self.state, []
        number = before.position.position
        context = Context(ACCOUNT, PRINCIPAL, type(command).__name__, None, f"uid-{number}", level=LEVEL)
        for new in registry_decide(before, command, context).events:
            number += 1
            event = _event(Position(1, number), new.type, REGISTRY_SCHEMAS[new.type], new.data)
            self.state = registry_evolve(self.state, event)
            events.append(event)
        for listener in self._listeners:
            listener(before, self.state, events)


def _event(position: Position, kind: str, schema: int, data: Any) -> Event:
    return Event(
        position=position,
        time_us=position.position,
        wall_us=position.position,
        type=kind,
        schema=schema,
        account=ACCOUNT,
        actor=PRINCIPAL,
        source_ip="192.0.2.7",
        request_id=f"request-{position.position}",
        token=None,
        data=data,
    )


class _Feed:
    """A `SnapshotFeed` straight from the projection. `told` is what each node was given last."""

    ready = True

    def __init__(self, projection: Projection) -> None:
        self._projection = projection
        self.told: dict[NodeId, NodeUpdate] = {}

    def watch(self, node: NodeId, listener: NodeListener) -> Subscription:
        def tell(_: NodeId) -> None:
            at, known = self._projection.position, self._projection.current(node)
            update = NodeUpdate(node, at, known, self._projection.registry)
            self.told[node] = update
            listener(update)

        subscription = self._projection.subscribe(node, tell)
        tell(node)
        return subscription

    async def confirm(self, timeout_s: float) -> Confirmation:
        await asyncio.sleep(0)
        return Confirmation(True, self._projection.position, self._projection.registry)


class ControlPlane:
    """`put` a whole mesh; `settled` says when every connected proxy has agreed to it."""

    def __init__(self, folder: Path, loop: Loop) -> None:
        self.socket = folder / "xds.sock"
        self.state = State()
        self.certificates = Certificates(folder)
        self._fold = _Fold()
        self._loop = loop
        self._sees: Sees = lambda event: event
        self._registry = _Registry()
        self.projection = Projection(self._fold, Compiler(), self._registry)
        self.feed = _Feed(self.projection)
        loop.run(self._start())

    async def _start(self) -> None:
        metrics = XdsMetrics(CollectorRegistry())
        self.server = XdsServer(
            feed=self.feed, trust_domain=TRUST_DOMAIN, clock=SystemClock(), entropy=SystemEntropy(), metrics=metrics
        )
        await self.server.start(f"unix:{self.socket}", server_credentials(self.certificates.files))

    def put(self, specs: Specs, sees: Sees | None = None) -> None:
        """Make the mesh exactly this, by commands of the API, and push what comes of it as one change."""
        if sees is not None:
            self._sees = sees
        events: list[Event] = []
        for command in self._commands(specs):
            events += self._decide(command)
        self._loop.call(lambda: self._fold.take([self._sees(event) for event in events]))

    def do(self, *commands: Command) -> None:
        """One call of the API after another, each pushed by itself."""
        for command in commands:
            events = self._decide(command)
            self._loop.call(lambda events=events: self._fold.take([self._sees(event) for event in events]))  # type: ignore[misc]

    def register(self, namespace: str, service: str, instance: str, **attributes: str) -> None:
        """Register an instance as Cloud Map's API does; its namespace and service are made where they are not there."""

        def register() -> None:
            registry, space = self._registry, NamespaceKey(ACCOUNT, namespace)
            if space not in registry.state.namespaces:
                registry.do(CreateNamespace(namespace, "HTTP"))
            key = ServiceKey(ACCOUNT, namespace, service)
            if key not in registry.state.services:
                registry.do(CreateService(registry.state.namespaces[space].id, service))
            registry.do(RegisterInstance(registry.state.services[key].id, instance, attributes))

        self._loop.call(register)

    def deregister(self, namespace: str, service: str, instance: str) -> None:
        """Take an instance away."""

        def deregister() -> None:
            found = self._registry.state.services[ServiceKey(ACCOUNT, namespace, service)]
            self._registry.do(DeregisterInstance(found.id, instance))

        self._loop.call(deregister)

    def _commands(self, specs: Specs) -> Iterable[Command]:
        """Everything away, then everything anew: so that no test sees another's mesh."""
        order = {kind: number for number, kind in enumerate(_ORDER)}
        assert set(order) == set(KINDS)
        there = sorted(self.state.resources, key=lambda key: order[key.kind], reverse=True)
        yield from (Delete(key) for key in there)
        for key in sorted(specs, key=lambda key: order[key.kind]):
            yield Create(key, thaw(specs[key]), {})

    def _decide(self, command: Command) -> list[Event]:
        number = self.state.position.position + 1
        context = Context(ACCOUNT, PRINCIPAL, type(command).__name__, None, f"uid-{number}", level=LEVEL)
        found = []
        for new in decide(self.state, command, context).events:
            position = Position(1, self.state.position.position + 1)
            event = _event(position, new.type, SCHEMAS[new.type], new.data)
            self.state = evolve(self.state, event)
            found.append(event)
        return found

    def proxies(self) -> list[ConnectedProxy]:
        return self._loop.call(lambda: list(self.server.proxies))

    def unsettled(self) -> list[str]:
        """Who has not agreed yet to what it was last given. AssertionError where a proxy refuses it."""

        def look() -> list[str]:
            found = []
            for proxy in self.server.proxies:
                assert proxy.refusal is None, f"{proxy.node} refuses {proxy.refusal}"
                update = self.feed.told.get(proxy.node)
                if update is None or proxy.settled != update.position:
                    found.append(str(proxy.node))
            return found

        return self._loop.call(look)

    def alarms(self) -> dict[str, tuple[str, ...]]:
        """What is held back, by node."""
        return self._loop.call(lambda: {str(node): alarms for node, alarms in self.projection.alarms.items()})

    def close(self) -> None:
        self._loop.run(self.server.stop())


__all__ = ("ACCOUNT", "ControlPlane", "Create", "Delete", "Sees", "Specs", "Update", "replace")
