"""The seven App Mesh resource kinds as one table, and the key that names a resource.

Everything that differs between kinds and is not a rule stands here, so that 38 operations need no 38 handlers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Kind:
    """One resource kind.

    `name` is the ARN word (`virtualNode`), `title` the model's word (`VirtualNode`), `plural` the list member and
    the path word of a collection, `short` the CLI's short name, `parent` the kind a name is unique within (besides
    the mesh).
    """

    name: str
    title: str
    plural: str
    short: str
    parent: str | None = None

    @property
    def name_member(self) -> str:
        """The request member that carries the name, e.g. `virtualNodeName`."""
        return f"{self.name}Name"


MESH = Kind("mesh", "Mesh", "meshes", "mesh")
VIRTUAL_NODE = Kind("virtualNode", "VirtualNode", "virtualNodes", "vn")
VIRTUAL_ROUTER = Kind("virtualRouter", "VirtualRouter", "virtualRouters", "vr")
ROUTE = Kind("route", "Route", "routes", "route", parent="virtualRouter")
VIRTUAL_SERVICE = Kind("virtualService", "VirtualService", "virtualServices", "vs")
VIRTUAL_GATEWAY = Kind("virtualGateway", "VirtualGateway", "virtualGateways", "vg")
GATEWAY_ROUTE = Kind("gatewayRoute", "GatewayRoute", "gatewayRoutes", "gr", parent="virtualGateway")

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (MESH, VIRTUAL_NODE, VIRTUAL_ROUTER, ROUTE, VIRTUAL_SERVICE, VIRTUAL_GATEWAY, GATEWAY_ROUTE)
}

PARENTS: dict[str, str | None] = {kind.name: kind.parent for kind in KINDS.values()}
"""The parent kind of each kind, by name."""

CONTAINERS = frozenset({MESH.name, *(kind.parent for kind in KINDS.values() if kind.parent)})
"""The kinds that hold others."""


class ResourceKey(NamedTuple):
    """Names one resource in the whole cluster.

    `account` is the mesh owner's twelve digits. `parent` is the router of a route or the gateway of a gateway route,
    else ''. For a mesh, `name == mesh`.
    """

    account: str
    mesh: str
    kind: str
    parent: str
    name: str

    @property
    def path(self) -> str:
        """The part of an ARN after the account: `mesh/m/virtualRouter/r/route/x`."""
        if self.kind == MESH.name:
            return f"mesh/{self.mesh}"
        kind = KINDS[self.kind]
        within = f"{kind.parent}/{self.parent}/" if kind.parent else ""
        return f"mesh/{self.mesh}/{within}{self.kind}/{self.name}"


def mesh_key(account: str, mesh: str) -> ResourceKey:
    return ResourceKey(account, mesh, MESH.name, "", mesh)


def containers(key: ResourceKey) -> tuple[ResourceKey, ...]:
    """What a change of `key` is a change in: the mesh, the parent if any, and itself where it can hold others."""
    account, mesh, kind, parent, _name = key
    home = ResourceKey(account, mesh, MESH.name, "", mesh)
    within = PARENTS[kind]
    if within:
        return home, ResourceKey(account, mesh, within, "", parent)
    return (home, key) if kind in CONTAINERS and kind != MESH.name else (home,)
