"""One part's view of a state while it is drafted: what is read is remembered, and so is what had to be held back.

What was read are the part's dependencies, absent resources included: as long as none of it changes, drafting again
gives the same. So nothing of a state may reach a draft but through here. A read of a router or gateway stands for its
routes too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar, TypeVarTuple, cast

from mesh.certificates import Authority, Certificate
from mesh.kinds import GATEWAY_ROUTE, KINDS, ROUTE, ResourceKey, mesh_key
from mesh.registry.state import Instance, RegistryState, ServiceKey
from mesh.sharing import is_served, seen_since
from mesh.state import Resource, State

Spec = Mapping[str, Any]
Drafted = TypeVar("Drafted")
Arguments = TypeVarTuple("Arguments")


class Sources(NamedTuple):
    """All that there is to read. Immutable values."""

    state: State
    registry: RegistryState


Dependency = ResourceKey | ServiceKey
"""What a node may read: a resource of a mesh (a router or gateway with its routes), or a service of the registry."""
Lens = Callable[[Sources, Any], tuple[object, ...]]
"""One way of looking at a dependency: what is found there, as the source's own objects, so that a change is another."""

SHARE_503 = "so its share of requests is answered 503"
"""How most alarms end."""


class View:
    """Reads of one mesh. `reads` and `alarms` grow as the part is drafted.

    `part` is what gives parts of the same mesh: a draft's value for its arguments (see `projector.envoy.parts`).
    """

    def __init__(self, sources: Sources, account: str, mesh: str, part: Callable[..., Any]) -> None:
        self._sources = sources
        self._account = account
        self.mesh = mesh
        self._part = part
        self.reads: dict[tuple[Lens, Dependency], tuple[object, ...]] = {}
        self.alarms: set[str] = set()

    def part(self, draft: Callable[[View, *Arguments], Drafted], *arguments: *Arguments) -> Drafted:
        """`draft(view, *arguments)` as a part by itself, drafted once for all who ask.

        `draft` is a function of a module, and the arguments say where to look (names, numbers, tuples of them), never
        what is there: that it reads itself.
        """
        return cast("Drafted", self._part(draft, *arguments))

    def mesh_spec(self) -> Spec:
        """The mesh's spec; empty where it has none."""
        resource = self._resource(mesh_key(self._account, self.mesh))
        return resource.spec if resource else {}

    def get(self, kind: str, name: str) -> Resource | None:
        """The mesh's resource of that kind and name (kinds without a parent)."""
        return self._resource(ResourceKey(self._account, self.mesh, kind, "", name))

    def existing(self, kind: str, name: str) -> Resource:
        """As `get`, of what is there: whoever asks for the part has seen it."""
        resource = self.get(kind, name)
        if resource is None:
            raise LookupError(f"{kind} {name} is not there, and a part of it was asked for")
        return resource

    def children(self, parent: ResourceKey) -> list[Resource]:
        """The routes of a router or the gateway routes of a gateway, by name."""
        return cast("list[Resource]", list(self._look(_children, parent)))

    def discovered(self, service: ServiceKey) -> list[Instance]:
        """The instances that the registry has of a service, sorted by id; none where it does not know the service."""
        return cast("list[Instance]", list(self._look(_instances, service)))

    def certificate(self, arn: str) -> Certificate | None:
        """The certificate of that ARN, whoever asks."""
        (found,) = self._look(_certificate, pki_key(arn))
        return cast("Certificate | None", found)

    def authority(self, arn: str) -> Authority | None:
        """The certificate authority of that ARN, whoever asks."""
        (found,) = self._look(_authority, pki_key(arn))
        return cast("Authority | None", found)

    def takes_part(self, account: str) -> bool:
        """Whether the mesh is an account's own, or shared with it."""
        if account != self._account:
            self._look(_share, share_key(self._account, self.mesh, account))
        return seen_since(self._sources.state, self._account, self.mesh, account) is not None

    def is_served(self, resource: Resource) -> bool:
        """Whether the account that made a node may still run proxies of it."""
        key = resource.key
        if resource.owner != key.account:
            self._look(_share, share_key(key.account, key.mesh, resource.owner))
        return is_served(self._sources.state, resource)

    def alarm(self, resource: Resource, field: str, consequence: str) -> None:
        """Say that `field` of `resource` cannot be compiled, and what follows from that."""
        self.alarms.add(f"{resource.key.path}: {field} {consequence}")

    def _resource(self, key: ResourceKey) -> Resource | None:
        (found,) = self._look(_found, key)
        return cast("Resource | None", found)

    def _look(self, lens: Lens, key: Dependency) -> tuple[object, ...]:
        found = self.reads.get((lens, key))
        if found is None:
            found = self.reads[lens, key] = lens(self._sources, key)
        return found


def _found(sources: Sources, key: ResourceKey) -> tuple[object, ...]:
    return (sources.state.resources.get(key),)


def _children(sources: Sources, parent: ResourceKey) -> tuple[object, ...]:
    state = sources.state
    keys = (key for key in state.referrers.get(parent) or () if dependency_of(key) == parent)
    return tuple(state.resources[key] for key in sorted(keys))


def _instances(sources: Sources, service: ServiceKey) -> tuple[object, ...]:
    return tuple(sources.registry.discovered(service))


def _share(sources: Sources, share: ResourceKey) -> tuple[object, ...]:
    return (sources.state.shares.get((share.account, share.mesh)),)


def _certificate(sources: Sources, key: ResourceKey) -> tuple[object, ...]:
    return (sources.state.certificates.get(key.name),)


def _authority(sources: Sources, key: ResourceKey) -> tuple[object, ...]:
    return (sources.state.authorities.get(key.name),)


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
