"""The last events that this server folded, kept in memory: what is still known of a log when no store can be asked.

A restore asks the living servers for them, to say who lost which write. Specs and secrets are not kept. It must never
be taken for the log: it is bounded, and as old as this server's fold.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mesh.events import (
    ACCESS_KEY_CREATED,
    AUTHORITY_KEY_KEPT,
    CERTIFICATE_IMPORTED,
    CERTIFICATE_ISSUED,
    MESH_ROLLED_BACK,
    RESOURCE_CREATED,
    RESOURCE_UPDATED,
    Event,
)
from mesh.position import Position
from mesh.state import State
from projector.replica import are_all
from runtime.limits import RECENT_EVENTS_KEPT


class RecentEvents:
    """A fold listener (`replica.subscribe(recent.folded)`)."""

    def __init__(self, kept: int = RECENT_EVENTS_KEPT) -> None:
        self._events: deque[Event] = deque(maxlen=kept)

    def folded(self, before: State, after: State, events: Sequence[Event]) -> None:  # noqa: ARG002 - a listener's shape
        if not are_all(before, events):
            self._events.clear()
        newest = events[-(self._events.maxlen or 0) :]
        self._events.extend(replace(event, data=_SLIM.get(event.type, _whole)(event.data)) for event in newest)

    @property
    def oldest(self) -> Position | None:
        """From here on nothing is missing; None when nothing is kept."""
        return self._events[0].position if self._events else None

    def after(self, position: Position) -> list[Event]:
        """What came after `position`, oldest first, as far as it is kept. Specs and secrets are left out."""
        return [event for event in self._events if event.position > position]


Data = Mapping[str, Any] | None


def _whole(data: Data) -> Data:
    return data


def _without(*left_out: str) -> Callable[[Data], Data]:
    def slim(data: Data) -> Data:
        return None if data is None else {name: value for name, value in data.items() if name not in left_out}

    return slim


def _rolled_back(data: Data) -> Data:
    return None if data is None else {**data, "changes": [{"key": change["key"]} for change in data["changes"]]}


_SLIM: Mapping[str, Callable[[Data], Data]] = {
    RESOURCE_CREATED: _without("spec"),
    RESOURCE_UPDATED: _without("spec"),
    ACCESS_KEY_CREATED: _without("secret"),
    AUTHORITY_KEY_KEPT: _without("secret"),
    CERTIFICATE_ISSUED: _without("secret", "chain"),
    CERTIFICATE_IMPORTED: _without("secret", "chain"),
    MESH_ROLLED_BACK: _rolled_back,
}
