"""`GET /meshlog/v1/audit`: accepted calls from both logs and refused ones from the archive, as one trail in time.

    ?status=accepted|refused&since=&until=&actor=&source_ip=&mesh=&limit=&after=&min_position=
                                     → {events: [...], next: text | null}

An answer may be short, or even empty, and still have a `next`: a page looks only so far.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import datetime
import json
import math
from collections.abc import Mapping

from api.audit_sources import (
    BEGINNING,
    Accepted,
    Question,
    RefusedCursor,
    RefusedTrail,
    Stretch,
    accepted_stretch,
    merge,
)
from api.calls import Answer, Call
from api.ports import ApiPorts
from api.reads import MIN_POSITION, reading
from api.registry_trail import registry_call
from api.requests import nothing, read_query, route, router_of
from api.routes import Router
from api.trail import accepted_call
from mesh.errors import BadRequest, Unavailable
from mesh.position import ORIGIN, Position, parse_position
from mesh.principals import AccessKey
from mesh.sharing import is_operator
from mesh.state import State
from runtime.limits import AUDIT_PAGE_MAX, CONFIRM_TIMEOUT_S

ACCEPTED, REFUSED = "accepted", "refused"
_DEFAULT_LIMIT = 100
_QUERY = ("status", "since", "until", "actor", "source_ip", "mesh", "limit", "after", MIN_POSITION)


class AuditApi:
    """The route, bound to one server's ports."""

    def __init__(self, ports: ApiPorts) -> None:
        self._ports = ports
        audit = ports.audit
        self._trail = None if audit is None else RefusedTrail(audit.store, audit.keys, ports.region)

    def router(self) -> Router:
        """One route."""
        return router_of([route("GET audit", "LookupEvents", read_query(*_QUERY), nothing, self._lookup)])

    async def _lookup(self, call: Call) -> Answer:
        ports = self._ports
        state = (await reading(ports, call)).state
        question = _question(call, state)
        cursors = accepted, refused, registered = _cursors(call.members.get("after"))
        keys = tuple(state.access_keys.values())
        mesh = Accepted(ports.history, state.position, lambda event: accepted_call(event, ports.region, keys))
        confirmed = await self._registry_confirmed()
        beside = self._registry(keys)
        try:
            async with asyncio.timeout(ports.read_deadline_s):
                stretches = [Stretch((), cursor, math.inf) for cursor in cursors]
                if ACCEPTED in question.statuses:
                    stretches[0] = await accepted_stretch(mesh, accepted, question)
                if REFUSED in question.statuses and self._trail is not None:
                    stretches[1] = await self._trail.stretch(refused, question)
                if ACCEPTED in question.statuses and beside is not None:
                    stretches[2] = await accepted_stretch(beside, registered, question)
        except TimeoutError:
            raise Unavailable(
                f"The audit could not be read within {ports.read_deadline_s:g} s: ask for a shorter time"
            ) from None
        items, after = merge(stretches, cursors, question.limit)
        document = {"events": [item.document for item in items], "next": None if after is None else _token(*after)}
        if REFUSED in question.statuses and self._trail is None:
            document["notice"] = "This server keeps no refused calls, since no archive is set."
        if beside is not None and not confirmed:
            document["notice"] = "The registry's log cannot be followed here now: its newest calls may be missing."
        return Answer(document, state.position)

    async def _registry_confirmed(self) -> bool:
        """Whether the registry is folded up to a head confirmed from now on; one that stopped is read as it is."""
        registry = self._ports.registry
        if registry is None or registry.replica.halted is not None:
            return False
        try:
            await registry.replica.confirmed(CONFIRM_TIMEOUT_S)
        except Unavailable:
            return False
        return True

    def _registry(self, keys: tuple[AccessKey, ...]) -> Accepted | None:
        """The registry's log as far as it is folded here; None where this server has none."""
        region, registry = self._ports.region, self._ports.registry
        if registry is None or registry.history is None:
            return None
        upto = registry.replica.state.position
        return Accepted(registry.history, upto, lambda event: registry_call(event, region, keys))


def _question(call: Call, state: State) -> Question:
    members = call.members
    status = members.get("status")
    if status not in (None, ACCEPTED, REFUSED):
        raise BadRequest(f"status: '{status[:80]}' must be {ACCEPTED} or {REFUSED}, or left out for both")
    return Question(
        account=call.caller.account,
        statuses=frozenset({status} if status else {ACCEPTED, REFUSED}),
        since_us=_time(members, "since") or 0,
        until_us=_time(members, "until") or math.inf,
        actor=members.get("actor"),
        source_ip=members.get("source_ip"),
        mesh=members.get("mesh"),
        limit=_limit(members.get("limit")),
        operator=is_operator(state, call.caller.account),
    )


def _time(members: Mapping[str, str], name: str) -> int | None:
    text = members.get(name)
    if text is None:
        return None
    try:
        at = datetime.datetime.fromisoformat(text)
        if at.tzinfo is not None:
            since = at - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
            return since // datetime.timedelta(microseconds=1)
    except (ValueError, OverflowError):
        pass
    raise BadRequest(f"{name}: '{text[:80]}' must be a time with its zone, such as 2026-11-22T10:42:00Z")


def _limit(text: str | None) -> int:
    if text is None:
        return _DEFAULT_LIMIT
    if not (text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= AUDIT_PAGE_MAX):
        raise BadRequest(f"limit: '{text[:80]}' must be a number from 1 to {AUDIT_PAGE_MAX}")
    return int(text)


def _token(accepted: Position, refused: RefusedCursor, registered: Position) -> str:
    return base64.urlsafe_b64encode(json.dumps([str(accepted), refused, str(registered)]).encode()).decode()


def _cursors(token: str | None) -> tuple[Position, RefusedCursor, Position]:
    if token is None:
        return ORIGIN, BEGINNING, ORIGIN
    try:
        accepted, (time_us, server_id, seq, index), *registered = json.loads(
            base64.b64decode(token, altchars=b"-_", validate=True)
        )
        if all(type(each) is int for each in (time_us, seq, index)) and isinstance(server_id, str):
            positions = [parse_position(each, ORIGIN.epoch) for each in (accepted, *(registered or [str(ORIGIN)]))]
            mesh, beside = positions
            return mesh, (time_us, server_id, seq, index), beside
    except (binascii.Error, ValueError, TypeError, AttributeError, RecursionError, BadRequest):
        pass
    raise BadRequest("after: is not a token of this list; begin again without one")
