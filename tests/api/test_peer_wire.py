"""Batches on the wire: what goes in comes out, and nothing else comes out."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.group_commit import TRANSFERABLE
from api.outcomes import Origin
from api.peer_wire import HandedBatch, HandedCommand, decode_answer, decode_batch, encode_answer, encode_batch
from mesh.commands import Command, Create, Delete, RaiseLevel, TagResource, UntagResource, Update
from mesh.errors import BadRequest
from mesh.events import Token
from mesh.frozen import freeze
from mesh.kinds import ResourceKey, mesh_key
from mesh.position import Position

ACCOUNT = "123456789012"
KEY = ResourceKey(ACCOUNT, "m", "virtualNode", "", "x")
ORIGIN = Origin(ACCOUNT, "arn:p", "10.0.0.1", "rq-1", "CreateVirtualNode", Token(b"d" * 32, b"b" * 32))
SPEC = {"listeners": [{"portMapping": {"port": 80, "protocol": "http"}}]}
COMMANDS: dict[str, Command] = {
    "create": Create(KEY, SPEC, {"team": "web"}),
    "update": Update(KEY, SPEC),
    "delete": Delete(mesh_key(ACCOUNT, "m")),
    "tag": TagResource(KEY, {"a": "b", "c": ""}),
    "untag": UntagResource(KEY, ("a", "c")),
}


def test_every_transferable_command_comes_out_as_it_went_in() -> None:
    assert {type(command) for command in COMMANDS.values()} == set(TRANSFERABLE)
    batch = HandedBatch(tuple(HandedCommand(command, ORIGIN) for command in COMMANDS.values()), 1.5)
    assert decode_batch(encode_batch(batch)) == batch


def test_specs_may_be_frozen() -> None:
    batch = HandedBatch((HandedCommand(Update(KEY, freeze(SPEC)), ORIGIN),), 1.0)
    assert decode_batch(encode_batch(batch)).commands[0].command == COMMANDS["update"]


def test_what_is_not_transferable_is_not_encoded() -> None:
    with pytest.raises(BadRequest, match="RaiseLevel"):
        encode_batch(HandedBatch((HandedCommand(RaiseLevel(1), ORIGIN),), 1.0))


def test_answers() -> None:
    assert decode_answer(encode_answer(Position(2, 7))) == Position(2, 7)
    assert decode_answer(encode_answer(None)) is None


GOOD: list[Any] = ["update", list(KEY), SPEC, None, *ORIGIN[:5], ORIGIN.token.digest, ORIGIN.token.body]


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, "rollback"),
        (0, None),
        (1, ["a", "b"]),
        (1, [ACCOUNT, "m", "certificate", "", "x"]),
        (1, [ACCOUNT, 7, "virtualNode", "", "x"]),
        (2, None),
        (2, "spec"),
        (3, {"a": 1}),
        (4, 12),
        (8, b"bytes"),
        (9, "text"),
        (9, b"short"),
        (10, None),
    ],
)
def test_a_malformed_command_spoils_the_batch(at: int, value: Any) -> None:
    message = {"t": "batch", "timeout_ms": 1000, "commands": [GOOD]}
    assert len(decode_batch(msgpack.packb(message)).commands) == 1
    message["commands"] = [GOOD, [*GOOD[:at], value, *GOOD[at + 1 :]]]
    with pytest.raises(BadRequest):
        decode_batch(msgpack.packb(message))


@pytest.mark.parametrize("change", [{"t": "x"}, {"timeout_ms": 0}, {"timeout_ms": 10**9}, {"timeout_ms": True},
                                    {"commands": []}, {"commands": [GOOD] * 129}, {"commands": {}}])  # fmt: skip
def test_a_malformed_batch_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        decode_batch(msgpack.packb({"t": "batch", "timeout_ms": 1000, "commands": [GOOD]} | change))


PLAIN = st.none() | st.integers(0, 9) | st.text(max_size=3) | st.binary(max_size=3)
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


@given(st.binary(max_size=200) | VALUES.map(msgpack.packb))
def test_whatever_comes_is_a_value_or_a_bad_request(packed: bytes) -> None:
    for decode in (decode_batch, decode_answer):
        try:
            decode(packed)
        except BadRequest:
            continue
