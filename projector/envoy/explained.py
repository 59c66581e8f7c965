"""Why an Envoy resource is as it is: the events and the fields of specifications behind it.

Everything that a compiled resource depends on was read through views, part by part (`projector.envoy.parts`). Here the
node is compiled once more with specifications that remember which of their fields were read; what the part behind the
resource read is behind the resource. That it is there at all may be due to others: each is left out once, to see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any, NamedTuple, cast

from identity.node_id import NodeId
from mesh.certificates import Authority, Certificate
from mesh.kinds import KINDS, ResourceKey
from mesh.position import Position
from mesh.registry.state import Instance, RegistryState, ServiceKey
from mesh.state import Resource, State
from mesh.tenants import Sharing
from projector.envoy.compiler import NO_REGISTRY, Compiler, address_of
from projector.envoy.documents import spelled
from projector.envoy.parts import Address, Part, Parts
from projector.envoy.plans import (
    AssignmentPlan,
    ClusterPlan,
    HttpChainPlan,
    IdentityPlan,
    ListenerPlan,
    TrustPlan,
)
from projector.envoy.recorded import RecordedSpec, innermost, value_at
from projector.envoy.targets import target
from projector.envoy.vhosts import RoutesDraft
from projector.envoy.view import Dependency, Lens, Sources, View
from projector.envoy.virtual_node import NodeDraft, other_names
from projector.snapshot import TYPE_CLUSTER, TYPE_ENDPOINT, TYPE_LISTENER, TYPE_ROUTE, TYPE_SECRET
from runtime.limits import EXPLAINED_TRIALS_MAX

Name = tuple[str, str]
"""(type_url, name) of an Envoy resource."""
_Plan = ClusterPlan | AssignmentPlan | ListenerPlan | RoutesDraft | IdentityPlan | TrustPlan
_TYPES: Mapping[type[Any], str] = {
    ClusterPlan: TYPE_CLUSTER,
    AssignmentPlan: TYPE_ENDPOINT,
    ListenerPlan: TYPE_LISTENER,
    RoutesDraft: TYPE_ROUTE,
    IdentityPlan: TYPE_SECRET,
    TrustPlan: TYPE_SECRET,
}


class Role(StrEnum):
    """What a cause did: made the resource what it is, or only made it be there."""

    CONTENT = "content"
    PRESENCE = "presence"


class Log(StrEnum):
    """Which log a position is of."""

    MESH = "mesh"
    REGISTRY = "registry"


class Cause(NamedTuple):
    """One thing behind an Envoy resource. `what`: the path of an App Mesh resource, an instance's, or an ARN.

    `key`: the App Mesh resource. `position`: of the last change of it; None where none is kept (certificates tell
    `time_us`). `deletion`: it is gone, or (of a router or gateway) one of its routes. `fields`: those of its
    specification that were read and are there.
    """

    what: str
    role: Role
    log: Log = Log.MESH
    key: ResourceKey | None = None
    position: Position | None = None
    time_us: int | None = None
    deletion: bool = False
    fields: tuple[str, ...] = ()


class Explanation(NamedTuple):
    """`causes` by role, then by what they are. `named_by`: the node's Envoy resources that name this one."""

    causes: tuple[Cause, ...]
    named_by: tuple[str, ...]


class _RecordingView(View):
    """A view whose specifications remember what was read of them, by resource."""

    def __init__(self, sources: Sources, account: str, mesh: str, part: Callable[..., Any]) -> None:
        super().__init__(sources, account, mesh, part)
        self.fields: dict[ResourceKey, set[str]] = {}

    def _look(self, lens: Lens, key: Dependency) -> tuple[object, ...]:
        return tuple(self._recorded(each) for each in super()._look(lens, key))

    def _recorded(self, found: object) -> object:
        if not isinstance(found, Resource):
            return found
        return replace(found, spec=RecordedSpec(found.spec, self.fields.setdefault(found.key, set())))


class _Tree:
    """A node compiled once, part by part."""

    def __init__(self, sources: Sources, node: NodeId) -> None:
        self.sources = sources
        self.views: dict[Address, _RecordingView] = {}
        parts = Parts(sources, self._look)
        self.address = address_of(node)
        self.root = parts.get(self.address)
        self.draft: NodeDraft | None = self.root.value

    def _look(self, address: Address, sources: Sources, part: Callable[..., Any]) -> View:
        _, account, mesh, *_ = address
        self.views[address] = _RecordingView(sources, account, mesh, part)
        return self.views[address]

    def below(self, address: Address, part: Part) -> dict[Address, Part]:
        """The part and all that it asked for, itself last."""
        found: dict[Address, Part] = {}
        for inner, asked in part.parts.items():
            if inner not in found:
                found |= self.below(inner, asked)
        return {**found, address: part}

    def maker(self, plan: _Plan) -> dict[Address, Part]:
        """The innermost part that has the plan, and all that it asked for; all there is where no part has it."""
        whole = self.below(self.address, self.root)
        naming = {address: part for address, part in whole.items() if address[0] is other_names}
        for address, part in whole.items():
            if address != self.address and plan in _plans_in(part.value):
                found = self.below(address, part)
                if isinstance(plan, ClusterPlan) and address[0] is target:
                    for other, names in naming.items():  # whichever backend comes first has the name
                        found |= self.below(other, names)
                return found
        return whole

    def fields(self, addresses: Iterable[Address]) -> dict[ResourceKey, set[str]]:
        found: dict[ResourceKey, set[str]] = {}
        for address in addresses:
            for key, seen in self.views[address].fields.items():
                found.setdefault(key, set()).update(seen)
        return found


def explain(state: State, node: NodeId, name: Name, registry: RegistryState = NO_REGISTRY) -> Explanation | None:
    """Why `node` has the resource `name`, and why it is as it is; None where the node has no such resource.

    Answers for what the states alone say: what a projector holds back because of an alarm is not in it.
    """
    tree = _Tree(Sources(state, registry), node)
    plans = {_name(plan): plan for plan in _plans_in(tree.draft)}
    if name not in plans:
        return None
    parts = tree.maker(plans[name])
    fields = tree.fields(parts)
    content = {
        cause.what: cause
        for part in parts.values()
        for seen, found in part.reads
        for cause in _causes(state, seen.key, found, fields)
    }
    present = _presence(tree, node, name, {cause.key for cause in content.values()})
    named = [*content.values(), *present]
    linked = _links(state, present, tree, {cause.key.name for cause in named if cause.key is not None})
    by = sorted(spelled(*_name(plan)) for plan in plans.values() if name in _named_in(plan))
    causes = sorted([*content.values(), *linked], key=lambda cause: (cause.role, cause.log, cause.what))
    return Explanation(tuple(causes), tuple(by))


def _causes(
    state: State, key: Dependency, found: tuple[object, ...], fields: Mapping[ResourceKey, set[str]]
) -> Iterator[Cause]:
    """What was found is behind it; and what is gone, as far as that is remembered."""
    for each in found:
        if isinstance(each, Resource):
            seen = tuple(_leaves(each, fields))
            yield Cause(each.key.path, Role.CONTENT, key=each.key, position=each.changed_at, fields=seen)
        elif isinstance(each, Instance) and isinstance(key, ServiceKey):
            what = f"{key.namespace}/{key.service}/{each.id}"
            yield Cause(what, Role.CONTENT, Log.REGISTRY, position=each.changed_at)
        elif isinstance(each, Certificate | Authority):
            yield Cause(each.arn, Role.CONTENT, time_us=each.updated_us)
        elif isinstance(each, Sharing) and isinstance(key, ResourceKey):
            consumer = each.consumer(key.name)
            if consumer is not None:
                what = f"mesh/{key.mesh} shared with {key.name}"
                yield Cause(what, Role.CONTENT, position=consumer.since)
    if isinstance(key, ResourceKey) and key.kind in KINDS:
        gone = _deletion(state, key, [each for each in found if isinstance(each, Resource)])
        if gone is not None:
            yield Cause(f"{key.path} (deletion)", Role.CONTENT, key=key, position=gone, deletion=True)


def _deletion(state: State, key: ResourceKey, found: list[Resource]) -> Position | None:
    """Of what was looked for and is not there; or, in a container whose routes were looked at, of the last of them."""
    container = state.get(key)
    if container is None:
        return max((stone.deleted_at for stone in state.deleted.values() if stone.key == key), default=None)
    changed = state.changed_in.get(key)
    if changed is None or any(each.key == key for each in found):
        return None
    return changed if changed > max(each.changed_at for each in (container, *found)) else None


def _presence(tree: _Tree, node: NodeId, name: Name, content: set[ResourceKey | None]) -> list[Cause]:
    """Those without which the node would not have the resource, itself first."""
    (state, registry), compiler = tree.sources, Compiler()
    compiler.compile(state, node, registry=registry)
    depended = [key for key in tree.root.keys if isinstance(key, ResourceKey)]
    routes = [each for key in depended for each in state.referring_to(key) if each.parent == key.name]
    found = []
    for key in sorted({*depended, *routes} - {node.key} - content)[:EXPLAINED_TRIALS_MAX]:
        if key.kind == "mesh" or key not in state.resources:
            continue
        snapshot = compiler.compile(state.without_resource(key, state.position), node, registry=registry)
        if snapshot is None or name not in snapshot.resources:
            found.append(key)
    needed = [*([node.key] if node.key not in content else []), *found]
    return [
        Cause(key.path, Role.PRESENCE, key=key, position=resource.changed_at)
        for key in needed
        if (resource := state.get(key)) is not None
    ]


def _links(state: State, causes: Iterable[Cause], tree: _Tree, names: set[str]) -> Iterator[Cause]:
    """The causes of presence with the fields by which they lead to another cause."""
    fields = tree.fields(tree.views)
    for cause in causes:
        resource = state.get(cause.key) if cause.key else None
        if resource is None:
            continue
        leading = (path for path, value in _leaves(resource, fields).items() if value in names)
        yield cause._replace(fields=tuple(leading))


def _leaves(resource: Resource, fields: Mapping[ResourceKey, set[str]]) -> dict[str, Any]:
    """The fields that were read and hold a value, by path. (Where an object is all that was read, it lacks what was
    looked for.)
    """
    values = {path: value_at(resource.spec, path) for path in innermost(fields.get(resource.key, ()))}
    return {path: value for path, value in values.items() if not isinstance(value, Mapping | tuple)}


def _name(plan: _Plan) -> Name:
    return _TYPES[type(plan)], plan.name


def _plans_in(value: Any) -> Iterator[_Plan]:
    if isinstance(value, tuple(_TYPES)):
        yield cast("_Plan", value)
    elif isinstance(value, tuple):
        for each in value:
            yield from _plans_in(each)


def _named_in(plan: _Plan) -> set[Name]:
    """What a resource made of the plan names."""
    if isinstance(plan, RoutesDraft):
        targets = (name for vhost in plan.vhosts for route in vhost.routes for name, _ in route.targets)
        return {(TYPE_CLUSTER, name) for name in targets}
    if isinstance(plan, ListenerPlan):
        found: set[Name] = set()
        for chain in plan.chains:
            if isinstance(chain, HttpChainPlan):
                found.add((TYPE_ROUTE, chain.routes))
            else:
                found |= {(TYPE_CLUSTER, name) for name, _ in chain.targets}
            found |= _secrets_in(chain)
        return found
    if isinstance(plan, ClusterPlan):
        return {(TYPE_ENDPOINT, plan.name)} | _secrets_in(plan)
    return set()


def _secrets_in(plan: Any) -> set[Name]:
    sides = (plan.tls.certificate, plan.tls.validation) if plan.tls else ()
    return {(TYPE_SECRET, each.secret) for each in sides if each is not None and each.ours}
