"""From what a mesh is to what it was: the change set that a rollback event carries. Pure; plans, and never applies.

The plan leads from the state now to the state right after the wanted position. It covers specs and tags of one mesh, or
of resources of it that are named, nothing else. A living resource keeps its uid; a deleted one comes back under the
uid that it had. `version` rises with each change and never repeats for a uid. What would come out is checked as a
whole: a part that could not stand without another part is refused, with the names of all that would have to come along.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

from mesh.arn import spelled
from mesh.frozen import Frozen, thaw
from mesh.kinds import KINDS, ResourceKey, mesh_key
from mesh.ports import needs_port_match
from mesh.references import hard_references
from mesh.state import Resource, State

CREATED, UPDATED, DELETED = "created", "updated", "deleted"

_ORDER = {
    kind: rank
    for rank, kind in enumerate(
        ("mesh", "virtualNode", "virtualRouter", "virtualGateway", "route", "virtualService", "gatewayRoute")
    )
}
"""Every kind after those that it can refer to: the order to make things in; to take them away, backwards."""


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one resource. `spec` None: it goes; else it is exactly this afterwards.

    `action` is CREATED (it comes back), UPDATED or DELETED.
    """

    action: str
    key: ResourceKey
    uid: str
    owner: str
    version: int
    created_us: int
    spec: Frozen
    tags: Frozen

    def data(self) -> dict[str, Any]:
        """The change as the event carries it."""
        return {
            "key": list(self.key),
            "uid": self.uid,
            "owner": self.owner,
            "version": self.version,
            "created_us": self.created_us,
            "spec": None if self.spec is None else thaw(self.spec),
            "tags": thaw(self.tags),
        }


@dataclass(frozen=True, slots=True)
class RollbackPlan:
    """The changes in the order in which they could be made one by one, and every reason not to make them.

    `needs`: what a partial rollback would have to name too, so that none of the reasons that it could cure is left.
    """

    changes: tuple[Change, ...]
    refusals: tuple[str, ...]
    deletes_mesh: bool
    needs: tuple[ResourceKey, ...] = ()


class _Flaw(NamedTuple):
    """Two resources that would not fit together: `user` refers to `target`, or is a child of it. `why` says it."""

    user: ResourceKey
    target: ResourceKey
    why: str


def plan_rollback(
    now: State, then: State, account: str, mesh: str, only: Set[ResourceKey] | None = None
) -> RollbackPlan:
    """The plan that makes the mesh in `now` what it was in `then`; empty when it is that already.

    With `only`, these resources of the mesh alone, each of which is there in one of the two states.
    """
    everything = set(now.of_mesh.get((account, mesh)) or ()) | set(then.of_mesh.get((account, mesh)) or ())
    changes, remade = _changes(now, then, everything if only is None else only)
    refusals, needs = (remade, []) if remade else _unfit(now, then, changes, only, (account, mesh))
    made = sorted((change for change in changes if change.spec is not None), key=_rank)
    gone = sorted((change for change in changes if change.spec is None), key=_rank, reverse=True)
    home = mesh_key(account, mesh)
    return RollbackPlan(
        changes=(*made, *gone),
        refusals=tuple(refusals),
        deletes_mesh=any(change.key == home for change in gone),
        needs=tuple(needs),
    )


def _changes(now: State, then: State, keys: Set[ResourceKey]) -> tuple[list[Change], list[str]]:
    """What becomes of each of `keys`, and a refusal for each name that has another uid now."""
    remade, changes = [], []
    for key in sorted(keys):
        living, wanted = now.get(key), then.get(key)
        if living and wanted and living.uid != wanted.uid:
            remade.append(
                f"{KINDS[key.kind].title} {key.name} was deleted and made anew since (uid {wanted.uid} then, "
                f"{living.uid} now): delete the new one first"
            )
            continue
        change = _change(now, then, living, wanted)
        if change:
            changes.append(change)
    return changes, remade


def _change(now: State, then: State, living: Resource | None, wanted: Resource | None) -> Change | None:
    if wanted is None:
        if living is None:
            return None
        return Change(
            DELETED, living.key, living.uid, living.owner, living.version, living.created_us, None, living.tags
        )
    if living is None:
        action, version = CREATED, _last_version(now, then, wanted) + 1
    elif living.spec == wanted.spec and living.tags == wanted.tags:
        return None
    else:
        action, version = UPDATED, living.version + 1
    return Change(action, wanted.key, wanted.uid, wanted.owner, version, wanted.created_us, wanted.spec, wanted.tags)


def _last_version(now: State, then: State, wanted: Resource) -> int:
    """The last version that a deleted resource had, or, of one deleted too long ago to be remembered, a bound of it."""
    stone = now.deleted.get(wanted.uid)
    if stone:
        return stone.version
    # Each version after `wanted` took a position of its own.
    return wanted.version + now.position.position - then.position.position


def _rank(change: Change) -> tuple[int, ResourceKey]:
    return _ORDER[change.key.kind], change.key


def _unfit(
    now: State, then: State, changes: list[Change], only: Set[ResourceKey] | None, home: tuple[str, str]
) -> tuple[list[str], list[ResourceKey]]:
    """Why the mesh would not hold together after `changes`; for a partial rollback also what would have to come along.

    What comes along may need more in its turn, so all of it is found before anybody is told. It always ends: with
    everything along, the mesh is what it was in `then`, and that held together.
    """
    said: dict[str, None] = {}
    along: set[ResourceKey] = set()
    while True:
        flaws = list(_flaws(now, changes, home))
        if only is None:
            return [flaw.why for flaw in flaws], []
        named = only | along
        needed = {_missing_part(flaw, then, named) for flaw in flaws} - named
        said.update(dict.fromkeys(_partial_refusal(flaw, then, named) for flaw in flaws))
        if not needed:
            return list(said), sorted(along)
        along |= needed
        changes, remade = _changes(now, then, only | along)
        said.update(dict.fromkeys(remade))


def _missing_part(flaw: _Flaw, then: State, named: Set[ResourceKey]) -> ResourceKey:
    """Which of the two has to be taken back too: in `then` they fitted, so it is the one that is not yet."""
    return flaw.target if flaw.target not in named and flaw.target in then.resources else flaw.user


def _partial_refusal(flaw: _Flaw, then: State, named: Set[ResourceKey]) -> str:
    missing = _missing_part(flaw, then, named)
    if missing in named:
        return flaw.why
    if missing == flaw.target:
        return f"{spelled(flaw.user)} needs {spelled(missing)}, which is not in --only: add it"
    return f"{spelled(missing)} needs {spelled(flaw.target)} as it is now, and is not in --only: add it"


def _flaws(now: State, changes: list[Change], home: tuple[str, str]) -> Iterator[_Flaw]:
    """What would not hold in the mesh as a whole: dangling hard references, routes without a needed port match."""
    specs: dict[ResourceKey, Frozen] = {resource.key: resource.spec for resource in now.in_mesh(*home)}
    for change in changes:
        if change.spec is None:
            del specs[change.key]
        else:
            specs[change.key] = change.spec
    for key in sorted(specs):
        for target in dict.fromkeys(reference.target for reference in hard_references(key, specs[key])):
            if target not in specs:
                yield _Flaw(key, target, f"{key.path} would refer to {target.path}, which would not exist")
        if needs_port_match(key, specs):
            parent = ResourceKey(key.account, key.mesh, KINDS[key.kind].parent or "", "", key.parent)
            why = f"{key.path} would match on no port, and its parent would have several listeners"
            yield _Flaw(key, parent, why)
