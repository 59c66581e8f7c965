"""Events as documents for people: which of them a caller asked for, a page at a time, secrets redacted. Reads only.

A page is bounded by events, bytes and by how much of the log was looked at, so a filter that leaves little over costs
no more than one that leaves all. It says how far it looked, and whether there is more.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from api.ports import EventHistory
from mesh.arn import spelled
from mesh.events import (
    ACCESS_KEY_CREATED,
    ACCESS_KEY_DELETED,
    ACCESS_KEY_DISABLED,
    ACCESS_KEY_ENABLED,
    ACCESS_KEYS_USED,
    ACCOUNT_CREATED,
    AUTHORITY_CREATED,
    AUTHORITY_KEY_KEPT,
    AUTHORITY_RETIRED,
    AUTHORITY_ROOT_ADDED,
    AUTHORITY_ROOT_DROPPED,
    AUTHORITY_ROOT_PROMOTED,
    CERTIFICATE_DELETED,
    CERTIFICATE_IMPORTED,
    CERTIFICATE_ISSUED,
    DATA_KEYS_DRAWN,
    DATA_KEYS_REWRAPPED,
    INLINE_POLICY_DELETED,
    INLINE_POLICY_PUT,
    LEVEL_RAISED,
    LOG_RESTORED,
    MESH_ROLLED_BACK,
    MESH_SHARED,
    MESH_UNSHARED,
    POLICY_ATTACHED,
    POLICY_DELETED,
    POLICY_DETACHED,
    POLICY_PUT,
    PRINCIPAL_CREATED,
    PRINCIPAL_DELETED,
    PROXY_IDENTITY_ISSUED,
    QUOTA_CHANGED,
    RECORD_QUARANTINED,
    RESOURCE_CREATED,
    RESOURCE_DELETED,
    RESOURCE_UPDATED,
    TAGS_CHANGED,
    TRUST_POLICY_PUT,
    Event,
    subject,
)
from mesh.evolve import key_of
from mesh.frozen import thaw
from mesh.kinds import ResourceKey
from mesh.limits import NAMES_SHOWN
from mesh.position import Position
from mesh.state import State
from runtime.limits import EVENTS_CHUNK, EVENTS_PAGE_BYTES, EVENTS_SCAN_MAX

_REDACTED = "(secret)"


class Window(NamedTuple):
    """Which events a caller asked for: those of `account` after a position, at most `limit`; the rest narrows it down.

    Without `mesh` what is about no mesh is asked for too. `kind` and `name` mean what an event changed, so a rollback
    is found under every resource that it touched. `actor` is an ARN or what follows its last slash, `*` stands for any.
    `viewer` as in `event_document`.
    """

    account: str
    mesh: str | None
    after: Position
    limit: int
    upto: Position | None = None
    newest_first: bool = False
    actor: str | None = None
    kind: str | None = None
    name: str | None = None
    type: str | None = None
    viewer: str | None = None


class Page(NamedTuple):
    """Event documents in the order asked for. `reached`: up to where the log was looked at; `more`: it goes on there.

    Newest first, `reached` is the last position looked at: what is before it was not.
    """

    events: list[dict[str, Any]]
    reached: Position
    more: bool


async def events_page(history: EventHistory, now: State, window: Window) -> Page:
    """One page of what `window` asks for, of the timeline that led to `now`."""
    upto = window.upto or now.position
    found: list[dict[str, Any]] = []
    size_bytes = scanned = 0
    reached = upto if window.newest_first else window.after
    async for event in _in_order(history, now, window, upto):
        full = len(found) >= window.limit or size_bytes > EVENTS_PAGE_BYTES or scanned >= EVENTS_SCAN_MAX
        if full:
            return Page(found, reached, more=True)
        scanned += 1
        reached = event.position
        if wanted(event, window):
            found.append(event_document(event, window.viewer))
            size_bytes += len(json.dumps(found[-1]["data"]))
    return Page(found, window.after if window.newest_first else upto, more=False)


async def _in_order(history: EventHistory, now: State, window: Window, upto: Position) -> AsyncIterator[Event]:
    if not window.newest_first:
        async for events in history.read(window.after, upto):
            for event in events:
                yield event
        return
    end = upto.position
    while end > window.after.position:
        begin = max(window.after.position, end - EVENTS_CHUNK)
        chunk = [event async for events in history.read(now.at(begin), now.at(end)) for event in events]
        for event in reversed(chunk):
            yield event
        end = begin


def event_document(event: Event, viewer: str | None = None) -> dict[str, Any]:
    """{position, epoch, time, type, actor, account, mesh, resource, source_ip, request_id, summary, data}.

    `time` is the log's, ISO 8601 in UTC; `resource` is the path of an ARN; secrets in `data` are redacted. Of what
    another account did in a shared mesh, `viewer` (an account; None: whoever runs the cluster) is told neither who in
    that account did it nor from where, nor the tags that it put on.
    """
    key = subject(event.type, event.data)
    foreign = viewer not in (None, event.account)
    return {
        "position": event.position.position,
        "epoch": event.position.epoch,
        "time": iso(event.time_us),
        "type": event.type,
        "actor": event.actor if viewer is None else shown_actor(event, viewer),
        "account": key.account if key else event.account,
        "mesh": key.mesh if key else None,
        "resource": key.path if key else None,
        "source_ip": None if foreign else event.source_ip,
        "request_id": None if foreign else event.request_id,
        **({"version": 1} if event.type == RESOURCE_CREATED else {}),
        "summary": _SUMMARIES.get(event.type, _plain)(_public_data(event, viewer), key),
        "data": _public_data(event, viewer),
    }


def shown_actor(event: Event, viewer: str) -> str:
    """Who did it, as an account may know: of another one, which account (CloudTrail tells no more either)."""
    return event.actor if event.account == viewer else f"arn:aws:iam::{event.account}:root"


def wanted(event: Event, window: Window) -> bool:
    """Whether `event` is one of those that `window` asks for, wherever it stands."""
    key = subject(event.type, event.data)
    if window.mesh is None:  # what is about no mesh is about the whole cluster
        if window.account not in (event.account, key.account if key else event.account):
            return False
    elif key is None or (key.account, key.mesh) != (window.account, window.mesh):
        return False
    if window.type is not None and event.type.lower() != window.type.lower():
        return False
    actor = event.actor if window.viewer is None else shown_actor(event, window.viewer)
    if window.actor is not None and not _is_actor(actor, window.actor):
        return False
    if window.kind is None and window.name is None:
        return True
    return any(
        window.kind in (None, touched.kind) and window.name in (None, touched.name, spelled(touched), touched.path)
        for touched in touched_by(event)
    )


def touched_by(event: Event) -> list[ResourceKey]:
    """Every resource that an event is about or has changed."""
    key = subject(event.type, event.data)
    if event.type == MESH_ROLLED_BACK and event.data is not None:
        return [key_of(change["key"]) for change in event.data["changes"]]
    return [key] if key else []


def iso(time_us: int) -> str:
    """A log time as people read it: ISO 8601 in UTC, with microseconds."""
    at = datetime.datetime.fromtimestamp(time_us // 1_000_000, datetime.UTC).replace(microsecond=time_us % 1_000_000)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _is_actor(actor: str, asked: str) -> bool:
    return fnmatchcase(actor, asked) or fnmatchcase(actor.rpartition("/")[2], asked)


def _public_data(event: Event, viewer: str | None) -> dict[str, Any]:
    data: dict[str, Any] = thaw(event.data or {})
    if "secret" in data:
        data["secret"] = _REDACTED
    if viewer is None:
        return data
    if event.type == TAGS_CHANGED and event.account != viewer:
        data |= {"set": {}, "unset": []}
    if event.account != viewer and "with" in data:
        data["with"] = [account for account in data["with"] if account == viewer]
    for part in (data, *data.get("changes", ())):
        if "tags" in part and part.get("owner") != viewer:
            part["tags"] = {}
    return data


def _plain(data: Mapping[str, Any], key: ResourceKey | None) -> str:  # noqa: ARG001 - one shape for the table
    return ""


def _path(key: ResourceKey | None) -> str:
    return key.path if key else "?"


def _tags(data: Mapping[str, Any], key: ResourceKey | None) -> str:
    put = [f"{name}={value}" for name, value in data["set"].items()]
    taken = [f"-{name}" for name in data["unset"]]
    return f"tags of {_path(key)}: {' '.join(put + taken) or 'changed'}"


def _rolled_back(data: Mapping[str, Any], key: ResourceKey | None) -> str:
    epoch, position = data["to"]
    return f"{_path(key)} back to {epoch}.{position}: {len(data['changes'])} resources changed"


def _iam(arn: str) -> str:
    return arn.rpartition(":")[2].replace("/", " ", 1)


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


def _quarantined(data: Mapping[str, Any]) -> str:
    if not data:
        return "quarantined: this record does not count"
    epoch, position = data["position"]
    return f"record {epoch}.{position} quarantined: {data['reason']}"


_SUMMARIES: Mapping[str, Callable[[Mapping[str, Any], ResourceKey | None], str]] = {
    RESOURCE_CREATED: lambda _, key: f"{_path(key)} created",
    RESOURCE_UPDATED: lambda _, key: f"{_path(key)} updated",
    RESOURCE_DELETED: lambda _, key: f"{_path(key)} deleted",
    TAGS_CHANGED: _tags,
    MESH_ROLLED_BACK: _rolled_back,
    ACCESS_KEY_CREATED: lambda data, _: f"access key {data.get('access_key_id', '?')} for {data.get('principal', '?')}",
    ACCESS_KEY_DISABLED: lambda data, _: f"access key {data['access_key_id']} disabled",
    ACCESS_KEY_ENABLED: lambda data, _: f"access key {data['access_key_id']} enabled",
    ACCESS_KEY_DELETED: lambda data, _: f"access key {data['access_key_id']} deleted",
    ACCESS_KEYS_USED: lambda data, _: f"access keys used in the hour from {iso(data['hour_us'])}: {_few(data['keys'])}",
    PRINCIPAL_CREATED: lambda data, _: f"{_iam(data['principal'])} created",
    PRINCIPAL_DELETED: lambda data, _: f"{_iam(data['principal'])} deleted",
    POLICY_ATTACHED: lambda data, _: f"{_iam(data['policy'])} attached to {_iam(data['principal'])}",
    POLICY_DETACHED: lambda data, _: f"{_iam(data['policy'])} detached from {_iam(data['principal'])}",
    INLINE_POLICY_PUT: lambda data, _: f"inline policy {data['name']} of {_iam(data['principal'])} set",
    INLINE_POLICY_DELETED: lambda data, _: f"inline policy {data['name']} of {_iam(data['principal'])} deleted",
    TRUST_POLICY_PUT: lambda data, _: f"trust policy of {_iam(data['principal'])} set",
    POLICY_PUT: lambda data, _: f"{_iam(data['policy'])} set",
    POLICY_DELETED: lambda data, _: f"{_iam(data['policy'])} deleted",
    ACCOUNT_CREATED: lambda data, _: f"account {data['account']} added {data['name']}".rstrip(),
    MESH_SHARED: lambda data, key: f"{_path(key)} shared with {', '.join(data['with'])}",
    MESH_UNSHARED: lambda data, key: f"{_path(key)} no longer shared with {', '.join(data['with'])}",
    QUOTA_CHANGED: lambda data, _: (
        f"quota {data['code']} {'back at its default' if data['value'] is None else data['value']}"
    ),
    AUTHORITY_CREATED: lambda data, _: f"certificate authority {data['authority']} created",
    AUTHORITY_ROOT_ADDED: lambda data, _: f"{data['authority']}: root {data['root']['id'][:16]} is believed too",
    AUTHORITY_ROOT_PROMOTED: lambda data, _: f"{data['authority']}: issues under root {data['root'][:16]}",
    AUTHORITY_ROOT_DROPPED: lambda data, _: f"{data['authority']}: root {data['root'][:16]} is believed no more",
    AUTHORITY_KEY_KEPT: lambda data, _: f"key of a root of {data.get('authority', '?')} kept",
    AUTHORITY_RETIRED: lambda data, _: f"certificate authority {data['authority']} retired",
    CERTIFICATE_ISSUED: lambda data, _: f"{data['certificate']} issued, serial {data['serial']}",
    CERTIFICATE_IMPORTED: lambda data, _: f"{data['certificate']} imported, serial {data['serial']}",
    CERTIFICATE_DELETED: lambda data, _: f"{data['certificate']} deleted",
    PROXY_IDENTITY_ISSUED: lambda data, key: f"certificate {data['serial']} for a proxy of {_path(key)}",
    DATA_KEYS_DRAWN: lambda data, _: f"data keys drawn: {', '.join(data['keys'])}",
    DATA_KEYS_REWRAPPED: lambda data, _: f"{len(data['keys'])} data keys wrapped by {data['kek']}",
    LEVEL_RAISED: lambda data, _: f"cluster level {data['level']}",
    LOG_RESTORED: lambda data, _: f"log restored to {data['from_epoch']}.{data['position']} ({data['to']})",
    RECORD_QUARANTINED: lambda data, _: _quarantined(data),
}
