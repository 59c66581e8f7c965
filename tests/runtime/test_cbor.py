"""CBOR: what is written is read again, by us and by botocore; what is no such value is refused."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from botocore.parsers import RpcV2CBORParser
from hypothesis import given
from hypothesis import strategies as st

from runtime.cbor import CborError, EpochSeconds, decode, encode

DEPTH = 12
SCALARS = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text() | st.binary()
# No null: botocore leaves those out of maps.
VALUES = st.recursive(SCALARS, lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(), each, max_size=4))


@given(VALUES)
def test_what_is_written_is_read(value: Any) -> None:
    assert decode(encode(value), 100) == value


@given(VALUES)
def test_botocore_reads_what_we_write(value: Any) -> None:
    parser = RpcV2CBORParser()
    assert parser.parse_data_item(parser.get_peekable_stream_from_bytes(encode(value))) == value


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(CborError):
        decode(data, DEPTH)


def test_a_time_is_a_number_under_tag_1() -> None:
    assert encode(EpochSeconds(1.5)) == bytes.fromhex("c1fb3ff8000000000000")
    assert decode(encode(EpochSeconds(1.5)), DEPTH) == 1.5


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("f6", None),
        ("9f0102ff", [1, 2]),
        ("bf616101ff", {"a": 1}),
        ("7f61616162ff", "ab"),
        ("f93c00", 1.0),
        ("fa3fc00000", 1.5),
        ("1bffffffffffffffff", 2**64 - 1),
    ],
)
def test_other_ways_to_write_the_same(data: str, value: Any) -> None:
    assert decode(bytes.fromhex(data), DEPTH) == value


@pytest.mark.parametrize(
    "data",
    [
        "",
        "0102",
        "9a00ffffff",
        "a1010203",
        "c201",
        "e0",
        "1c",
        "61ff",
        "ff",
        "1f",
        "7f4161ff",
        "a2616101616102",
        "81" * 40,
    ],
)
def test_what_is_refused(data: str) -> None:
    with pytest.raises(CborError):
        decode(bytes.fromhex(data), DEPTH)
