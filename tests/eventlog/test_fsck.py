"""fsck: a clean log is clean, and each kind of damage is a finding that names its place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from cluster.etcd.connection import EtcdConnection
from eventlog.drivers.etcd import EtcdDriver
from eventlog.drivers.memory import MemoryDriver, MemoryStore
from eventlog.frames import frame_name
from eventlog.fsck import FsckReport, fsck
from eventlog.keys.keyring import Keyring
from eventlog.records import KeyClass, encode_head
from mesh.position import Position
from tests.eventlog.logs import BOTH, CONFIG_ONLY, MemoryLog, make_log, make_memory_log, new_record


@pytest.fixture
async def made() -> MemoryLog:
    made = await make_memory_log(new_record(1), new_record(2, KeyClass.SECRETS))
    await made.log.append(new_record(3), new_record(4))
    await made.log.append(new_record(5))
    return made


async def check(made: MemoryLog, keyed: bool = True) -> FsckReport:
    return await fsck(made.log.driver, Keyring(made.log.driver, BOTH) if keyed else None)


async def test_a_sound_log_is_clean_with_keys_and_without(made: MemoryLog) -> None:
    keyed, bare = await check(made), await check(made, keyed=False)
    assert (keyed.clean, bare.clean) == (True, True)
    assert (keyed.frames, keyed.records, keyed.opened, keyed.withheld, keyed.data_keys) == (4, 5, 5, 0, 3)
    assert (bare.records, bare.opened) == (5, 0)
    assert keyed.head == made.log.head.head


async def test_withheld_secrets_are_counted_not_found_wrong(made: MemoryLog) -> None:
    report = await fsck(made.log.driver, Keyring(made.log.driver, CONFIG_ONLY))
    assert (report.clean, report.opened, report.withheld) == (True, 5, 1)


async def test_progress_is_told(made: MemoryLog) -> None:
    told: list[int] = []
    await fsck(made.log.driver, None, told.append)
    assert told == [1, 2, 4, 5]


async def test_no_log_is_a_finding() -> None:
    report = await fsck(MemoryDriver(MemoryStore()), None)
    assert [finding.place for finding in report.findings] == ["head"]


async def test_each_byte_of_each_frame_and_of_the_head_is_found_without_keys(made: MemoryLog) -> None:
    store = made.store
    for name, entry in list(store.frames.items()):
        for index in range(len(entry.value)):
            value = bytearray(entry.value)
            value[index] ^= 0x10
            store.put_frame(name, bytes(value))
            assert not (await check(made, keyed=False)).clean, f"{name} byte {index}"
        store.put_frame(name, entry.value)
    assert store.head is not None
    head = store.head
    for index in range(len(head.value)):
        value = bytearray(head.value)
        value[index] ^= 0x10
        store.head = head._replace(value=bytes(value))
        assert not (await check(made, keyed=False)).clean, f"head byte {index}"
    store.head = head
    assert (await check(made)).clean


async def test_each_byte_of_a_wrapped_key_is_found_with_keys(made: MemoryLog) -> None:
    for key_id, entry in list(made.store.entries.items()):
        for index in range(len(entry.value)):
            value = bytearray(entry.value)
            value[index] ^= 1
            made.store.entries[key_id] = entry._replace(value=bytes(value))
            assert not (await check(made)).clean, f"{key_id} byte {index}"
        made.store.entries[key_id] = entry


def _name(position: int, epoch: int = 1) -> str:
    return frame_name(Position(epoch, position))


def _drop(store: MemoryStore, name: str) -> None:
    del store.frames[name]
    store.names.remove(name)


def _swap(store: MemoryStore) -> None:
    one, other = store.frames[_name(1)].value, store.frames[_name(2)].value
    store.put_frame(_name(1), other)
    store.put_frame(_name(2), one)


def _cut(store: MemoryStore) -> None:
    assert store.head is not None
    _drop(store, _name(5))


def _head(store: MemoryStore, position: int) -> None:
    ref = store.head_ref()
    assert ref is not None
    assert store.head is not None
    store.head = store.head._replace(value=encode_head(ref.head._replace(position=position)))


TAMPERING: dict[str, tuple[str, Callable[[MemoryStore], None]]] = {
    "a frame dropped": ("1.4", lambda store: _drop(store, _name(2))),
    "the first frame dropped": ("1.2", lambda store: _drop(store, _name(1))),
    "the tail cut": ("head", _cut),
    "two frames swapped": ("1.1", _swap),
    "a frame copied beyond the head": ("1.6", lambda store: store.put_frame(_name(6), store.frames[_name(5)].value)),
    "a frame copied to a later epoch": (
        "2.6",
        lambda store: store.put_frame(_name(6, 2), store.frames[_name(5)].value),
    ),
    "a foreign key": ("log/1/7", lambda store: store.put_frame("1/7", b"?")),
    "the head moved back": ("1.5", lambda store: _head(store, 4)),
    "the head ahead": ("head", lambda store: _head(store, 6)),
    "a data key lost": (
        "datakey/config-",
        lambda store: store.entries.pop(next(k for k in store.entries if k.startswith("datakey/config"))) and None,
    ),
}


@pytest.mark.parametrize("kind", TAMPERING)
@pytest.mark.parametrize("keyed", [True, False])
async def test_tampering_is_found_where_it_is(made: MemoryLog, kind: str, keyed: bool) -> None:
    place, tamper = TAMPERING[kind]
    tamper(made.store)
    report = await check(made, keyed)
    assert any(finding.place.startswith(place) for finding in report.findings), report.findings


async def test_one_damage_is_reported_once_and_the_rest_is_checked(made: MemoryLog) -> None:
    value = made.store.frames[_name(2)].value
    made.store.put_frame(_name(2), value[:-1] + bytes((value[-1] ^ 1,)))
    report = await check(made)
    assert report.records == 5
    assert [finding.place for finding in report.findings] == ["1.2", "1.3"]


async def test_it_checks_a_log_that_is_being_written(connection: EtcdConnection, prefix: str) -> None:
    log = await make_log(EtcdDriver(connection, prefix))

    async def write() -> None:
        for number in range(60):
            await log.append(new_record(number))

    writing = asyncio.ensure_future(write())
    reports = [await fsck(log.driver, Keyring(log.driver, BOTH)) for _ in range(5)]
    await writing
    reports.append(await fsck(log.driver, Keyring(log.driver, BOTH)))
    assert all(report.clean for report in reports), reports
    assert reports[-1].records == 60
