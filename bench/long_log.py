"""A long history for measurements: records as API servers write them, in frames of a group commit's size.

Nine of ten events change one of 200 routes, with a specification of some 300 bytes; the others change virtual nodes,
tags, or tell of a proxy's certificate. Every one carries a token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from eventlog.append import new_head
from eventlog.driver import StoredFrame
from eventlog.frames import encode_frame
from eventlog.records import Head, KeyClass, Record, TokenMark
from eventlog.sealing import SALT_BYTES, DataKey, seal_record
from mesh.events import PROXY_IDENTITY_ISSUED, RESOURCE_CREATED, RESOURCE_UPDATED, TAGS_CHANGED
from mesh.position import Position
from runtime.clock import Entropy

ACCOUNT = "123456789012"
ROUTES, NODES, FRAME_RECORDS = 200, 50, 16
START_US, STEP_US = 1_790_000_000_000_000, 1_000


class Made(NamedTuple):
    """A frame, the point after it, and its records."""

    frame: StoredFrame
    head: Head
    records: tuple[Record, ...]


def _key(kind: str, name: str, parent: str = "") -> list[str]:
    return [ACCOUNT, "shop", kind, parent, name]


def _route(number: int) -> dict[str, Any]:
    weighted = [
        {"virtualNode": f"node-{number % NODES}", "weight": number % 100},
        {"virtualNode": f"node-{(number + 1) % NODES}", "weight": 100 - number % 100},
    ]
    retries = {"maxRetries": 2, "perRetryTimeout": {"unit": "ms", "value": 2000}, "httpRetryEvents": ["server-error"]}
    timeout = {"perRequest": {"unit": "s", "value": 1 + number % 15}}
    match = {"prefix": f"/api/v{number % 9}"}
    return {
        "priority": 10,
        "httpRoute": {
            "match": match,
            "action": {"weightedTargets": weighted},
            "retryPolicy": retries,
            "timeout": timeout,
        },
    }


def _node(number: int) -> dict[str, Any]:
    port = {"port": 1024 + number % 50_000, "protocol": "http"}
    return {"listeners": [{"portMapping": port}], "serviceDiscovery": {"dns": {"hostname": "shop.internal"}}}


def _created(key: list[str], spec: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return RESOURCE_CREATED, {"key": key, "uid": "-".join(key[2:]), "owner": ACCOUNT, "spec": spec, "tags": {}}


def happenings() -> Iterator[tuple[str, dict[str, Any]]]:
    """Types and data, without end: first what there is, then what changes it."""
    yield _created(_key("mesh", "shop"), {})
    yield _created(_key("virtualRouter", "shop"), {"listeners": [{"portMapping": {"port": 8080, "protocol": "http"}}]})
    for number in range(NODES):
        yield _created(_key("virtualNode", f"node-{number}"), _node(number))
    for number in range(ROUTES):
        yield _created(_key("route", f"route-{number}", "shop"), _route(number))
    number = 0
    while True:
        number += 1
        match number % 20:
            case 5:
                yield RESOURCE_UPDATED, {"key": _key("virtualNode", f"node-{number % NODES}"), "spec": _node(number)}
            case 10:
                key = _key("route", f"route-{number % ROUTES}", "shop")
                yield TAGS_CHANGED, {"key": key, "set": {"release": str(number)}, "unset": []}
            case 15:
                node = _key("virtualNode", f"node-{number % NODES}")
                yield PROXY_IDENTITY_ISSUED, {"node": node, "serial": f"{number:x}", "not_after_us": START_US}
            case _:
                key = _key("route", f"route-{number % ROUTES}", "shop")
                yield RESOURCE_UPDATED, {"key": key, "spec": _route(number)}


def frames(after: Head, key: DataKey, entropy: Entropy, events: int) -> Iterator[Made]:
    """`events` records after `after`, which must be a log's beginning, sealed with `key`."""
    point, made = after, happenings()
    while point.position < events:
        begun, records, stored, salts = point, [], [], (entropy.token_bytes(SALT_BYTES), b"")
        for number in range(point.position + 1, min(point.position + FRAME_RECORDS, events) + 1):
            record = _record(Position(point.epoch, number), *next(made))
            sealed = seal_record(record, point, (key, None), salts)
            records.append(record)
            stored.append(sealed)
            point = new_head(point, [sealed])
        assert point.position == begun.position + len(stored)
        yield Made(StoredFrame(point.at, encode_frame(stored), 1), point, tuple(records))


def _record(position: Position, kind: str, data: dict[str, Any]) -> Record:
    number = position.position
    token = TokenMark(hashlib.sha256(b"token %d" % number).digest(), hashlib.sha256(b"body %d" % number).digest())
    time_us = START_US + number * STEP_US
    actor = f"arn:aws:iam::{ACCOUNT}:user/deployer"
    request_id = f"{number:08x}-0000-4000-8000-{number:012x}"
    return Record(
        position, time_us, time_us, kind, 1, ACCOUNT, actor, "192.0.2.7", request_id, token, data, KeyClass.CONFIG
    )
