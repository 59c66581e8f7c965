"""Sealing: what is stored gives nothing away, opens only in its place, and tells a wrong key from damaged bytes."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import msgpack
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from eventlog.append import new_head
from eventlog.records import Head, KeyClass, NewRecord, Record, genesis_head
from eventlog.sealing import DataKey, KeyFinder, derive, open_record, parse_stored, place_record, seal_record
from mesh.errors import BadRequest, Damaged, IntegrityError, MissingKey, WrongKey
from mesh.position import Position
from tests.eventlog.logs import START_US, SeededEntropy, new_record

START = genesis_head("a-log")
CONFIG = DataKey("config-1", KeyClass.CONFIG, b"c" * 32, 1)
SECRETS = DataKey("secrets-1", KeyClass.SECRETS, b"s" * 32, 1)


class Keys:
    """Finds the keys it was made with."""

    def __init__(self, *keys: DataKey) -> None:
        self._keys = {key.key_id: key for key in keys}

    def opens(self, key_class: KeyClass) -> bool:
        return any(key.key_class is key_class for key in self._keys.values())

    def find(self, key_id: str, position: Position) -> DataKey:
        if key_id not in self._keys:
            raise MissingKey(f"{key_id} at {position}")
        return self._keys[key_id]


BOTH: KeyFinder = Keys(CONFIG, SECRETS)


def seal(new: NewRecord, after: Head = START, entropy: SeededEntropy | None = None) -> tuple[Record, bytes]:
    entropy = entropy or SeededEntropy()
    record = place_record(new, after, START_US, START_US)
    return record, seal_record(record, after, (CONFIG, SECRETS), (entropy.token_bytes(32), entropy.token_bytes(32)))


@pytest.mark.parametrize("key_class", list(KeyClass))
def test_a_sealed_record_opens_to_itself(key_class: KeyClass) -> None:
    record, stored = seal(new_record(key_class=key_class))
    assert open_record(stored, "a-log", Position(1, 1), BOTH) == record


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), values, max_size=5), st.sampled_from(list(KeyClass)))
def test_any_json_like_data_comes_back_in_its_order(data: dict[str, Any], key_class: KeyClass) -> None:
    _, stored = seal(new_record(key_class=key_class)._replace(data=MappingProxyType(data)))
    opened = open_record(stored, "a-log", Position(1, 1), BOTH).data
    assert opened is not None
    assert opened == data
    assert list(opened) == list(data)


def test_large_data_is_compressed_and_comes_back() -> None:
    data = {"spec": ["the same words again"] * 2000}
    record, stored = seal(new_record()._replace(data=data))
    assert len(stored) < 2_000
    assert open_record(stored, "a-log", Position(1, 1), BOTH) == record


@pytest.mark.parametrize("data", [{"number": 2**64}, {"text": "\ud800"}, {"set": {1}}])
def test_data_that_cannot_be_written_is_the_callers_fault(data: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        seal(new_record()._replace(data=data))


@pytest.mark.parametrize("key_class", list(KeyClass))
def test_no_word_of_a_record_is_in_its_stored_bytes(key_class: KeyClass) -> None:
    _, stored = seal(new_record(key_class=key_class, host="canary.example"))
    for word in (b"canary.example", b"ResourceCreated", b"123456789012", b"ann", b"192.0.2.7", b"hostname", b"rq-1"):
        assert word not in stored


def test_a_role_without_the_secrets_class_sees_all_but_the_data() -> None:
    record, stored = seal(new_record(key_class=KeyClass.SECRETS))
    assert open_record(stored, "a-log", Position(1, 1), Keys(CONFIG)) == record._replace(data=None)


def test_a_secrets_key_that_is_configured_but_missing_is_an_error_not_none() -> None:
    _, stored = seal(new_record(key_class=KeyClass.SECRETS))
    with pytest.raises(MissingKey):
        open_record(stored, "a-log", Position(1, 1), Keys(CONFIG, SECRETS._replace(key_id="secrets-2")))


@pytest.mark.parametrize("key_class", list(KeyClass))
def test_each_byte_is_authenticated(key_class: KeyClass) -> None:
    _, stored = seal(new_record(key_class=key_class))
    for index in range(len(stored)):
        for flip in (0x01, 0x80):
            changed = bytearray(stored)
            changed[index] ^= flip
            with pytest.raises(IntegrityError):
                open_record(bytes(changed), "a-log", Position(1, 1), BOTH)


@pytest.mark.parametrize("length", [0, 1, 50, -1])
def test_cut_or_lengthened_records_are_damaged(length: int) -> None:
    _, stored = seal(new_record())
    for changed in (stored[:length], stored + b"\0"):
        with pytest.raises(Damaged):
            open_record(changed, "a-log", Position(1, 1), BOTH)


@pytest.mark.parametrize(
    ("log_id", "position"),
    [("another-log", Position(1, 1)), ("a-log", Position(1, 2)), ("a-log", Position(2, 1))],
    ids=["log", "position", "epoch"],
)
def test_a_record_opens_nowhere_but_in_its_place(log_id: str, position: Position) -> None:
    _, stored = seal(new_record())
    with pytest.raises(Damaged, match=str(position)):
        open_record(stored, log_id, position, BOTH)


@pytest.mark.parametrize("field", ["schema", "previous_hash", "key_id"])
def test_fields_in_the_clear_are_authenticated(field: str) -> None:
    _, stored = seal(new_record())
    fields = msgpack.unpackb(stored)
    index = {"schema": 1, "key_id": 2, "previous_hash": 5}[field]
    fields[index] = {"schema": 2, "key_id": "config-2", "previous_hash": bytes(32)}[field]
    twin = CONFIG._replace(key_id="config-2")  # even with the same material under the other id
    with pytest.raises(Damaged):
        open_record(msgpack.packb(fields), "a-log", Position(1, 1), Keys(CONFIG, SECRETS, twin))


def test_secret_data_cannot_be_moved_into_another_record() -> None:
    first, second = new_record(1, KeyClass.SECRETS), new_record(2, KeyClass.SECRETS)
    entropy = SeededEntropy()
    _, stored = seal(first, entropy=entropy)
    elsewhere = Head("a-log", 1, 1, b"h" * 32)
    record, other = seal(second, after=elsewhere, entropy=entropy)
    assert open_record(other, "a-log", Position(1, 2), BOTH) == record
    with pytest.raises(Damaged):
        open_record(stored, "a-log", Position(1, 2), BOTH)


def test_a_wrong_key_is_told_from_damage() -> None:
    _, stored = seal(new_record())
    with pytest.raises(WrongKey, match="config-1"):
        open_record(stored, "a-log", Position(1, 1), Keys(CONFIG._replace(material=b"x" * 32)))
    changed = stored[:-1] + bytes((stored[-1] ^ 1,))
    with pytest.raises(Damaged):
        open_record(changed, "a-log", Position(1, 1), BOTH)


def test_a_missing_key_is_named() -> None:
    _, stored = seal(new_record())
    with pytest.raises(MissingKey, match="config-1"):
        open_record(stored, "a-log", Position(1, 1), Keys(SECRETS))


def test_two_attempts_at_one_position_share_neither_salt_nor_key_nor_nonce() -> None:
    entropy = SeededEntropy()
    attempts = [parse_stored(seal(new_record(), entropy=entropy)[1], Position(1, 1)) for _ in range(50)]
    assert len({attempt.salt for attempt in attempts}) == 50
    derived = [derive(CONFIG.material, attempt.salt, b"meshlog/record/1") for attempt in attempts]
    for part in range(3):
        assert len({each[part] for each in derived}) == 50
    assert len({attempt.ciphertext for attempt in attempts}) == 50


def test_records_of_one_attempt_share_a_key_and_never_a_nonce() -> None:
    salts = (b"1" * 32, b"2" * 32)
    head, stored = genesis_head("a-log"), []
    for _ in range(300):
        stored.append(seal_record(place_record(new_record(), head, 1, 1), head, (CONFIG, None), salts))
        head = new_head(head, stored[-1:])
    envelopes = [parse_stored(each, Position(1, number)) for number, each in enumerate(stored, 1)]
    secret, base, _ = derive(CONFIG.material, salts[0], b"meshlog/record/1")
    nonces = {(int.from_bytes(base, "big") ^ number).to_bytes(12, "big") for number in range(1, 301)}
    assert len(nonces) == 300
    for number, envelope in enumerate(envelopes, 1):
        aad = msgpack.packb([b"meshlog/record/1", 2, "a-log", 1, number, envelope.previous_hash, "config-1", 1])
        nonce = (int.from_bytes(base, "big") ^ number).to_bytes(12, "big")
        assert AESGCM(secret).decrypt(nonce, envelope.ciphertext, aad)


def test_the_envelope_and_the_secret_in_it_use_different_salts() -> None:
    entropy = SeededEntropy()
    _, stored = seal(new_record(key_class=KeyClass.SECRETS), entropy=entropy)
    assert parse_stored(stored, Position(1, 1)).salt == SeededEntropy().token_bytes(32)
    one_salt = entropy.token_bytes(32)
    assert derive(b"k" * 32, one_salt, b"meshlog/record/1") != derive(b"k" * 32, one_salt, b"meshlog/secret-data/1")


def test_a_data_key_never_shows_its_material() -> None:
    assert "cccc" not in f"{CONFIG} {CONFIG!r} {[CONFIG]}"


def test_a_later_format_is_refused_by_name() -> None:
    _, stored = seal(new_record())
    fields = msgpack.unpackb(stored)
    fields[0] = 3
    with pytest.raises(Damaged, match="format 3"):
        open_record(msgpack.packb(fields), "a-log", Position(1, 1), BOTH)


def _deep(levels: int) -> object:
    value: object = "x"
    for _ in range(levels):
        value = {"in": [value]}
    return value


@pytest.mark.parametrize("key_class", [KeyClass.CONFIG, KeyClass.SECRETS])
@pytest.mark.parametrize("odd", [b"bytes", [{"in": b""}], {b"name": 1}, _deep(33), _deep(400), msgpack.Timestamp(1)])
def test_data_that_json_has_not_does_not_open(odd: object, key_class: KeyClass) -> None:
    record, stored = seal(new_record(key_class=key_class)._replace(data={"odd": odd}))
    with pytest.raises(Damaged, match=r"1\.1"):
        open_record(stored, "a-log", record.position, BOTH)


@pytest.mark.parametrize("text", ["käse", "\u0105\U0001f9c0", "\x80" * 99, "config"])
def test_text_and_numbers_that_look_like_something_else_open(text: str) -> None:
    numbers = [200, 0xC4C4, -60, 1.5, 0xC5C6C7C8C9D4, None, True]
    data = {text: [text, numbers, _deep(20)], "more": [[], {}, [[]] * 70]}
    record, stored = seal(new_record()._replace(data=data, actor=text))
    assert open_record(stored, "a-log", record.position, BOTH).data == data
