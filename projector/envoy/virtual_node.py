"""A virtual node's sidecar: inbound connections to the application, outbound ones to the mesh's virtual services.

Connections arrive by iptables on 15000 and 15001; their original destination port picks the filter chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
from projector.envoy.services import service_ports, service_routes
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
from projector.envoy.tcp_services import TcpService, tcp_service
from projector.envoy.tls import PolicyAt, Transport, chains_over, listener_transport, policy_at
from projector.envoy.vhosts import Hosted, RoutesDraft, draft_egress, host, hosted, local_app
from projector.envoy.view import Spec, View


class NodeDraft(NamedTuple):
    """All that one node needs, by plan."""

    clusters: tuple[ClusterPlan, ...]
    assignments: tuple[AssignmentPlan, ...]
    routes: tuple[RoutesDraft, ...]
    listeners: tuple[ListenerPlan, ...]
    secrets: tuple[IdentityPlan | TrustPlan, ...]


class Ingress(NamedTuple):
    """What comes in: for each of the application's ports a cluster, and what listens before them (nothing: no port)."""

    clusters: tuple[ClusterPlan, ...] = ()
    routes: tuple[RoutesDraft, ...] = ()
    listeners: tuple[ListenerPlan, ...] = ()


class Reached(NamedTuple):
    """A backend on one of its provider's ports."""

    service: str
    port: Port
    policy: PolicyAt | None


class EgressRoutes(NamedTuple):
    """The routes to the backends on one port, and the clusters that they name."""

    draft: RoutesDraft
    clusters: tuple[ClusterPlan, ...]


class EgressListener(NamedTuple):
    """What connections go out by, and the clusters that it names itself."""

    listeners: tuple[ListenerPlan, ...]
    clusters: tuple[ClusterPlan, ...]


def draft_virtual_node(view: View, name: str) -> NodeDraft | None:
    """Plan the sidecar of the virtual node. A part. None where there is nothing to plan.

    Each Envoy resource, and all that it depends on, is a part of its own.
    """
    node = view.get(VIRTUAL_NODE.name, name)
    if node is None or not view.is_served(node):
        return None
    ingress = view.part(draft_ingress, name)
    numbers = _on_ports(view.part(reached, name))
    routes = [view.part(draft_egress_routes, name, number) for number, (http, _) in numbers.items() if http]
    egress = view.part(draft_egress_listener, name)
    sides = (ingress.clusters, *(each.clusters for each in routes), egress.clusters)
    clusters = tuple({cluster.name: cluster for side in sides for cluster in side}.values())
    listeners = (*ingress.listeners, *egress.listeners)
    return NodeDraft(
        clusters=clusters,
        assignments=assignments(view, clusters),
        routes=(*ingress.routes, *(each.draft for each in routes)),
        listeners=listeners,
        secrets=secrets(view, clusters, listeners),
    )


def draft_ingress(view: View, name: str) -> Ingress:
    """What a virtual node takes in. A part."""
    node = view.existing(VIRTUAL_NODE.name, name)
    clusters: list[ClusterPlan] = []
    drafts: list[RoutesDraft] = []
    chains: list[HttpChainPlan | TcpChainPlan] = []
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
        clusters.append(cluster)
        if protocol == TCP:
            to, idle_ms = ((cluster.name, 1),), tcp_idle_ms(listener)
            log = access_log(view, node)
            tcp = TcpChainPlan(to, port, stat_prefix=prefix, idle_timeout_ms=idle_ms, access_log=log)
            chains.extend(chains_over(transport, tcp))
            continue
        timeouts = listener_timeouts(listener)
        route = RoutePlan(MatchPlan(prefix="/"), ((cluster.name, 1),), False, timeouts.request_ms, timeouts.idle_ms)
        routes = names.routes(names.INGRESS, protocol, port)
        drafts.append(local_app(routes, route))
        chains.extend(chains_over(transport, HttpChainPlan(port, prefix, routes, access_log(view, node))))
    return Ingress(tuple(clusters), tuple(drafts), _listeners(view, node, names.INGRESS, chains) if chains else ())


def _listeners(
    view: View,
    node: Resource,
    direction: str,
    chains: list[HttpChainPlan | TcpChainPlan],
    shared_ports: tuple[int, ...] = (),
) -> tuple[ListenerPlan, ...]:
    inbound = direction == names.INGRESS
    port = names.INGRESS_PORT if inbound else names.EGRESS_PORT
    plan = ListenerPlan(names.listener(direction, port), port, inbound, True, tuple(chains), shared_ports)
    return over_families([plan], ip_preference(view.mesh_spec(), node.spec))


def _transport(view: View, node: Resource, index: int, listener: Spec, seen: set[int]) -> Transport | None:
    """None (with an alarm) for a listener that is held back."""
    field, port = f"spec.listeners[{index}]", listener["portMapping"]["port"]
    if port in seen:
        view.alarm(node, f"{field}.portMapping.port", f"{port} is another listener's too, so this one is held back")
        return None
    seen.add(port)
    return listener_transport(view, node, field, listener)


def reached(view: View, name: str) -> tuple[Reached, ...]:
    """The backends of a virtual node, in its order, on each of their ports. A part."""
    node = view.existing(VIRTUAL_NODE.name, name)
    found: list[Reached] = []
    for service, policy in _backends(view, node).items():
        if view.get(VIRTUAL_SERVICE.name, service) is None:
            view.alarm(node, "spec.backends", f"name {service}, which does not exist, so it is not reachable")
            continue
        found += [Reached(service, port, policy) for port in view.part(service_ports, service)]
    return tuple(found)


def draft_egress_routes(view: View, name: str, number: int) -> EgressRoutes:
    """The requests of a virtual node to one port. A part."""
    here, _ = _on_ports(view.part(reached, name))[number]
    other_names = _other_names(view, name)
    hosts = [_hosted(view, each, other_names.get(each, {})) for each in here]
    clusters = {cluster.name: cluster for each in hosts for cluster in each.clusters}
    return EgressRoutes(draft_egress(view, _routes_name(here), hosts, {}), tuple(clusters.values()))


def _hosted(view: View, at: Reached, other_names: Mapping[str, str]) -> Hosted:
    if not other_names:
        return view.part(hosted, *at)
    found = view.part(service_routes, *at).renamed(other_names)
    return host(view, view.existing(VIRTUAL_SERVICE.name, at.service), at.service, at.port.number, found)


def draft_egress_listener(view: View, name: str) -> EgressListener:
    """What takes a virtual node's connections out, those that are no requests included. A part."""
    node = view.existing(VIRTUAL_NODE.name, name)
    log = access_log(view, node)
    clusters: list[ClusterPlan] = []
    chains: list[HttpChainPlan | TcpChainPlan] = []
    others: list[TcpChainPlan] = []
    shared: list[int] = []
    numbers = _on_ports(view.part(reached, name))
    for number, (http, tcp) in numbers.items():
        found = _tcp(view, name, tcp) if tcp else None
        if found is not None:
            clusters += found.clusters
            idle_ms = found.idle_timeout_ms
            others.append(TcpChainPlan(found.targets, number, idle_timeout_ms=idle_ms, access_log=log))
        if http:
            chains.append(HttpChainPlan(number, names.EGRESS, _routes_name(http), log, found is not None))
            shared += [number] if found is not None else []
    chains += others
    outside = view.part(draft_outside)
    clusters += outside
    chains += _outside(outside, any(chain.port == TLS_PORT for chain in chains))
    return EgressListener(_listeners(view, node, names.EGRESS, chains, tuple(shared)), tuple(clusters))


def _on_ports(backends: Iterable[Reached]) -> dict[int, tuple[list[Reached], list[Reached]]]:
    """By port, sorted: those that are spoken HTTP to, and those that are not."""
    found: dict[int, tuple[list[Reached], list[Reached]]] = {}
    for each in sorted(backends, key=lambda each: each.port.number):
        found.setdefault(each.port.number, ([], []))[each.port.protocol == TCP].append(each)
    return found


def _routes_name(here: list[Reached]) -> str:
    """One chain serves every HTTP version on a port: Envoy tells them apart, and upstream the cluster decides."""
    protocol = min((each.port.protocol for each in here), key=HTTP_PROTOCOLS.index)
    return names.routes(names.EGRESS, protocol, here[0].port.number)


def _tcp(view: View, name: str, here: list[Reached]) -> TcpService | None:
    """TCP to the service on one port: the oldest of several, since a connection says nothing but its port."""
    chosen, *others = _by_age(view, here)
    for unreachable in others:
        service = view.existing(VIRTUAL_SERVICE.name, unreachable.service)
        view.alarm(service, f"port {unreachable.port.number}", "is another TCP backend's too: not reachable")
    found = view.part(tcp_service, *chosen)
    return found and found.renamed(_other_names(view, name).get(chosen, {}))


def _by_age(view: View, here: list[Reached]) -> list[Reached]:
    return sorted(here, key=lambda each: (view.existing(VIRTUAL_SERVICE.name, each.service).created_us, each.service))


def _other_names(view: View, name: str) -> Mapping[Reached, Mapping[str, str]]:
    """For a backend on a port, the clusters whose names another backend's has taken, and the names they have instead.

    Where all backends have one policy there are none.
    """
    if len({each.policy for each in view.part(reached, name)}) < 2:
        return {}
    return {each: dict(changed) for each, changed in view.part(other_names, name)}


def other_names(view: View, name: str) -> tuple[tuple[Reached, tuple[tuple[str, str], ...]], ...]:
    """What `_other_names` tells. A part."""
    transports, backends = Transports(), view.part(reached, name)
    found = [
        (each, transports.other_names(view.part(service_routes, *each).clusters))
        for each in backends
        if each.port.protocol != TCP
    ]
    for _, tcp in _on_ports(backends).values():
        service = view.part(tcp_service, *_by_age(view, tcp)[0]) if tcp else None
        if service is not None:
            found.append((_by_age(view, tcp)[0], transports.other_names(service.clusters)))
    return tuple((each, tuple(changed.items())) for each, changed in found if changed)


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


def draft_outside(view: View) -> tuple[ClusterPlan, ...]:
    """What leaves the mesh: AWS's own endpoints always; everything, where the egress filter allows it. A part."""
    amazon = _original_destination(names.amazonaws_cluster(view.mesh))
    if (view.mesh_spec().get("egressFilter") or {}).get("type", "DROP_ALL") != "ALLOW_ALL":
        return (amazon,)
    return amazon, _original_destination(names.allow_all_cluster(view.mesh))


def _outside(clusters: tuple[ClusterPlan, ...], tls_port_taken: bool) -> list[TcpChainPlan]:
    amazon, *allow_all = (((cluster.name, 1),) for cluster in clusters)
    chains = [TcpChainPlan(amazon, TLS_PORT, (AMAZON_HOSTS,))]
    for anywhere in allow_all:
        chains.append(TcpChainPlan(anywhere, anywhere=True))
        if not tls_port_taken:
            # Envoy looks at the port first, so without this the chain for Amazon would turn other hosts on 443 away.
            chains.append(TcpChainPlan(anywhere, TLS_PORT))
    return chains


def _original_destination(name: str) -> ClusterPlan:
    return ClusterPlan(name, Discovery.ORIGINAL_DST, None, 0, EGRESS_CONNECT_TIMEOUT_MS)
