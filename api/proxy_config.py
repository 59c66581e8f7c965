"""What a node's Envoys are given at a moment, and which events are behind one of its resources.

GET proxies/config?node=&at=&why=&specs=   {at, registry, node, resources: [...], alarms: [...], why: {...} | null}

A resource is {resource: `Cluster/<name>`, version, spec}; `specs=no` leaves `spec` out. With `why`, which names one of
them, it alone is answered, and {causes, named_by}: a cause is {what, role, log, deletion, fields, event}, its event
{position, epoch, time, type, actor} or null. Endpoints and instances are the registry's of the present. Takes
`min_position`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from api.calls import Answer, Call
from api.changes import moment_document
from api.history import Window, events_page, iso, shown_actor
from api.past import PastStates, events_at
from api.ports import ApiPorts
from api.reads import MIN_POSITION, reading, registry_at_hand
from api.requests import in_time, moment_of, named_node, one_of, read_query, route, router_of
from api.routes import Router
from identity.node_id import parse_node_id
from mesh.errors import NotFound
from mesh.events import TAGS_CHANGED
from mesh.in_use import titled
from mesh.kinds import ResourceKey
from mesh.position import Position
from mesh.sharing import check_visible_at
from mesh.state import State
from runtime.limits import EVENTS_CHUNK

if TYPE_CHECKING:
    from projector.envoy.explained import Cause, Explanation

_QUERY = ("at", "why", "specs", MIN_POSITION)


class ProxyConfigApi:
    """The handler, bound to one server's ports."""

    def __init__(self, ports: ApiPorts, past: PastStates) -> None:
        self._ports, self._past = ports, past

    def router(self) -> Router:
        """Its route."""
        query = read_query(*_QUERY, required=("node",))
        return router_of([route("GET proxies/config", "GetProxyConfig", query, named_node, self._config)])

    async def _config(self, call: Call) -> Answer:
        members = call.members
        specs = one_of(members.get("specs", "yes"), "specs", ("yes", "no")) == "yes"
        node = parse_node_id(members["node"], call.caller.account)
        now = (await reading(self._ports, call)).state
        state = now
        if "at" in members:
            at = await in_time(self._ports, moment_of(self._ports, members["at"], now, "at"))
            state = await in_time(self._ports, self._past.at(at, now))
        check_visible_at(now, node.account, node.mesh, call.caller.account, state.position)
        registry = registry_at_hand(self._ports)
        document = {
            "at": moment_document(state),
            "registry": str(registry.position),
            "node": str(node),
            "why": None,
        }
        # The resource classes take a second to load: only in a server that is asked for this, and beside its loop.
        from projector.envoy import configured  # noqa: PLC0415

        if "why" not in members:
            found = await asyncio.to_thread(configured.configured, state, registry, node, specs=specs)
            if found is None:
                raise NotFound(f"{titled(node.key)} is not there after position {state.position}")
            return Answer({**document, "resources": found.resources, "alarms": list(found.alarms)}, now.position)
        told = await asyncio.to_thread(configured.explained, state, registry, node, members["why"])
        if told is None:
            raise NotFound(
                f"{node} has no {members['why'][:300]} after position {state.position}: `meshlog proxy config` without "
                "--why lists what it has"
            )
        why = await in_time(self._ports, self._why(told.explanation, now, call.caller.account))
        return Answer({**document, "resources": [told.resource], "alarms": [], "why": why}, now.position)

    async def _why(self, explanation: Explanation, now: State, viewer: str) -> dict[str, Any]:
        events = await self._events(explanation, now, viewer)
        causes = [
            {
                "what": cause.what,
                "role": str(cause.role),
                "log": str(cause.log),
                "deletion": cause.deletion,
                "fields": list(cause.fields),
                "event": events.get(cause.position) if cause.log == "mesh" and cause.position else _place(cause),
            }
            for cause in explanation.causes
        ]
        return {"causes": causes, "named_by": list(explanation.named_by)}

    async def _events(self, explanation: Explanation, now: State, viewer: str) -> Mapping[Position, dict[str, Any]]:
        """What is told of the event behind each cause, by the position that the state has for it."""
        keys = {cause.position: cause.key for cause in explanation.causes if cause.log == "mesh" and cause.position}
        told: dict[Position, dict[str, Any]] = {}
        for position, event in (await events_at(self._ports.history, list(keys), now)).items():
            key = keys[position]
            told[position] = {
                "position": event.position.position,
                "epoch": event.position.epoch,
                "time": iso(event.time_us),
                "type": event.type,
                "actor": shown_actor(event, viewer),
            }
            if event.type == TAGS_CHANGED and key is not None:
                told[position] = await self._before_tags(key, position, now, viewer) or told[position]
        return told

    async def _before_tags(
        self, key: ResourceKey, position: Position, now: State, viewer: str
    ) -> dict[str, Any] | None:
        """The event that made the specification, where the last change was one of tags."""
        begins = await self._ports.history.begins()
        upto = now.at(position.position - 1)
        while upto > begins:
            window = Window(
                key.account, key.mesh, begins, EVENTS_CHUNK, upto=upto, newest_first=True, kind=key.kind, name=key.path,
                viewer=viewer,
            )  # fmt: skip
            page = await events_page(self._ports.history, now, window)
            for event in page.events:
                if event["type"] != TAGS_CHANGED:
                    return {name: event[name] for name in ("position", "epoch", "time", "type", "actor")}
            if not page.more:
                return None
            upto = now.at(page.reached.position - 1)
        return None


def _place(cause: Cause) -> dict[str, Any] | None:
    """What is known where no event of the mesh's log is: a position of the registry's, or a time."""
    if cause.position is not None:
        return {"position": cause.position.position, "epoch": cause.position.epoch}
    return {"time": iso(cause.time_us)} if cause.time_us is not None else None
