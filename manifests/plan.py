"""Desired resources and live ones into a plan: what to make, change and delete, in an order that the API accepts. Pure.

The order is found by rehearsing: of the steps that are left, in the order in which references point, the next is the
first that the API's own rules (`mesh.decide`) accept after those before it. So a listener is added once every route
says its port, a node goes once no route sends to it, and what can never be accepted is known before anything changes.
Deletions come as late as they can: what is new is there before what is old goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from manifests.comparison import same_spec
from manifests.document import Desired, Manifest, Problem, Reading, Skipped
from manifests.live import LiveResource, Rehearsal, with_tags
from mesh.commands import Command, Create, Delete, TagResource, UntagResource, Update
from mesh.errors import CallerError
from mesh.kinds import (
    GATEWAY_ROUTE,
    MESH,
    ROUTE,
    VIRTUAL_GATEWAY,
    VIRTUAL_NODE,
    VIRTUAL_ROUTER,
    VIRTUAL_SERVICE,
    ResourceKey,
)
from mesh.rules import check_key, check_spec, check_tags

CREATE, UPDATE, TAG, DELETE = "create", "update", "tag", "delete"

PRUNED = "is in no file"
"""Why something is deleted that no document and no router names."""

_MADE_IN_ORDER = (MESH, VIRTUAL_NODE, VIRTUAL_ROUTER, ROUTE, VIRTUAL_SERVICE, VIRTUAL_GATEWAY, GATEWAY_ROUTE)
_RANK: Mapping[str, int] = {kind.name: rank for rank, kind in enumerate(_MADE_IN_ORDER)}
"""Hard references point from later kinds to earlier ones."""


@dataclass(frozen=True, slots=True)
class Step:
    """One change of one resource. `commands` are the API's calls for it; `why` is what a deletion comes from."""

    action: str
    key: ResourceKey
    commands: tuple[Command, ...]
    before: LiveResource | None
    source: str = ""
    why: str = ""

    def document(self) -> dict[str, Any]:
        """{resource, change, before, after}, as a diff of two moments tells a change; sides are {spec, tags}."""
        before = None if self.before is None else {"spec": dict(self.before.spec), "tags": dict(self.before.tags)}
        after = None if self.action == DELETE else self._after()
        change = {CREATE: "created", UPDATE: "updated", TAG: "updated", DELETE: "deleted"}[self.action]
        return {"resource": self.key.path, "change": change, "before": before, "after": after}

    def _after(self) -> dict[str, Any]:
        spec: Mapping[str, Any] = self.before.spec if self.before else {}
        tags = dict(self.before.tags) if self.before else {}
        for command in self.commands:
            if isinstance(command, (Create, Update)):
                spec = command.spec
            tags = dict(command.tags) if isinstance(command, Create) else with_tags(tags, command)
        return {"spec": dict(spec), "tags": tags}


@dataclass(frozen=True, slots=True)
class Plan:
    """`steps` in order. `unchanged` is as it shall be; `left` is what a document says shall outlive it."""

    steps: tuple[Step, ...] = ()
    unchanged: tuple[ResourceKey, ...] = ()
    left: tuple[ResourceKey, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def deletions(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.action == DELETE)


@dataclass(frozen=True, slots=True)
class Prune:
    """Which live resources go if no document has them: those of `meshes` (owner, name), with all of `tags`.

    A mesh itself is never pruned, nor what another account made in it.
    """

    meshes: frozenset[tuple[str, str]]
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Who plans, and what there is. `quotas`: the account's own by code."""

    reading: Reading
    live: Mapping[ResourceKey, LiveResource]
    quotas: Mapping[str, int] = field(default_factory=dict)

    @property
    def account(self) -> str:
        return self.reading.account

    def rehearsal(self) -> Rehearsal:
        return Rehearsal(self.account, self.live.values(), self.quotas)


def plan_apply(manifest: Manifest, around: Surroundings, prune: Prune | None = None) -> Plan:
    """What makes live resources what the manifest says.

    Where something in the manifest could not be read, nothing that is in no file is deleted: it may be what was meant.
    """
    desired, problems = _checked(manifest, around)
    changes = [step for item in desired for step in _change(item, around)]
    changed = {step.key for step in changes}
    known = {item.key(around.account) for item in manifest.resources}
    surplus = [] if manifest.problems else _surplus(desired, known, around, prune)
    steps, refused = _in_order([*changes, *surplus], around)
    unchanged = tuple(item.key(around.account) for item in desired if item.key(around.account) not in changed)
    return Plan(steps, unchanged, (), manifest.skipped, (*manifest.problems, *problems, *refused))


def plan_delete(manifest: Manifest, around: Surroundings) -> Plan:
    """What takes away what the manifest has; what is not there any more is not missed."""
    gone, left, steps = [], [], []
    known, routes = {item.key(around.account) for item in manifest.resources}, _by_router(around)
    for item in manifest.resources:
        key = item.key(around.account)
        if item.retained:
            left.append(key)
        elif key in around.live:
            steps.append(_deletion(around.live[key], "", item.source))
            steps += [
                _deletion(each, f"is a route of {key.name}", item.source)
                for each in (routes.get(key, ()) if item.all_children else ())
                if each.key not in known
            ]
        else:
            gone.append(key)
    ordered, refused = _in_order(steps, around)
    return Plan(ordered, tuple(gone), tuple(left), manifest.skipped, (*manifest.problems, *refused))


def _checked(manifest: Manifest, around: Surroundings) -> tuple[list[Desired], list[Problem]]:
    """The resources that could be the API's input, and what is wrong with the others."""
    good, problems = [], []
    for item in manifest.resources:
        key = item.key(around.account)
        try:
            check_key(key)
            check_spec(key.kind, item.spec)
            check_tags(item.tags or {})
        except CallerError as error:
            problems.append(Problem(f"{key.path}: {error.message}", item.source))
        else:
            good.append(item)
    return good, problems


def _change(item: Desired, around: Surroundings) -> list[Step]:
    key = item.key(around.account)
    before = around.live.get(key)
    if before is None:
        return [Step(CREATE, key, (Create(key, item.spec, item.tags or {}, checked=True),), None, item.source)]
    commands: list[Command] = []
    differs = not same_spec(before.spec, item.spec)
    if differs:
        commands.append(Update(key, item.spec, checked=True))
    if item.tags is not None:
        surplus = tuple(sorted(before.tags.keys() - item.tags.keys()))
        put = {name: value for name, value in item.tags.items() if before.tags.get(name) != value}
        commands += [UntagResource(key, surplus)] if surplus else []
        commands += [TagResource(key, put)] if put else []
    return [Step(UPDATE if differs else TAG, key, tuple(commands), before, item.source)] if commands else []


def _surplus(
    desired: Sequence[Desired], known: set[ResourceKey], around: Surroundings, prune: Prune | None
) -> list[Step]:
    """Deletions of what no document has: routes of a router whose document lists all of its own, and what is pruned."""
    found: dict[ResourceKey, Step] = {}
    routes = _by_router(around)
    for item in desired:
        for each in routes.get(item.key(around.account), ()) if item.all_children else ():
            if each.key not in known:
                found[each.key] = _deletion(each, f"is not among the routes of {item.name}", item.source)
    for each in around.live.values() if prune else ():
        if each.key not in known and _is_pruned(each, around, prune):
            found.setdefault(each.key, _deletion(each, PRUNED, ""))
    return list(found.values())


def _is_pruned(live: LiveResource, around: Surroundings, prune: Prune | None) -> bool:
    if prune is None or live.key.kind == MESH.name or live.owner != around.account:
        return False
    tagged = all(live.tags.get(name) == value for name, value in prune.tags.items())
    return tagged and (live.key.account, live.key.mesh) in prune.meshes


def _by_router(around: Surroundings) -> Mapping[ResourceKey, list[LiveResource]]:
    """Live routes by the key of their router."""
    found: dict[ResourceKey, list[LiveResource]] = {}
    for each in around.live.values():
        account, mesh, kind, parent, _name = each.key
        if kind == ROUTE.name:
            found.setdefault(ResourceKey(account, mesh, VIRTUAL_ROUTER.name, "", parent), []).append(each)
    return found


def _deletion(live: LiveResource, why: str, source: str) -> Step:
    return Step(DELETE, live.key, (Delete(live.key),), live, source, why)


def _in_order(steps: Sequence[Step], around: Surroundings) -> tuple[tuple[Step, ...], list[Problem]]:
    """The steps as the API accepts them one after the other, and why it would refuse the rest."""
    rehearsal = around.rehearsal()
    waiting = sorted((step for step in steps if step.action != DELETE), key=lambda step: _RANK[step.key.kind])
    going = sorted((step for step in steps if step.action == DELETE), key=lambda step: -_RANK[step.key.kind])
    done: list[Step] = []
    refusals: dict[ResourceKey, CallerError] = {}
    moved = True
    while moved:
        moved = False
        for queue in (waiting, going):
            while accepted := [step for step in queue if _accepts(rehearsal, step, refusals)]:
                done += accepted
                keys = {step.key for step in accepted}
                queue[:] = [step for step in queue if step.key not in keys]
                moved = True
    problems = [
        Problem(f"{step.key.path}: {refusals[step.key].message}", step.source or "live") for step in (*waiting, *going)
    ]
    return tuple(done), problems


def _accepts(rehearsal: Rehearsal, step: Step, refusals: dict[ResourceKey, CallerError]) -> bool:
    try:
        rehearsal.carry_out(step.commands)
    except CallerError as error:
        refusals[step.key] = error
        return False
    return True
