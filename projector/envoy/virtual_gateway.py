"""A virtual gateway: a listener takes requests, picks the gateway route and sends them to the gateway's own port 15001.

There they are routed as a sidecar would, by the host name of the virtual service (or by a header, where the host name
must stay as the client sent it). Two passes, as App Mesh had it: stats and access logs show both.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal, NamedTuple

from mesh.kinds import VIRTUAL_GATEWAY, VIRTUAL_SERVICE
from mesh.state import Resource
from projector.envoy import names
from projector.envoy.acm import secrets
from projector.envoy.defaults import LOCAL_CONNECT_TIMEOUT_MS
from projector.envoy.matches import Order, match_order
from projector.envoy.plans import (
    CheckAnsweredPlan,
    ClusterPlan,
    Discovery,
    HealthCheckPlan,
    HttpChainPlan,
    ListenerPlan,
    MatchPlan,
    RoutePlan,
    VhostPlan,
)
from projector.envoy.services import (
    ServiceRoutes,
    ServiceTimeouts,
    http_route,
    service_ports,
    service_routes,
    service_timeouts,
)
from projector.envoy.specs import (
    HTTP2_PROTOCOLS,
    HTTP_PROTOCOLS,
    Port,
    access_log,
    header_safe,
    ip_preference,
    over_families,
)
from projector.envoy.targets import assignments, health_check, pool
from projector.envoy.tls import PolicyAt, Transport, chains_over, listener_transport, policy_at
from projector.envoy.vhosts import RoutesDraft, draft_egress, host, usable
from projector.envoy.view import Spec, View
from projector.envoy.virtual_node import NodeDraft

_GRPC_CHECK = "/grpc.health.v1.Health/Check"


class _Rewrite(NamedTuple):
    """`keeps_host`: the client's host name goes on to the target. Texts replace the matched prefix, or the path."""

    keeps_host: bool
    prefix: str | None = None
    path: str | None = None


class _Port(Enum):
    NOWHERE = "no listener of the provider"


class GatewayRoute(NamedTuple):
    """One gateway route that is compiled. `port` is what it asks of its service's provider, if anything.

    `called`: what the first pass calls the service for the second: its name, with the port if other gateway routes want
    it on other ports.
    """

    resource: Resource
    service: str
    called: str
    port: int | None
    body: Spec
    match: MatchPlan
    rewrite: _Rewrite


class Ingress(NamedTuple):
    """What comes in on one port, and the cluster that leads to the gateway's own egress."""

    port: int
    protocol: str
    cluster: ClusterPlan
    listeners: tuple[ListenerPlan, ...]


class EgressRoutes(NamedTuple):
    """The second pass: routes to the services, and the clusters that they name."""

    draft: RoutesDraft
    clusters: tuple[ClusterPlan, ...]


def draft_virtual_gateway(view: View, name: str) -> NodeDraft | None:
    """Plan the proxy of the virtual gateway. A part. None where there is nothing to plan.

    Each Envoy resource, and all that it depends on, is a part of its own.
    """
    gateway = view.get(VIRTUAL_GATEWAY.name, name)
    if gateway is None or not view.is_served(gateway):
        return None
    ingress = view.part(draft_ingress, name)
    if not ingress:
        return NodeDraft((), (), (), (), ())
    redirects = [view.part(draft_redirects, name, index) for index in range(len(ingress))]
    egress = view.part(draft_egress_routes, name)
    named = {cluster.name: cluster for cluster in (*(each.cluster for each in ingress), *egress.clusters)}
    clusters = tuple(named.values())
    listeners = tuple(plan for each in ingress for plan in each.listeners)
    listeners += view.part(draft_egress_listener, name)
    return NodeDraft(
        clusters=clusters,
        assignments=assignments(view, clusters),
        routes=(*redirects, egress.draft),
        listeners=listeners,
        secrets=secrets(view, clusters, listeners),
    )


def draft_ingress(view: View, name: str) -> tuple[Ingress, ...]:
    """What a virtual gateway takes in. A part."""
    gateway = view.existing(VIRTUAL_GATEWAY.name, name)
    several = len(gateway.spec.get("listeners") or ()) > 1
    preference = ip_preference(view.mesh_spec())
    found = []
    for listener, transport in _listeners(view, gateway):
        port, protocol = listener["portMapping"]["port"], listener["portMapping"]["protocol"]
        prefix = names.stat_prefix(names.INGRESS, protocol, port, several)
        chain = HttpChainPlan(port, prefix, names.routes(names.INGRESS, protocol, port), access_log(view, gateway))
        taken = chains_over(transport, chain)
        plan = ListenerPlan(names.listener(names.INGRESS, port), port, True, False, taken)
        cluster = _self_redirect(gateway, listener, several)
        found.append(Ingress(port, protocol, cluster, over_families([plan], preference)))
    return tuple(found)


def _egress_routes(view: View, name: str) -> str:
    return names.routes(names.EGRESS, view.part(draft_ingress, name)[0].protocol, names.EGRESS_PORT)


def draft_egress_listener(view: View, name: str) -> tuple[ListenerPlan, ...]:
    """Where the second pass begins. A part."""
    log = access_log(view, view.existing(VIRTUAL_GATEWAY.name, name))
    clusters = (each.cluster for each in view.part(draft_ingress, name))
    checks = tuple(CheckAnsweredPlan(each.name, each.health_check.path) for each in clusters if each.health_check)
    chain = HttpChainPlan(names.EGRESS_PORT, names.EGRESS, _egress_routes(view, name), log, checks=checks)
    egress = names.listener(names.EGRESS, names.EGRESS_PORT)
    plan = ListenerPlan(egress, names.EGRESS_PORT, False, False, (chain,))
    return over_families([plan], ip_preference(view.mesh_spec()))


def draft_egress_routes(view: View, name: str) -> EgressRoutes:
    """The second pass: by virtual service, to its targets. A part."""
    policy = _policy(view, name)
    by_host: dict[str, tuple[Resource, ServiceRoutes]] = {}
    by_header: dict[str, tuple[Resource, ServiceRoutes]] = {}
    clusters: dict[str, ClusterPlan] = {}
    spoken_to: dict[str, ServiceRoutes] = {}
    for route in view.part(gateway_routes, name):
        service = view.get(VIRTUAL_SERVICE.name, route.service)
        if service is None:
            continue
        if route.called not in spoken_to:
            port = _port(view, route)
            found = ServiceRoutes() if port is _Port.NOWHERE else view.part(service_routes, route.service, port, policy)
            spoken_to[route.called] = found
            clusters.update({cluster.name: cluster for cluster in found.clusters})
        found = spoken_to[route.called]
        if route.rewrite.keeps_host:
            by_header[route.called] = service, found
        elif route.called == route.service:
            by_host[route.called] = service, found
        else:
            # The port was for the second pass alone: the application sees the service's name.
            named = tuple(each._replace(host_rewrite=route.service) for each in found.routes)
            by_host[route.called] = service, found._replace(routes=named)
    routes = _egress_routes(view, name)
    hosts = [host(view, service, called, names.EGRESS_PORT, found) for called, (service, found) in by_host.items()]
    return EgressRoutes(draft_egress(view, routes, hosts, by_header), tuple(clusters.values()))


def _listeners(view: View, gateway: Resource) -> list[tuple[Spec, Transport]]:
    found: list[tuple[Spec, Transport]] = []
    taken = {names.EGRESS_PORT}
    for index, listener in enumerate(gateway.spec.get("listeners") or ()):
        port, protocol = listener["portMapping"]["port"], listener["portMapping"]["protocol"]
        field = f"spec.listeners[{index}]"
        held = f"so nothing is accepted on port {port}"
        if protocol not in HTTP_PROTOCOLS:
            view.alarm(gateway, f"{field}.portMapping.protocol", f"{protocol} is not supported, {held}")
        elif port in taken:
            view.alarm(gateway, f"{field}.portMapping.port", f"{port} is taken, so this listener is held back")
        elif (transport := listener_transport(view, gateway, field, listener)) is not None:
            found.append((listener, transport))
        taken.add(port)
    return found


def gateway_routes(view: View, name: str) -> tuple[GatewayRoute, ...]:
    """The gateway routes of a virtual gateway that can go out beside each other. A part."""
    found: list[GatewayRoute] = []
    wanted: dict[str, set[int | None]] = {}
    for resource in view.children(view.existing(VIRTUAL_GATEWAY.name, name).key):
        route = _gateway_route(view, resource)
        if route is None:
            continue
        service = view.get(VIRTUAL_SERVICE.name, route.service)
        if service is None:
            view.alarm(resource, "action.target", f"{route.service} does not exist, so requests are answered 404")
        elif not usable(view, service):
            continue
        wanted.setdefault(route.service, set()).add(route.port)
        found.append(route)
    return tuple(
        route._replace(called=f"{route.service}:{route.port}")
        if route.port and len(wanted[route.service]) > 1
        else route
        for route in found
    )


def _gateway_route(view: View, resource: Resource) -> GatewayRoute | None:
    found = http_route(view, resource)
    if found is None:
        return None
    body, match = found
    rewrite, target = _rewrite(body, match), body["action"]["target"]
    service = target["virtualService"]["virtualServiceName"]
    if not all(header_safe(text) for text in (service, rewrite.prefix, rewrite.path) if text is not None):
        view.alarm(resource, "action", "cannot stand in a request, so the gateway route is held back")
        return None
    return GatewayRoute(resource, service, service, target.get("port"), body, match, rewrite)


def _rewrite(body: Spec, match: MatchPlan) -> _Rewrite:
    rewrite = body["action"].get("rewrite") or {}
    keeps_host = (rewrite.get("hostname") or {}).get("defaultTargetHostname", "ENABLED") == "DISABLED"
    if match.grpc:
        return _Rewrite(keeps_host)
    if match.prefix is None:
        whole = (rewrite.get("path") or {}).get("exact")
        return _Rewrite(keeps_host, prefix=whole) if match.path is not None else _Rewrite(keeps_host, path=whole)
    prefix = rewrite.get("prefix") or {}
    if "value" in prefix:
        return _Rewrite(keeps_host, prefix["value"])
    return _Rewrite(keeps_host, match.prefix if prefix.get("defaultPrefix") == "DISABLED" else "/")


def _port(view: View, route: GatewayRoute) -> Port | Literal[_Port.NOWHERE] | None:
    """Which listener of the provider a service is spoken to on; None where the provider has none."""
    ports = view.part(service_ports, route.service)
    usable_ports = [port for port in ports if route.port in (None, port.number)]
    if len(usable_ports) > 1 or (ports and not usable_ports):
        why = "names no listener of the provider, so requests are answered 404"
        view.alarm(route.resource, "action.target.port", why)
        return _Port.NOWHERE
    return usable_ports[0] if usable_ports else None


def _self_redirect(gateway: Resource, listener: Spec, several: bool) -> ClusterPlan:
    port, protocol = listener["portMapping"]["port"], listener["portMapping"]["protocol"]
    return ClusterPlan(
        name=names.self_redirect_cluster(gateway.key.mesh, gateway.key.name, protocol, port if several else None),
        discovery=Discovery.STATIC,
        address="127.0.0.1",
        port=names.EGRESS_PORT,
        connect_timeout_ms=LOCAL_CONNECT_TIMEOUT_MS,
        http2=protocol in HTTP2_PROTOCOLS,
        pool=pool(listener),
        health_check=_own_check(listener),
    )


def _own_check(listener: Spec) -> HealthCheckPlan | None:
    """A listener's health check asks the gateway itself, on its second pass, whether it takes requests.

    Nobody in the mesh sends a gateway requests but the gateway, so it is the self-redirect's (as its pool is). It asks
    gRPC's question by plain HTTP/2: a gateway has no gRPC service to answer as one.
    """
    plan = health_check(listener.get("healthCheck"))
    if plan is None:
        return None
    if plan.protocol == "grpc":
        plan = plan._replace(protocol="http2", path=_GRPC_CHECK)
    return plan._replace(port=None, idle_interval_ms=plan.interval_ms)


def draft_redirects(view: View, name: str, index: int) -> RoutesDraft:
    """The first pass of what comes in on one port: by gateway route, to the second. A part."""
    ingress = view.part(draft_ingress, name)[index]
    port = ingress.port
    ordered: list[tuple[Order, RoutePlan]] = []
    for route in view.part(gateway_routes, name):
        if route.body["match"].get("port", port) != port:
            continue
        timeouts = _timeouts(view, route)
        plan = RoutePlan(
            match=route.match,
            targets=((ingress.cluster.name, 1),),
            timeout_ms=timeouts.timeout_ms,
            idle_timeout_ms=timeouts.idle_timeout_ms,
            prefix_rewrite=route.rewrite.prefix,
            path_rewrite=route.rewrite.path,
            host_rewrite=None if route.rewrite.keeps_host else route.called,
            add_virtual_service=route.called if route.rewrite.keeps_host else None,
        )
        for match in _spellings(route):
            ordered.append((match_order(route.resource, match), plan._replace(match=match)))
    ordered.sort(key=lambda entry: entry[0])
    vhost = VhostPlan(names.SELF_REDIRECT_VHOST, ("*",), tuple(plan for _, plan in ordered))
    return RoutesDraft(names.routes(names.INGRESS, ingress.protocol, port), (vhost,))


def _timeouts(view: View, route: GatewayRoute) -> ServiceTimeouts:
    if view.get(VIRTUAL_SERVICE.name, route.service) is None:
        return ServiceTimeouts()
    port = _port(view, route)
    return ServiceTimeouts() if port is _Port.NOWHERE else view.part(service_timeouts, route.service, port)


def _policy(view: View, name: str) -> PolicyAt | None:
    """The gateway's one client policy, if it speaks of TLS."""
    defaults = PolicyAt(VIRTUAL_GATEWAY.name, name)
    return defaults if policy_at(view, defaults) else None


def _spellings(route: GatewayRoute) -> tuple[MatchPlan, ...]:
    """`/p` rewritten to something that ends with a slash is matched as `/p/` too, or `/p/x` would become `//x`."""
    prefix, rewrite = route.match.prefix, route.rewrite.prefix
    if prefix is None or prefix.endswith("/") or rewrite is None or not rewrite.endswith("/"):
        return (route.match,)
    return (route.match._replace(prefix=f"{prefix}/"), route.match)
