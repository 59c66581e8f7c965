"""What keeps a resource from being deleted: whatever still refers to it, in the words that App Mesh used. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mesh.errors import ResourceInUse
from mesh.kinds import (
    GATEWAY_ROUTE,
    KINDS,
    MESH,
    ROUTE,
    VIRTUAL_GATEWAY,
    VIRTUAL_NODE,
    VIRTUAL_ROUTER,
    VIRTUAL_SERVICE,
    ResourceKey,
)
from mesh.limits import NAMES_SHOWN
from mesh.state import State


def titled(key: ResourceKey) -> str:
    """`VirtualNode with name X`."""
    return f"{KINDS[key.kind].title} with name {key.name}"


def listed(names: Sequence[str]) -> str:
    """The first few names in brackets, and how many more there are."""
    more = f", and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"[{', '.join(names[:NAMES_SHOWN])}{more}]"


def check_unused(state: State, key: ResourceKey) -> None:
    """ResourceInUse if something still refers to `key`."""
    _BLOCKERS.get(key.kind, _nothing_blocks)(state, key)


def _nothing_blocks(state: State, key: ResourceKey) -> None:
    """Routes and gateway routes: nothing refers to them."""


def _blocks_mesh(state: State, key: ResourceKey) -> None:
    inside = {resource.key.kind for resource in state.in_mesh(key.account, key.mesh)}
    active = [f"{kind.title}s" for kind in _OF_A_MESH if kind.name in inside]
    if active:
        named = ", ".join(active)
        raise ResourceInUse(
            f"Mesh {key.name} for account {key.account} has active {named}, "
            f"please delete {named} before deleting the Mesh"
        )


def _blocks_virtual_node(state: State, key: ResourceKey) -> None:
    if state.referring_to(key, ROUTE.name):
        raise ResourceInUse(f"{titled(key)} cannot be deleted because it is the target of one or more routes.")
    _blocks_provider(state, key)


def _blocks_virtual_router(state: State, key: ResourceKey) -> None:
    routes = [route.name for route in state.referring_to(key, ROUTE.name)]
    if routes:
        raise ResourceInUse(f"{titled(key)} cannot be deleted because it has routes: {listed(routes)}")
    _blocks_provider(state, key)


def _blocks_provider(state: State, key: ResourceKey) -> None:
    if state.referring_to(key, VIRTUAL_SERVICE.name):
        raise ResourceInUse(f"{titled(key)} cannot be deleted because it is a VirtualService provider")


def _blocks_virtual_gateway(state: State, key: ResourceKey) -> None:
    routes = [route.name for route in state.referring_to(key, GATEWAY_ROUTE.name)]
    if routes:
        raise ResourceInUse(f"{titled(key)} cannot be deleted because it has gateway routes: {listed(routes)}")


def _blocks_virtual_service(state: State, key: ResourceKey) -> None:
    routes = [route.name for route in state.referring_to(key, GATEWAY_ROUTE.name)]
    if routes:
        raise ResourceInUse(
            f"VirtualService {key.name} is being referenced in the following: GATEWAY_ROUTE: {listed(routes)}"
        )


_OF_A_MESH = (VIRTUAL_SERVICE, VIRTUAL_GATEWAY, VIRTUAL_ROUTER, VIRTUAL_NODE)
"""What a mesh holds directly, in an order in which it can be deleted (routes go before their routers and gateways)."""

_BLOCKERS: Mapping[str, Callable[[State, ResourceKey], None]] = {
    MESH.name: _blocks_mesh,
    VIRTUAL_NODE.name: _blocks_virtual_node,
    VIRTUAL_ROUTER.name: _blocks_virtual_router,
    VIRTUAL_GATEWAY.name: _blocks_virtual_gateway,
    VIRTUAL_SERVICE.name: _blocks_virtual_service,
}
