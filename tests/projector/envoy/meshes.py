"""Meshes for compiler tests: specs by the handful, folded straight from events (so that odd ones get through too)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from identity.node_id import NodeId
from mesh.events import RESOURCE_CREATED, RESOURCE_DELETED, RESOURCE_UPDATED, Event
from mesh.evolve import evolve
from mesh.kinds import ResourceKey
from mesh.position import Position
from mesh.registry.state import RegistryState
from mesh.state import State
from projector.envoy.compiler import NO_REGISTRY, Compiler
from projector.envoy.render import Renderer
from projector.snapshot import NodeSnapshot

ACCOUNT = "123456789012"
Spec = Mapping[str, Any]


def key(kind: str, name: str, parent: str = "", mesh: str = "shop") -> ResourceKey:
    return ResourceKey(ACCOUNT, mesh, kind, parent, name)


def gateway_id(name: str = "edge") -> NodeId:
    return NodeId(ACCOUNT, "shop", "virtualGateway", name)


def node_id(name: str) -> NodeId:
    return NodeId(ACCOUNT, "shop", "virtualNode", name)


def listener(port: int = 8080, protocol: str = "http", **members: Any) -> dict[str, Any]:
    return {"portMapping": {"port": port, "protocol": protocol}, **members}


def node(
    *listeners: Spec, host: str = "cart.shop.internal", backends: tuple[str, ...] = (), **dns: Any
) -> dict[str, Any]:
    return {
        "listeners": list(listeners or (listener(),)),
        "serviceDiscovery": {"dns": {"hostname": host, **dns}},
        "backends": [{"virtualService": {"virtualServiceName": name}} for name in backends],
    }


def cloud_map_node(
    *listeners: Spec, service: str = "cart", attributes: Mapping[str, str] | None = None, **cloud_map: Any
) -> dict[str, Any]:
    """A node that Cloud Map finds, in the namespace `shop.internal`."""
    wanted = {"namespaceName": "shop.internal", "serviceName": service, **cloud_map}
    if attributes is not None:
        wanted["attributes"] = [{"key": name, "value": value} for name, value in attributes.items()]
    return {"listeners": list(listeners or (listener(),)), "serviceDiscovery": {"awsCloudMap": wanted}}


def gateway(*listeners: Spec, **members: Any) -> dict[str, Any]:
    return {"listeners": list(listeners or (listener(8088),)), **members}


def router(*ports: int) -> dict[str, Any]:
    return {"listeners": [listener(port) for port in ports or (8080,)]}


def route(weights: Mapping[str, int], match: Spec | None = None, **members: Any) -> dict[str, Any]:
    priority = {"priority": members.pop("priority")} if "priority" in members else {}
    targets = [{"virtualNode": name, "weight": weight} for name, weight in weights.items()]
    body = {"match": match or {"prefix": "/"}, "action": {"weightedTargets": targets}, **members}
    return {"httpRoute": body, **priority}


def by_node(name: str) -> dict[str, Any]:
    return {"provider": {"virtualNode": {"virtualNodeName": name}}}


def by_router(name: str) -> dict[str, Any]:
    return {"provider": {"virtualRouter": {"virtualRouterName": name}}}


def gateway_route(
    service: str, match: Spec | None = None, rewrite: Spec | None = None, **members: Any
) -> dict[str, Any]:
    action: dict[str, Any] = {"target": {"virtualService": {"virtualServiceName": service}}}
    if rewrite is not None:
        action["rewrite"] = rewrite
    return {"httpRoute": {"match": match or {"prefix": "/"}, "action": action}, **members}


class Log:
    """A state, and the events that made it."""

    def __init__(self, *resources: tuple[ResourceKey, Spec]) -> None:
        self.state = State()
        self.events: list[Event] = []
        self.create(key("mesh", "shop"), {})
        for each, spec in resources:
            self.create(each, spec)

    def create(self, of: ResourceKey, spec: Spec) -> Event:
        uid = f"uid-{len(self.events)}"
        return self._fold(RESOURCE_CREATED, {"key": list(of), "uid": uid, "owner": ACCOUNT, "spec": spec, "tags": {}})

    def update(self, of: ResourceKey, spec: Spec) -> Event:
        return self._fold(RESOURCE_UPDATED, {"key": list(of), "spec": spec})

    def delete(self, of: ResourceKey) -> Event:
        return self._fold(RESOURCE_DELETED, {"key": list(of)})

    def _fold(self, kind: str, data: Mapping[str, Any]) -> Event:
        number = len(self.events) + 1
        event = Event(
            Position(1, number),
            number,
            number,
            kind,
            1,
            ACCOUNT,
            "arn:aws:iam::123456789012:user/ann",
            "192.0.2.7",
            f"request-{number}",
            None,
            data,
        )
        self.state = evolve(self.state, event)
        self.events.append(event)
        return event


RENDERER = Renderer()
"""Shared by the tests of this room: serialising is most of the time that they take."""


def compiled(
    log: Log, of: NodeId, previous: NodeSnapshot | None = None, registry: RegistryState = NO_REGISTRY
) -> NodeSnapshot:
    """The node's snapshot, by a compiler that has seen nothing before."""
    snapshot = Compiler(RENDERER).compile(log.state, of, previous, registry=registry)
    assert snapshot is not None
    return snapshot


def canary(*more: tuple[ResourceKey, Spec]) -> Log:
    """A gateway before a service of two versions, 90 to 10, of which v2 calls another service."""
    return Log(
        (key("virtualNode", "cart-v1"), node(host="cart-v1.shop.internal")),
        (key("virtualNode", "cart-v2"), node(host="cart-v2.shop.internal", backends=("stock.shop.local",))),
        (key("virtualNode", "stock"), node(host="stock.shop.internal", responseType="ENDPOINTS")),
        (key("virtualRouter", "cart"), router()),
        (key("route", "all", "cart"), route({"cart-v1": 90, "cart-v2": 10})),
        (key("virtualService", "cart.shop.local"), by_router("cart")),
        (key("virtualService", "stock.shop.local"), by_node("stock")),
        (key("virtualGateway", "edge"), gateway()),
        (key("gatewayRoute", "cart", "edge"), gateway_route("cart.shop.local", {"prefix": "/cart"})),
        *more,
    )
