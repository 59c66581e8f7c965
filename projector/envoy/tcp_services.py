"""A virtual service on one TCP port: from its provider to weighted clusters. TCP has no routes but one.

A connection says nothing of where it wants to go but its port, so of a router's TCP routes the first by priority
counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mesh.kinds import VIRTUAL_NODE, VIRTUAL_ROUTER, VIRTUAL_SERVICE
from mesh.state import Resource
from projector.envoy.defaults import PRIORITY
from projector.envoy.plans import ClusterPlan
from projector.envoy.specs import TCP, Port, duration_ms
from projector.envoy.targets import Wanted, target
from projector.envoy.tls import PolicyAt
from projector.envoy.view import Spec, View


class TcpService(NamedTuple):
    """Where connections go: (cluster, weight), none of weight 0."""

    targets: tuple[tuple[str, int], ...]
    clusters: tuple[ClusterPlan, ...]
    idle_timeout_ms: int | None = None

    def renamed(self, renamed: Mapping[str, str]) -> TcpService:
        """The same with other names for some of the clusters."""
        if not renamed:
            return self
        return self._replace(
            targets=tuple((renamed.get(name, name), weight) for name, weight in self.targets),
            clusters=tuple(each._replace(name=renamed.get(each.name, each.name)) for each in self.clusters),
        )


def tcp_service(view: View, name: str, port: Port, policy: PolicyAt | None) -> TcpService | None:
    """The service on `port`; None where its router has no route for TCP there. A part."""
    service = view.get(VIRTUAL_SERVICE.name, name)
    provider = service.spec["provider"] if service else {}
    if VIRTUAL_NODE.name in provider:
        weighted: Spec = {"virtualNode": provider[VIRTUAL_NODE.name]["virtualNodeName"], "weight": 1}
        return _to(view, [weighted], port, policy)
    router = None
    if VIRTUAL_ROUTER.name in provider:
        router = view.get(VIRTUAL_ROUTER.name, provider[VIRTUAL_ROUTER.name]["virtualRouterName"])
    routes = [] if router is None else [each for each in view.children(router.key) if _is_for(each, port)]
    routes.sort(key=lambda each: (each.spec.get("priority", PRIORITY), each.key.name))
    if not routes:
        return None
    for unused in routes[1:]:
        view.alarm(unused, "spec.tcpRoute", f"comes after {routes[0].key.name}, which takes every connection")
    body = routes[0].spec["tcpRoute"]
    weights = [each for each in body["action"]["weightedTargets"] if each["weight"]]
    if not weights:
        view.alarm(routes[0], "action.weightedTargets", "have no weight at all, so no connection is taken")
        return None
    idle_ms = duration_ms((body.get("timeout") or {}).get("idle"))
    return _to(view, weights, port, policy)._replace(idle_timeout_ms=idle_ms)


def _is_for(route: Resource, port: Port) -> bool:
    body = route.spec.get("tcpRoute")
    return body is not None and (body.get("match") or {}).get("port", port.number) == port.number


def _to(view: View, weights: list[Spec], port: Port, policy: PolicyAt | None) -> TcpService:
    clusters: dict[str, ClusterPlan] = {}
    targets = []
    for each in weights:
        wanted = Wanted(each.get("port"), port.number, (TCP,))
        found = view.part(target, each["virtualNode"], wanted, policy)
        clusters[found.cluster.name] = found.cluster
        targets.append((found.cluster.name, each["weight"]))
    return TcpService(tuple(targets), tuple(clusters.values()))
