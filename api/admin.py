"""Beside AWS: `/meshlog/v1/`, what the CLI needs. Same signatures, errors and positions as the App Mesh API.

GET  events?mesh=&after=&limit=     {events: [...], next: "<epoch>.<position>" | null}
GET  events?consistency=stale&after= the last ones, from memory: {events, oldest, position, age_s}; needs no etcd
GET  status                         {role, id, zone, epoch, position, level, state_hash, ready, reason, members?}
POST rollback                       {mesh, to, dry_run?, account?, allow_mesh_deletion?, clientToken?}
                                    → {position: int | null, changes: [...], refused: [...]}
POST proxies/identity               {node, csr_pem} → {node, certificate_pem, chain, ca, not_after, xds: [...]}
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from api.appmesh import confirmed_state, origin_of
from api.body import parse_object
from api.calls import Answer, Call, query_members
from api.commands import CommandService
from api.history import Window, event_at, event_document, events_page, state_at, wanted
from api.ports import ApiPorts
from api.routes import Found, Route, Router
from identity.node_id import NodeId, parse_node_id
from identity.sigv4 import APPMESH, MESHLOG, Caller, SignedRequest
from mesh.commands import IssueProxyIdentity, Rollback
from mesh.decide import present
from mesh.errors import BadRequest, Unavailable
from mesh.evolve import key_of
from mesh.frozen import thaw
from mesh.kinds import ResourceKey, mesh_key
from mesh.position import ORIGIN, Position, parse_position
from mesh.rollback import plan_rollback
from mesh.rules import check_client_token
from mesh.state import State, state_hash
from runtime.limits import EVENTS_PAGE_MAX

Result = TypeVar("Result")

PREFIX = "/meshlog/v1/"
_DEFAULT_LIMIT = 100

Fields = Mapping[str, tuple[type | tuple[type, ...], bool]]
"""Members of a body: their types, and whether they must be there."""

_ROLLBACK_FIELDS: Fields = {
    "mesh": (str, True),
    "to": ((int, str), True),
    "dry_run": (bool, False),
    "account": (str, False),
    "allow_mesh_deletion": (bool, False),
    "clientToken": (str, False),
}
_IDENTITY_FIELDS: Fields = {"node": (str, True), "csr_pem": (str, True)}
_TYPE_NAMES = {str: "a string", bool: "true or false", (int, str): "a position"}


class AdminApi:
    """The handlers, bound to one server's ports."""

    def __init__(self, ports: ApiPorts, commands: CommandService) -> None:
        self._ports = ports
        self._commands = commands

    def router(self) -> Router:
        """The four routes."""
        routes = {
            (route.method, route.path): route
            for route in (
                _route("GET events", "ListEvents", _read_query, _own_mesh, self._events),
                _route("GET status", "GetStatus", _read_query, _nothing, self._status),
                _route("POST rollback", "RollbackMesh", _reader(_ROLLBACK_FIELDS), _own_mesh, self._rollback),
                _route("POST proxies/identity", "IssueProxyIdentity", _reader(_IDENTITY_FIELDS), _node_key, self._sign),
            )
        }

        def find(method: str, path: str) -> Found | None:
            route = routes.get((method, path))
            return Found(route, {}) if route else None

        return Router(tuple(routes.values()), find)

    async def _events(self, call: Call) -> Answer:
        if call.members.get("consistency") == "stale":
            return self._recent(call)
        state = await confirmed_state(self._ports)
        after = _position(call.members.get("after", "0"), state, "after")
        limit = _limit(call.members.get("limit"))
        window = Window(call.caller.account, call.members.get("mesh"), after, limit)
        events, more = await self._in_time(events_page(self._ports.history, state.position, window))
        return Answer({"events": events, "next": str(more) if more else None}, state.position)

    def _recent(self, call: Call) -> Answer:
        """From memory alone, marked with its age. `oldest`: from that position on nothing is left out."""
        recent, replica = self._ports.recent, self._ports.replica
        state, age_s = replica.state, replica.confirmed_age_s
        after = _position(call.members.get("after", "0"), state, "after")
        window = Window(call.caller.account, call.members.get("mesh"), after, EVENTS_PAGE_MAX)
        document = {
            "events": [event_document(event) for event in recent.after(after) if wanted(event, window)],
            "oldest": str(recent.oldest) if recent.oldest else None,
            "position": str(state.position),
            "age_s": round(age_s, 3) if math.isfinite(age_s) else None,
        }
        return Answer(document, state.position)

    async def _status(self, call: Call) -> Answer:  # noqa: ARG002 - one shape for all handlers
        state, readiness = self._ports.replica.state, self._ports.readiness()
        document = {
            "role": "api",
            "id": self._ports.server_id,
            "zone": self._ports.zone,
            "epoch": state.position.epoch,
            "position": state.position.position,
            "level": state.level,
            "state_hash": state_hash(state),
            "ready": readiness.ready,
            "reason": readiness.reason,
        }
        if self._ports.members is not None:
            # Status is asked for most when etcd is away: it must answer then, with what this server knows itself.
            with contextlib.suppress(Unavailable):
                document["members"] = [dict(member) for member in await self._ports.members()]
        return Answer(document, state.position)

    async def _rollback(self, call: Call) -> Answer:
        members, account = call.members, call.members.get("account", call.caller.account)
        now = await confirmed_state(self._ports)
        to = _position(members["to"], now, "to")
        then = await self._in_time(state_at(self._ports.history, to))
        if to not in (then.position, ORIGIN):
            raise BadRequest(f"to: the log has no position {to}")
        if members.get("dry_run", False):
            return _plan(now, then, account, members["mesh"])
        command = Rollback(account, members["mesh"], then, members.get("allow_mesh_deletion", False))
        outcome = await self._commands.submit(command, origin_of("RollbackMesh", call))
        if not outcome.written:
            return Answer({"position": None, "changes": [], "refused": []}, outcome.position)
        if outcome.decided is not None:
            before, events = outcome.decided
            changes = [_change(before, change) for event in events for change in event.data["changes"]]
        else:
            changes = await self._in_time(self._changes_at(outcome.position))
        return Answer({"position": outcome.position.position, "changes": changes, "refused": []}, outcome.position)

    async def _changes_at(self, position: Position) -> list[dict[str, Any]]:
        """What a rollback in the log did, read from the log: for a repeated call, whose first answer it equals."""
        history = self._ports.history
        before = await state_at(history, Position(position.epoch, position.position - 1))
        event = await event_at(history, position)
        if event is None or event.data is None:
            raise Unavailable(f"The rollback is in the log at {position}, which cannot be read right now")
        return [_change(before, change) for change in event.data["changes"]]

    async def _in_time(self, reading: Awaitable[Result]) -> Result:
        """History is read by a follower, which would wait for a cut-off store for ever."""
        within_s = self._ports.read_deadline_s
        try:
            async with asyncio.timeout(within_s):
                return await reading
        except TimeoutError:
            raise Unavailable(f"The log could not be read within {within_s:g} s. Try again.") from None

    async def _sign(self, call: Call) -> Answer:
        ports = self._ports
        node = parse_node_id(call.members["node"], call.caller.account)
        present(await confirmed_state(ports), node.key)
        issued = ports.signer.sign(node, call.members["csr_pem"].encode(), ports.clock.now_us())
        command = IssueProxyIdentity(node.key, issued.serial, issued.not_after_us)
        outcome = await self._commands.submit(command, origin_of("IssueProxyIdentity", call))
        document = {
            "node": str(node),
            "certificate_pem": issued.certificate_pem,
            "chain": issued.chain,
            "ca": issued.ca,
            "not_after": _iso_seconds(issued.not_after_us),
            "xds": [{"zone": endpoint.zone, "address": endpoint.address} for endpoint in ports.xds_endpoints()],
        }
        return Answer(document, outcome.position)


def _route(
    target: str,
    action: str,
    read: Callable[[SignedRequest, Mapping[str, str]], dict[str, Any]],
    keys: Callable[[Caller, Mapping[str, Any]], list[ResourceKey]],
    handle: Callable[[Call], Awaitable[Answer]],
) -> Route:
    method, name = target.split()
    return Route(method, PREFIX + name, f"{MESHLOG}:{action}", (MESHLOG, APPMESH), read, keys, handle)


def _plan(now: State, then: State, account: str, mesh: str) -> Answer:
    home = mesh_key(account, mesh)
    if home not in then.resources:
        present(now, home)
    plan = plan_rollback(now, then, account, mesh)
    changes = [_change(now, change.data()) for change in plan.changes]
    return Answer({"position": None, "changes": changes, "refused": list(plan.refusals)}, now.position)


def _change(before: State, change: Mapping[str, Any]) -> dict[str, Any]:
    """{resource, change: created|updated|deleted, before, after}: each of the two {version, spec, tags} or null."""
    key = key_of(change["key"])
    old = before.get(key)
    gone = change["spec"] is None
    return {
        "resource": key.path,
        "change": "deleted" if gone else ("updated" if old else "created"),
        "before": {"version": old.version, "spec": thaw(old.spec), "tags": thaw(old.tags)} if old else None,
        "after": None if gone else {
            "version": change["version"], "spec": thaw(change["spec"]), "tags": thaw(change["tags"]),
        },
    }  # fmt: skip


def _position(value: int | str, now: State, member: str) -> Position:
    """A position of the log as it is now; `value` is a number or `<epoch>.<position>`."""
    if isinstance(value, int) and value < 0:
        raise BadRequest(f"{member}: {value} is before the log's beginning, which is position 0")
    try:
        found = parse_position(str(value), now.position.epoch)
    except (BadRequest, ValueError) as error:
        raise BadRequest(f"{member}: '{str(value)[:80]}' is not a log position: write 42, or 1.42") from error
    if found.position == 0:
        return ORIGIN
    if found > now.position:
        raise BadRequest(f"{member}: the log is at {now.position} and has no position {found} yet")
    return found


def _limit(text: str | None) -> int:
    if text is None:
        return _DEFAULT_LIMIT
    if not (text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= EVENTS_PAGE_MAX):
        raise BadRequest(f"limit: '{text[:80]}' must be a number from 1 to {EVENTS_PAGE_MAX}")
    return int(text)


def _iso_seconds(time_us: int) -> str:
    return datetime.datetime.fromtimestamp(time_us // 1_000_000, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _read_query(request: SignedRequest, path_members: Mapping[str, str]) -> dict[str, Any]:  # noqa: ARG001
    return dict(query_members(request.query))


def _reader(fields: Fields) -> Callable[[SignedRequest, Mapping[str, str]], dict[str, Any]]:
    def read(request: SignedRequest, path_members: Mapping[str, str]) -> dict[str, Any]:  # noqa: ARG001
        members = parse_object(request.body)
        known = ", ".join(fields)
        problems = [f"{name[:80]}: is not a known field (known: {known})" for name in members if name not in fields]
        for name, (kind, required) in fields.items():
            if name not in members:
                problems += [f"{name}: is required"] if required else []
            elif not isinstance(members[name], kind) or (kind is not bool and isinstance(members[name], bool)):
                problems.append(f"{name}: must be {_TYPE_NAMES[kind]}")
        if problems:
            raise BadRequest("; ".join(problems))
        if "clientToken" in members:
            check_client_token(members["clientToken"])
        return members

    return read


def _nothing(caller: Caller, members: Mapping[str, Any]) -> list[ResourceKey]:  # noqa: ARG001
    return []


def _own_mesh(caller: Caller, members: Mapping[str, Any]) -> list[ResourceKey]:
    if "mesh" not in members:
        return []
    return [mesh_key(members.get("account", caller.account), members["mesh"])]


def _node_key(caller: Caller, members: Mapping[str, Any]) -> list[ResourceKey]:
    node: NodeId = parse_node_id(members["node"], caller.account)
    return [node.key]
