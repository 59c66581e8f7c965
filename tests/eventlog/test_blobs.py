"""Blobs: data too large for a frame is written beside the log, read back with the record, and never wrong."""

from __future__ import annotations

import hashlib
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.etcd.connection import EtcdConnection
from eventlog import blobs
from eventlog.driver import AppendResult, Unknown
from eventlog.drivers.etcd import EtcdDriver
from eventlog.drivers.memory import MemoryDriver, MemoryStore
from eventlog.records import BlobRef, Head, KeyClass, NewRecord, Record, genesis_head
from eventlog.sealing import DataKey
from eventlog.writer import LostRace
from mesh.errors import Damaged, IntegrityError, LimitExceeded, MissingKey, NoQuorum, WrongKey
from mesh.position import Position
from runtime.limits import BLOB_NAMED_WITHIN, BLOB_PART_BYTES, MAX_RECORD_PLAIN_BYTES
from tests.eventlog.logs import CONFIG_ONLY, SeededEntropy, make_log, make_memory_log, new_record, read_all

LOG_ID = "a-log"
KEY = DataKey("config-1", KeyClass.CONFIG, bytes(range(32)), 1)


def noise(size_bytes: int, seed: str = "noise") -> str:
    """Text that no compression makes smaller than half."""
    return hashlib.shake_256(seed.encode()).hexdigest(size_bytes // 2)


def large(number: int = 1, size_bytes: int = 1_200_000, key_class: KeyClass = KeyClass.CONFIG) -> NewRecord:
    data = {"changes": [{"key": ["a", "b"], "spec": noise(size_bytes // 4, f"{number}.{part}")} for part in range(4)]}
    return new_record(number, key_class)._replace(data=data)


class OneKey:
    """A KeyFinder with one key, and perhaps not under its own id."""

    def __init__(self, key: DataKey = KEY, key_id: str | None = None) -> None:
        self._key, self._id = key, key_id or key.key_id

    def opens(self, key_class: KeyClass) -> bool:
        return key_class is self._key.key_class

    def find(self, key_id: str, position: Position) -> DataKey:
        if key_id != self._id:
            raise MissingKey(f"no {key_id} for {position}")
        return self._key


def record_of(data: Any) -> Record:
    return Record(Position(1, 7), 1, 1, "T", 3, "a", "b", "c", "d", None, data, KeyClass.CONFIG)


def sealed(data: Any, seed: str = "s") -> tuple[Record, dict[str, bytes]]:
    blob = blobs.seal_blob(data, 3, genesis_head(LOG_ID), KEY, SeededEntropy(seed))
    return record_of(None)._replace(blob=blob.ref), dict(blob.parts)


@settings(max_examples=30)
@given(
    st.dictionaries(st.text(max_size=9), st.recursive(st.integers() | st.text() | st.none(), st.lists, max_leaves=9))
)
def test_any_data_comes_back_as_it_was(data: dict[str, Any]) -> None:
    data = {name: value for name, value in data.items() if not _huge(value)}
    record, parts = sealed(data)
    assert blobs.open_blob(record, LOG_ID, parts, OneKey()).data == data


def _huge(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_huge, value))
    return isinstance(value, int) and not -(2**63) <= value < 2**63


def test_every_part_fits_a_value_and_has_its_own_salt() -> None:
    record, parts = sealed({"text": noise(3_000_000)})
    assert record.blob is not None
    assert len(parts) == record.blob.parts >= 8
    assert max(map(len, parts.values())) <= BLOB_PART_BYTES + 512
    assert len({blobs.parse_part(name, value).salt for name, value in parts.items()}) == len(parts)
    assert blobs.part_names(record.blob) == list(parts)


def test_two_sealings_share_neither_id_nor_key() -> None:
    (one, one_parts), (other, other_parts) = sealed({"a": "b"}, "one"), sealed({"a": "b"}, "other")
    assert one.blob is not None
    assert other.blob is not None
    assert one.blob.id != other.blob.id
    salts = {blobs.parse_part(name, value).salt for name, value in {**one_parts, **other_parts}.items()}
    assert len(salts) == 2


def test_each_byte_of_each_part_is_vouched_for() -> None:
    record, parts = sealed({"text": "bay leaf"})
    for name, value in parts.items():
        for index in range(len(value)):
            changed = bytearray(value)
            changed[index] ^= 1
            with pytest.raises(IntegrityError, match=r"1\.7|1:7|config"):
                blobs.open_blob(record, LOG_ID, {**parts, name: bytes(changed)}, OneKey())


def test_parts_that_are_missing_swapped_or_foreign_are_refused() -> None:
    record, parts = sealed({"text": noise(1_000_000)})
    names = list(parts)
    less = {name: value for name, value in parts.items() if name != names[1]}
    with pytest.raises(Damaged, match=r"Part 2 of \d of the blob of record 1.7 .*not in the store"):
        blobs.open_blob(record, LOG_ID, less, OneKey())
    with pytest.raises(Damaged, match="Part 1 of"):
        blobs.open_blob(record, LOG_ID, {**parts, names[0]: parts[names[1]], names[1]: parts[names[0]]}, OneKey())
    with pytest.raises(Damaged):
        blobs.open_blob(record, "another-log", parts, OneKey())
    other, other_parts = sealed({"text": noise(1_000_000, "other")}, "other")
    moved = dict(zip(names, other_parts.values(), strict=True))
    with pytest.raises(Damaged):
        blobs.open_blob(record, LOG_ID, moved, OneKey())
    assert other.blob is not None
    with pytest.raises(Damaged, match="The blob of record"):
        blobs.open_blob(record._replace(blob=other.blob._replace(salt=bytes(32))), LOG_ID, other_parts, OneKey())


def test_a_wrong_key_is_told_from_damage() -> None:
    record, parts = sealed({"text": "x"})
    impostor = DataKey(KEY.key_id, KeyClass.CONFIG, bytes(32), 1)
    with pytest.raises(WrongKey, match=r"blob of record 1\.7"):
        blobs.open_blob(record, LOG_ID, parts, OneKey(impostor))
    with pytest.raises(MissingKey):
        blobs.open_blob(record, LOG_ID, parts, OneKey(key_id="config-2"))


def test_a_whole_payload_has_a_limit() -> None:
    with pytest.raises(LimitExceeded, match="bytes"):
        sealed({"text": "x" * MAX_RECORD_PLAIN_BYTES})


@pytest.mark.parametrize("key_class", [KeyClass.CONFIG, KeyClass.SECRETS])
async def test_a_large_record_is_written_and_read_like_any_other(key_class: KeyClass) -> None:
    made = await make_memory_log(new_record(1))
    done = await made.log.append(large(2, key_class=key_class), new_record(3))
    await made.log.append(new_record(4))
    records = await made.log.read()
    assert [record.data for record in records[1:3]] == [large(2).data, new_record(3).data]
    assert tuple(records[1:3]) == done.records
    assert max(len(entry.value) for entry in made.store.frames.values()) < 4_000
    assert max(len(entry.value) for entry in made.store.entries.values()) < 256 * 1024


async def test_a_role_without_the_secrets_key_needs_no_blob_of_that_class() -> None:
    made = await make_memory_log(large(1, key_class=KeyClass.SECRETS))
    (record,) = await read_all(made.log.follower(CONFIG_ONLY))
    assert (record.data, record.blob) == (None, None)


async def test_a_small_record_makes_no_blob() -> None:
    made = await make_memory_log(new_record(1), large(2, size_bytes=150_000))
    assert not await made.log.driver.list_entries("blob/")


async def test_a_lost_race_keeps_the_blob_and_seals_only_the_record_anew() -> None:
    made = await make_memory_log()
    start = made.log.head
    await made.log.append(new_record(1))
    assert isinstance(await made.log.writer.append(start, [large(2)], 0), LostRace)
    before = await made.log.driver.list_entries("blob/")
    await made.log.append(large(2))
    assert await made.log.driver.list_entries("blob/") == before
    assert (await made.log.read())[1].data == large(2).data


async def test_a_missing_part_stops_the_reader_at_the_record() -> None:
    made = await make_memory_log(new_record(1), large(2))
    names = sorted(await made.log.driver.list_entries("blob/"))
    del made.store.entries[names[2]]
    read: list[Record] = []
    with pytest.raises(Damaged, match=r"Part 3 of . of the blob of record 1\.2"):  # noqa: PT012
        async with aclosing(made.log.follower().follow()) as batches:
            async for batch in batches:
                read.extend(batch.records)
    assert [record.position for record in read] == [Position(1, 1)]


async def test_only_what_no_record_can_name_any_more_is_removable() -> None:
    made = await make_memory_log(new_record(1), large(2))
    written = set(await made.log.driver.list_entries("blob/"))
    last = Position(1, 1 + BLOB_NAMED_WITHIN)
    assert not await blobs.removable(made.log.driver, Position(1, last.position - 1))
    assert set(await blobs.removable(made.log.driver, last)) == written
    assert set(await blobs.removable(made.log.driver, Position(2, 5))) == written


async def test_a_writer_never_names_a_blob_that_may_be_removed() -> None:
    """The other half of `removable`: beyond its reach a blob is written anew."""
    made = await make_memory_log()
    writer = blobs.BlobWriter(made.log.driver, made.log.clock, made.log.entropy)
    data, at = large(1).data, made.log.head.head

    async def named(position: Position, after: Head) -> BlobRef | None:
        return (await writer.put(record_of(data)._replace(position=position), after, KEY)).blob

    first = await named(Position(1, 1), at)
    assert await named(Position(1, BLOB_NAMED_WITHIN), at) == first
    assert await named(Position(1, BLOB_NAMED_WITHIN + 1), at._replace(position=BLOB_NAMED_WITHIN)) != first
    assert await named(Position(2, 2), at._replace(epoch=2, position=1)) != first


class Losing(MemoryDriver):
    """Loses the answers to writes of entries, the first of them together with the write."""

    def __init__(self, store: MemoryStore, answers: bool) -> None:
        super().__init__(store)
        self.sent, self._answers = 0, answers

    async def write_entries(self, *args: Any, **named: Any) -> AppendResult:
        self.sent += 1
        if self.sent > 1 and not self._answers:
            return Unknown("lost")
        result = await super().write_entries(*args, **named) if self.sent > 1 else Unknown("lost")
        return Unknown("lost, but it landed") if self.sent == 2 else result


async def test_lost_answers_are_asked_again_and_a_silent_store_is_no_quorum() -> None:
    made = await make_memory_log()
    writer = blobs.BlobWriter(Losing(made.store, answers=True), made.log.clock, made.log.entropy)
    record = await writer.put(record_of(large(1).data), made.log.head.head, KEY)
    assert record.blob is not None
    assert set(await made.log.driver.list_entries("blob/")) == set(blobs.part_names(record.blob))
    deaf = blobs.BlobWriter(Losing(made.store, answers=False), made.log.clock, made.log.entropy)
    with pytest.raises(NoQuorum, match="nothing was changed"):
        await deaf.put(record_of(large(2).data), made.log.head.head, KEY)


async def test_a_large_record_in_etcd(connection: EtcdConnection, prefix: str) -> None:
    log = await make_log(EtcdDriver(connection, prefix))
    await log.append(large(1, size_bytes=6_000_000), new_record(2))
    records = await log.read()
    assert [record.data for record in records] == [large(1, size_bytes=6_000_000).data, new_record(2).data]
