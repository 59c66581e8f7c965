"""A virtual node as somebody's upstream: from its spec to an egress cluster, or to none where it cannot be reached.

A target that cannot be compiled becomes a cluster without endpoints: its share of the requests is answered 503 and
nothing else moves. Its weight is not given to other targets, nor its route's requests to the next route: those would be
decisions that nobody made.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from mesh.kinds import VIRTUAL_NODE
from mesh.state import Resource
from projector.envoy import names
from projector.envoy.defaults import EGRESS_CONNECT_TIMEOUT_MS, MAX_UINT32
from projector.envoy.endpoints import assignment
from projector.envoy.plans import (
    AssignmentPlan,
    ClusterPlan,
    Discovery,
    Family,
    HealthCheckPlan,
    OutlierPlan,
    PoolPlan,
    TlsPlan,
)
from projector.envoy.specs import (
    HTTP2_PROTOCOLS,
    HTTP_PROTOCOLS,
    TCP,
    dns_family,
    dns_name,
    duration_ms,
    header_safe,
    ip_preference,
)
from projector.envoy.tls import PolicyAt, client_transport, policy_at
from projector.envoy.view import SHARE_503, Spec, View

TARGET_TAG = "TargetVirtualNode"


class Wanted(NamedTuple):
    """Which listener of a target: on `port` where that is given, else the only one, else that on the router's port.

    It must speak one of `protocols`.
    """

    port: int | None = None
    router_port: int | None = None
    protocols: tuple[str, ...] = HTTP_PROTOCOLS


class Target(NamedTuple):
    """`missing`: the spec names something that is not there, so an earlier version of what uses this is better."""

    cluster: ClusterPlan
    missing: bool


class Transports:
    """What each cluster of one node is reached by. A name is App Mesh's, but where an earlier backend with another
    client policy has it: policies are never mixed.
    """

    def __init__(self) -> None:
        self._taken: dict[str, list[TlsPlan | None]] = {}

    def other_names(self, clusters: Iterable[ClusterPlan]) -> dict[str, str]:
        """The clusters that another backend's stand in the way of, and the names that they have instead."""
        changed = {}
        for cluster in clusters:
            plans = self._taken.setdefault(cluster.name, [])
            if cluster.tls not in plans:
                plans.append(cluster.tls)
            place = plans.index(cluster.tls)
            if place:
                changed[cluster.name] = names.further_cluster(cluster.name, place + 1)
        return changed


def target(view: View, name: str, at: Wanted, policy: PolicyAt | None) -> Target:
    """The cluster for virtual node `name`. A part."""
    node = view.get(VIRTUAL_NODE.name, name)
    if node is None:
        view.alarms.add(f"mesh/{view.mesh}/virtualNode/{name}: does not exist, {SHARE_503}")
        return _none(view.mesh, name, missing=True)
    listener = _listener(view, node, at)
    if listener is None:
        return _none(view.mesh, name, missing=True)
    discovery = node.spec.get("serviceDiscovery") or {}
    if not discovery:
        view.alarm(node, "spec.serviceDiscovery", f"is absent, {SHARE_503}")
        return _none(view.mesh, name, missing=True)
    if not _reachable(view, node, listener, at):
        return _none(view.mesh, name, missing=False)
    transport = client_transport(view, node, listener, policy and policy_at(view, policy))
    if transport is None:
        return _none(view.mesh, name, missing=False)
    cluster = _cluster(view, node, listener, transport.tls)
    return Target(cluster, False)


def assignments(view: View, clusters: Iterable[ClusterPlan]) -> tuple[AssignmentPlan, ...]:
    """The endpoints of those of a node's clusters that find theirs in the registry."""
    return tuple(
        view.part(assignment, dict(cluster.tags)[TARGET_TAG], cluster.name, cluster.port)
        for cluster in clusters
        if cluster.discovery is Discovery.EDS and cluster.tags is not None
    )


def _none(mesh: str, name: str, missing: bool) -> Target:
    cluster = ClusterPlan(
        names.unavailable_cluster(mesh, name),
        Discovery.STATIC,
        None,
        0,
        EGRESS_CONNECT_TIMEOUT_MS,
        tags=((TARGET_TAG, name),),
    )
    return Target(cluster, missing)


def _listener(view: View, node: Resource, at: Wanted) -> Spec | None:
    listeners: tuple[Spec, ...] = tuple(node.spec.get("listeners") or ())
    if not listeners:
        view.alarm(node, "spec.listeners", f"is empty, {SHARE_503}")
        return None
    wanted = at.port if at.port is not None or len(listeners) == 1 else at.router_port
    if wanted is None:
        if len(listeners) > 1:
            view.alarm(node, "spec.listeners", f"has several and no route says which port, {SHARE_503}")
            return None
        return listeners[0]
    for listener in listeners:
        if listener["portMapping"]["port"] == wanted:
            return listener
    view.alarm(node, "spec.listeners", f"has none on port {wanted}, which a route names, {SHARE_503}")
    return None


def _reachable(view: View, node: Resource, listener: Spec, at: Wanted) -> bool:
    protocol = listener["portMapping"]["protocol"]
    discovery = node.spec.get("serviceDiscovery") or {}
    if protocol not in at.protocols:
        spoken = "TCP" if at.protocols == (TCP,) else "HTTP"
        view.alarm(node, "spec.listeners[].portMapping.protocol", f"is {protocol}, and a route speaks {spoken} to it")
    elif "dns" in discovery and not header_safe(discovery["dns"]["hostname"]):
        view.alarm(node, "spec.serviceDiscovery.dns.hostname", f"is no host name, {SHARE_503}")
    else:
        return True
    return False


def _cluster(view: View, node: Resource, listener: Spec, tls: TlsPlan | None) -> ClusterPlan:
    port, protocol = listener["portMapping"]["port"], listener["portMapping"]["protocol"]
    discovery, address = Discovery.EDS, None
    dns = node.spec["serviceDiscovery"].get("dns")
    if dns is not None:
        strict = dns.get("responseType") == "ENDPOINTS"
        discovery = Discovery.STRICT_DNS if strict else Discovery.LOGICAL_DNS
        address = dns_name(dns["hostname"])
    return ClusterPlan(
        name=names.cluster(names.EGRESS, node.key.mesh, node.key.name, protocol, port),
        discovery=discovery,
        address=address,
        port=port,
        connect_timeout_ms=EGRESS_CONNECT_TIMEOUT_MS,
        http2=protocol in HTTP2_PROTOCOLS,
        family=Family.AUTO if dns is None else dns_family(ip_preference(view.mesh_spec(), node.spec)),
        tags=((TARGET_TAG, node.key.name),),
        health_check=health_check(listener.get("healthCheck")),
        outlier=_outlier(listener.get("outlierDetection")),
        tls=tls,
    )


def health_check(check: Spec | None) -> HealthCheckPlan | None:
    """A listener's healthCheck, for those who send it requests."""
    if not check:
        return None
    return HealthCheckPlan(
        protocol=check["protocol"],
        path=check.get("path") or "/",
        port=check.get("port"),
        interval_ms=check["intervalMillis"],
        timeout_ms=check["timeoutMillis"],
        healthy=check["healthyThreshold"],
        unhealthy=check["unhealthyThreshold"],
    )


def _outlier(detection: Spec | None) -> OutlierPlan | None:
    if not detection:
        return None
    return OutlierPlan(
        max_server_errors=min(detection["maxServerErrors"], MAX_UINT32),
        # Envoy refuses intervals of zero.
        interval_ms=max(duration_ms(detection["interval"]) or 0, 1),
        base_ejection_ms=max(duration_ms(detection["baseEjectionDuration"]) or 0, 1),
        max_ejection_percent=detection["maxEjectionPercent"],
    )


def pool(listener: Spec) -> PoolPlan:
    """A listener's connectionPool, whose one member names the protocol. It guards the local side of the listener."""
    members = listener.get("connectionPool") or {}
    limits = next((members[protocol] for protocol in (*HTTP_PROTOCOLS, TCP) if protocol in members), None)
    if limits is None:
        return PoolPlan()

    def limit(member: str) -> int | None:
        return min(limits[member], MAX_UINT32) if member in limits else None

    return PoolPlan(limit("maxConnections"), limit("maxPendingRequests"), limit("maxRequests"))
