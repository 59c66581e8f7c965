"""The feed's frames: what is written is read back; what is not a frame is refused without harm."""

from __future__ import annotations

from contextlib import suppress

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.node_id import NodeId
from mesh.errors import BadRequest, LimitExceeded
from mesh.position import Position
from projector.feed.wire import (
    Confirm,
    Confirmed,
    FrontendHello,
    Heartbeat,
    ProjectorHello,
    SnapshotFrame,
    Subscribe,
    Unsubscribe,
    decode_from_frontend,
    decode_from_projector,
    encode,
)
from projector.snapshot import XdsResource
from runtime.limits import FEED_FRAME_BYTES_MAX, FEED_NAME_BYTES_MAX, FEED_REQUEST_BYTES_MAX

text = st.text(max_size=40)
number = st.integers(0, 2**53)
positions = st.builds(Position, number, number)
nodes = st.builds(NodeId, text, text, st.sampled_from(["virtualNode", "virtualGateway"]), text)
resources = st.builds(XdsResource, text, text, text, st.binary(max_size=200))
frontend_frames = st.one_of(
    st.builds(FrontendHello, number, text, text, text, st.booleans()),
    st.builds(Subscribe, nodes, number),
    st.builds(Unsubscribe, nodes),
    st.builds(Confirm, number, number),
)
projector_frames = st.one_of(
    st.builds(ProjectorHello, number, text, text, st.lists(st.tuples(text, text), max_size=5).map(tuple)),
    st.builds(
        SnapshotFrame,
        nodes,
        number,
        positions,
        st.booleans(),
        st.booleans(),
        st.lists(resources, max_size=4).map(tuple),
        st.lists(st.tuples(text, text), max_size=4).map(tuple),
        st.lists(text, max_size=3).map(tuple),
    ),
    st.builds(Confirmed, number, positions, st.booleans()),
    st.builds(Heartbeat, positions, number),
)


@given(frontend_frames)
def test_what_a_frontend_writes_is_read_back(frame: FrontendHello) -> None:
    assert decode_from_frontend(encode(frame)) == frame


@given(projector_frames)
def test_what_a_projector_writes_is_read_back(frame: ProjectorHello) -> None:
    assert decode_from_projector(encode(frame)) == frame


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_and_nothing_else_happens(packed: bytes) -> None:
    for decode in (decode_from_frontend, decode_from_projector):
        with pytest.raises(BadRequest):
            decode(packed)


@given(frontend_frames, st.data())
def test_a_damaged_frame_is_read_or_refused(frame: FrontendHello, data: st.DataObject) -> None:
    packed = bytearray(encode(frame))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with suppress(BadRequest):
        decode_from_frontend(bytes(packed))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"t": "hello", "level": 1, "id": 5, "zone": "a", "address": "", "probe": False}, "'id'"),
        ({"t": "hello", "level": -1, "id": "f", "zone": "a", "address": "", "probe": False}, "'level'"),
        ({"t": "hello", "level": True, "id": "f", "zone": "a", "address": "", "probe": False}, "'level'"),
        ({"t": "subscribe", "node": ["1", "m", "mesh", "x"], "sub": 1}, "no kind of node"),
        ({"t": "subscribe", "node": ["1", "m", "virtualNode"], "sub": 1}, "4 texts"),
        ({"t": "confirm", "id": 2**63, "timeout_ms": 1}, "'id'"),
        ({"t": "snapshot"}, "unknown frame"),
        ({}, "'t'"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, object], named: str) -> None:
    with pytest.raises(BadRequest, match=named):
        decode_from_frontend(msgpack.packb(fields))


def test_fields_of_a_newer_build_are_passed_over() -> None:
    packed = msgpack.packb({"t": "confirm", "id": 7, "timeout_ms": 5, "colour": "red"})
    assert decode_from_frontend(packed) == Confirm(7, 5)


def test_depth_size_count_and_extensions_are_bounded() -> None:
    packer = msgpack.Packer()
    nested = b"\x91" * 100_000 + b"\x00"
    for packed in (
        packer.pack({"t": "subscribe", "node": ["1", "m" * (FEED_NAME_BYTES_MAX + 1), "virtualNode", "x"], "sub": 1}),
        packer.pack({"t": "subscribe", "node": ["x"] * 1000, "sub": 1}),
        packer.pack({"t": msgpack.ExtType(5, b"abc")}),
        b"\x81\xa1t" + nested,
        b"\x00" * (FEED_REQUEST_BYTES_MAX + 1),
        b"\xdd\xff\xff\xff\xff",  # an array that claims four thousand million members
    ):
        with pytest.raises(BadRequest):
            decode_from_frontend(packed)


def test_a_frame_that_its_receiver_would_refuse_is_not_made() -> None:
    node = NodeId("123456789012", "m", "virtualNode", "n")
    huge = XdsResource("type", "name", "version", bytes(FEED_FRAME_BYTES_MAX))
    with pytest.raises(LimitExceeded):
        encode(SnapshotFrame(node, 1, Position(1, 1), True, True, (huge,)))
    many = (XdsResource("type", "name", "version", b""),) * 70_000
    with pytest.raises(LimitExceeded):
        encode(SnapshotFrame(node, 1, Position(1, 1), True, True, many))
