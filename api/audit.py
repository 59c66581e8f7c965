"""`GET /meshlog/v1/audit`: accepted calls from the log and refused ones from the archive, as one trail in time.

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

from api.audit_sources import BEGINNING, Question, RefusedCursor, RefusedTrail, Stretch, accepted_stretch, merge
from api.calls import Answer, Call
from api.ports import ApiPorts
from api.reads import MIN_POSITION, reading
from api.requests import nothing, read_query, route, router_of
from api.routes import Router
from mesh.errors import BadRequest, Unavailable
from mesh.position import ORIGIN, Position, parse_position
from mesh.sharing import is_operator
from mesh.state import State
from runtime.limits import AUDIT_PAGE_MAX

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
        accepted, refused = _cursors(call.members.get("after"))
        try:
            async with asyncio.timeout(ports.read_deadline_s):
                stretches = [Stretch((), accepted, math.inf), Stretch((), refused, math.inf)]
                if ACCEPTED in question.statuses:
                    stretches[0] = await accepted_stretch(ports.history, state, accepted, question, ports.region)
                if REFUSED in question.statuses and self._trail is not None:
                    stretches[1] = await self._trail.stretch(refused, question)
        except TimeoutError:
            raise Unavailable(
                f"The audit could not be read within {ports.read_deadline_s:g} s: ask for a shorter time"
            ) from None
        items, after = merge(stretches, (accepted, refused), question.limit)
        document = {"events": [item.document for item in items], "next": None if after is None else _token(*after)}
        if REFUSED in question.statuses and self._trail is None:
            document["notice"] = "This server keeps no refused calls, since no archive is set."
        return Answer(document, state.position)


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


def _token(accepted: Position, refused: RefusedCursor) -> str:
    return base64.urlsafe_b64encode(json.dumps([str(accepted), refused]).encode()).decode()


def _cursors(token: str | None) -> tuple[Position, RefusedCursor]:
    if token is None:
        return ORIGIN, BEGINNING
    try:
        accepted, (time_us, server_id, seq, index) = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
        if all(type(each) is int for each in (time_us, seq, index)) and isinstance(server_id, str):
            return parse_position(accepted, ORIGIN.epoch), (time_us, server_id, seq, index)
    except (binascii.Error, ValueError, TypeError, AttributeError, RecursionError, BadRequest):
        pass
    raise BadRequest("after: is not a token of this list; begin again without one")
