"""The virtual hosts of an egress route configuration: one for each virtual service, found by host name.

Envoy refuses a whole route configuration in which two virtual hosts share a domain or one is malformed, so names that
cannot stand side by side are held back here, one by one.
"""

from __future__ import annotations

from typing import NamedTuple

from mesh.state import Resource
from projector.envoy import names
from projector.envoy.plans import RoutePlan, VhostPlan
from projector.envoy.services import ServiceRoutes
from projector.envoy.specs import header_safe
from projector.envoy.view import View


class RoutesDraft(NamedTuple):
    """A route configuration; whether the virtual hosts in `missing` keep an earlier version is not settled yet."""

    name: str
    vhosts: tuple[VhostPlan, ...]
    missing: frozenset[str] = frozenset()


def draft_egress(
    view: View,
    name: str,
    port: int,
    by_host: dict[str, tuple[Resource, ServiceRoutes]],
    by_header: dict[str, tuple[Resource, ServiceRoutes]],
) -> RoutesDraft:
    """The route configuration `name` for the services reached on `port`, by host name or by the gateway's header."""
    vhosts: dict[str, VhostPlan] = {}
    missing: set[str] = set()
    taken: set[str] = set()
    catch_all = tuple(
        route._replace(match=route.match._replace(virtual_service=service), strip_virtual_service=True)
        for service in sorted(by_header)
        for route in by_header[service][1].routes
    )
    if by_header:
        vhosts[names.DEFAULT_BACKEND_VHOST] = VhostPlan(names.DEFAULT_BACKEND_VHOST, ("*",), catch_all)
        if any(found.missing for _, found in by_header.values()):
            missing.add(names.DEFAULT_BACKEND_VHOST)
    # Of two names that Envoy cannot tell apart (it ignores case), the older service stays.
    for service, (resource, found) in sorted(by_host.items(), key=lambda item: (item[1][0].created_us, item[0])):
        # Under another name than its own it is called by nobody but a gateway's first pass.
        domains = (service, f"{service}:{port}") if service == resource.key.name else (service,)
        if not usable(view, resource):
            continue
        lowered = [domain.lower() for domain in domains]
        if service in vhosts or not taken.isdisjoint(lowered):
            view.alarm(resource, "virtualServiceName", "is another backend's host name too, so it is held back")
            continue
        taken.update(lowered)
        vhosts[service] = VhostPlan(service, domains, found.routes)
        if found.missing:
            missing.add(service)
    return RoutesDraft(name, tuple(vhosts[key] for key in sorted(vhosts)), frozenset(missing))


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
