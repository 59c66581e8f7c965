"""How much of everything an account may have: App Mesh's quotas as defaults that its administrators can change. Pure.

Codes, names and defaults are those of AWS Service Quotas. A quota is the mesh owner's, whoever makes the resource, and
is asked about only where something grows: what is over a quota that was lowered stays as it is, and a rollback takes a
mesh back to what it was. How many Envoys a node may have is counted by each frontend for itself, and is advice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from mesh.errors import BadRequest, Forbidden, LimitExceeded
from mesh.events import QUOTA_CHANGED, NewEvent
from mesh.kinds import (
    GATEWAY_ROUTE,
    KINDS,
    MESH,
    ROUTE,
    VIRTUAL_GATEWAY,
    VIRTUAL_NODE,
    VIRTUAL_ROUTER,
    VIRTUAL_SERVICE,
    Kind,
    ResourceKey,
)
from mesh.limits import QUOTA_MAX

if TYPE_CHECKING:
    from mesh.commands import Context, SetQuota
    from mesh.state import State


class Quota(NamedTuple):
    """One quota. `kind` is what is counted in its account, mesh, router or gateway; None where it is something else."""

    code: str
    name: str
    default: int
    kind: Kind | None = None
    adjustable: bool = True


class QuotaValue(NamedTuple):
    """What an account has in place of a default."""

    value: int


BACKENDS = Quota("L-8775AB18", "Backends per virtual node", 50)
QUOTAS: Mapping[str, Quota] = {
    quota.code: quota
    for quota in (
        Quota("L-AC861A39", "Meshes per account", 15, MESH),
        Quota("L-E043DFB4", "Virtual nodes per mesh", 200, VIRTUAL_NODE),
        Quota("L-DA7495A7", "Virtual services per mesh", 200, VIRTUAL_SERVICE),
        Quota("L-50F6C35A", "Virtual routers per mesh", 200, VIRTUAL_ROUTER),
        Quota("L-87E74146", "Virtual gateways per mesh", 3, VIRTUAL_GATEWAY),
        Quota("L-BB90B7FF", "Routes per virtual router", 50, ROUTE),
        Quota("L-F6F26D09", "Gateway routes per virtual gateway", 10, GATEWAY_ROUTE),
        BACKENDS,
        Quota("L-AE1D9567", "Weighted targets per route", 10, adjustable=False),
        Quota("L-606A910B", "Connected Envoy processes per virtual node", 50, adjustable=False),
        Quota("L-33E8F9C9", "Connected Envoy processes per virtual gateway", 50, adjustable=False),
    )
}
"""By code."""

_OF_KIND: Mapping[str, Quota] = {quota.kind.name: quota for quota in QUOTAS.values() if quota.kind}


def quota_value(state: State, account: str, code: str) -> int:
    """What holds for the account: its own value, else the default."""
    own = state.quotas.get((account, code))
    return QUOTAS[code].default if own is None else own.value


def check_room(state: State, key: ResourceKey, spec: Mapping[str, Any]) -> None:
    """LimitExceeded if one more resource like that is more than the mesh's owner may have."""
    quota = _OF_KIND[key.kind]
    limit = quota_value(state, key.account, quota.code)
    if used(state, key, limit) >= limit:
        raise LimitExceeded(
            f"{_where(key)} has {limit} {KINDS[key.kind].plural}, and its quota allows no more ({quota.code}, "
            f"{quota.name}): delete some, or raise it with `meshlog quotas set {quota.code} NUMBER`"
        )
    check_backends(state, key, spec, {})


def check_backends(state: State, key: ResourceKey, spec: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """LimitExceeded if a virtual node gets more backends than it may have."""
    if key.kind != VIRTUAL_NODE.name:
        return
    count = len(spec.get("backends") or ())
    limit = quota_value(state, key.account, BACKENDS.code)
    if count > max(limit, len(before.get("backends") or ())):
        raise LimitExceeded(
            f"spec.backends: a list of {count} is more than the {limit} that the quota of account {key.account} allows "
            f"({BACKENDS.code}, {BACKENDS.name}): raise it with `meshlog quotas set {BACKENDS.code} NUMBER`"
        )


def used(state: State, key: ResourceKey, enough: int = 0) -> int:
    """How many siblings a resource of that key has or would have, itself counted if it is there.

    Where there cannot be `enough` of them, nobody looks through them, and the answer is any number below.
    """
    if key.kind == MESH.name:
        return sum(account == key.account for account, _ in state.of_mesh)
    parent = KINDS[key.kind].parent
    if parent:
        siblings = state.referrers.get(ResourceKey(key.account, key.mesh, parent, "", key.parent))
        if siblings is None or len(siblings) < enough:
            return 0
        return sum(other.kind == key.kind for other in siblings)
    inside = state.of_mesh.get((key.account, key.mesh))
    if inside is None or len(inside) <= enough:  # the mesh itself is one of them
        return 0
    return sum(other.kind == key.kind for other in inside)


def set_quota(state: State, command: SetQuota, context: Context) -> list[NewEvent]:
    """The event of a changed quota; none if it has that value already."""
    if command.account != context.account:
        raise Forbidden(f"the quotas of account {command.account} are not account {context.account}'s to change")
    quota = QUOTAS.get(command.code)
    if quota is None:
        raise BadRequest(f"code: '{command.code[:40]}' is no quota's code: see `meshlog quotas list`")
    if not quota.adjustable:
        raise BadRequest(f"code: {quota.code} ({quota.name}) is fixed at {quota.default}")
    value = command.value
    if value is not None and not 0 <= value <= QUOTA_MAX:
        raise BadRequest(f"value: {value} must be from 0 to {QUOTA_MAX}")
    own = state.quotas.get((command.account, quota.code))
    if (None if own is None else own.value) == value:
        return []
    return [NewEvent(QUOTA_CHANGED, {"account": command.account, "code": quota.code, "value": value})]


def _where(key: ResourceKey) -> str:
    if key.kind == MESH.name:
        return f"Account {key.account}"
    parent = KINDS[key.kind].parent
    return f"{KINDS[parent].title} {key.parent} of mesh {key.mesh}" if parent else f"Mesh {key.mesh}"
