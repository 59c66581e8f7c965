"""Frames and the head: one spelling each, and anything else is damage."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog.frames import decode_frame, encode_frame, frame_name, parse_frame_name
from eventlog.records import Head, decode_head, encode_head
from mesh.errors import Damaged, LimitExceeded
from mesh.position import Position

HEAD = Head("a-log", 1, 7, b"h" * 32)


@given(st.integers(1, 10**6), st.integers(1, 10**18))
def test_names_and_positions_stand_for_each_other(epoch: int, position: int) -> None:
    assert parse_frame_name(frame_name(Position(epoch, position))) == Position(epoch, position)


@given(st.integers(1, 10**12), st.integers(1, 10**12))
def test_names_sort_as_positions_do(one: int, other: int) -> None:
    assert (frame_name(Position(1, one)) < frame_name(Position(1, other))) == (one < other)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "1",
        "1/7",
        "1/00000000000000000000",
        "01/00000000000000000007",
        "1/00000000000000000007/x",
        "1/0000000000000000000７",
        "-1/00000000000000000007",
        "1/+0000000000000000007",
        "1/00000000000000000007\n",
    ],
)
def test_other_names_are_no_frames(name: str) -> None:
    assert parse_frame_name(name) is None


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=6))
def test_a_frame_is_always_an_array_of_records(records: list[bytes]) -> None:
    frame = encode_frame(records)
    assert msgpack.unpackb(frame) == records
    assert decode_frame(frame, Position(1, len(records))) == tuple(records)


def test_a_frame_over_256_kib_is_the_callers_fault() -> None:
    encode_frame([b"x" * (256 * 1024 - 10)])
    with pytest.raises(LimitExceeded, match="262144"):
        encode_frame([b"x" * (256 * 1024)])


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xc1",
        msgpack.packb([]),
        msgpack.packb(b"record"),
        msgpack.packb(["text"]),
        msgpack.packb({"a": 1}),
        msgpack.packb([b"one", 2]),
        msgpack.packb([b"one"]) + b"\0",
        b"\xdc\x00\x01\xc4\x03one",
    ],
    ids=["empty", "no msgpack", "no record", "no array", "text", "map", "number", "trailing", "other spelling"],
)
def test_anything_else_is_damage(value: bytes) -> None:
    with pytest.raises(Damaged, match=r"1\.5"):
        decode_frame(value, Position(1, 5))


def test_a_frame_cannot_hold_more_records_than_its_position_allows() -> None:
    with pytest.raises(Damaged):
        decode_frame(encode_frame([b"one", b"two"]), Position(1, 1))


def test_the_head_comes_back() -> None:
    assert decode_head(encode_head(HEAD)) == HEAD


@given(st.integers(0, 10_000), st.integers(0, 7))
def test_a_changed_head_is_damaged_or_another_head(index: int, bit: int) -> None:
    value = bytearray(encode_head(HEAD))
    value[index % len(value)] ^= 1 << bit
    try:
        changed = decode_head(bytes(value))
    except Damaged:
        return
    assert changed != HEAD


@pytest.mark.parametrize(
    "fields",
    [
        [2, "l", 1, 0, bytes(32)],
        [1, "l", 0, 0, bytes(32)],
        [1, "l", 1, -1, bytes(32)],
        [1, "l", 1, 0, bytes(31)],
        [1, b"l", 1, 0, bytes(32)],
        [1, "l", True, 0, bytes(32)],
        [1, "l", 1, 0],
        [1, "l", 1, 0, bytes(32), 1],
        5,
    ],
)
def test_no_other_shape_is_a_head(fields: object) -> None:
    with pytest.raises(Damaged):
        decode_head(msgpack.packb(fields))
