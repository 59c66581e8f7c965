"""What happened, over HTTP: the log's events, filtered here and not by the caller, a page at a time.

GET  events?mesh=&account=&since=&until=&actor=&kind=&name=&type=&order=oldest|newest&after=&before=&limit=&wait_s=
                                     {events: [...], next: position | null, reached: position, head: position}
GET  events?consistency=stale&after= the last ones, from memory: {events, oldest, position, age_s}; needs no etcd
Both take `min_position` (api.reads).

`since` and `until` are moments (api.requests), both included. To go on, `next` is given back as `after` (oldest first,
the default) or as `before` (newest first). `wait_s`: hold an answer without events back until there is one; `reached`
is what to ask after then.
"""

from __future__ import annotations

import re

from api.calls import Answer, Call
from api.history import Window, event_document, events_page, wanted
from api.ports import ApiPorts
from api.reads import READING, Reading, is_stale, reading
from api.requests import bound_of, in_time, one_of, own_mesh, position_of, read_query, route, router_of
from api.routes import Router
from mesh.errors import BadRequest, NotReady
from mesh.events import EVENT_TYPES
from mesh.kinds import KINDS
from mesh.position import ORIGIN, Position
from mesh.sharing import check_visible
from mesh.state import State
from runtime.limits import EVENTS_PAGE_MAX, FOLLOW_WAIT_MAX_S

_DEFAULT_LIMIT = 100
_MEMBERS = (
    "mesh", "account", "since", "until", "actor", "kind", "name", "type", "order", "after", "before", "limit", "wait_s",
    *READING,
)  # fmt: skip
_SECONDS = re.compile(r"\d{1,6}(\.\d{1,6})?", re.ASCII)


class EventsApi:
    """The handler, bound to one server's ports."""

    def __init__(self, ports: ApiPorts) -> None:
        self._ports = ports

    def router(self) -> Router:
        """Its route."""
        return router_of([route("GET events", "ListEvents", read_query(*_MEMBERS), own_mesh, self._events)])

    async def _events(self, call: Call) -> Answer:
        ports = self._ports
        wait_s = _seconds(call.members.get("wait_s", "0"))
        read = await reading(ports, call)
        if is_stale(call):
            return self._recent(call, read)
        state = read.state
        window = await in_time(ports, self._window(call, state))
        page = await in_time(ports, events_page(ports.history, state, window))
        if wait_s and not page.events and not page.more and window.upto is None and not window.newest_first:
            try:
                await ports.replica.wait_for(_next(state.position), wait_s)
            except NotReady:  # nothing came
                pass
            else:
                state = ports.replica.state
                _seen_after(call, state)  # the share may just have ended
                window = window._replace(after=page.reached)
                page = await in_time(ports, events_page(ports.history, state, window))
        document = {
            "events": page.events,
            "next": str(page.reached) if page.more else None,
            "reached": str(page.reached),
            "head": str(state.position),
        }
        return Answer(document, state.position)

    async def _window(self, call: Call, now: State) -> Window:
        members, ports = call.members, self._ports
        # Without a beginning: all that is kept, which after a trim or a retention is not all there ever was.
        if "after" in members:
            after = position_of(members["after"], now, "after")
        else:
            after = await in_time(ports, ports.history.begins())
        if "since" in members:
            after = _later(after, await bound_of(ports, members["since"], now, "since", first=True))
        after = _later(after, _seen_after(call, now))
        upto: Position | None = None
        if "until" in members:
            upto = await bound_of(ports, members["until"], now, "until", first=False)
        if "before" in members:
            before = await bound_of(ports, members["before"], now, "before", first=True)
            upto = before if upto is None else min(before, upto, key=lambda at: at.position)
        kind, event_type = members.get("kind"), members.get("type")
        return Window(
            account=members.get("account", call.caller.account),
            mesh=members.get("mesh"),
            after=after,
            limit=_limit(members.get("limit")),
            upto=upto,
            newest_first=one_of(members.get("order", "oldest"), "order", ("oldest", "newest")) == "newest",
            actor=members.get("actor"),
            kind=None if kind is None else one_of(kind, "kind", KINDS),
            name=members.get("name"),
            type=None if event_type is None else one_of(event_type, "type", EVENT_TYPES),
            viewer=call.caller.account,
        )

    def _recent(self, call: Call, read: Reading) -> Answer:
        """From memory alone, marked with its age. `oldest`: from that position on nothing is left out."""
        recent = self._ports.recent
        after = _later(position_of(call.members.get("after", "0"), read.state, "after"), _seen_after(call, read.state))
        viewer = call.caller.account
        account = call.members.get("account", viewer)
        window = Window(account, call.members.get("mesh"), after, EVENTS_PAGE_MAX, viewer=viewer)
        document = {
            "events": [event_document(event, viewer) for event in recent.after(after) if wanted(event, window)],
            "oldest": str(recent.oldest) if recent.oldest else None,
        }
        return read.answer(document)


def _seen_after(call: Call, now: State) -> Position:
    """Before which events of another account's mesh are not the caller's to see: its share is the first."""
    members, viewer = call.members, call.caller.account
    if "mesh" not in members or members.get("account", viewer) == viewer:
        return ORIGIN
    since = check_visible(now, members["account"], members["mesh"], viewer)
    return now.at(since.position - 1)


def _next(position: Position) -> Position:
    return Position(position.epoch, position.position + 1)


def _later(one: Position, other: Position) -> Position:
    return max(one, other, key=lambda at: at.position)


def _limit(text: str | None) -> int:
    if text is None:
        return _DEFAULT_LIMIT
    if not (text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= EVENTS_PAGE_MAX):
        raise BadRequest(f"limit: '{text[:80]}' must be a number from 1 to {EVENTS_PAGE_MAX}")
    return int(text)


def _seconds(text: str) -> float:
    if _SECONDS.fullmatch(text) is None:
        raise BadRequest(f"wait_s: '{text[:80]}' must be a number of seconds, at most {FOLLOW_WAIT_MAX_S:g}")
    return min(float(text), FOLLOW_WAIT_MAX_S)
