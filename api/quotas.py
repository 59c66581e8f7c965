"""Quotas over HTTP, of the caller's own account: what they are, how much of each is used, and other values for them.

GET  quotas      {account, quotas: [{code, name, value, default, adjustable, used: {count, where} | null}]}
POST quotas      {code, value, clientToken?} → that quota as it is now; value null: App Mesh's default again

`used` is where there is most: the router with the most routes. Nobody counts all Envoys of a node (each frontend has
its own), so that is null there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from api.appmesh import origin_of
from api.calls import Answer, Call
from api.commands import CommandService
from api.ports import ApiPorts
from api.reads import READING, reading
from api.requests import Fields, nothing, read_body, read_query, route, router_of
from api.routes import Router
from mesh.commands import SetQuota
from mesh.kinds import KINDS, MESH, VIRTUAL_NODE, ResourceKey, mesh_key
from mesh.quotas import BACKENDS, QUOTAS, Quota, quota_value
from mesh.state import Resource, State

_WEIGHTED_TARGETS = "L-AE1D9567"
_SET_FIELDS: Fields = {"code": (str, True), "value": ((int, type(None)), True), "clientToken": (str, False)}


class QuotasApi:
    """The handlers, bound to one server's ports."""

    def __init__(self, ports: ApiPorts, commands: CommandService) -> None:
        self._ports, self._commands = ports, commands

    def router(self) -> Router:
        """Its routes."""
        return router_of(
            [
                route("GET quotas", "ListQuotas", read_query(*READING), nothing, self._list),
                route("POST quotas", "SetQuota", read_body(_SET_FIELDS), nothing, self._set),
            ]
        )

    async def _list(self, call: Call) -> Answer:
        read, account = await reading(self._ports, call), call.caller.account
        state = read.state
        used = usage(state, account)
        quotas = [_document(state, account, quota, used.get(quota.code)) for quota in QUOTAS.values()]
        return read.answer({"account": account, "quotas": quotas})

    async def _set(self, call: Call) -> Answer:
        account = call.caller.account
        command = SetQuota(account, call.members["code"], call.members["value"])
        outcome = await self._commands.submit(command, origin_of("SetQuota", call))
        await self._ports.replica.wait_for(outcome.position, self._ports.read_deadline_s)
        state = self._ports.replica.state
        quota = QUOTAS[command.code]
        return Answer(_document(state, account, quota, usage(state, account).get(quota.code)), outcome.position)


def usage(state: State, account: str) -> dict[str, dict[str, Any]]:
    """Of each quota that can be counted, by its code: {count, where}: the most that there is of it in one place."""
    codes = {quota.kind.name: code for code, quota in QUOTAS.items() if quota.kind}
    counted: dict[str, Counter[str]] = {code: Counter() for code in (*codes.values(), BACKENDS.code, _WEIGHTED_TARGETS)}
    for resource in _resources(state, account):
        key = resource.key
        counted[codes[key.kind]][_home(key)] += 1
        if key.kind == VIRTUAL_NODE.name:
            counted[BACKENDS.code][key.path] += len(resource.spec.get("backends") or ())
        for part in resource.spec.values() if key.kind == "route" else ():
            if not isinstance(part, int):
                counted[_WEIGHTED_TARGETS][key.path] += len(part["action"]["weightedTargets"])
    return {code: _most(counts) for code, counts in counted.items()}


def _resources(state: State, account: str) -> Iterator[Resource]:
    for mesh in state.meshes(account):
        yield from state.in_mesh(account, mesh.key.mesh)


def _home(key: ResourceKey) -> str:
    """What a resource counts in, as the ARN has it; '' for the account."""
    if key.kind == MESH.name:
        return ""
    parent = KINDS[key.kind].parent
    above = ResourceKey(key.account, key.mesh, parent, "", key.parent) if parent else mesh_key(key.account, key.mesh)
    return above.path


def _most(counts: Counter[str]) -> dict[str, Any]:
    where, count = max(sorted(counts.items()), key=lambda item: item[1], default=("", 0))
    return {"count": count, "where": where}


def _document(state: State, account: str, quota: Quota, used: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "code": quota.code,
        "name": quota.name,
        "value": quota_value(state, account, quota.code),
        "default": quota.default,
        "adjustable": quota.adjustable,
        "used": used,
    }
