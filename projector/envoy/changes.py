"""Events to the keys of the resources whose specs they may have changed: what `Compiler.affected` is asked about."""

from __future__ import annotations

from collections.abc import Iterable

from mesh.events import MESH_ROLLED_BACK, RESOURCE_CREATED, RESOURCE_DELETED, RESOURCE_UPDATED, Event
from mesh.evolve import key_of
from mesh.kinds import ResourceKey

_OF_ONE = (RESOURCE_CREATED, RESOURCE_UPDATED, RESOURCE_DELETED)


def changed_keys(events: Iterable[Event]) -> set[ResourceKey]:
    """The resources made, updated, deleted or rolled back. Tags, credentials and levels change no Envoy resource."""
    found: set[ResourceKey] = set()
    for event in events:
        if event.data is None:
            continue
        if event.type in _OF_ONE:
            found.add(key_of(event.data["key"]))
        elif event.type == MESH_ROLLED_BACK:
            found.update(key_of(change["key"]) for change in event.data["changes"])
    return found
