"""What frontends and API servers say about proxies: read back as it was said, and nothing else is read at all."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.node_id import NODE_KINDS, NodeId
from identity.proxy_wire import (
    Granted,
    Presented,
    Refused,
    decode_check,
    decode_fallen,
    decode_grants,
    decode_verdict,
    encode_check,
    encode_fallen,
    encode_grants,
    encode_verdict,
)
from mesh.errors import BadRequest
from runtime.limits import PROXY_CHECK_BYTES_MAX

texts = st.text(st.characters(codec="utf-8"), max_size=20)
nodes = st.builds(NodeId, texts, texts, st.sampled_from(NODE_KINDS), texts)
statuses = st.integers(0, 16)
presented = st.builds(
    Presented, texts, texts, st.lists(texts, max_size=3).map(tuple),
    st.lists(st.tuples(texts, texts), max_size=3).map(tuple), texts,
)  # fmt: skip
DECODERS = (decode_check, decode_verdict, decode_grants, decode_fallen)


@given(presented)
def test_a_check(question: Presented) -> None:
    assert decode_check(encode_check(question)) == question


@given(st.one_of(st.builds(Granted, nodes, texts, st.binary(max_size=20)), st.builds(Refused, statuses, texts)))
def test_a_verdict(verdict: Granted | Refused) -> None:
    assert decode_verdict(encode_verdict(verdict)) == verdict


@given(
    st.lists(st.binary(max_size=20), max_size=5),
    st.dictionaries(st.integers(0, 5), st.builds(Refused, statuses, texts)),
)
def test_grants_and_what_fell(grants: list[bytes], fallen: dict[int, Refused]) -> None:
    assert decode_grants(encode_grants(grants)) == grants
    assert decode_fallen(encode_fallen(fallen)) == fallen


json_like = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-10, 10), texts, st.binary(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=12,
)


@given(st.one_of(st.binary(max_size=64), json_like.map(msgpack.packb)))
def test_whatever_else_comes_is_refused_or_is_a_message(packed: bytes) -> None:
    for decode in DECODERS:
        try:
            decode(packed)
        except BadRequest:
            continue


def test_too_much_is_refused_before_it_is_read() -> None:
    for decode in DECODERS:
        with pytest.raises(BadRequest, match="over the limit"):
            decode(bytes(PROXY_CHECK_BYTES_MAX + 1))
