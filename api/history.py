"""The log read again: events as documents for people, and the state after any position. Reads only; redacts secrets."""

from __future__ import annotations

import datetime
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

from api.ports import EventHistory
from eventlog.follower import Follower
from mesh.events import (
    ACCESS_KEY_CREATED,
    LEVEL_RAISED,
    LOG_RESTORED,
    MESH_ROLLED_BACK,
    PROXY_IDENTITY_ISSUED,
    RESOURCE_CREATED,
    RESOURCE_DELETED,
    RESOURCE_UPDATED,
    TAGS_CHANGED,
    Event,
)
from mesh.evolve import evolve, key_of
from mesh.frozen import thaw
from mesh.kinds import ResourceKey, mesh_key
from mesh.position import ORIGIN, Position
from mesh.state import State
from projector.replica import event_of
from runtime.limits import EVENTS_PAGE_BYTES

_REDACTED = "(secret)"


class LogHistory:
    """`EventHistory` over the log itself: a follower from the start, left once it is far enough."""

    def __init__(self, follower: Callable[[], Follower]) -> None:
        self._follower = follower

    async def read(self, upto: Position) -> AsyncIterator[Sequence[Event]]:
        """Every event up to and with `upto`, in batches."""
        if upto <= ORIGIN:
            return
        async with aclosing(self._follower().follow()) as batches:
            async for batch in batches:
                events = [event_of(record) for record in batch.records if record.position <= upto]
                if events:
                    yield events
                if batch.head.head.at >= upto:
                    return


async def state_at(history: EventHistory, position: Position) -> State:
    """The fold of the log up to and with `position`."""
    state = State()
    async for events in history.read(position):
        for event in events:
            state = evolve(state, event)
    return state


async def event_at(history: EventHistory, position: Position) -> Event | None:
    """The event at `position`."""
    async for events in history.read(position):
        for event in events:
            if event.position == position:
                return event
    return None


class Window(NamedTuple):
    """Which events a caller asked for: those of `account` (and of `mesh`) after a position, at most `limit`."""

    account: str
    mesh: str | None
    after: Position
    limit: int


async def events_page(
    history: EventHistory, upto: Position, window: Window
) -> tuple[list[dict[str, Any]], Position | None]:
    """The events as documents, oldest first, and the position to ask for more after (None: there are no more)."""
    found: list[dict[str, Any]] = []
    size_bytes = 0
    last = window.after
    async for events in history.read(upto):
        for event in events:
            if event.position <= window.after or not wanted(event, window):
                continue
            if len(found) >= window.limit or size_bytes > EVENTS_PAGE_BYTES:
                return found, last
            found.append(event_document(event))
            size_bytes += len(json.dumps(found[-1]["data"]))
            last = event.position
    return found, None


def event_document(event: Event) -> dict[str, Any]:
    """{position, epoch, time, type, actor, account, mesh, resource, source_ip, request_id, summary, data}.

    `time` is the log's, ISO 8601 in UTC; `resource` is the path of an ARN; secrets in `data` are redacted.
    """
    key = _key(event)
    return {
        "position": event.position.position,
        "epoch": event.position.epoch,
        "time": _iso(event.time_us),
        "type": event.type,
        "actor": event.actor,
        "account": key.account if key else event.account,
        "mesh": key.mesh if key else None,
        "resource": key.path if key else None,
        "source_ip": event.source_ip,
        "request_id": event.request_id,
        **({"version": 1} if event.type == RESOURCE_CREATED else {}),
        "summary": _SUMMARIES.get(event.type, _plain)(event.data or {}, key),
        "data": _public_data(event),
    }


def wanted(event: Event, window: Window) -> bool:
    """Whether an event is one that the window's caller may see and asked for (positions aside)."""
    key = _key(event)
    if window.mesh is None:  # what is about no mesh is about the whole cluster
        return window.account in (event.account, key.account if key else event.account)
    return key is not None and (key.account, key.mesh) == (window.account, window.mesh)


def _key(event: Event) -> ResourceKey | None:
    """The resource that an event is about; a rollback is about its mesh."""
    data = event.data or {}
    if event.type == MESH_ROLLED_BACK:
        return mesh_key(data["account"], data["mesh"])
    if event.type == PROXY_IDENTITY_ISSUED:
        return key_of(data["node"])
    return key_of(data["key"]) if "key" in data else None


def _public_data(event: Event) -> dict[str, Any]:
    data: dict[str, Any] = thaw(event.data or {})
    if "secret" in data:
        data["secret"] = _REDACTED
    return data


def _iso(time_us: int) -> str:
    at = datetime.datetime.fromtimestamp(time_us // 1_000_000, datetime.UTC).replace(microsecond=time_us % 1_000_000)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _plain(data: Mapping[str, Any], key: ResourceKey | None) -> str:  # noqa: ARG001 - one shape for the table
    return ""


def _path(key: ResourceKey | None) -> str:
    return key.path if key else "?"


def _tags(data: Mapping[str, Any], key: ResourceKey | None) -> str:
    put = [f"{name}={value}" for name, value in data["set"].items()]
    taken = [f"-{name}" for name in data["unset"]]
    return f"tags of {_path(key)}: {' '.join(put + taken)}"


def _rolled_back(data: Mapping[str, Any], key: ResourceKey | None) -> str:
    epoch, position = data["to"]
    return f"{_path(key)} back to {epoch}.{position}: {len(data['changes'])} resources changed"


_SUMMARIES: Mapping[str, Callable[[Mapping[str, Any], ResourceKey | None], str]] = {
    RESOURCE_CREATED: lambda _, key: f"{_path(key)} created",
    RESOURCE_UPDATED: lambda _, key: f"{_path(key)} updated",
    RESOURCE_DELETED: lambda _, key: f"{_path(key)} deleted",
    TAGS_CHANGED: _tags,
    MESH_ROLLED_BACK: _rolled_back,
    ACCESS_KEY_CREATED: lambda data, _: f"access key {data.get('access_key_id', '?')} for {data.get('principal', '?')}",
    PROXY_IDENTITY_ISSUED: lambda data, key: f"certificate {data['serial']} for a proxy of {_path(key)}",
    LEVEL_RAISED: lambda data, _: f"cluster level {data['level']}",
    LOG_RESTORED: lambda data, _: f"log restored to {data['from_epoch']}.{data['position']} ({data['to']})",
}
