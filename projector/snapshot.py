"""What a projector hands to frontends: finished resources and, per node, the set of them. Values only.

A resource's bytes are made once and shared by every node that needs it; its version is a hash of its content, so
equal bytes have equal versions in every replica (I4).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from identity.node_id import NodeId
from mesh.position import Position

TYPE_CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
TYPE_ENDPOINT = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
TYPE_LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
TYPE_ROUTE = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
TYPE_SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105 - a type's name

TYPES = (TYPE_CLUSTER, TYPE_ENDPOINT, TYPE_LISTENER, TYPE_ROUTE, TYPE_SECRET)
"""In make-before-break order of additions (xDS protocol, "Eventual consistency considerations")."""

VERSION_HEX_DIGITS = 32

NOWHERE = Position(0, 0)
"""In the place of a position in the registry's log: none is known, or it makes no difference."""


class Reach(NamedTuple):
    """How far what is told has come, in both logs."""

    mesh: Position
    registry: Position = NOWHERE

    def covers(self, other: Reach) -> bool:
        """Whether this is surely not older than `other`. Where either has no registry, that of the meshes decides."""
        return self.mesh >= other.mesh and (
            NOWHERE in (self.registry, other.registry) or self.registry >= other.registry
        )

    def joined(self, other: Reach) -> Reach:
        """The least that covers both."""
        return Reach(max(self.mesh, other.mesh), max(self.registry, other.registry))


class XdsResource(NamedTuple):
    """One finished Envoy resource. `body` is the serialised message (the `value` of the Any)."""

    type_url: str
    name: str
    version: str
    body: bytes


def xds_resource(type_url: str, name: str, body: bytes) -> XdsResource:
    """Give `body` its content-hash version."""
    digest = hashlib.sha256(type_url.encode() + b"\0" + name.encode() + b"\0" + body).hexdigest()
    return XdsResource(type_url, name, digest[:VERSION_HEX_DIGITS], body)


ResourceSet = Mapping[tuple[str, str], XdsResource]
"""By (type_url, name)."""


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """All that one node is to have, as of `position`. `alarms`: a sentence for operators for each thing held back."""

    node: NodeId
    position: Position
    resources: ResourceSet
    alarms: tuple[str, ...] = ()

    def of_type(self, type_url: str) -> dict[str, XdsResource]:
        """The node's resources of one type by name."""
        return {name: resource for (kind, name), resource in self.resources.items() if kind == type_url}
