"""A virtual service on one port: from its provider (a node, a router with routes, nothing) to routes and clusters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from mesh.kinds import VIRTUAL_NODE, VIRTUAL_ROUTER, VIRTUAL_SERVICE
from mesh.state import Resource
from projector.envoy.defaults import MAX_UINT32, REQUEST_TIMEOUT_MS, RETRY
from projector.envoy.matches import Order, grpc_match, http_match, match_order
from projector.envoy.plans import ClusterPlan, MatchPlan, RetryPlan, RoutePlan
from projector.envoy.specs import Port, Timeouts, duration_ms, http_timeouts, longest, ports
from projector.envoy.targets import Wanted, target
from projector.envoy.tls import PolicyAt
from projector.envoy.view import Spec, View

SERVICE_TAG = "TargetVirtualService"

_STATUS_CODES = {
    "server-error": (*range(500, 509), 510, 511),
    "gateway-error": (502, 503, 504),
    "client-error": (409,),
}
_RETRY_ORDER = (
    "reset",
    "refused-stream",
    "connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
    "retriable-status-codes",
)


class ServiceRoutes(NamedTuple):
    """`missing`: something that the routes name is not there."""

    routes: tuple[RoutePlan, ...] = ()
    clusters: tuple[ClusterPlan, ...] = ()
    missing: bool = False

    def renamed(self, renamed: Mapping[str, str]) -> ServiceRoutes:
        """The same with other names for some of the clusters."""
        if not renamed:
            return self
        return self._replace(
            routes=tuple(
                route._replace(targets=tuple((renamed.get(name, name), weight) for name, weight in route.targets))
                for route in self.routes
            ),
            clusters=tuple(each._replace(name=renamed.get(each.name, each.name)) for each in self.clusters),
        )


class ServiceTimeouts(NamedTuple):
    """The longest of a service's routes, None without any."""

    timeout_ms: int | None = None
    idle_timeout_ms: int | None = None


def service_ports(view: View, name: str) -> tuple[Port, ...]:
    """What a virtual service is spoken to on: its provider's listeners; none without a provider. A part."""
    provider = _provider(view, name)
    for kind in (VIRTUAL_NODE, VIRTUAL_ROUTER):
        if kind.name in provider:
            resource = view.get(kind.name, provider[kind.name][kind.name_member])
            return ports(resource.spec.get("listeners")) if resource else ()
    return ()


def service_routes(view: View, name: str, port: Port | None, policy: PolicyAt | None) -> ServiceRoutes:
    """The service's routes on `port` (None: its provider has no listener) in matching order, and their clusters.

    A part.
    """
    provider = _provider(view, name)
    if VIRTUAL_NODE.name in provider:
        return _from_node(view, name, provider[VIRTUAL_NODE.name]["virtualNodeName"], port, policy)
    if VIRTUAL_ROUTER.name in provider:
        router = view.get(VIRTUAL_ROUTER.name, provider[VIRTUAL_ROUTER.name]["virtualRouterName"])
        return _from_router(view, name, router, port, policy) if router else ServiceRoutes()
    return ServiceRoutes()


def _provider(view: View, name: str) -> Spec:
    service = view.get(VIRTUAL_SERVICE.name, name)
    return (service.spec.get("provider") or {}) if service else {}


def _from_node(view: View, service: str, node: str, port: Port | None, policy: PolicyAt | None) -> ServiceRoutes:
    found = view.part(target, node, Wanted(port.number if port else None), policy)
    route = RoutePlan(
        match=MatchPlan(prefix="/"),
        targets=((found.cluster.name, 1),),
        # Whatever the node's own listener says: for more than the default, App Mesh wanted a router and a route.
        timeout_ms=REQUEST_TIMEOUT_MS,
        retry=RETRY,
        tags=((SERVICE_TAG, service),),
    )
    return ServiceRoutes((route,), (found.cluster,), found.missing)


def _from_router(
    view: View, service: str, router: Resource, port: Port | None, policy: PolicyAt | None
) -> ServiceRoutes:
    ordered: list[tuple[Order, RoutePlan]] = []
    clusters: dict[str, ClusterPlan] = {}
    missing = False
    number = port.number if port else None
    for resource, body, match in _routes_on(view, router, number):
        targets = []
        for weighted in body["action"]["weightedTargets"]:
            at = Wanted(weighted.get("port"), number)
            found = view.part(target, weighted["virtualNode"], at, policy)
            clusters[found.cluster.name] = found.cluster
            missing = missing or found.missing
            targets.append((found.cluster.name, weighted["weight"]))
        if not any(weight for _, weight in targets):
            view.alarm(resource, "action.weightedTargets", "have no weight at all, so its requests are answered 503")
            targets = []
        route = _route(service, match, tuple(targets), body)
        ordered.append((match_order(resource, match), route))
    ordered.sort(key=lambda entry: entry[0])
    named = tuple(clusters[name] for name in sorted(clusters))
    return ServiceRoutes(tuple(route for _, route in ordered), named, missing)


def _routes_on(view: View, router: Resource, number: int | None) -> Iterator[tuple[Resource, Spec, MatchPlan]]:
    for resource in view.children(router.key):
        found = http_route(view, resource)
        if found is not None and (number is None or found[0]["match"].get("port", number) == number):
            yield resource, *found


def service_timeouts(view: View, name: str, port: Port | None) -> ServiceTimeouts:
    """How long requests to the service on `port` may take, whichever route they go. A part."""
    provider = _provider(view, name)
    found: list[Timeouts] = []
    if VIRTUAL_NODE.name in provider:
        found.append(http_timeouts(None))
    elif VIRTUAL_ROUTER.name in provider:
        router = view.get(VIRTUAL_ROUTER.name, provider[VIRTUAL_ROUTER.name]["virtualRouterName"])
        routes = _routes_on(view, router, port.number if port else None) if router else ()
        found += [http_timeouts(body.get("timeout")) for _, body, _ in routes]
    idle_ms = [each.idle_ms for each in found if each.idle_ms is not None]
    return ServiceTimeouts(
        longest(each.request_ms for each in found) if found else None, longest(idle_ms) if idle_ms else None
    )


def http_route(view: View, resource: Resource) -> tuple[Spec, MatchPlan] | None:
    """The body of a route or gateway route of HTTP's protocols, and what it matches; None (with an alarm) otherwise."""
    spec = resource.spec
    if "grpcRoute" in spec:
        body: Spec = spec["grpcRoute"]
        match = grpc_match(view, resource, body["match"])
    elif "httpRoute" in spec or "http2Route" in spec:
        body = spec.get("httpRoute") or spec["http2Route"]
        match = http_match(view, resource, body["match"])
    else:
        view.alarm(
            resource, "spec.tcpRoute", "is no way for the requests of an HTTP listener, so the route is held back"
        )
        return None
    return None if match is None else (body, match)


def _route(service: str, match: MatchPlan, targets: tuple[tuple[str, int], ...], body: Spec) -> RoutePlan:
    timeouts = http_timeouts(body.get("timeout"))
    return RoutePlan(
        match=match,
        targets=targets,
        weighted=True,
        timeout_ms=timeouts.request_ms,
        idle_timeout_ms=timeouts.idle_ms,
        retry=retry_plan(body.get("retryPolicy")),
        tags=((SERVICE_TAG, service),),
    )


def retry_plan(policy: Spec | None) -> RetryPlan:
    """App Mesh's translation: HTTP events became lists of status codes, never Envoy's own `5xx` or `gateway-error`."""
    if policy is None:
        return RETRY
    conditions: set[str] = set()
    codes: list[int] = []
    for event in policy.get("httpRetryEvents") or ():
        if event == "stream-error":
            conditions.add("refused-stream")
        elif event in _STATUS_CODES:
            conditions |= {"retriable-status-codes"} if event == "client-error" else {"retriable-status-codes", "reset"}
            codes.extend(code for code in _STATUS_CODES[event] if code not in codes)
    if policy.get("tcpRetryEvents"):
        conditions.add("connect-failure")
    conditions |= set(policy.get("grpcRetryEvents") or ())
    return RetryPlan(
        retry_on=tuple(condition for condition in _RETRY_ORDER if condition in conditions),
        status_codes=tuple(codes),
        max_retries=min(policy["maxRetries"], MAX_UINT32),
        per_try_timeout_ms=duration_ms(policy.get("perRetryTimeout")),
    )
