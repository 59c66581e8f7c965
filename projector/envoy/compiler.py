"""State and node to the node's Envoy resources: pure, deterministic, the same bytes in every process (I4).

What cannot be compiled is held back and named in an alarm, the rest goes out; no resource ever names another that is
not in the snapshot. The compiler remembers what each node was put together from (`projector.envoy.parts`): so it drafts
only what a change concerns, and knows whom that is without looking at the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from weakref import WeakKeyDictionary

from identity.node_id import NodeId
from mesh.kinds import VIRTUAL_GATEWAY, VIRTUAL_NODE, ResourceKey
from mesh.registry.state import RegistryState, ServiceKey
from mesh.state import State
from projector.envoy import names
from projector.envoy.parts import Address, Part, Parts
from projector.envoy.plans import KeptVhost, RoutesPlan
from projector.envoy.render import Renderer, vhosts_of
from projector.envoy.vhosts import RoutesDraft
from projector.envoy.view import Dependency, Sources, dependency_of
from projector.envoy.virtual_gateway import draft_virtual_gateway
from projector.envoy.virtual_node import NodeDraft, draft_virtual_node
from projector.snapshot import (
    TYPE_CLUSTER,
    TYPE_ENDPOINT,
    TYPE_ROUTE,
    TYPE_SECRET,
    TYPES,
    NodeSnapshot,
    ResourceSet,
    XdsResource,
)

NO_REGISTRY = RegistryState()
_PLACES = {type_url: place for place, type_url in enumerate(TYPES)}
_DRAFTS = {VIRTUAL_NODE.name: draft_virtual_node, VIRTUAL_GATEWAY.name: draft_virtual_gateway}


def address_of(node: NodeId) -> Address:
    """The part that is all of the node."""
    return _DRAFTS[node.kind], node.account, node.mesh, node.name


class Compiler:
    """Compiles nodes, one at a time, in any order. Not for several threads.

    What it remembers makes it faster, never different: a new one gives the same bytes.
    """

    def __init__(self, renderer: Renderer | None = None) -> None:
        self._renderer = renderer or Renderer()
        self._parts = Parts(Sources(State(), NO_REGISTRY))
        self._nodes: dict[NodeId, Part] = {}
        self._whole: WeakKeyDictionary[Part, ResourceSet] = WeakKeyDictionary()
        """The resources of those parts of which `previous` made no difference."""
        self._readers: dict[Dependency, set[NodeId]] = {}

    def compile(
        self,
        state: State,
        node: NodeId,
        previous: NodeSnapshot | None = None,
        registry: RegistryState = NO_REGISTRY,
    ) -> NodeSnapshot | None:
        """All that `node` is to have at `state.position`; None when the mesh has no such node, or is no longer shared
        with the account that made it. `registry` tells the endpoints of what is discovered by Cloud Map.

        With `previous`, a virtual host whose routes name something missing stays as it was there, if it was whole;
        without, it goes out with the missing share answered 503. Either way an alarm says so. Only without `previous`
        is the result a function of the states alone, equal in every replica, whatever is wrong with the mesh.
        """
        self._parts.move(Sources(state, registry))
        part = self._parts.get(address_of(node))
        self._remember(node, part)
        draft: NodeDraft | None = part.value
        if draft is None:
            return None
        kept: set[str] = set()
        resources = self._whole.get(part)
        if resources is None:
            resources = self._render(draft, previous, kept)
            if not any(routes.missing for routes in draft.routes):
                self._whole[part] = resources
        return NodeSnapshot(node, state.position, resources, tuple(sorted(part.alarms | kept)))

    def affected(self, changed: Iterable[ResourceKey], services: Iterable[ServiceKey] = frozenset()) -> set[NodeId]:
        """The nodes that may look different after a change of these resources (made, updated, tagged or deleted), or
        of these services' instances in the registry.

        Costs what it finds, not what there is. A node counts from its first compilation until it is forgotten; one
        that was not there (None) counts too. So: fold, ask, compile what was found, and lose no changed key.
        """
        found: set[NodeId] = set()
        for key in changed:
            found |= self._readers.get(dependency_of(key), set())
        for service in services:
            found |= self._readers.get(service, set())
        return found

    def forget(self, node: NodeId) -> None:
        """Nobody wants this node any more."""
        part = self._nodes.pop(node, None)
        for key in part.keys if part else ():
            self._drop_reader(key, node)

    def _remember(self, node: NodeId, now: Part) -> None:
        before = self._nodes.get(node)
        if before is now:
            return
        self._nodes[node] = now
        keys = before.keys if before else frozenset()
        for key in keys - now.keys:
            self._drop_reader(key, node)
        for key in now.keys - keys:
            self._readers.setdefault(key, set()).add(node)

    def _drop_reader(self, key: Dependency, node: NodeId) -> None:
        readers = self._readers[key]
        readers.discard(node)
        if not readers:
            del self._readers[key]

    def _render(self, draft: NodeDraft, previous: NodeSnapshot | None, alarms: set[str]) -> ResourceSet:
        made = [self._renderer.resource(cluster) for cluster in draft.clusters]
        made += [self._renderer.resource(assignment) for assignment in draft.assignments]
        made += [self._renderer.resource(listener) for listener in draft.listeners]
        made += [self._renderer.resource(secret) for secret in draft.secrets]
        for routes in draft.routes:
            plan, kept_clusters = _settle(routes, draft, previous, alarms)
            made += [self._renderer.resource(plan), *kept_clusters]
        made.sort(key=_order)
        return {(resource.type_url, resource.name): resource for resource in made}


def _order(resource: XdsResource) -> tuple[int, str]:
    return _PLACES[resource.type_url], resource.name


def _settle(
    draft: RoutesDraft, node: NodeDraft, previous: NodeSnapshot | None, alarms: set[str]
) -> tuple[RoutesPlan, list[XdsResource]]:
    """The route configuration, and what virtual hosts kept from `previous` still need: clusters, their endpoints and
    what those believe."""
    before = None if previous is None else previous.resources.get((TYPE_ROUTE, draft.name))
    if not draft.missing or before is None or previous is None:
        return RoutesPlan(draft.name, draft.vhosts), []
    earlier = vhosts_of(before.body)
    present = {cluster.name for cluster in node.clusters}
    vhosts: dict[str, KeptVhost] = {}
    kept: list[XdsResource] = []
    for name in sorted(draft.missing & earlier.keys()):
        body, wanted = earlier[name]
        found = {cluster: previous.resources.get((TYPE_CLUSTER, cluster)) for cluster in wanted - present}
        if any(cluster is None for cluster in found.values()) or any(map(names.is_unavailable, wanted)):
            continue
        vhosts[name] = KeptVhost(name, body)
        kept += [
            resource
            for cluster in found
            for type_url in (TYPE_CLUSTER, TYPE_ENDPOINT)
            if (resource := previous.resources.get((type_url, cluster))) is not None
        ]
        alarms.add(f"{draft.name}: virtual host {name} names what is missing, so it stays as it was")
    plans = tuple(vhosts.get(vhost.name, vhost) for vhost in draft.vhosts)
    return RoutesPlan(draft.name, plans), kept + _secrets_of(kept, node, previous)


def _secrets_of(kept: list[XdsResource], node: NodeDraft, previous: NodeSnapshot) -> list[XdsResource]:
    """The secrets of ours that clusters name and nothing else here does. (A name is in the bytes as it stands.)"""
    clusters = [resource.body for resource in kept if resource.type_url == TYPE_CLUSTER]
    present = {secret.name for secret in node.secrets}
    return [
        secret
        for name, secret in previous.of_type(TYPE_SECRET).items()
        if name not in present and any(name.encode() in body for body in clusters)
    ]
