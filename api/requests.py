"""What the routes of `/meshlog/v1/` share: how one is made, how bodies and queries are read, how a moment is named.

A moment is a position (`42`, `1.42`) or a time (ISO 8601 with its zone): the server guesses no zones.
"""

from __future__ import annotations

import asyncio
import datetime
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from api.authorization import Targets
from api.body import parse_object
from api.calls import Answer, Call, query_members
from api.ports import ApiPorts
from api.routes import Found, Route, Router
from identity.caller import Caller
from identity.node_id import parse_node_id
from identity.sigv4 import APPMESH, MESHLOG, SignedRequest
from mesh.errors import BadRequest, Unavailable
from mesh.kinds import ResourceKey, mesh_key
from mesh.position import ORIGIN, Position, parse_position
from mesh.rules import check_client_token
from mesh.state import State
from runtime.limits import MOMENT_AHEAD_US

Result = TypeVar("Result")

PREFIX = "/meshlog/v1/"

Fields = Mapping[str, tuple[type | tuple[type, ...], bool]]
"""Members of a body: their types, and whether they must be there."""

_TYPE_NAMES = {
    str: "a string",
    bool: "true or false",
    list: "a list of strings",
    int: "a whole number",
    (int, str): "a position",
    (int, type(None)): "a whole number or null",
    (str, dict): "a policy document, as JSON text or as an object",
    dict: "an object of strings",
}
_POSITION = re.compile(r"-?[0-9]+(\.[0-9.]*)?", re.ASCII)


def route(
    target: str,
    action: str,
    read: Callable[[SignedRequest, Mapping[str, str]], dict[str, Any]],
    targets: Callable[[Caller, Mapping[str, Any]], Targets],
    handle: Callable[[Call], Awaitable[Answer]],
) -> Route:
    """A route of `target`, which is method and name; `action` is of Meshlog's own unless it names its service."""
    method, name = target.split()
    full = action if ":" in action else f"{MESHLOG}:{action}"
    return Route(method, PREFIX + name, full, (MESHLOG, APPMESH), read, targets, handle)


def router_of(routes: Iterable[Route]) -> Router:
    """A router over routes whose paths have no members."""
    by_target = {(each.method, each.path): each for each in routes}

    def find(request: SignedRequest) -> Found | None:
        found = by_target.get((request.method, request.path))
        return Found(found, {}) if found else None

    return Router(tuple(by_target.values()), find)


@dataclass(frozen=True, slots=True)
class QueryReader:
    """A reader of queries with all of `required` and none but `known` members; BadRequest tells all that is wrong."""

    known: tuple[str, ...]
    required: tuple[str, ...] = ()

    def __call__(self, request: SignedRequest, path_members: Mapping[str, str]) -> dict[str, Any]:  # noqa: ARG002
        members = dict(query_members(request.query))
        known = f"known: {', '.join(self.known)}" if self.known else "it has none"
        problems = [
            f"{name[:80]}: is not a known member of this query ({known})" for name in members if name not in self.known
        ]
        problems += [f"{name}: is required" for name in self.required if name not in members]
        if problems:
            raise BadRequest("; ".join(problems))
        return members


@dataclass(frozen=True, slots=True)
class BodyReader:
    """A reader of JSON bodies that have these fields and no others; BadRequest tells all that is wrong."""

    fields: Fields

    def __call__(self, request: SignedRequest, path_members: Mapping[str, str]) -> dict[str, Any]:  # noqa: ARG002
        members = parse_object(request.body)
        known = ", ".join(self.fields)
        problems = [
            f"{name[:80]}: is not a known field (known: {known})" for name in members if name not in self.fields
        ]
        for name, (kind, required) in self.fields.items():
            if name not in members:
                problems += [f"{name}: is required"] if required else []
            elif not _is(members[name], kind):
                problems.append(f"{name}: must be {_TYPE_NAMES[kind]}")
        if problems:
            raise BadRequest("; ".join(problems))
        if "clientToken" in members:
            check_client_token(members["clientToken"])
        return members


def read_query(*known: str, required: tuple[str, ...] = ()) -> QueryReader:
    """A reader of queries that have all of `required`, and no members but these and `known`."""
    return QueryReader((*required, *known), required)


def read_body(fields: Fields) -> BodyReader:
    """A reader of JSON bodies that have these fields and no others."""
    return BodyReader(fields)


def _is(value: Any, kind: type | tuple[type, ...]) -> bool:
    if kind is list:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def nothing(caller: Caller, members: Mapping[str, Any]) -> list[ResourceKey]:  # noqa: ARG001
    """The keys of a route that touches no resource."""
    return []


def named_node(caller: Caller, members: Mapping[str, Any]) -> list[ResourceKey]:
    """The virtual node or gateway that `node` names."""
    return [parse_node_id(members["node"], caller.account).key]


def own_mesh(caller: Caller, members: Mapping[str, Any]) -> list[ResourceKey]:
    """The keys of a route about a mesh, or about all of an account, if it names one."""
    if "mesh" not in members and "account" not in members:
        return []
    return [mesh_key(members.get("account", caller.account), members.get("mesh", "*"))]


def one_of(value: str, member: str, known: Iterable[str]) -> str:
    """The one of `known` that `value` is, in any case of letters; BadRequest otherwise."""
    for each in known:
        if each.lower() == value.lower():
            return each
    raise BadRequest(f"{member}: '{value[:80]}' is none of {', '.join(known)}")


def position_of(value: int | str, now: State, member: str) -> Position:
    """A position of the log as it is now; `value` is a number or `<epoch>.<position>`."""
    if isinstance(value, int) and value < 0:
        raise BadRequest(f"{member}: {value} is before the log's beginning, which is position 0")
    text = str(value)
    try:
        found = parse_position(text, now.position.epoch)
    except (BadRequest, ValueError) as error:
        raise BadRequest(f"{member}: '{text[:80]}' is not a log position: write 42, or 1.42") from error
    if found.position == 0:
        return ORIGIN
    on_timeline = now.at(found.position)
    if found.position > now.position.position or found.epoch > now.position.epoch:
        raise BadRequest(f"{member}: the log is at {now.position} and has no position {found} yet")
    if "." in text and found != on_timeline:
        raise BadRequest(
            f"{member}: position {found} was left behind by a restore; in its place the log has {on_timeline}"
        )
    return on_timeline


def time_of(text: str, member: str) -> int:
    """Microseconds since the epoch of an ISO 8601 time with its zone; BadRequest otherwise."""
    try:
        at = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise BadRequest(
            f"{member}: '{text[:80]}' is neither a log position (42, 1.42) nor a time (2026-11-22T10:42:00Z)"
        ) from error
    if at.tzinfo is None:
        raise BadRequest(f"{member}: '{text[:80]}' has no zone: end it with Z or an offset such as +01:00")
    return (at - datetime.datetime.fromtimestamp(0, datetime.UTC)) // datetime.timedelta(microseconds=1)


def is_position(value: int | str) -> bool:
    return isinstance(value, int) or _POSITION.fullmatch(value) is not None


async def moment_of(ports: ApiPorts, value: int | str, now: State, member: str) -> Position:
    """The position of the state at a moment: the position itself, or the last one at or before a time."""
    if is_position(value):
        return position_of(value, now, member)
    time_us = time_of(str(value), member)
    if time_us > ports.clock.now_us() + MOMENT_AHEAD_US:
        raise BadRequest(f"{member}: {str(value)[:80]} has not come yet, so nobody knows what will be then")
    return await ports.history.position_at(time_us, now)


async def bound_of(ports: ApiPorts, value: str, now: State, member: str, *, first: bool) -> Position:
    """The end of a stretch of events: the last that belongs to it; or, if `first`, the last one before it.

    A time that has not come yet is as good as now here.
    """
    if is_position(value):
        position = position_of(value, now, member)
        return now.at(max(position.position - 1, 0)) if first else position
    return await ports.history.position_at(time_of(value, member) - (1 if first else 0), now)


async def in_time(ports: ApiPorts, reading: Awaitable[Result]) -> Result:
    """History is read from stores that may be slow or cut off: not for ever."""
    try:
        async with asyncio.timeout(ports.read_deadline_s):
            return await reading
    except TimeoutError:
        raise Unavailable(
            f"The log could not be read within {ports.read_deadline_s:g} s. Try again: what was read is kept."
        ) from None
