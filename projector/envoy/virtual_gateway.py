"""A virtual gateway: a listener takes requests, picks the gateway route and sends them to the gateway's own port 15001.

There they are routed as a sidecar would, by the host name of the virtual service (or by a header, where the host name
must stay as the client sent it). Two passes, as App Mesh had it: stats and access logs show both.
"""

from __future__ import annotations

from typing import NamedTuple

from mesh.kinds import VIRTUAL_GATEWAY, VIRTUAL_SERVICE
from mesh.state import Resource
from projector.envoy import names
from projector.envoy.acm import secrets
from projector.envoy.defaults import LOCAL_CONNECT_TIMEOUT_MS
from projector.envoy.matches import Order, match_order
from projector.envoy.plans import ClusterPlan, Discovery, HttpChainPlan, ListenerPlan, MatchPlan, RoutePlan, VhostPlan
from projector.envoy.services import ServiceRoutes, http_route, service_ports, service_routes
from projector.envoy.specs import (
    HTTP2_PROTOCOLS,
    HTTP_PROTOCOLS,
    Port,
    access_log,
    header_safe,
    ip_preference,
    over_families,
)
from projector.envoy.targets import Transports, assignments, pool
from projector.envoy.tls import PolicyAt, Transport, chains_over, listener_transport, policy_at
from projector.envoy.vhosts import RoutesDraft, draft_egress, usable
from projector.envoy.view import Spec, View
from projector.envoy.virtual_node import NodeDraft


class _Rewrite(NamedTuple):
    """`keeps_host`: the client's host name goes on to the target. Texts replace the matched prefix, or the path."""

    keeps_host: bool
    prefix: str | None = None
    path: str | None = None


class _GatewayRoute(NamedTuple):
    resource: Resource
    service: str
    body: Spec
    match: MatchPlan
    rewrite: _Rewrite


def draft_virtual_gateway(view: View, name: str) -> NodeDraft | None:
    """Plan the proxy of the virtual gateway. A part. None where there is nothing to plan."""
    gateway = view.get(VIRTUAL_GATEWAY.name, name)
    if gateway is None or not view.is_served(gateway):
        return None
    listeners = _listeners(view, gateway)
    if not listeners:
        return NodeDraft((), (), (), (), ())
    defaults = PolicyAt(VIRTUAL_GATEWAY.name, name)
    policy = defaults if policy_at(view, defaults) else None
    gateway_routes = _gateway_routes(view, gateway)
    services, gateway_routes = _services(view, gateway_routes, policy)
    several = len(gateway.spec["listeners"]) > 1
    clusters: dict[str, ClusterPlan] = {}
    routes: list[RoutesDraft] = []
    plans: list[ListenerPlan] = []
    for listener, transport in listeners:
        port, protocol = listener["portMapping"]["port"], listener["portMapping"]["protocol"]
        cluster = _self_redirect(gateway, listener, several)
        clusters[cluster.name] = cluster
        name = names.routes(names.INGRESS, protocol, port)
        routes.append(_redirects(name, port, cluster.name, gateway_routes, services))
        prefix = names.stat_prefix(names.INGRESS, protocol, port, several)
        chain = HttpChainPlan(port, prefix, name, access_log(view, gateway))
        taken = chains_over(transport, chain)
        plans.append(ListenerPlan(names.listener(names.INGRESS, port), port, True, False, taken))
    protocol = listeners[0][0]["portMapping"]["protocol"]
    name = names.routes(names.EGRESS, protocol, names.EGRESS_PORT)
    by_host = {
        route.service: services[route.service]
        for route in gateway_routes
        if route.service in services and not route.rewrite.keeps_host
    }
    by_header = {
        route.service: services[route.service]
        for route in gateway_routes
        if route.service in services and route.rewrite.keeps_host
    }
    routes.append(draft_egress(view, name, names.EGRESS_PORT, by_host, by_header))
    for _, found in services.values():
        clusters.update({cluster.name: cluster for cluster in found.clusters})
    chain = HttpChainPlan(names.EGRESS_PORT, names.EGRESS, name, access_log(view, gateway))
    egress = names.listener(names.EGRESS, names.EGRESS_PORT)
    plans.append(ListenerPlan(egress, names.EGRESS_PORT, False, False, (chain,)))
    whole = tuple(clusters.values())
    listening = over_families(plans, ip_preference(view.mesh_spec()))
    return NodeDraft(whole, assignments(view, whole), tuple(routes), listening, secrets(view, whole, plans))


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
            if listener.get("healthCheck"):
                view.alarm(gateway, f"{field}.healthCheck", "is not supported yet and has no effect")
            found.append((listener, transport))
        taken.add(port)
    return found


def _gateway_routes(view: View, gateway: Resource) -> list[_GatewayRoute]:
    found = []
    for resource in view.children(gateway.key):
        found_route = http_route(view, resource)
        if found_route is None:
            continue
        body, match = found_route
        rewrite = _rewrite(body, match)
        service = body["action"]["target"]["virtualService"]["virtualServiceName"]
        if not all(header_safe(text) for text in (service, rewrite.prefix, rewrite.path) if text is not None):
            view.alarm(resource, "action", "cannot stand in a request, so the gateway route is held back")
            continue
        found.append(_GatewayRoute(resource, service, body, match, rewrite))
    return found


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


def _services(
    view: View, gateway_routes: list[_GatewayRoute], policy: PolicyAt | None
) -> tuple[dict[str, tuple[Resource, ServiceRoutes]], list[_GatewayRoute]]:
    """The virtual services behind the gateway routes, and those of the routes that can go out beside each other."""
    services: dict[str, tuple[Resource, ServiceRoutes]] = {}
    transports = Transports()
    spoken_on: dict[str, int | None] = {}
    kept = []
    for route in gateway_routes:
        service = view.get(VIRTUAL_SERVICE.name, route.service)
        wanted = route.body["action"]["target"].get("port")
        if service is None:
            view.alarm(route.resource, "action.target", f"{route.service} does not exist, so requests are answered 404")
            kept.append(route)
        elif not usable(view, service):
            continue
        elif spoken_on.setdefault(route.service, wanted) != wanted:
            view.alarm(route.resource, "action.target.port", "differs from another route's, so it is held back")
        else:
            kept.append(route)
            if route.service not in services:
                found = _on_port(view, route, wanted, policy).within(transports)
                services[route.service] = (service, found)
    return services, kept


def _on_port(view: View, route: _GatewayRoute, wanted: int | None, policy: PolicyAt | None) -> ServiceRoutes:
    ports = view.part(service_ports, route.service)
    usable_ports = [port for port in ports if wanted in (None, port.number)]
    if len(usable_ports) > 1 or (ports and not usable_ports):
        why = "names no listener of the provider, so requests are answered 404"
        view.alarm(route.resource, "action.target.port", why)
        return ServiceRoutes()
    port: Port | None = usable_ports[0] if usable_ports else None
    return view.part(service_routes, route.service, port, policy)


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
    )


def _redirects(
    name: str,
    port: int,
    cluster: str,
    gateway_routes: list[_GatewayRoute],
    services: dict[str, tuple[Resource, ServiceRoutes]],
) -> RoutesDraft:
    ordered: list[tuple[Order, RoutePlan]] = []
    for route in gateway_routes:
        if route.body["match"].get("port", port) != port:
            continue
        found = services[route.service][1] if route.service in services else ServiceRoutes()
        plan = RoutePlan(
            match=route.match,
            targets=((cluster, 1),),
            timeout_ms=found.timeout_ms,
            idle_timeout_ms=found.idle_timeout_ms,
            prefix_rewrite=route.rewrite.prefix,
            path_rewrite=route.rewrite.path,
            host_rewrite=None if route.rewrite.keeps_host else route.service,
            add_virtual_service=route.service if route.rewrite.keeps_host else None,
        )
        for match in _spellings(route):
            ordered.append((match_order(route.resource, match), plan._replace(match=match)))
    ordered.sort(key=lambda entry: entry[0])
    vhost = VhostPlan(names.SELF_REDIRECT_VHOST, ("*",), tuple(plan for _, plan in ordered))
    return RoutesDraft(name, (vhost,))


def _spellings(route: _GatewayRoute) -> tuple[MatchPlan, ...]:
    """`/p` rewritten to something that ends with a slash is matched as `/p/` too, or `/p/x` would become `//x`."""
    prefix, rewrite = route.match.prefix, route.rewrite.prefix
    if prefix is None or prefix.endswith("/") or rewrite is None or not rewrite.endswith("/"):
        return (route.match,)
    return (route.match._replace(prefix=f"{prefix}/"), route.match)
