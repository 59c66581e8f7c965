"""The feed's frames: msgpack maps with a type field "t", one a gRPC message, both ways. Bytes in, checked values out.

Decoding is bounded before it allocates (sizes, counts, depth, no extension types) and checks every field, since a peer
with a valid certificate may still be broken or taken over. What is not understood in a known frame is ignored (a newer
build may add fields); an unknown frame type is an error: the level that both sides said at the start rules it out.

    frontend  -> projector   hello, subscribe, unsubscribe, confirm
    projector -> frontend    hello, snapshot, confirmed, heartbeat
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgpack

from identity.node_id import NODE_KINDS, NodeId
from mesh.errors import BadRequest, LimitExceeded
from mesh.position import Position
from projector.snapshot import NOWHERE, XdsResource
from runtime.limits import (
    FEED_ALARMS_MAX,
    FEED_FRAME_BYTES_MAX,
    FEED_NAME_BYTES_MAX,
    FEED_PROJECTORS_MAX,
    FEED_REQUEST_BYTES_MAX,
    FEED_RESOURCES_MAX,
)

FEED_LEVEL = 1
"""The highest level of feed frames that this build understands. Both sides then speak the lower of the two."""

METHOD = "/meshlog.feed.v1.Feed/Subscribe"
"""The one method: a bidirectional stream of frames."""

_INTEGER_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class FrontendHello:
    """First frame of a frontend. `address` is where proxies reach it, host:port.

    `probe`: it only looks how fresh this projector is. It says hello again, without it, when it comes to stay.
    """

    level: int
    id: str
    zone: str
    address: str
    probe: bool = False


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Follow `node`. `subscription` is fresh on this stream and comes back in the node's snapshots."""

    node: NodeId
    subscription: int


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Stop following `node`."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Confirm:
    """Ask for a head confirmed from now on. `id` is fresh on this stream; an answer after `timeout_ms` is of no use."""

    id: int
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class ProjectorHello:
    """First frame of a projector, and again when the projectors it knows of (zone, host:port) have changed."""

    level: int
    id: str
    zone: str
    projectors: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class SnapshotFrame:
    """What `node` has as of `position`, whole (`full`) or as changes to the frame before it for this subscription.

    `known` False: there is no such node at `position`, and nothing else in the frame counts.
    """

    node: NodeId
    subscription: int
    position: Position
    known: bool
    full: bool
    upserts: tuple[XdsResource, ...] = ()
    removals: tuple[tuple[str, str], ...] = ()
    alarms: tuple[str, ...] = ()
    registry: Position = NOWHERE
    """As of where in the registry's log, as in the frames below; NOWHERE for a node that has nothing of it."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Answer to `Confirm`: every snapshot frame up to `position` was sent before it. `ok` False: not had in time."""

    id: int
    position: Position
    ok: bool
    registry: Position = NOWHERE


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """All of this stream's nodes are as of `position` in what was sent. `age_ms` is the age of the confirmed head."""

    position: Position
    age_ms: int
    registry: Position = NOWHERE


FrontendFrame = FrontendHello | Subscribe | Unsubscribe | Confirm
ProjectorFrame = ProjectorHello | SnapshotFrame | Confirmed | Heartbeat


# --- encoding


def encode(frame: FrontendFrame | ProjectorFrame) -> bytes:
    """The frame's bytes; LimitExceeded when it is larger than its receiver takes."""
    if isinstance(frame, SnapshotFrame) and max(len(frame.upserts), len(frame.removals)) > FEED_RESOURCES_MAX:
        raise LimitExceeded(f"{frame.node} has more than {FEED_RESOURCES_MAX} resources in one feed frame")
    packed: bytes = msgpack.packb(_plain(frame), use_bin_type=True)
    from_frontend = isinstance(frame, FrontendHello | Subscribe | Unsubscribe | Confirm)
    size_max = FEED_REQUEST_BYTES_MAX if from_frontend else FEED_FRAME_BYTES_MAX
    if len(packed) > size_max:
        raise LimitExceeded(f"a feed frame of {len(packed)} bytes is over the limit of {size_max}")
    return packed


def _plain(frame: FrontendFrame | ProjectorFrame) -> dict[str, Any]:
    match frame:
        case FrontendHello():
            return {
                "t": "hello",
                "level": frame.level,
                "id": frame.id,
                "zone": frame.zone,
                "address": frame.address,
                "probe": frame.probe,
            }
        case Subscribe():
            return {"t": "subscribe", "node": list(frame.node), "sub": frame.subscription}
        case Unsubscribe():
            return {"t": "unsubscribe", "node": list(frame.node)}
        case Confirm():
            return {"t": "confirm", "id": frame.id, "timeout_ms": frame.timeout_ms}
        case ProjectorHello():
            known = [list(pair) for pair in frame.projectors]
            return {"t": "hello", "level": frame.level, "id": frame.id, "zone": frame.zone, "projectors": known}
        case SnapshotFrame():
            return {
                "t": "snapshot",
                "node": list(frame.node),
                "sub": frame.subscription,
                "epoch": frame.position.epoch,
                "position": frame.position.position,
                "known": frame.known,
                "full": frame.full,
                "upserts": [list(resource) for resource in frame.upserts],
                "removals": [list(name) for name in frame.removals],
                "alarms": list(frame.alarms),
                **_registered(frame.registry),
            }
        case Confirmed():
            epoch, position = frame.position
            told = {"t": "confirmed", "id": frame.id, "epoch": epoch, "position": position, "ok": frame.ok}
            return told | _registered(frame.registry)
        case Heartbeat():
            epoch, position = frame.position
            told = {"t": "heartbeat", "epoch": epoch, "position": position, "age_ms": frame.age_ms}
            return told | _registered(frame.registry)


def _registered(position: Position) -> dict[str, Any]:
    """A place in the registry's log; older builds send none, and leave it aside."""
    return {} if position == NOWHERE else {"registry": list(position)}


# --- decoding


def decode_from_frontend(packed: bytes) -> FrontendFrame:
    """Read a frontend's frame; BadRequest says what is wrong with it."""
    fields = _unpack(packed, FEED_REQUEST_BYTES_MAX, items_max=64)
    read = _FROM_FRONTEND.get(_text(fields, "t"))
    if read is None:
        raise BadRequest(f"feed: a frontend sent the unknown frame {fields['t']!r}")
    return read(fields)


def decode_from_projector(packed: bytes) -> ProjectorFrame:
    """Read a projector's frame; BadRequest says what is wrong with it."""
    fields = _unpack(packed, FEED_FRAME_BYTES_MAX, items_max=FEED_RESOURCES_MAX)
    read = _FROM_PROJECTOR.get(_text(fields, "t"))
    if read is None:
        raise BadRequest(f"feed: a projector sent the unknown frame {fields['t']!r}")
    return read(fields)


def _no_extension(code: int, _data: bytes) -> object:
    raise BadRequest(f"feed: extension type {code} is not part of any frame")


def _unpack(packed: bytes, size_max: int, items_max: int) -> Mapping[str, Any]:
    if len(packed) > size_max:
        raise LimitExceeded(f"feed: a frame of {len(packed)} bytes is over the limit of {size_max}")
    try:
        value = msgpack.unpackb(
            packed,
            raw=False,
            strict_map_key=True,
            ext_hook=_no_extension,
            max_str_len=FEED_NAME_BYTES_MAX,
            max_bin_len=size_max,
            max_array_len=items_max,
            max_map_len=32,
            max_ext_len=0,
        )
    except BadRequest:
        raise
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise BadRequest(f"feed: bytes that are no frame: {type(error).__name__}") from error
    if not isinstance(value, dict):
        raise BadRequest("feed: a frame is a map")
    return value


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise BadRequest(f"feed: the frame's field '{name}' is not text")
    return value


def _number(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _INTEGER_MAX:
        raise BadRequest(f"feed: the frame's field '{name}' is not a number of 0 or more")
    return value


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name)
    if not isinstance(value, bool):
        raise BadRequest(f"feed: the frame's field '{name}' is not a boolean")
    return value


def _list(fields: Mapping[str, Any], name: str, items_max: int) -> list[Any]:
    value = fields.get(name)
    if not isinstance(value, list) or len(value) > items_max:
        raise BadRequest(f"feed: the frame's field '{name}' is not a list of at most {items_max}")
    return value


def _texts(value: Any, count: int, what: str) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) != count or not all(isinstance(item, str) for item in value):
        raise BadRequest(f"feed: {what} is not {count} texts")
    return tuple(value)


def _node(fields: Mapping[str, Any]) -> NodeId:
    account, mesh, kind, name = _texts(fields.get("node"), 4, "a node")
    if kind not in NODE_KINDS:
        raise BadRequest(f"feed: '{kind}' is no kind of node")
    return NodeId(account, mesh, kind, name)


def _position(fields: Mapping[str, Any]) -> Position:
    return Position(_number(fields, "epoch"), _number(fields, "position"))


def _registry(fields: Mapping[str, Any]) -> Position:
    if "registry" not in fields:
        return NOWHERE
    epoch, number = [*_list(fields, "registry", 2), None, None][:2]
    return _position({"epoch": epoch, "position": number})


def _resource(value: Any) -> XdsResource:
    if not isinstance(value, list) or len(value) != 4 or not isinstance(value[3], bytes):
        raise BadRequest("feed: a resource is [type, name, version, body]")
    type_url, name, version = _texts(value[:3], 3, "a resource's type, name and version")
    return XdsResource(type_url, name, version, value[3])


def _read_frontend_hello(fields: Mapping[str, Any]) -> FrontendHello:
    return FrontendHello(
        _number(fields, "level"),
        _text(fields, "id"),
        _text(fields, "zone"),
        _text(fields, "address"),
        _flag(fields, "probe"),
    )


def _read_projector_hello(fields: Mapping[str, Any]) -> ProjectorHello:
    pairs = [_texts(pair, 2, "a projector") for pair in _list(fields, "projectors", FEED_PROJECTORS_MAX)]
    return ProjectorHello(
        _number(fields, "level"), _text(fields, "id"), _text(fields, "zone"), tuple((zone, at) for zone, at in pairs)
    )


def _read_snapshot(fields: Mapping[str, Any]) -> SnapshotFrame:
    removals = [_texts(name, 2, "a removal") for name in _list(fields, "removals", FEED_RESOURCES_MAX)]
    alarms = _list(fields, "alarms", FEED_ALARMS_MAX)
    return SnapshotFrame(
        node=_node(fields),
        subscription=_number(fields, "sub"),
        position=_position(fields),
        known=_flag(fields, "known"),
        full=_flag(fields, "full"),
        upserts=tuple(_resource(item) for item in _list(fields, "upserts", FEED_RESOURCES_MAX)),
        removals=tuple((type_url, name) for type_url, name in removals),
        alarms=_texts(alarms, len(alarms), "the alarms"),
        registry=_registry(fields),
    )


_FROM_FRONTEND: Mapping[str, Callable[[Mapping[str, Any]], FrontendFrame]] = {
    "hello": _read_frontend_hello,
    "subscribe": lambda fields: Subscribe(_node(fields), _number(fields, "sub")),
    "unsubscribe": lambda fields: Unsubscribe(_node(fields)),
    "confirm": lambda fields: Confirm(_number(fields, "id"), _number(fields, "timeout_ms")),
}

_FROM_PROJECTOR: Mapping[str, Callable[[Mapping[str, Any]], ProjectorFrame]] = {
    "hello": _read_projector_hello,
    "snapshot": _read_snapshot,
    "confirmed": lambda fields: Confirmed(
        _number(fields, "id"), _position(fields), _flag(fields, "ok"), _registry(fields)
    ),
    "heartbeat": lambda fields: Heartbeat(_position(fields), _number(fields, "age_ms"), _registry(fields)),
}
