"""Meshes of any size for the compiler's bench, and events on them that each touch as many nodes, whatever the size.

A ring: virtual node i provides most of service i and a tenth of service i - 1, each behind a router of its own, and
calls the next ten services. Every tenth node is found by Cloud Map, the others by DNS. So every node has some ten
callers, and the mesh can grow without its neighbourhoods.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from identity.node_id import NodeId
from mesh.events import RESOURCE_CREATED, RESOURCE_DELETED, RESOURCE_UPDATED, SCHEMAS, TAGS_CHANGED, Event
from mesh.evolve import evolve
from mesh.frozen import freeze
from mesh.kinds import ResourceKey
from mesh.position import Position
from mesh.registry.state import Health, Instance, RegistryState, ServiceKey
from mesh.state import State

ACCOUNT, MESH = "111122223333", "ring"
NAMESPACE = "ring.map"
BACKENDS = 10
DISCOVERED_EVERY = 10
Spec = Mapping[str, Any]


def key(kind: str, name: str, parent: str = "") -> ResourceKey:
    return ResourceKey(ACCOUNT, MESH, kind, parent, name)


class Ring:
    """A state with `nodes` virtual nodes, and what changes it."""

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes
        self.state = State()
        self.registry = RegistryState()
        self._timeouts_s: dict[int, int] = {}
        self._errors: dict[int, int] = {}
        for resource, spec in self._resources():
            self.state = evolve(self.state, self._event(RESOURCE_CREATED, _created(resource, spec)))
        for index in range(0, nodes, DISCOVERED_EVERY):
            self.instance(index, -1)

    @property
    def ids(self) -> list[NodeId]:
        """The nodes, as proxies name them."""
        return [NodeId(ACCOUNT, MESH, "virtualNode", f"node-{index}") for index in range(self.nodes)]

    def weights(self, index: int, turn: int) -> Event:
        """Another share of service `index` for its second target."""
        return self._updated(key("route", "all", f"router-{index}"), self._route(index, 1 + turn % 99))

    def listener_timeout(self, index: int, turn: int) -> Event:
        self._timeouts_s[index] = 16 + turn
        return self._updated(key("virtualNode", f"node-{index}"), self._node(index))

    def outlier_detection(self, index: int, turn: int) -> Event:
        self._errors[index] = 6 + turn
        return self._updated(key("virtualNode", f"node-{index}"), self._node(index))

    def new_route(self, index: int, turn: int) -> Event:
        """A route that service `index` did not have; on the next call for it, gone again."""
        extra = key("route", "extra", f"router-{index}")
        if extra in self.state.resources:
            return self._event(RESOURCE_DELETED, {"key": list(extra)})
        spec = self._route(index, 10, prefix=f"/{turn}")
        return self._event(RESOURCE_CREATED, _created(extra, spec))

    def tag(self, index: int, turn: int) -> Event:
        return self._event(
            TAGS_CHANGED, {"key": list(key("virtualNode", f"node-{index}")), "set": {"turn": str(turn)}, "unset": []}
        )

    def instance(self, index: int, turn: int) -> ServiceKey:
        """The one instance of the nearest node that is found by Cloud Map moves elsewhere."""
        service = ServiceKey(ACCOUNT, NAMESPACE, f"node-{_discovered(index) % self.nodes}")
        address = f"10.{turn // 65_536 % 256}.{turn // 256 % 256}.{turn % 256}"
        moved = Instance("0", freeze({"AWS_INSTANCE_IPV4": address}), Health.HEALTHY)
        self.registry = self.registry.with_instance(service, "0", moved)
        return service

    def _resources(self) -> Iterator[tuple[ResourceKey, Spec]]:
        yield key("mesh", MESH), {}
        for index in range(self.nodes):
            yield key("virtualNode", f"node-{index}"), self._node(index)
            yield key("virtualRouter", f"router-{index}"), {"listeners": [_listener()]}
            yield key("route", "all", f"router-{index}"), self._route(index, 10)
            provider = {"virtualRouter": {"virtualRouterName": f"router-{index}"}}
            yield key("virtualService", _service(index)), {"provider": provider}

    def _node(self, index: int) -> Spec:
        called = [(index + step) % self.nodes for step in range(1, min(BACKENDS, self.nodes - 1) + 1)]
        ten_s = {"value": 10, "unit": "s"}
        listener = _listener() | {
            "timeout": {"http": {"perRequest": {"value": self._timeouts_s.get(index, 15), "unit": "s"}}},
            "outlierDetection": {
                "maxServerErrors": self._errors.get(index, 5),
                "interval": ten_s,
                "baseEjectionDuration": ten_s,
                "maxEjectionPercent": 50,
            },
        }
        return {
            "listeners": [listener],
            "serviceDiscovery": (
                {"awsCloudMap": {"namespaceName": NAMESPACE, "serviceName": f"node-{index}"}}
                if index == _discovered(index)
                else {"dns": {"hostname": f"node-{index}.ring.internal"}}
            ),
            "backends": [{"virtualService": {"virtualServiceName": _service(each)}} for each in called],
        }

    def _route(self, index: int, share: int, prefix: str = "/") -> Spec:
        targets = ((index, 100 - share), ((index + 1) % self.nodes, share))
        weighted = [{"virtualNode": f"node-{node}", "weight": weight} for node, weight in targets]
        return {"httpRoute": {"match": {"prefix": prefix}, "action": {"weightedTargets": weighted}}}

    def _updated(self, resource: ResourceKey, spec: Spec) -> Event:
        return self._event(RESOURCE_UPDATED, {"key": list(resource), "spec": spec})

    def _event(self, kind: str, data: Spec) -> Event:
        number = self.state.position.position + 1
        return Event(Position(1, number), number, number, kind, SCHEMAS[kind], ACCOUNT, "", "", "", None, data)


def _created(resource: ResourceKey, spec: Spec) -> Spec:
    return {"key": list(resource), "uid": "/".join(resource), "owner": ACCOUNT, "spec": spec, "tags": {}}


def _discovered(index: int) -> int:
    return index - index % DISCOVERED_EVERY


def _service(index: int) -> str:
    return f"service-{index}.ring.internal"


def _listener() -> dict[str, Any]:
    return {"portMapping": {"port": 8080, "protocol": "http"}}
