"""From registry events to the services whose endpoints they may have changed: what has to be compiled anew. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from mesh.events import Happened
from mesh.registry.events import OF_SERVICE
from mesh.registry.state import ServiceKey


def changed_services(events: Iterable[Happened]) -> set[ServiceKey]:
    """The services that an event is about, by the names that specifications give."""
    return {
        ServiceKey(*event.data["service"]) for event in events if event.type in OF_SERVICE and event.data is not None
    }
