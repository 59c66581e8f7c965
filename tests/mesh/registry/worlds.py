"""A registry folded from commands, one after the other: what tests of it begin with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from mesh.commands import Context
from mesh.events import Event, Token
from mesh.position import Position
from mesh.registry.commands import CreateNamespace, CreateService, RegisterInstance, RegistryCommand
from mesh.registry.decide import Decision, decide
from mesh.registry.evolve import evolve
from mesh.registry.state import RegistryState, ServiceKey

ACCOUNT = "123456789012"
SHOP = ServiceKey(ACCOUNT, "shop.local", "orders")


@dataclass
class World:
    """`do` decides and folds; `events` are all that came of it."""

    state: RegistryState = field(default_factory=RegistryState)
    events: list[Event] = field(default_factory=list)
    time_us: int = 1_000_000
    calls: int = 0

    def do(self, command: RegistryCommand, **told: Any) -> Decision:
        """What comes of a command. `request`: the token; `account`, `operation`: the caller's."""
        self.calls += 1
        self.time_us += 1_000_000
        account = told.get("account", ACCOUNT)
        digest = hashlib.sha256(str(told.get("request", self.calls)).encode()).digest()
        token = Token(digest, hashlib.sha256(repr(command).encode()).digest())
        operation = told.get("operation", type(command).__name__)
        decision = decide(self.state, command, Context(account, f"arn:aws:iam::{account}:user/u", operation, token))
        for new in decision.events:
            at = Position(1, self.state.position.position + 1)
            last = new is decision.events[-1]
            event = Event(
                at,
                self.time_us,
                self.time_us,
                new.type,
                1,
                account,
                "actor",
                "",
                "r",
                token if last else None,
                new.data,
            )
            self.state = evolve(self.state, event)
            self.events.append(event)
        return decision

    def service_id(self, key: ServiceKey = SHOP) -> str:
        return self.state.services[key].id


def shop(**spec: Any) -> World:
    """An HTTP namespace with one service, `SHOP`."""
    world = World()
    world.do(CreateNamespace(SHOP.namespace, "HTTP"))
    namespace_id = next(iter(world.state.namespaces.values())).id
    world.do(CreateService(namespace_id, SHOP.service, spec=spec))
    return world


def stocked(count: int, attributes: dict[str, str] | None = None, **spec: Any) -> World:
    """`shop` with instances i0, i1, …"""
    world = shop(**spec)
    for index in range(count):
        told = {"AWS_INSTANCE_IPV4": f"10.0.0.{index + 1}", "AWS_INSTANCE_PORT": "8080", **(attributes or {})}
        world.do(RegisterInstance(world.service_id(), f"i{index}", told))
    return world
