"""Two states of the same meshes side by side, as documents: what was added, changed or taken away, by whom and when.

Specs and tags count; versions, times and uids alone make no difference. Pure but for looking up who made a change.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from api.history import iso, shown_actor
from api.past import events_at
from api.ports import EventHistory
from mesh.evolve import key_of
from mesh.frozen import thaw
from mesh.kinds import ResourceKey
from mesh.position import ORIGIN, Position
from mesh.state import Resource, State
from runtime.limits import DIFF_PAGE_BYTES, DIFF_PAGE_MAX, PROVENANCE_MAX


class Side(NamedTuple):
    """What a resource is on one side of a change."""

    version: int
    spec: Mapping[str, Any]
    tags: Mapping[str, str]


def side_of(resource: Resource | None, viewer: str) -> Side | None:
    """A resource as a side; None where it is not there. Its tags are told to the account that made it alone."""
    if resource is None:
        return None
    return Side(resource.version, thaw(resource.spec), thaw(resource.tags) if resource.owner == viewer else {})


def change_document(key: ResourceKey, before: Side | None, after: Side | None) -> dict[str, Any]:
    """{resource, change: created|updated|deleted, before, after}: each of the two {version, spec, tags} or null."""
    change = "deleted" if after is None else "updated" if before else "created"
    sides = {"before": before._asdict() if before else None, "after": after._asdict() if after else None}
    return {"resource": key.path, "change": change, **sides}


def planned_document(before: State, change: Mapping[str, Any], viewer: str) -> dict[str, Any]:
    """One change of a rollback event, or of a plan for one, beside what is there before it."""
    key, after = key_of(change["key"]), None
    if change["spec"] is not None:
        after = Side(change["version"], thaw(change["spec"]), thaw(change["tags"]) if change["owner"] == viewer else {})
    return change_document(key, side_of(before.get(key), viewer), after)


def moment_document(state: State) -> dict[str, Any]:
    """{position, epoch, time}: where a state stands; `time` is that of its last event, null before the first."""
    time = iso(state.time_us) if state.position.position else None
    return {"position": state.position.position, "epoch": state.position.epoch, "time": time}


def differing(before: State, after: State, account: str, mesh: str | None) -> Iterator[ResourceKey]:
    """The keys of what differs, in a mesh or in all of an account's, sorted by path."""
    homes = [(account, mesh)] if mesh is not None else [home for home in _homes(before, after) if home[0] == account]
    keys = {key for state in (before, after) for home in homes for key in state.of_mesh.get(home) or ()}
    for key in sorted(keys, key=lambda key: key.path):
        old, new = before.get(key), after.get(key)
        if old is new or (old and new and old.spec == new.spec and old.tags == new.tags):
            continue
        yield key


def _homes(*states: State) -> set[tuple[str, str]]:
    return {home for state in states for home in state.of_mesh}


def page_of(
    keys: Iterable[ResourceKey], document_of: Callable[[ResourceKey], dict[str, Any]], after_path: str
) -> tuple[dict[ResourceKey, dict[str, Any]], str | None]:
    """The documents of `keys` (sorted by path) beyond `after_path`, and the path to go on after (None: no more)."""
    page: dict[ResourceKey, dict[str, Any]] = {}
    size_bytes, last = 0, after_path
    for key in keys:
        if key.path <= after_path:
            continue
        # Two accounts' meshes may have one name, and so one path: they go on one page.
        if key.path != last and (len(page) >= DIFF_PAGE_MAX or size_bytes > DIFF_PAGE_BYTES):
            return page, last
        page[key] = document_of(key)
        size_bytes += len(json.dumps(page[key]))
        last = key.path
    return page, None


def with_places(later: State, documents: Mapping[ResourceKey, dict[str, Any]]) -> list[dict[str, Any]]:
    """The documents with `last_change`, {position, epoch} of what made each what it is in `later`, or null."""
    at = last_changes(later, documents)
    return [{**document, "last_change": _place(at.get(key))} for key, document in documents.items()]


async def with_provenance(
    history: EventHistory,
    now: State,
    later: State,
    documents: Mapping[ResourceKey, dict[str, Any]],
    viewer: str,
) -> list[dict[str, Any]]:
    """As `with_places`, and the event's {time, type, actor}, read from the log, as `viewer` may know it."""
    at = last_changes(later, documents)
    wanted = sorted(set(at.values()))[-PROVENANCE_MAX:]
    told = {
        position: {
            **(_place(position) or {}),
            "time": iso(event.time_us),
            "type": event.type,
            "actor": shown_actor(event, viewer),
        }
        for position, event in (await events_at(history, wanted, now)).items()
    }
    return [{**document, "last_change": told.get(at.get(key, ORIGIN))} for key, document in documents.items()]


def _place(position: Position | None) -> dict[str, Any] | None:
    return None if position is None else {"position": position.position, "epoch": position.epoch}


def last_changes(state: State, keys: Iterable[ResourceKey]) -> dict[ResourceKey, Position]:
    """The position of the last change of each key in `state`, its deletion included, as far as it is remembered."""
    found: dict[ResourceKey, Position] = {}
    gone: set[ResourceKey] = set()
    for key in keys:
        living = state.get(key)
        if living is None:
            gone.add(key)
        else:
            found[key] = living.changed_at
    for stone in state.deleted.values() if gone else ():
        if stone.key in gone:
            found[stone.key] = max(found.get(stone.key, ORIGIN), stone.deleted_at)
    return found
