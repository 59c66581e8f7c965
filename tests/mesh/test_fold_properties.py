"""Whatever is done to a mesh, the log's fold agrees with a plain dictionary that was done the same to."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from rpds import HashTrieMap, HashTrieSet

from mesh.commands import Create, Delete, Rollback, TagResource, UntagResource, Update
from mesh.errors import Conflict, MeshlogError, NotFound, ResourceInUse
from mesh.evolve import evolve
from mesh.frozen import thaw
from mesh.kinds import ResourceKey, mesh_key
from mesh.references import hard_references
from mesh.rollback import plan_rollback
from mesh.state import State, computed_fingerprint, state_hash
from tests.mesh.worlds import (
    ACCOUNT,
    World,
    gateway_route_spec,
    gateway_spec,
    key,
    node_provider,
    node_spec,
    route_spec,
    router_provider,
    router_spec,
)

MESHES = ("m1", "m2")
NODES = ("n1", "n2")
ROUTERS = ("r1", "r2")
SERVICES = ("a.local", "b.local")

Wanted = tuple[ResourceKey, dict[str, Any], frozenset[ResourceKey]]
"""A key, a spec, and what it refers to hard, written down by the generator and not read out of the spec."""


@st.composite
def wanted(draw: st.DrawFn) -> Wanted:
    mesh = draw(st.sampled_from(MESHES))
    home = mesh_key(ACCOUNT, mesh)

    def there(kind: str, name: str, parent: str = "") -> ResourceKey:
        return key(kind, name, parent, mesh)

    node, router, service = (draw(st.sampled_from(names)) for names in (NODES, ROUTERS, SERVICES))
    number = draw(st.integers(1, 3))
    kind = draw(st.sampled_from(["mesh", "node", "router", "route", "service", "gateway", "gatewayRoute"]))
    if kind == "mesh":
        return home, {"egressFilter": {"type": draw(st.sampled_from(["ALLOW_ALL", "DROP_ALL"]))}}, frozenset()
    if kind == "node":
        return there("virtualNode", node), node_spec(number, backends=(service,)), frozenset({home})
    if kind == "router":
        return there("virtualRouter", router), router_spec(number), frozenset({home})
    if kind == "route":
        parent = there("virtualRouter", router)
        refs = {home, parent, there("virtualNode", node)}
        return there("route", "x", router), route_spec({node: number}), frozenset(refs)
    if kind == "service":
        spec, target = draw(
            st.sampled_from(
                [
                    ({}, None),
                    (node_provider(node), there("virtualNode", node)),
                    (router_provider(router), there("virtualRouter", router)),
                ]
            )
        )
        return there("virtualService", service), spec, frozenset({home, target} if target else {home})
    if kind == "gateway":
        return there("virtualGateway", "g"), gateway_spec(number), frozenset({home})
    refs = {home, there("virtualGateway", "g"), there("virtualService", service)}
    return there("gatewayRoute", "y", "g"), gateway_route_spec(service, port=number), frozenset(refs)


tags = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xyz"), max_size=3)


class PlainMesh:
    """The same rules over one dictionary, as plainly as they can be written."""

    def __init__(self) -> None:
        self.there: dict[ResourceKey, dict[str, Any]] = {}

    def users(self, key: ResourceKey) -> list[ResourceKey]:
        return [other for other, entry in self.there.items() if key in entry["refs"]]

    def create(self, want: Wanted, with_tags: dict[str, str]) -> type[MeshlogError] | None:
        key, spec, refs = want
        missing = refs - self.there.keys()
        by_name = {ref for ref in missing if ref.kind == "mesh" or (key.parent and ref.name == key.parent)}
        if key in self.there and not by_name:
            return Conflict
        if missing:
            return NotFound
        self.there[key] = {"spec": spec, "refs": refs, "tags": dict(with_tags), "version": 1}
        return None

    def update(self, want: Wanted) -> type[MeshlogError] | None:
        key, spec, refs = want
        if key not in self.there or refs - self.there.keys():
            return NotFound
        self.there[key] |= {"spec": spec, "refs": refs, "version": self.there[key]["version"] + 1}
        return None

    def delete(self, key: ResourceKey) -> type[MeshlogError] | None:
        if key not in self.there:
            return NotFound
        if self.users(key):
            return ResourceInUse
        del self.there[key]
        return None

    def snapshot(self, mesh: str) -> dict[ResourceKey, tuple[Any, Any]]:
        return {key: (entry["spec"], entry["tags"]) for key, entry in self.there.items() if key.mesh == mesh}


def contents(state: State, mesh: str) -> dict[ResourceKey, tuple[Any, Any]]:
    found = state.in_mesh(ACCOUNT, mesh)
    return {resource.key: (thaw(resource.spec), thaw(resource.tags)) for resource in found}


class AnyHistory(RuleBasedStateMachine):
    """Commands at random against both; then the fold, its indexes and its hashes must be what they claim to be."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.plain = PlainMesh()
        self.versions_seen: dict[str, int] = {}
        self.checked_at = self.world.state.position

    @initialize()
    def begin(self) -> None:
        for mesh in MESHES:
            home = mesh_key(ACCOUNT, mesh)
            self.world.create(home, {})
            self.plain.create((home, {}, frozenset()), {})

    def outcome(self, command: Any) -> type[MeshlogError] | None:
        try:
            self.world.do(command)
        except MeshlogError as error:
            return type(error)
        return None

    @rule(want=wanted(), with_tags=tags)
    def create(self, want: Wanted, with_tags: dict[str, str]) -> None:
        assert self.outcome(Create(want[0], want[1], with_tags)) == self.plain.create(want, with_tags)

    @rule(want=wanted())
    def update(self, want: Wanted) -> None:
        assert self.outcome(Update(want[0], want[1])) == self.plain.update(want)

    @rule(want=wanted())
    def delete(self, want: Wanted) -> None:
        assert self.outcome(Delete(want[0])) == self.plain.delete(want[0])

    @rule(want=wanted(), with_tags=tags)
    def tag(self, want: Wanted, with_tags: dict[str, str]) -> None:
        expected = None if want[0] in self.plain.there else NotFound
        assert self.outcome(TagResource(want[0], with_tags)) == expected
        if expected is None:
            self.plain.there[want[0]]["tags"] |= with_tags

    @rule(want=wanted(), keys=st.lists(st.sampled_from("abc"), max_size=2))
    def untag(self, want: Wanted, keys: list[str]) -> None:
        expected = None if want[0] in self.plain.there else NotFound
        assert self.outcome(UntagResource(want[0], tuple(keys))) == expected
        if expected is None:
            kept = {name: value for name, value in self.plain.there[want[0]]["tags"].items() if name not in keys}
            self.plain.there[want[0]]["tags"] = kept

    @precondition(lambda self: len(self.world.states) > 3)
    @rule(data=st.data(), mesh=st.sampled_from(MESHES))
    def roll_back(self, data: st.DataObject, mesh: str) -> None:
        then = data.draw(st.sampled_from(self.world.states))
        replaced = {
            resource.key
            for resource in self.world.state.in_mesh(ACCOUNT, mesh)
            if then.get(resource.key) and then.resources[resource.key].uid != resource.uid
        }
        exists = mesh_key(ACCOUNT, mesh) in self.world.state.resources or mesh_key(ACCOUNT, mesh) in then.resources
        expected = NotFound if not exists else Conflict if replaced else None
        before = self.world.state
        assert self.outcome(Rollback(ACCOUNT, mesh, then, allow_mesh_deletion=True)) == expected
        if expected is None:
            now = self.world.state
            assert contents(now, mesh) == contents(then, mesh)
            for resource in then.in_mesh(ACCOUNT, mesh):
                assert now.resources[resource.key].uid == resource.uid
            for other in set(MESHES) - {mesh}:
                assert list(now.in_mesh(ACCOUNT, other)) == list(before.in_mesh(ACCOUNT, other))
            self._adopt(mesh)

    @precondition(lambda self: len(self.world.states) > 3)
    @rule(data=st.data(), mesh=st.sampled_from(MESHES))
    def roll_back_a_part(self, data: st.DataObject, mesh: str) -> None:
        """Either it fits, and exactly what was named is as it was; or what it needs is named, and with that it fits."""
        then = data.draw(st.sampled_from(self.world.states))
        before = self.world.state
        keys = sorted({each.key for state in (before, then) for each in state.in_mesh(ACCOUNT, mesh)})
        if not keys:
            return
        named = frozenset(data.draw(st.lists(st.sampled_from(keys), min_size=1, max_size=3)))
        plan = plan_rollback(before, then, ACCOUNT, mesh, named)
        remade = {
            key for key in keys if key in before.resources and key in then.resources
            and before.resources[key].uid != then.resources[key].uid
        }  # fmt: skip
        if plan.refusals:
            assert self.outcome(Rollback(ACCOUNT, mesh, then, True, only=named)) is Conflict
            if remade & (named | set(plan.needs)):
                return
            assert set(plan.needs) - named, plan.refusals
            named |= set(plan.needs)
        assert self.outcome(Rollback(ACCOUNT, mesh, then, True, only=named)) is None
        was, now, wanted = contents(before, mesh), contents(self.world.state, mesh), contents(then, mesh)
        assert now == {
            key: (wanted if key in named else was)[key] for key in keys if key in (wanted if key in named else was)
        }
        self._adopt(mesh)

    def _adopt(self, mesh: str) -> None:
        kept = {key: entry for key, entry in self.plain.there.items() if key.mesh != mesh}
        for resource in self.world.state.in_mesh(ACCOUNT, mesh):
            kept[resource.key] = {
                "spec": thaw(resource.spec),
                "refs": frozenset(ref.target for ref in hard_references(resource.key, resource.spec)),
                "tags": thaw(resource.tags),
                "version": resource.version,
            }
        self.plain.there = kept

    @invariant()
    def holds_what_was_put_in(self) -> None:
        for mesh in MESHES:
            assert contents(self.world.state, mesh) == self.plain.snapshot(mesh)
        assert {key: resource.version for key, resource in self.world.state.resources.items()} == {
            key: entry["version"] for key, entry in self.plain.there.items()
        }

    @invariant()
    def versions_of_a_uid_only_rise(self) -> None:
        last = self.world.state.position
        if last == self.checked_at or last.position <= len(MESHES):
            return
        self.checked_at = last
        for resource in self.world.state.resources.values():
            if resource.changed_at == last:
                seen = self.versions_seen.get(resource.uid, 0)
                tagged = self.world.events[-1].type == "TagsChanged"
                assert resource.version > seen or (tagged and resource.version == seen)
                self.versions_seen[resource.uid] = resource.version

    @invariant()
    def indexes_are_what_a_recount_gives(self) -> None:
        state = self.world.state
        of_mesh: HashTrieMap[tuple[str, str], HashTrieSet[ResourceKey]] = HashTrieMap()
        referrers: HashTrieMap[ResourceKey, HashTrieSet[ResourceKey]] = HashTrieMap()
        for resource in state.resources.values():
            home = (resource.key.account, resource.key.mesh)
            of_mesh = of_mesh.insert(home, (of_mesh.get(home) or HashTrieSet()).insert(resource.key))
            for ref in hard_references(resource.key, resource.spec):
                if ref.target.kind != "mesh":
                    users = referrers.get(ref.target) or HashTrieSet()
                    referrers = referrers.insert(ref.target, users.insert(resource.key))
        assert state.of_mesh == of_mesh
        assert state.referrers == referrers
        assert state.fingerprint == computed_fingerprint(state)
        assert set(state.changed_in) == {
            key for key in state.resources if key.kind in ("mesh", "virtualRouter", "virtualGateway")
        }

    def teardown(self) -> None:
        replayed = State()
        for event, after in zip(self.world.events, self.world.states[1:], strict=True):
            replayed = evolve(replayed, event)
            assert state_hash(replayed) == state_hash(after)
        assert replayed == self.world.state


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=40, stateful_step_count=30, suppress_health_check=list(HealthCheck))
