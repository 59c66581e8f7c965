"""A virtual node's sidecar: inbound connections to the application, outbound ones to the mesh's virtual services.

Connections arrive by iptables on 15000 and 15001; their original destination port picks the filter chain.
"""

from __future__ import annotations

from typing import NamedTuple

from mesh.kinds import VIRTUAL_NODE, VIRTUAL_SERVICE
from mesh.state import Resource
from projector.envoy import names
from projector.envoy.acm import secrets
from projector.envoy.defaults import AMAZON_HOSTS, EGRESS_CONNECT_TIMEOUT_MS, LOCAL_CONNECT_TIMEOUT_MS, TLS_PORT
from projector.envoy.plans import (
    AssignmentPlan,
    ClusterPlan,
    Discovery,
    HttpChainPlan,
    IdentityPlan,
    ListenerPlan,
    MatchPlan,
    RoutePlan,
    TcpChainPlan,
    TrustPlan,
)
from projector.envoy.services import ServiceRoutes, service_ports, service_routes
from projector.envoy.specs import (
    HTTP2_PROTOCOLS,
    HTTP_PROTOCOLS,
    TCP,
    Port,
    access_log,
    app_address,
    ip_preference,
    listener_timeouts,
    over_families,
    tcp_idle_ms,
)
from projector.envoy.targets import Transports, assignments, pool
from projector.envoy.tcp_services import tcp_service
from projector.envoy.tls import PolicyAt, Transport, chains_over, listener_transport, policy_at
from projector.envoy.vhosts import RoutesDraft, draft_egress, local_app
from projector.envoy.view import Spec, View


class NodeDraft(NamedTuple):
    """All that one node needs, by plan."""

    clusters: tuple[ClusterPlan, ...]
    assignments: tuple[AssignmentPlan, ...]
    routes: tuple[RoutesDraft, ...]
    listeners: tuple[ListenerPlan, ...]
    secrets: tuple[IdentityPlan | TrustPlan, ...]


class Side(NamedTuple):
    """What one of a sidecar's listeners is made of, and leads to."""

    clusters: tuple[ClusterPlan, ...]
    routes: tuple[RoutesDraft, ...]
    chains: tuple[HttpChainPlan | TcpChainPlan, ...]


class _Growing(NamedTuple):
    clusters: list[ClusterPlan]
    routes: list[RoutesDraft]
    chains: list[HttpChainPlan | TcpChainPlan]

    def whole(self) -> Side:
        return Side(tuple(self.clusters), tuple(self.routes), tuple(self.chains))


def draft_virtual_node(view: View, name: str) -> NodeDraft | None:
    """Plan the sidecar of the virtual node. A part. None where there is nothing to plan."""
    node = view.get(VIRTUAL_NODE.name, name)
    if node is None or not view.is_served(node):
        return None
    ingress = view.part(draft_ingress, name)
    egress = _egress(view, node)
    shared = [chain.port for chain in egress.chains if isinstance(chain, HttpChainPlan) and chain.shared]
    listeners = []
    if ingress.chains:
        name = names.listener(names.INGRESS, names.INGRESS_PORT)
        listeners.append(ListenerPlan(name, names.INGRESS_PORT, True, True, ingress.chains))
    name = names.listener(names.EGRESS, names.EGRESS_PORT)
    listeners.append(ListenerPlan(name, names.EGRESS_PORT, False, True, egress.chains, tuple(shared)))
    clusters = tuple({cluster.name: cluster for cluster in (*ingress.clusters, *egress.clusters)}.values())
    return NodeDraft(
        clusters=clusters,
        assignments=assignments(view, clusters),
        routes=(*ingress.routes, *egress.routes),
        listeners=over_families(listeners, ip_preference(view.mesh_spec(), node.spec)),
        secrets=secrets(view, clusters, listeners),
    )


def draft_ingress(view: View, name: str) -> Side:
    """What a virtual node takes in. A part."""
    side = _Growing([], [], [])
    node = view.get(VIRTUAL_NODE.name, name)
    if node is None:
        return side.whole()
    listeners: tuple[Spec, ...] = tuple(node.spec.get("listeners") or ())
    address = app_address(ip_preference(view.mesh_spec(), node.spec))
    seen: set[int] = set()
    for index, listener in enumerate(listeners):
        port, protocol = listener["portMapping"]["port"], listener["portMapping"]["protocol"]
        transport = _transport(view, node, index, listener, seen)
        if transport is None:
            continue
        prefix = names.stat_prefix(names.INGRESS, protocol, port, len(listeners) > 1)
        cluster = ClusterPlan(
            name=names.cluster(names.INGRESS, node.key.mesh, node.key.name, protocol, port),
            discovery=Discovery.STATIC,
            address=address,
            port=port,
            connect_timeout_ms=LOCAL_CONNECT_TIMEOUT_MS,
            http2=protocol in HTTP2_PROTOCOLS,
            pool=pool(listener),
        )
        side.clusters.append(cluster)
        if protocol == TCP:
            to, idle_ms = ((cluster.name, 1),), tcp_idle_ms(listener)
            log = access_log(view, node)
            tcp = TcpChainPlan(to, port, stat_prefix=prefix, idle_timeout_ms=idle_ms, access_log=log)
            side.chains.extend(chains_over(transport, tcp))
            continue
        timeouts = listener_timeouts(listener)
        route = RoutePlan(MatchPlan(prefix="/"), ((cluster.name, 1),), False, timeouts.request_ms, timeouts.idle_ms)
        routes = names.routes(names.INGRESS, protocol, port)
        side.routes.append(local_app(routes, route))
        side.chains.extend(chains_over(transport, HttpChainPlan(port, prefix, routes, access_log(view, node))))
    return side.whole()


def _transport(view: View, node: Resource, index: int, listener: Spec, seen: set[int]) -> Transport | None:
    """None (with an alarm) for a listener that is held back."""
    field, port = f"spec.listeners[{index}]", listener["portMapping"]["port"]
    if port in seen:
        view.alarm(node, f"{field}.portMapping.port", f"{port} is another listener's too, so this one is held back")
        return None
    seen.add(port)
    return listener_transport(view, node, field, listener)


def _egress(view: View, node: Resource) -> Side:
    side = _Growing([], [], [])
    transports = Transports()
    ports: dict[int, dict[str, tuple[Resource, ServiceRoutes]]] = {}
    protocols: dict[int, set[str]] = {}
    tcp: dict[int, list[tuple[Resource, Port, PolicyAt | None]]] = {}
    for name, policy in _backends(view, node).items():
        service = view.get(VIRTUAL_SERVICE.name, name)
        if service is None:
            view.alarm(node, "spec.backends", f"name {name}, which does not exist, so it is not reachable")
            continue
        for port in view.part(service_ports, name):
            if port.protocol == TCP:
                tcp.setdefault(port.number, []).append((service, port, policy))
                continue
            found = view.part(service_routes, name, port, policy).within(transports)
            ports.setdefault(port.number, {})[name] = (service, found)
            protocols.setdefault(port.number, set()).add(port.protocol)
            side.clusters.extend(found.clusters)
    others = {}
    for number in sorted(tcp):
        chain = _tcp(view, node, side, tcp[number], transports)
        if chain is not None:
            others[number] = chain
    for number in sorted(ports):
        # One chain serves every HTTP version on a port: Envoy tells them apart, and upstream the cluster decides.
        protocol = min(protocols[number], key=HTTP_PROTOCOLS.index)
        routes = names.routes(names.EGRESS, protocol, number)
        side.routes.append(draft_egress(view, routes, number, ports[number], {}))
        side.chains.append(HttpChainPlan(number, names.EGRESS, routes, access_log(view, node), number in others))
    side.chains.extend(others.values())
    _outside(view, node, side, TLS_PORT in ports or TLS_PORT in others)
    return side.whole()


def _tcp(
    view: View,
    node: Resource,
    side: _Growing,
    services: list[tuple[Resource, Port, PolicyAt | None]],
    transports: Transports,
) -> TcpChainPlan | None:
    """TCP to the service on one port: the oldest of several, since a connection says nothing but its port."""
    services.sort(key=lambda entry: (entry[0].created_us, entry[0].key.name))
    for unreachable, port, _ in services[1:]:
        view.alarm(unreachable, f"port {port.number}", "is another TCP backend's too: not reachable")
    service, port, policy = services[0]
    found = view.part(tcp_service, service.key.name, port, policy)
    if found is None:
        return None
    found = found.within(transports)
    side.clusters.extend(found.clusters)
    log = access_log(view, node)
    return TcpChainPlan(found.targets, port.number, idle_timeout_ms=found.idle_timeout_ms, access_log=log)


def _backends(view: View, node: Resource) -> dict[str, PolicyAt | None]:
    """Virtual services by name, with the client policy that speaks of TLS, if any (of a backend given twice too)."""
    default = PolicyAt(VIRTUAL_NODE.name, node.key.name)
    found: dict[str, PolicyAt | None] = {}
    for index, backend in enumerate(node.spec.get("backends") or ()):
        service = backend.get("virtualService")
        if service is None:
            continue
        at = default if service.get("clientPolicy") is None else default._replace(backend=index)
        name, speaks_of_tls = service["virtualServiceName"], policy_at(view, at) is not None
        found[name] = found.get(name) or (at if speaks_of_tls else None)
    return found


def _outside(view: View, node: Resource, side: _Growing, tls_port_taken: bool) -> None:
    """What leaves the mesh: AWS's own endpoints always; everything, where the mesh's egress filter allows it."""
    mesh = node.key.mesh
    amazon = names.amazonaws_cluster(mesh)
    side.clusters.append(_original_destination(amazon))
    side.chains.append(TcpChainPlan(((amazon, 1),), TLS_PORT, (AMAZON_HOSTS,)))
    if (view.mesh_spec().get("egressFilter") or {}).get("type", "DROP_ALL") != "ALLOW_ALL":
        return
    allow_all = names.allow_all_cluster(mesh)
    side.clusters.append(_original_destination(allow_all))
    side.chains.append(TcpChainPlan(((allow_all, 1),), anywhere=True))
    if not tls_port_taken:
        # Envoy looks at the port first, so without this the chain for Amazon would turn other hosts on 443 away.
        side.chains.append(TcpChainPlan(((allow_all, 1),), TLS_PORT))


def _original_destination(name: str) -> ClusterPlan:
    return ClusterPlan(name, Discovery.ORIGINAL_DST, None, 0, EGRESS_CONNECT_TIMEOUT_MS)
