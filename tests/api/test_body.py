"""JSON that no record could carry is refused by name; everything else is read as it is."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.body import parse_object
from api.calls import query_members
from mesh.errors import BadRequest
from runtime.limits import BODY_DEPTH

TEXT = st.text(st.characters(codec="utf-8"))
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=60)
@given(st.dictionaries(TEXT, VALUES, max_size=5))
def test_an_object_is_read_as_it_is(value: dict[str, Any]) -> None:
    assert parse_object(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary(max_size=200) | st.text(alphabet='[]{}",:0123456789.eE+-truefalsn\\ud', max_size=200).map(str.encode))
def test_any_bytes_are_read_or_refused_and_what_is_read_can_be_recorded(body: bytes) -> None:
    try:
        value = parse_object(body)
    except BadRequest:
        return
    msgpack.packb(value)


@pytest.mark.parametrize("body", [b"", b" \n"])
def test_no_body_is_an_empty_object(body: bytes) -> None:
    assert parse_object(body) == {}


def test_depth_is_counted_exactly() -> None:
    parse_object(b'{"a":' * (BODY_DEPTH - 1) + b"{}" + b"}" * (BODY_DEPTH - 1))
    with pytest.raises(BadRequest, match="deeper than"):
        parse_object(b'{"a":' * BODY_DEPTH + b"{}" + b"}" * BODY_DEPTH)


def test_query_members_are_decoded_once() -> None:
    assert query_members("resourceArn=a%2Fb%253A&limit=&x=%20") == {"resourceArn": "a/b%3A", "limit": "", "x": " "}
    for bad in ("a=1&a=2", "a=%FF", "&".join(f"a{number}=" for number in range(65))):
        with pytest.raises(BadRequest):
            query_members(bad)
