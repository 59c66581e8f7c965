"""Several listeners, one route: where a port must be said so that nobody has to guess which listener is meant. Pure.

    under a parent with several listeners     a route and a gateway route say which one they match     match.port
    towards a target with several listeners   a route and a gateway route say which one they mean      target's port

Both hold when the route is written, and when the second listener is. App Mesh's own sentences, as far as anybody has
quoted them; the others are made after them. What a gateway route sends to is its virtual service's provider. A rollback
is held to the first alone: history may hold targets without a port, which then take the router's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mesh.errors import BadRequest
from mesh.in_use import listed
from mesh.kinds import (
    GATEWAY_ROUTE,
    KINDS,
    ROUTE,
    VIRTUAL_GATEWAY,
    VIRTUAL_NODE,
    VIRTUAL_ROUTER,
    VIRTUAL_SERVICE,
    ResourceKey,
)
from mesh.limits import NAMES_SHOWN
from mesh.references import ROUTE_TYPES, hard_references
from mesh.state import State

Spec = Mapping[str, Any]

_CHILD = {VIRTUAL_ROUTER.name: ROUTE, VIRTUAL_GATEWAY.name: GATEWAY_ROUTE}
_SPOKEN = {
    ROUTE.name: "Route",
    GATEWAY_ROUTE.name: "GatewayRoute",
    VIRTUAL_NODE.name: "Virtual Node",
    VIRTUAL_ROUTER.name: "Virtual Router",
    VIRTUAL_GATEWAY.name: "Virtual Gateway",
    VIRTUAL_SERVICE.name: "Virtual Service",
}


class _Aim(NamedTuple):
    """What a route sends to, where it says so, and whether it says on which port."""

    target: ResourceKey
    path: str
    has_port: bool


def check_ports(state: State, key: ResourceKey, spec: Spec) -> None:
    """BadRequest if `spec` at `key` would leave it open which listener is meant. What it refers to must be there."""
    parent = KINDS[key.kind].parent
    if parent:
        container = state.resources[ResourceKey(key.account, key.mesh, parent, "", key.parent)]
        if _several(container.spec) and lacks_port_match(spec):
            raise BadRequest(
                f"{_SPOKEN[key.kind]} must define a port match criteria if the {_SPOKEN[parent]} has multiple listeners"
            )
        _check_aims(state, key, spec)
        return
    before = state.resources.get(key)
    if before is None:
        return
    when = f"adding multiple listeners to this {_SPOKEN.get(key.kind)}"
    if _several(spec) and not _several(before.spec):
        _check_children(state, key, when)
        _check_users(state, key, _sending_to(state, key), when)
    if key.kind == VIRTUAL_SERVICE.name:
        provider = _provider(key, spec)
        if provider not in (None, _provider(key, before.spec)) and _several(state.resources[provider].spec):
            when = "its provider has multiple listeners"
            _check_users(state, key, state.referring_to(key, GATEWAY_ROUTE.name), when)


def lacks_port_match(spec: Spec) -> bool:
    """Whether a route or gateway route matches on no port."""
    return all((spec[route_type].get("match") or {}).get("port") is None for route_type in _types(spec))


def needs_port_match(key: ResourceKey, specs: Mapping[ResourceKey, Spec]) -> bool:
    """Whether a route lacks the port match that its parent, with several listeners, demands."""
    parent = KINDS[key.kind].parent
    if parent is None:
        return False
    above = specs.get(ResourceKey(key.account, key.mesh, parent, "", key.parent)) or {}
    return _several(above) and lacks_port_match(specs[key])


def _check_aims(state: State, key: ResourceKey, spec: Spec) -> None:
    found = []
    for aim in _aims(key, spec):
        target: ResourceKey | None = aim.target
        if aim.target.kind == VIRTUAL_SERVICE.name:
            target = _provider(aim.target, state.resources[aim.target].spec)
        if target is not None and not aim.has_port and _several(state.resources[target].spec):
            found.append(f"{aim.path}.port: is required, since {_SPOKEN[target.kind]} {target.name} has several")
    if found:
        raise BadRequest(
            f"{_SPOKEN[key.kind]} must define a target port if its target has multiple listeners: {'; '.join(found)}"
        )


def _check_children(state: State, key: ResourceKey, when: str) -> None:
    child = _CHILD.get(key.kind)
    if child is None:
        return
    lacking = [
        route.name for route in state.referring_to(key, child.name) if lacks_port_match(state.resources[route].spec)
    ]
    if lacking:
        _refuse(child.name, f"for this {_SPOKEN[key.kind]} must define a port match before {when}", lacking)


def _check_users(state: State, key: ResourceKey, users: list[ResourceKey], when: str) -> None:
    for kind in (ROUTE.name, GATEWAY_ROUTE.name):
        lacking = [
            user.name
            for user in users
            if user.kind == kind and any(not aim.has_port for aim in _aims_at(state, user, key))
        ]
        if lacking:
            _refuse(kind, f"targeting this {_SPOKEN[key.kind]} must define a target port before {when}", lacking)


def _refuse(kind: str, rule: str, lacking: list[str]) -> None:
    spoken = _SPOKEN[kind]
    raise BadRequest(
        f"All {spoken}s {rule}. {len(lacking)} {spoken}(s) are missing port. "
        f"Listing up to {NAMES_SHOWN} {spoken.lower()} names: {listed(lacking)}"
    )


def _sending_to(state: State, key: ResourceKey) -> list[ResourceKey]:
    """The routes that target a node, and the gateway routes whose service a node or router provides."""
    found = [user for user in state.referring_to(key, ROUTE.name) if key.kind == VIRTUAL_NODE.name]
    for service in state.referring_to(key, VIRTUAL_SERVICE.name):
        found += state.referring_to(service, GATEWAY_ROUTE.name)
    return found


def _aims_at(state: State, user: ResourceKey, key: ResourceKey) -> list[_Aim]:
    """How `user` aims at `key`; a gateway route has one aim only, whatever is behind its service."""
    aims = _aims(user, state.resources[user].spec)
    return [aim for aim in aims if user.kind == GATEWAY_ROUTE.name or aim.target == key]


def _aims(key: ResourceKey, spec: Spec) -> Iterator[_Aim]:
    for route_type in _types(spec):
        action = spec[route_type]["action"]
        if key.kind == ROUTE.name:
            for index, target in enumerate(action["weightedTargets"]):
                node = ResourceKey(key.account, key.mesh, VIRTUAL_NODE.name, "", target["virtualNode"])
                yield _Aim(node, f"spec.{route_type}.action.weightedTargets[{index}]", target.get("port") is not None)
        else:
            target = action["target"]
            name = target["virtualService"]["virtualServiceName"]
            service = ResourceKey(key.account, key.mesh, VIRTUAL_SERVICE.name, "", name)
            yield _Aim(service, f"spec.{route_type}.action.target", target.get("port") is not None)


def _provider(service: ResourceKey, spec: Spec) -> ResourceKey | None:
    return next((each.target for each in hard_references(service, spec) if each.path), None)


def _several(spec: Spec) -> bool:
    return len(spec.get("listeners") or ()) > 1


def _types(spec: Spec) -> list[str]:
    return [route_type for route_type in ROUTE_TYPES if route_type in spec]
