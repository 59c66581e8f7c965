"""The virtual hosts of an egress route configuration: one for each virtual service, found by host name.

Envoy refuses a whole route configuration in which two virtual hosts share a domain or one is malformed, so names that
cannot stand side by side are held back here, one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mesh.kinds import VIRTUAL_SERVICE
from mesh.state import Resource
from projector.envoy import names
from projector.envoy.plans import ClusterPlan, RoutePlan, VhostPlan
from projector.envoy.services import ServiceRoutes, service_routes
from projector.envoy.specs import Port, header_safe
from projector.envoy.tls import PolicyAt
from projector.envoy.view import View


class RoutesDraft(NamedTuple):
    """A route configuration; whether the virtual hosts in `missing` keep an earlier version is not settled yet."""

    name: str
    vhosts: tuple[VhostPlan, ...]
    missing: frozenset[str] = frozenset()


class Hosted(NamedTuple):
    """A virtual service as it is called by a host name. `taken` are its domains, as Envoy tells them apart.

    `vhost` None: its name can be no host's. `missing`: something that its routes name is not there.
    """

    service: str
    created_us: int
    called: str
    vhost: VhostPlan | None
    taken: frozenset[str]
    clusters: tuple[ClusterPlan, ...]
    missing: bool


def hosted(view: View, service: str, port: Port, policy: PolicyAt | None) -> Hosted:
    """A virtual service by its own name, on one port. A part, since it is the same to all that call it so."""
    resource = view.existing(VIRTUAL_SERVICE.name, service)
    return host(view, resource, service, port.number, view.part(service_routes, service, port, policy))


def host(view: View, service: Resource, called: str, port: int, found: ServiceRoutes) -> Hosted:
    """`service` under the name `called`, with these routes."""
    # Under another name than its own it is called by nobody but a gateway's first pass.
    domains = (called, f"{called}:{port}") if called == service.key.name else (called,)
    vhost = VhostPlan(called, domains, found.routes) if usable(view, service) else None
    taken = frozenset(domain.lower() for domain in domains)
    return Hosted(service.key.name, service.created_us, called, vhost, taken, found.clusters, found.missing)


def draft_egress(
    view: View, name: str, hosts: Iterable[Hosted], by_header: Mapping[str, tuple[Resource, ServiceRoutes]]
) -> RoutesDraft:
    """The route configuration `name` for the services reached by host name, or by the gateway's header."""
    vhosts: dict[str, VhostPlan] = {}
    missing: set[str] = set()
    taken: set[str] = set()
    if by_header:
        catch_all = tuple(
            route._replace(match=route.match._replace(virtual_service=service), strip_virtual_service=True)
            for service in sorted(by_header)
            for route in by_header[service][1].routes
        )
        vhosts[names.DEFAULT_BACKEND_VHOST] = VhostPlan(names.DEFAULT_BACKEND_VHOST, ("*",), catch_all)
        if any(found.missing for _, found in by_header.values()):
            missing.add(names.DEFAULT_BACKEND_VHOST)
    # Of two names that Envoy cannot tell apart (it ignores case), the older service stays.
    for each in sorted(hosts, key=_age):
        if each.vhost is None:
            continue
        if each.called in vhosts or not taken.isdisjoint(each.taken):
            resource = view.existing(VIRTUAL_SERVICE.name, each.service)
            view.alarm(resource, "virtualServiceName", "is another backend's host name too, so it is held back")
            continue
        taken |= each.taken
        vhosts[each.called] = each.vhost
        if each.missing:
            missing.add(each.called)
    return RoutesDraft(name, tuple(vhosts[key] for key in sorted(vhosts)), frozenset(missing))


def _age(each: Hosted) -> tuple[int, str]:
    return each.created_us, each.called


def usable(view: View, service: Resource) -> bool:
    """Whether a virtual service's name can be a host name to Envoy, which reads a star at either end as a wildcard."""
    name = service.key.name
    if header_safe(name) and not name.startswith("*") and not name.endswith("*"):
        return True
    view.alarm(service, "virtualServiceName", "cannot be a host name in Envoy, so it is held back")
    return False


def local_app(name: str, route: RoutePlan) -> RoutesDraft:
    """All requests of a sidecar's listener to the application beside it."""
    return RoutesDraft(name, (VhostPlan(names.LOCAL_APP_VHOST, ("*",), (route,)),))
