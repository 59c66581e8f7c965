"""A virtual node's sidecar: inbound connections to the application, outbound ones to the mesh's virtual services.

Connections arrive by iptables on 15000 and 15001; their original destination port picks the filter chain.
"""

from __future__ import annotations

from typing import NamedTuple

from mesh.kinds import VIRTUAL_SERVICE
from mesh.state import Resource
from projector.envoy import names
from projector.envoy.defaults import AMAZON_HOSTS, EGRESS_CONNECT_TIMEOUT_MS, LOCAL_CONNECT_TIMEOUT_MS, TLS_PORT
from projector.envoy.plans import (
    ClusterPlan,
    Discovery,
    HttpChainPlan,
    ListenerPlan,
    MatchPlan,
    RoutePlan,
    TcpChainPlan,
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
    tcp_idle_ms,
)
from projector.envoy.targets import pool
from projector.envoy.tcp_services import tcp_service
from projector.envoy.tls import ClientPolicy, Transport, chains_over, client_policy, listener_transport
from projector.envoy.vhosts import RoutesDraft, draft_egress, local_app
from projector.envoy.view import Spec, View


class NodeDraft(NamedTuple):
    """All that one node needs, by plan."""

    clusters: dict[str, ClusterPlan]
    routes: tuple[RoutesDraft, ...]
    listeners: tuple[ListenerPlan, ...]


class _Side(NamedTuple):
    clusters: list[ClusterPlan]
    routes: list[RoutesDraft]
    chains: list[HttpChainPlan | TcpChainPlan]


def draft_virtual_node(view: View, node: Resource) -> NodeDraft:
    """Plan the sidecar of `node`."""
    ingress = _ingress(view, node)
    egress = _egress(view, node)
    dual_stack = ip_preference(view.mesh_spec(), node.spec) is not None
    shared = [chain.port for chain in egress.chains if isinstance(chain, HttpChainPlan) and chain.shared]
    listeners = []
    if ingress.chains:
        name = names.listener(names.INGRESS, names.INGRESS_PORT)
        listeners.append(ListenerPlan(name, names.INGRESS_PORT, True, True, dual_stack, tuple(ingress.chains)))
    name = names.listener(names.EGRESS, names.EGRESS_PORT)
    listeners.append(
        ListenerPlan(name, names.EGRESS_PORT, False, True, dual_stack, tuple(egress.chains), tuple(shared))
    )
    return NodeDraft(
        clusters={cluster.name: cluster for cluster in (*ingress.clusters, *egress.clusters)},
        routes=(*ingress.routes, *egress.routes),
        listeners=tuple(listeners),
    )


def _ingress(view: View, node: Resource) -> _Side:
    side = _Side([], [], [])
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
    return side


def _transport(view: View, node: Resource, index: int, listener: Spec, seen: set[int]) -> Transport | None:
    """None (with an alarm) for a listener that is held back."""
    field, port = f"spec.listeners[{index}]", listener["portMapping"]["port"]
    if port in seen:
        view.alarm(node, f"{field}.portMapping.port", f"{port} is another listener's too, so this one is held back")
        return None
    seen.add(port)
    return listener_transport(view, node, field, listener)


def _egress(view: View, node: Resource) -> _Side:
    side = _Side([], [], [])
    ports: dict[int, dict[str, tuple[Resource, ServiceRoutes]]] = {}
    protocols: dict[int, set[str]] = {}
    tcp: dict[int, list[tuple[Resource, Port, ClientPolicy | None]]] = {}
    for name, policy in _backends(node).items():
        service = view.get(VIRTUAL_SERVICE.name, name)
        if service is None:
            view.alarm(node, "spec.backends", f"name {name}, which does not exist, so it is not reachable")
            continue
        for port in service_ports(view, service):
            if port.protocol == TCP:
                tcp.setdefault(port.number, []).append((service, port, policy))
                continue
            found = service_routes(view, service, port, policy)
            ports.setdefault(port.number, {})[name] = (service, found)
            protocols.setdefault(port.number, set()).add(port.protocol)
            side.clusters.extend(found.clusters)
    others = {number: chain for number in sorted(tcp) if (chain := _tcp(view, node, side, tcp[number])) is not None}
    for number in sorted(ports):
        # One chain serves every HTTP version on a port: Envoy tells them apart, and upstream the cluster decides.
        protocol = min(protocols[number], key=HTTP_PROTOCOLS.index)
        routes = names.routes(names.EGRESS, protocol, number)
        side.routes.append(draft_egress(view, routes, number, ports[number], {}))
        side.chains.append(HttpChainPlan(number, names.EGRESS, routes, access_log(view, node), number in others))
    side.chains.extend(others.values())
    _outside(view, node, side, TLS_PORT in ports or TLS_PORT in others)
    return side


def _tcp(
    view: View, node: Resource, side: _Side, services: list[tuple[Resource, Port, ClientPolicy | None]]
) -> TcpChainPlan | None:
    """TCP to the service on one port: the oldest of several, since a connection says nothing but its port."""
    services.sort(key=lambda entry: (entry[0].created_us, entry[0].key.name))
    for unreachable, port, _ in services[1:]:
        view.alarm(unreachable, f"port {port.number}", "is another TCP backend's too: not reachable")
    service, port, policy = services[0]
    found = tcp_service(view, service, port, policy)
    if found is None:
        return None
    side.clusters.extend(found.clusters)
    log = access_log(view, node)
    return TcpChainPlan(found.targets, port.number, idle_timeout_ms=found.idle_timeout_ms, access_log=log)


def _backends(node: Resource) -> dict[str, ClientPolicy | None]:
    """Virtual services by name, with the client policy that speaks of TLS, if any (of a backend given twice too)."""
    defaults = (node.spec.get("backendDefaults") or {}).get("clientPolicy")
    default = client_policy(node, "spec.backendDefaults.clientPolicy", defaults)
    found: dict[str, ClientPolicy | None] = {}
    for index, backend in enumerate(node.spec.get("backends") or ()):
        service = backend.get("virtualService")
        if service is None:
            continue
        name, own = service["virtualServiceName"], service.get("clientPolicy")
        field = f"spec.backends[{index}].virtualService.clientPolicy"
        policy = default if own is None else client_policy(node, field, own)
        found[name] = found.get(name) or policy
    return found


def _outside(view: View, node: Resource, side: _Side, tls_port_taken: bool) -> None:
    """What leaves the mesh: AWS's own endpoints always; everything, where the mesh's egress filter allows it."""
    mesh = node.key.mesh
    amazon = names.amazonaws_cluster(mesh)
    side.clusters.append(_original_destination(amazon))
    side.chains.append(TcpChainPlan(((amazon, 1),), TLS_PORT, (AMAZON_HOSTS,)))
    if (view.mesh_spec().get("egressFilter") or {}).get("type", "DROP_ALL") != "ALLOW_ALL":
        return
    allow_all = names.allow_all_cluster(mesh)
    side.clusters.append(_original_destination(allow_all))
    side.chains.append(TcpChainPlan(((allow_all, 1),), any_v4=True))
    if not tls_port_taken:
        # Envoy looks at the port first, so without this the chain for Amazon would turn other hosts on 443 away.
        side.chains.append(TcpChainPlan(((allow_all, 1),), TLS_PORT))


def _original_destination(name: str) -> ClusterPlan:
    return ClusterPlan(name, Discovery.ORIGINAL_DST, None, 0, EGRESS_CONNECT_TIMEOUT_MS)
