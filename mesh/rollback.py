"""From what a mesh is to what it was: the change set that a rollback event carries. Pure; plans, and never applies.

The plan leads from the state now to the state right after the wanted position. It covers specs and tags of one mesh,
nothing else. A living resource keeps its uid; a deleted one comes back under the uid that it had. `version` rises with
each change and never repeats for a uid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mesh.frozen import Frozen, thaw
from mesh.kinds import KINDS, ResourceKey, mesh_key
from mesh.references import hard_references
from mesh.rules import lacks_port_match
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
    """The changes in the order in which they could be made one by one, and every reason not to make them."""

    changes: tuple[Change, ...]
    refusals: tuple[str, ...]
    deletes_mesh: bool


def plan_rollback(now: State, then: State, account: str, mesh: str) -> RollbackPlan:
    """The plan that makes the mesh in `now` what it was in `then`; empty when it is that already."""
    keys = set(now.of_mesh.get((account, mesh)) or ()) | set(then.of_mesh.get((account, mesh)) or ())
    kept_back, changes = [], []
    for key in keys:
        living, wanted = now.get(key), then.get(key)
        if living and wanted and living.uid != wanted.uid:
            kept_back.append(
                f"{KINDS[key.kind].title} {key.name} was deleted and made anew since (uid {wanted.uid} then, "
                f"{living.uid} now): delete the new one first"
            )
            continue
        change = _change(now, then, living, wanted)
        if change:
            changes.append(change)
    made = sorted((change for change in changes if change.spec is not None), key=_rank)
    gone = sorted((change for change in changes if change.spec is None), key=_rank, reverse=True)
    home = mesh_key(account, mesh)
    return RollbackPlan(
        changes=(*made, *gone),
        refusals=(*sorted(kept_back), *(() if kept_back else _broken(now, changes, account, mesh))),
        deletes_mesh=home in now.resources and home not in then.resources,
    )


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


def _broken(now: State, changes: list[Change], account: str, mesh: str) -> Iterator[str]:
    """What would not hold in the mesh as a whole: dangling hard references, routes without a needed port match."""
    specs: dict[ResourceKey, Frozen] = {resource.key: resource.spec for resource in now.in_mesh(account, mesh)}
    for change in changes:
        if change.spec is None:
            del specs[change.key]
        else:
            specs[change.key] = change.spec
    for key in sorted(specs):
        for reference in hard_references(key, specs[key]):
            if reference.target not in specs:
                yield f"{key.path} would refer to {reference.target.path}, which would not exist"
        if needs_port_match(key, specs):
            yield f"{key.path} would match on no port, and its parent would have several listeners"


def needs_port_match(key: ResourceKey, specs: Mapping[ResourceKey, Mapping[str, Any]]) -> bool:
    """Whether a route lacks the port match that its parent, with several listeners, demands."""
    parent_kind = KINDS[key.kind].parent
    if parent_kind is None:
        return False
    parent = specs.get(ResourceKey(key.account, key.mesh, parent_kind, "", key.parent)) or {}
    return len(parent.get("listeners") or ()) > 1 and lacks_port_match(specs[key])
