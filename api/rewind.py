"""The past over HTTP: what was at a moment, what differs between two, and a mesh taken back to one.

GET  resources?mesh=&account=&kind=&parent=&name=&at=&after=&consistency=
                                    {at, resources: [...], next: path | null}
GET  diff?from=&to=&mesh=&account=&after=
                                    {from, to, changes: [...], next: path | null}
GET  diff/xds?from=&to=&node=       {from, to, changes: [...]}: of what the node's Envoys are given
POST rollback                       {mesh, to | before, only? | own?, seen?, dry_run?, account?, allow_mesh_deletion?,
                                    clientToken?} → {position: int | null, to, seen?, changes, refused, needs}

A moment that is asked for is a position or a time (api.requests), in an answer it is {position, epoch, time}. A change
is {resource, change, before, after, last_change}. `next` is given back as `after`, with the moments of the answer. What
is looked back from is the state at the position in the answer's header. Reads take `min_position`, and one of the
present takes `consistency=stale` (api.reads).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from api.appmesh import confirmed_state, origin_of
from api.authorization import authorise_now
from api.calls import Answer, Call
from api.changes import (
    change_document,
    differing,
    moment_document,
    page_of,
    planned_document,
    side_of,
    with_places,
    with_provenance,
)
from api.commands import CommandService, Outcome
from api.past import PastStates, event_at
from api.ports import ApiPorts
from api.reads import MIN_POSITION, READING, is_stale, reading, registry_at_hand
from api.requests import (
    Fields,
    in_time,
    moment_of,
    named_node,
    one_of,
    own_mesh,
    position_of,
    read_body,
    read_query,
    route,
    router_of,
)
from api.routes import Router
from identity.node_id import parse_node_id
from mesh.arn import parse_spelled, spelled
from mesh.commands import Rollback
from mesh.decide import rollback_plan
from mesh.documents import resource_document, tag_list
from mesh.errors import BadRequest, NotFound
from mesh.evolve import key_of
from mesh.in_use import titled
from mesh.kinds import KINDS, MESH, ResourceKey, mesh_key
from mesh.position import ORIGIN, Position
from mesh.rollback import RollbackPlan
from mesh.sharing import check_visible_at, seen_since, shared_with
from mesh.state import Resource, State

_ROLLBACK_ACTION = "meshlog:RollbackMesh"
_ROLLBACK_FIELDS: Fields = {
    "mesh": (str, True),
    "to": ((int, str), False),
    "before": ((int, str), False),
    "only": (list, False),
    "own": (bool, False),
    "seen": ((int, str), False),
    "dry_run": (bool, False),
    "account": (str, False),
    "allow_mesh_deletion": (bool, False),
    "clientToken": (str, False),
}
_RESOURCES_QUERY = ("mesh", "account", "kind", "parent", "name", "at", "after", *READING)
_DIFF_QUERY = ("to", "mesh", "account", "after", MIN_POSITION)
_XDS_QUERY = ("to", MIN_POSITION)


class RewindApi:
    """The handlers, bound to one server's ports."""

    def __init__(self, ports: ApiPorts, commands: CommandService, past: PastStates) -> None:
        self._ports, self._commands, self._past = ports, commands, past

    def router(self) -> Router:
        """Its routes."""
        return router_of(
            [
                route("GET resources", "ListResources", read_query(*_RESOURCES_QUERY), own_mesh, self._resources),
                route("GET diff", "DiffMesh", read_query(*_DIFF_QUERY, required=("from",)), own_mesh, self._diff),
                route(
                    "GET diff/xds",
                    "DiffProxy",
                    read_query(*_XDS_QUERY, required=("from", "node")),
                    named_node,
                    self._diff_xds,
                ),
                route("POST rollback", "RollbackMesh", read_body(_ROLLBACK_FIELDS), own_mesh, self._rollback),
            ]
        )

    async def _resources(self, call: Call) -> Answer:
        members, account = call.members, call.members.get("account", call.caller.account)
        kind = one_of(members["kind"], "kind", KINDS) if "kind" in members else None
        mesh = members.get("mesh", members.get("name") if kind == MESH.name else None)
        if mesh is None and kind != MESH.name:
            raise BadRequest("mesh: is required for anything but kind=mesh")
        if is_stale(call) and "at" in members:
            raise BadRequest("consistency: stale tells of the present alone: leave out `at`, or `consistency`")
        read = await reading(self._ports, call)
        now = read.state
        state = await self._then(members["at"], now, "at") if "at" in members else now
        if mesh is None:
            found = [*state.meshes(account), *_shared_then(now, state, account)]
        else:
            _check_seen(call, now, account, mesh, state)
            found = list(state.in_mesh(account, mesh, kind))
        name, parent = members.get("name"), members.get("parent")
        chosen = {
            each.key: each for each in found if name in (None, each.key.name) and parent in (None, each.key.parent)
        }
        if not chosen and mesh is not None:
            _explain_absence(state, mesh_key(account, mesh), kind, name)
        page, more = page_of(_by_path(chosen), lambda key: self._document(chosen[key], call), members.get("after", ""))
        # Who made the last change is told of what was asked for by name: for a whole mesh it would be a read for each.
        told = with_places(state, page)
        if name is not None and not is_stale(call):
            told = await in_time(
                self._ports, with_provenance(self._ports.history, now, state, page, call.caller.account)
            )
        return read.answer({"at": moment_document(state), "resources": told, "next": more})

    def _document(self, resource: Resource, call: Call) -> dict[str, Any]:
        tags = tag_list(resource) if resource.owner == call.caller.account else []  # as App Mesh: who made it tells
        return {**resource_document(resource, self._ports.region), "tags": tags}

    async def _diff(self, call: Call) -> Answer:
        members, account = call.members, call.members.get("account", call.caller.account)
        now, before, after = await self._two_states(call)
        if "mesh" in members:
            _check_seen(call, now, account, members["mesh"], before, after)
            home = mesh_key(account, members["mesh"])
            if home not in before.resources and home not in after.resources:
                raise NotFound(_in_neither(home, before, after))
        viewer = call.caller.account

        def document(key: ResourceKey) -> dict[str, Any]:
            return change_document(key, side_of(before.get(key), viewer), side_of(after.get(key), viewer))

        keys = differing(before, after, account, members.get("mesh"))
        page, more = page_of(keys, document, members.get("after", ""))
        later = max(before, after, key=lambda state: state.position)
        changes = await in_time(self._ports, with_provenance(self._ports.history, now, later, page, viewer))
        sides = {"from": moment_document(before), "to": moment_document(after)}
        return Answer({**sides, "changes": changes, "next": more}, now.position)

    async def _diff_xds(self, call: Call) -> Answer:
        node = parse_node_id(call.members["node"], call.caller.account)
        now, before, after = await self._two_states(call)
        _check_seen(call, now, node.account, node.mesh, before, after)
        if node.key not in before.resources and node.key not in after.resources:
            raise NotFound(_in_neither(node.key, before, after))
        # The resource classes take a second to load: only in a server that is asked for this, and beside its loop.
        from projector.envoy.compared import compare  # noqa: PLC0415

        changes = await asyncio.to_thread(compare, before, after, node, registry_at_hand(self._ports))
        sides = {"from": moment_document(before), "to": moment_document(after)}
        return Answer({**sides, "changes": changes}, now.position)

    async def _two_states(self, call: Call) -> tuple[State, State, State]:
        """The present state, and those of `from` and `to`; without `to`, the present one again."""
        members = call.members
        now = (await reading(self._ports, call)).state
        before = await self._then(members["from"], now, "from")
        return now, before, await self._then(members["to"], now, "to") if "to" in members else now

    async def _then(self, moment: str, now: State, member: str) -> State:
        """The state at a moment before `now`."""
        at = await in_time(self._ports, moment_of(self._ports, moment, now, member))
        return await in_time(self._ports, self._past.at(at, now))

    async def _rollback(self, call: Call) -> Answer:
        members, account = call.members, call.members.get("account", call.caller.account)
        now = await confirmed_state(self._ports)
        to = await in_time(self._ports, self._target(members, now))
        then = await in_time(self._ports, self._past.at(to, now))
        check_visible_at(now, account, members["mesh"], call.caller.account, then.position)
        command = Rollback(
            account,
            members["mesh"],
            then,
            allow_mesh_deletion=members.get("allow_mesh_deletion", False),
            only=_named(call, now, then, account),
            seen=position_of(members["seen"], now, "seen") if "seen" in members else None,
        )
        touched = _touched(now, then, command)
        await authorise_now(self._ports, call.caller, _ROLLBACK_ACTION, touched, call.circumstances)
        if members.get("dry_run", False):
            return await self._preview(rollback_plan(now, command, call.caller.account), now, then, call)
        outcome = await self._commands.submit(command, origin_of("RollbackMesh", call))
        if not outcome.written:
            return _rolled_back(None, then, [], outcome.position)
        changes = await in_time(self._ports, self._changes_made(outcome, call.caller.account))
        return _rolled_back(outcome.position.position, then, changes, outcome.position)

    async def _target(self, members: Mapping[str, Any], now: State) -> Position:
        if ("to" in members) == ("before" in members):
            raise BadRequest("to: name either `to`, a moment to go back to, or `before`, the first event to take back")
        if "to" in members:
            return await moment_of(self._ports, members["to"], now, "to")
        event = position_of(members["before"], now, "before")
        if event == ORIGIN:
            raise BadRequest("before: the first event has position 1, and nothing is before position 0")
        return now.at(event.position - 1) if event.position > 1 else ORIGIN

    async def _preview(self, plan: RollbackPlan, now: State, then: State, call: Call) -> Answer:
        viewer, history = call.caller.account, self._ports.history
        planned = {change.key: planned_document(now, change.data(), viewer) for change in plan.changes}
        document = {
            "position": None,
            "to": moment_document(then),
            "seen": str(now.position),
            "changes": await in_time(self._ports, with_provenance(history, now, now, planned, viewer)),
            "refused": list(plan.refusals),
            "needs": [spelled(key) for key in plan.needs],
        }
        return Answer(document, now.position)

    async def _changes_made(self, outcome: Outcome, viewer: str) -> list[dict[str, Any]]:
        """What a rollback did. A repeated call finds it in the log, so that it gets the first one's answer."""
        history, now = self._ports.history, self._ports.replica.state
        if outcome.decided is not None:
            before, datas = outcome.decided.before, [event.data for event in outcome.decided.events]
        else:
            event = await event_at(history, outcome.position, now)
            before = await self._past.at(now.at(outcome.position.position - 1), now)
            datas = [event.data or {}]
        made = {
            key_of(change["key"]): planned_document(before, change, viewer)
            for data in datas
            for change in data.get("changes", ())
        }
        return await with_provenance(history, now, before, made, viewer)


def _rolled_back(position: int | None, then: State, changes: list[dict[str, Any]], at: Position) -> Answer:
    document = {"position": position, "to": moment_document(then), "changes": changes, "refused": [], "needs": []}
    return Answer(document, at)


def _by_path(keys: Mapping[ResourceKey, Any]) -> list[ResourceKey]:
    return sorted(keys, key=lambda key: key.path)


def _touched(now: State, then: State, command: Rollback) -> list[ResourceKey]:
    """Everything that a rollback may touch, whatever happens before it is decided: each is authorised."""
    home = mesh_key(command.account, command.mesh)
    if command.only is not None:
        return [home, *sorted(command.only)]
    keys = {each.key for state in (now, then) for each in state.in_mesh(command.account, command.mesh)}
    return [home, *sorted(keys - {home})]


def _named(call: Call, now: State, then: State, account: str) -> frozenset[ResourceKey] | None:
    """The resources that a rollback is confined to: those named, or those that the caller's account made."""
    members, mesh = call.members, call.members["mesh"]
    if members.get("own", False):
        if "only" in members:
            raise BadRequest("own: takes back what your account made; name either that, or resources by `only`")
        made = (each for state in (now, then) for each in state.in_mesh(account, mesh))
        return frozenset(each.key for each in made if each.owner == call.caller.account)
    if "only" not in members:
        return None
    return frozenset(parse_spelled(account, mesh, text) for text in members["only"])


def _check_seen(call: Call, now: State, account: str, mesh: str, *states: State) -> None:
    """Forbidden unless the caller's account may see what the mesh was in each of `states`."""
    for state in states:
        check_visible_at(now, account, mesh, call.caller.account, state.position)


def _shared_then(now: State, then: State, account: str) -> Iterator[Resource]:
    """The meshes that are shared with an account without a break since `then`, as they were."""
    for mesh in shared_with(now, account):
        since = seen_since(now, mesh.key.account, mesh.key.mesh, account)
        if since is not None and since <= then.position and mesh.key in then.resources:
            yield then.resources[mesh.key]


def _in_neither(key: ResourceKey, before: State, after: State) -> str:
    return f"{titled(key)} is there neither after {before.position} nor after {after.position}"


def _explain_absence(state: State, home: ResourceKey, kind: str | None, name: str | None) -> None:
    """NotFound for a mesh, or a resource of a name, that is not in `state`; an empty list is no error."""
    when = f"after position {state.position}"
    if home not in state.resources:
        raise NotFound(f"{titled(home)} is not present for account {home.account} {when}")
    if name is not None:
        what = f"{KINDS[kind].title} with name {name}" if kind else f"A resource with name {name}"
        raise NotFound(f"{what} is not present under mesh {home.mesh} {when}")
