"""Small meshes for tests: specs by the handful, and a log in memory that decides, numbers and folds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mesh.commands import Command, Context, Create, Delete, Update, idempotency_token
from mesh.decide import Decision, decide
from mesh.events import LEVEL, SCHEMAS, Event, NewEvent, Token
from mesh.evolve import evolve
from mesh.kinds import ResourceKey, mesh_key
from mesh.position import Position
from mesh.state import Resource, State

ACCOUNT = "123456789012"
OTHER_ACCOUNT = "999999999999"
PRINCIPAL = f"arn:aws:iam::{ACCOUNT}:user/ann"
START_US = 1_700_000_000_000_000
STEP_US = 1_000_000

MESH = mesh_key(ACCOUNT, "shop")


def key(kind: str, name: str, parent: str = "", mesh: str = "shop") -> ResourceKey:
    return ResourceKey(ACCOUNT, mesh, kind, parent, name)


def node_spec(port: int = 8080, protocol: str = "http", backends: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "listeners": [{"portMapping": {"port": port, "protocol": protocol}}],
        "serviceDiscovery": {"dns": {"hostname": "cart.internal"}},
        "backends": [{"virtualService": {"virtualServiceName": name}} for name in backends],
    }


def router_spec(*ports: int) -> dict[str, Any]:
    return {"listeners": [{"portMapping": {"port": port, "protocol": "http"}} for port in ports or (8080,)]}


def route_spec(
    weights: Mapping[str, int], prefix: str = "/", port: int | None = None, target_port: int | None = None
) -> dict[str, Any]:
    match: dict[str, Any] = {"prefix": prefix}
    if port is not None:
        match["port"] = port
    aim = {} if target_port is None else {"port": target_port}
    targets = [{"virtualNode": name, "weight": weight, **aim} for name, weight in weights.items()]
    return {"httpRoute": {"match": match, "action": {"weightedTargets": targets}}}


def node_provider(name: str) -> dict[str, Any]:
    return {"provider": {"virtualNode": {"virtualNodeName": name}}}


def router_provider(name: str) -> dict[str, Any]:
    return {"provider": {"virtualRouter": {"virtualRouterName": name}}}


def gateway_spec(*ports: int) -> dict[str, Any]:
    return {"listeners": [{"portMapping": {"port": port, "protocol": "http"}} for port in ports or (9000,)]}


def gateway_route_spec(
    service: str, prefix: str = "/", port: int | None = None, target_port: int | None = None
) -> dict[str, Any]:
    match: dict[str, Any] = {"prefix": prefix}
    if port is not None:
        match["port"] = port
    target: dict[str, Any] = {"virtualService": {"virtualServiceName": service}}
    if target_port is not None:
        target["port"] = target_port
    return {"httpRoute": {"match": match, "action": {"target": target}}}


SHOP: tuple[tuple[ResourceKey, dict[str, Any]], ...] = (
    (MESH, {}),
    (key("virtualNode", "cart-v1"), node_spec()),
    (key("virtualNode", "cart-v2"), node_spec(backends=("stock.shop.local",))),
    (key("virtualRouter", "cart"), router_spec()),
    (key("route", "all", parent="cart"), route_spec({"cart-v1": 90, "cart-v2": 10})),
    (key("virtualService", "cart.shop.local"), router_provider("cart")),
    (key("virtualService", "v1.shop.local"), node_provider("cart-v1")),
    (key("virtualGateway", "edge"), gateway_spec()),
    (key("gatewayRoute", "cart", parent="edge"), gateway_route_spec("cart.shop.local")),
)
"""One resource of every kind, each after those that it names."""


def placed(event: NewEvent, position: Position, token: Token | None = None, **fields: Any) -> Event:
    """The event as it stands in a log, one second after the one before it."""
    whole: dict[str, Any] = {
        "position": position,
        "time_us": START_US + position.position * STEP_US,
        "wall_us": START_US + position.position * STEP_US,
        "type": event.type,
        "schema": SCHEMAS[event.type],
        "account": ACCOUNT,
        "actor": PRINCIPAL,
        "source_ip": "192.0.2.7",
        "request_id": f"request-{position.position}",
        "token": token,
        "data": event.data,
    }
    return Event(**{**whole, **fields})


class World:
    """A log in memory. `events` and `states` (the state after each; `states[0]` is the empty one) grow with it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.states: list[State] = [State()]

    @property
    def state(self) -> State:
        return self.states[-1]

    def decide(self, command: Command, token: Token | None = None, account: str = ACCOUNT) -> Decision:
        uid = f"uid-{len(self.events) + 1}"
        context = Context(account, PRINCIPAL, type(command).__name__, token, uid, level=LEVEL)
        return decide(self.state, command, context)

    def do(self, command: Command, token: Token | None = None, account: str = ACCOUNT) -> Decision:
        """Decide and, if there is something to write, write and fold it."""
        decision = self.decide(command, token, account)
        for number, new in enumerate(decision.events, start=1):
            mark = token if number == len(decision.events) else None
            event = placed(new, Position(1, len(self.events) + 1), mark)
            self.events.append(event)
            self.states.append(evolve(self.state, event))
        return decision

    def create(self, key: ResourceKey, spec: Mapping[str, Any], tags: Mapping[str, str] | None = None) -> Resource:
        self.do(Create(key, spec, tags or {}))
        return self.at(key)

    def update(self, key: ResourceKey, spec: Mapping[str, Any]) -> Resource:
        self.do(Update(key, spec))
        return self.at(key)

    def delete(self, key: ResourceKey) -> None:
        self.do(Delete(key))

    def at(self, key: ResourceKey) -> Resource:
        return self.state.resources[key]


def shop() -> World:
    """A world with `SHOP` in it."""
    world = World()
    for each, spec in SHOP:
        world.create(each, spec)
    return world


def token(text: str, body: Mapping[str, Any] | None = None, operation: str = "CreateMesh") -> Token:
    return idempotency_token(ACCOUNT, PRINCIPAL, operation, text, body or {})
