"""A node's snapshot as the machines read it: grouped by type, in name order, with SotW versions. Pure and shared.

One view is made per snapshot and used by every stream of the node.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from identity.node_id import NodeId
from projector.snapshot import (
    TYPE_CLUSTER,
    TYPE_ENDPOINT,
    TYPE_LISTENER,
    TYPE_ROUTE,
    TYPE_SECRET,
    TYPES,
    VERSION_HEX_DIGITS,
    NodeSnapshot,
    XdsResource,
)

CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET = TYPE_CLUSTER, TYPE_ENDPOINT, TYPE_LISTENER, TYPE_ROUTE, TYPE_SECRET

FULL_SET_TYPES = frozenset({CLUSTER, LISTENER})
"""In SotW a response of these is everything, and what it leaves out is deleted; only these know the wildcard."""

SHORT_NAMES = {CLUSTER: "cds", ENDPOINT: "eds", LISTENER: "lds", ROUTE: "rds", SECRET: "sds"}
"""For metrics and logs."""

Named = Mapping[str, XdsResource]
"""Resources of one type by name."""


def set_version(node: NodeId, type_url: str, resources: Iterable[XdsResource]) -> str:
    """SotW `version_info`: moves with every name and version in the set, removals included; equal on every frontend."""
    digest = hashlib.sha256(f"{node}\0{type_url}".encode())
    for resource in sorted(resources, key=lambda resource: resource.name):
        digest.update(f"\0{resource.name}\0{resource.version}".encode())
    return digest.hexdigest()[:VERSION_HEX_DIGITS]


def fitting(resources: list[XdsResource], size_bytes_max: int) -> list[XdsResource]:
    """As many of the first resources as fit a response of that size; at least one, if there is any."""
    size_bytes, count = 0, 0
    for resource in resources:
        size_bytes += len(resource.name) + len(resource.body)
        if count and size_bytes > size_bytes_max:
            break
        count += 1
    return resources[:count]


class View:
    """`snapshot` by type. `resources[type_url]` is in name order; every type of TYPES is present."""

    __slots__ = ("_versions", "resources", "snapshot")

    def __init__(self, snapshot: NodeSnapshot, previous: View | None = None) -> None:
        """`previous`: an earlier view of the node; types that are equal there are the same objects here, by which
        every stream sees at once that they have not changed."""
        self.snapshot = snapshot
        self.resources: dict[str, dict[str, XdsResource]] = {type_url: {} for type_url in TYPES}
        for (type_url, name), resource in sorted(snapshot.resources.items()):
            self.resources.setdefault(type_url, {})[name] = resource
        self._versions: dict[str, str] = {}
        if previous is not None:
            for type_url, resources in previous.resources.items():
                if self.resources.get(type_url) == resources:
                    self.resources[type_url] = resources
                    if type_url in previous._versions:
                        self._versions[type_url] = previous._versions[type_url]

    def of(self, type_url: str) -> Named:
        return self.resources[type_url]

    def version(self, type_url: str) -> str:
        """The SotW version of the node's whole set of this type."""
        found = self._versions.get(type_url)
        if found is None:
            found = set_version(self.snapshot.node, type_url, self.resources[type_url].values())
            self._versions[type_url] = found
        return found
