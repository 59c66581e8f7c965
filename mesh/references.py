"""Who names whom: the references in a spec, hard and soft, as values. Reads specs, holds no state.

    from            to                 by                                      strength
    any             its mesh           the name                                hard
    route           virtual router     the name                                hard
    gateway route   virtual gateway    the name                                hard
    route           virtual node       action.weightedTargets[].virtualNode    hard
    virtual service node or router     provider                                hard
    gateway route   virtual service    action.target.virtualService            hard
    virtual node    virtual service    backends[].virtualService               soft

A hard reference must resolve when it is made (404 otherwise) and keeps its target from being deleted; a soft one may
name what does not exist yet: AWS's own templates create virtual nodes before their backends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from mesh.kinds import (
    GATEWAY_ROUTE,
    KINDS,
    MESH,
    PARENTS,
    ROUTE,
    VIRTUAL_NODE,
    VIRTUAL_ROUTER,
    VIRTUAL_SERVICE,
    ResourceKey,
    mesh_key,
)

ROUTE_TYPES = ("httpRoute", "http2Route", "grpcRoute", "tcpRoute")
"""The members of a route's spec that hold the route itself; exactly one is there (gateway routes have no tcpRoute)."""


class Reference(NamedTuple):
    """One reference. `path` is where the spec makes it, '' where the name itself does."""

    target: ResourceKey
    path: str


def hard_references(key: ResourceKey, spec: Mapping[str, Any]) -> tuple[Reference, ...]:
    """The references that must resolve: first the mesh and the parent, then those of the spec, in its order."""
    return (*_by_name(key), *_HARD.get(key.kind, _none)(key, spec))


def hard_targets(key: ResourceKey, spec: Mapping[str, Any]) -> set[ResourceKey]:
    """What `hard_references` name, the mesh aside: made at every change, so without their paths."""
    account, mesh, kind, parent, _name = key
    container = PARENTS[kind]
    found = {ResourceKey(account, mesh, container, "", parent)} if container else set()
    if kind == ROUTE.name:
        for route_type in ROUTE_TYPES:
            route = spec.get(route_type)
            for target in route.get("action", {}).get("weightedTargets", ()) if route else ():
                found.add(ResourceKey(account, mesh, VIRTUAL_NODE.name, "", target["virtualNode"]))
    elif kind in _HARD:
        found.update(reference.target for reference in _HARD[kind](key, spec))
    return found


def soft_references(key: ResourceKey, spec: Mapping[str, Any]) -> tuple[Reference, ...]:
    """The references that may dangle: a virtual node's backends."""
    if key.kind != VIRTUAL_NODE.name:
        return ()
    found = []
    for index, backend in enumerate(spec.get("backends") or ()):
        service = backend.get("virtualService")
        if service:
            target = _beside(key, VIRTUAL_SERVICE.name, service["virtualServiceName"])
            found.append(Reference(target, f"spec.backends[{index}].virtualService.virtualServiceName"))
    return tuple(found)


def _by_name(key: ResourceKey) -> Iterator[Reference]:
    if key.kind == MESH.name:
        return
    yield Reference(mesh_key(key.account, key.mesh), "")
    parent = KINDS[key.kind].parent
    if parent:
        yield Reference(_beside(key, parent, key.parent), "")


def _of_route(key: ResourceKey, spec: Mapping[str, Any]) -> Iterator[Reference]:
    for route_type in ROUTE_TYPES:
        for index, target in enumerate((spec.get(route_type) or {}).get("action", {}).get("weightedTargets", ())):
            path = f"spec.{route_type}.action.weightedTargets[{index}].virtualNode"
            yield Reference(_beside(key, VIRTUAL_NODE.name, target["virtualNode"]), path)


def _of_virtual_service(key: ResourceKey, spec: Mapping[str, Any]) -> Iterator[Reference]:
    provider = spec.get("provider") or {}
    for kind in (VIRTUAL_NODE, VIRTUAL_ROUTER):
        if kind.name in provider:
            path = f"spec.provider.{kind.name}.{kind.name_member}"
            yield Reference(_beside(key, kind.name, provider[kind.name][kind.name_member]), path)


def _of_gateway_route(key: ResourceKey, spec: Mapping[str, Any]) -> Iterator[Reference]:
    for route_type in ROUTE_TYPES:
        if route_type in spec:
            name = spec[route_type]["action"]["target"]["virtualService"]["virtualServiceName"]
            path = f"spec.{route_type}.action.target.virtualService.virtualServiceName"
            yield Reference(_beside(key, VIRTUAL_SERVICE.name, name), path)


def _none(key: ResourceKey, spec: Mapping[str, Any]) -> Iterator[Reference]:  # noqa: ARG001 (one shape for the table)
    return iter(())


def _beside(key: ResourceKey, kind: str, name: str) -> ResourceKey:
    return ResourceKey(key.account, key.mesh, kind, "", name)


_HARD: dict[str, Callable[[ResourceKey, Mapping[str, Any]], Iterator[Reference]]] = {
    ROUTE.name: _of_route,
    VIRTUAL_SERVICE.name: _of_virtual_service,
    GATEWAY_ROUTE.name: _of_gateway_route,
}
