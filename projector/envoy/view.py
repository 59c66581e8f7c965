"""One node's view of a state while it is compiled: what is read is remembered, and so is what had to be held back.

The keys read are the node's dependencies, absent resources included: as long as none of them changes, compiling again
gives the same. A read of a router or gateway stands for its routes too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mesh.kinds import GATEWAY_ROUTE, KINDS, ROUTE, ResourceKey, mesh_key
from mesh.registry.state import Instance, RegistryState, ServiceKey
from mesh.sharing import is_served
from mesh.state import Resource, State
from projector.envoy.plans import AssignmentPlan, TlsPlan

Spec = Mapping[str, Any]
Dependency = ResourceKey | ServiceKey
"""What a node may read: a resource of a mesh, or a service of the registry."""

SHARE_503 = "so its share of requests is answered 503"
"""How most alarms end."""


class View:
    """Reads of one mesh. `reads` and `alarms` grow as the node is planned; so do, by cluster name, `transports` and
    `assignments` (of the clusters whose endpoints come from the registry)."""

    def __init__(self, state: State, account: str, mesh: str, registry: RegistryState) -> None:
        self._state = state
        self._registry = registry
        self._account = account
        self._mesh = mesh
        self.reads: set[Dependency] = set()
        self.alarms: set[str] = set()
        self.transports: dict[str, list[TlsPlan | None]] = {}
        self.assignments: dict[str, AssignmentPlan] = {}

    def mesh_spec(self) -> Spec:
        """The mesh's spec; empty where it has none."""
        return self._read(mesh_key(self._account, self._mesh)) or {}

    def get(self, kind: str, name: str) -> Resource | None:
        """The mesh's resource of that kind and name (kinds without a parent)."""
        key = ResourceKey(self._account, self._mesh, kind, "", name)
        self.reads.add(key)
        return self._state.get(key)

    def children(self, parent: ResourceKey) -> list[Resource]:
        """The routes of a router or the gateway routes of a gateway, by name."""
        self.reads.add(parent)
        keys = (key for key in self._state.referrers.get(parent) or () if dependency_of(key) == parent)
        return [self._state.resources[key] for key in sorted(keys)]

    def discovered(self, service: ServiceKey) -> Sequence[Instance]:
        """The instances that the registry has of a service, sorted by id; none where it does not know the service."""
        self.reads.add(service)
        return self._registry.discovered(service)

    def is_served(self, resource: Resource) -> bool:
        """Whether the account that made a node may still run proxies of it."""
        key = resource.key
        if resource.owner != key.account:
            self.reads.add(share_key(key.account, key.mesh, resource.owner))
        return is_served(self._state, resource)

    def alarm(self, resource: Resource, field: str, consequence: str) -> None:
        """Say that `field` of `resource` cannot be compiled, and what follows from that."""
        self.alarms.add(f"{resource.key.path}: {field} {consequence}")

    def _read(self, key: ResourceKey) -> Spec | None:
        self.reads.add(key)
        resource = self._state.get(key)
        return resource.spec if resource else None


def share_key(account: str, mesh: str, consumer: str) -> ResourceKey:
    """What stands for a mesh's share with one account among a node's reads; no resource has such a key."""
    return ResourceKey(account, mesh, "share", "", consumer)


def pki_key(arn: str) -> ResourceKey:
    """What stands for a certificate or an authority among a node's reads; no resource has such a key."""
    return ResourceKey("", "", "pki", "", arn)


def dependency_of(changed: ResourceKey) -> ResourceKey:
    """What a reader of `changed` has among its reads: a route's router, a gateway route's gateway, else `changed`."""
    if changed.kind not in (ROUTE.name, GATEWAY_ROUTE.name):
        return changed
    return ResourceKey(changed.account, changed.mesh, str(KINDS[changed.kind].parent), "", changed.parent)
