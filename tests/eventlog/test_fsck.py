"""fsck: a clean log is clean, and each kind of damage is a finding that names its place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from cluster.etcd.connection import EtcdConnection
from eventlog.blobs import part_names
from eventlog.checkpoints import CheckpointPlace, OpenCheckpoint, manifest_name, part_name, seal_checkpoint
from eventlog.drivers.etcd import EtcdDriver
from eventlog.drivers.memory import MemoryDriver, MemoryStore
from eventlog.frames import frame_name
from eventlog.fsck import FsckReport, fsck
from eventlog.keys.keyring import Keyring
from eventlog.quarantine import RECORD_QUARANTINED
from eventlog.records import Head, KeyClass, Record, encode_head
from eventlog.signing import signing_key
from eventlog.writer import LostRace
from mesh.errors import Poison
from mesh.position import Position
from tests.eventlog.logs import BOTH, CONFIG_ONLY, MemoryLog, make_log, make_memory_log, new_record
from tests.eventlog.test_blobs import large


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


async def test_a_lost_data_key_is_told_once_and_not_for_each_of_its_records(made: MemoryLog) -> None:
    lost = next(name for name in made.store.entries if name.startswith("datakey/config"))
    made.store.entries.pop(lost)
    (finding,) = (await check(made)).findings
    assert finding.place == lost
    assert "5 records need it: bring it back with `meshlog keys import`" in finding.message


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


class Sums:
    """A fold whose state is the sum of the records' numbers; a number of 13 is poison."""

    def __init__(self) -> None:
        self.sum = 0

    def begin(self, checkpoint: OpenCheckpoint | None) -> None:
        self.sum = 0 if checkpoint is None else checkpoint.config[0]

    def apply(self, record: Record) -> None:
        number = (record.data or {}).get("number", 0)
        if number == 13:
            raise Poison("thirteen")
        self.sum += number

    def state_hash(self) -> str:
        return str(self.sum)

    def hash_of(self, checkpoint: OpenCheckpoint) -> str:
        return str(checkpoint.config[0])


async def put_checkpoint(made: MemoryLog, state: int, state_hash: str = "", at: Head | None = None) -> None:
    """A checkpoint at the head of a state that is the number `state`."""
    log = made.log
    head = at or log.head.head
    config, secrets = await log.keyring.sealing_keys(head.log_id, KeyClass.SECRETS)
    assert secrets is not None
    sealed = seal_checkpoint(
        ([state], []),
        CheckpointPlace(head, head.at, 1, 1, state_hash or str(state)),
        (config, secrets),
        await signing_key(log.driver, log.keyring, head.log_id, log.clock, log.entropy),
        created_us=1,
        entropy=log.entropy,
    )
    entries = {part_name(head.at, n): part for n, part in enumerate(sealed.parts.values())}
    await log.driver.write_entries(entries | {manifest_name(head.at): sealed.manifest})


async def folded(made: MemoryLog) -> FsckReport:
    return await fsck(made.log.driver, Keyring(made.log.driver, BOTH), fold=Sums())


async def test_checkpoints_are_folded_anew(made: MemoryLog) -> None:
    await put_checkpoint(made, 15)
    await made.log.append(new_record(6))
    await put_checkpoint(made, 21)
    report = await folded(made)
    assert (report.clean, report.checkpoints, report.states) == (True, 2, 2)


@pytest.mark.parametrize(
    ("state", "says", "found"),
    [(14, "14", "fold to 15"), (15, "16", "not of the state whose hash it names")],
    ids=["another state", "another hash"],
)
async def test_a_checkpoint_of_another_state_is_found(made: MemoryLog, state: int, says: str, found: str) -> None:
    await put_checkpoint(made, state, says)
    report = await folded(made)
    assert [finding.place for finding in report.findings][:1] == ["checkpoint 1.5"]
    assert any(found in finding.message for finding in report.findings), report.findings


async def test_a_checkpoint_of_another_history_is_found_without_keys(made: MemoryLog) -> None:
    await put_checkpoint(made, 15, at=made.log.head.head._replace(hash=b"\1" * 32))
    report = await check(made, keyed=False)
    assert [finding.place for finding in report.findings] == ["5"]
    assert "The checkpoint at 1.5" in report.findings[0].message


async def test_a_trimmed_log_is_clean_from_its_checkpoint_on(made: MemoryLog) -> None:
    await put_checkpoint(made, 15)
    await made.log.append(new_record(6))
    await made.log.driver.trim(Position(1, 4), expected={}, fence=made.store.grant("trim"))
    report = await folded(made)
    assert (report.clean, report.begins, report.records, report.states) == (True, 4, 2, 1)
    await made.log.driver.trim(Position(1, 6), expected={}, fence=made.store.grant("trim"))
    assert not (await folded(made)).clean, "trimmed beyond the checkpoint"


async def test_a_quarantined_record_is_no_finding(made: MemoryLog) -> None:
    await made.log.append(new_record(13))
    assert [finding.place for finding in (await folded(made)).findings] == ["1.6"]
    data = {"position": [1, 6], "time_us": 0, "reason": "it stops everybody"}
    await made.log.append(new_record(0)._replace(type=RECORD_QUARANTINED, data=data))
    await put_checkpoint(made, 15)
    report = await folded(made)
    assert (report.clean, report.quarantined, report.states) == (True, 1, 1)


async def test_blobs_are_opened_and_what_nobody_names_is_counted(made: MemoryLog) -> None:
    await made.log.append(large(6))
    lost = made.log.head
    await made.log.append(new_record(7))
    assert isinstance(await made.log.writer.append(lost, [large(8)], 0), LostRace)
    report = await check(made)
    assert (report.clean, report.blob_parts, report.unnamed_parts) == (True, 8, 4)
    named = (await made.log.read())[5].blob
    assert named is not None
    del made.store.entries[part_names(named)[1]]
    (finding,) = (await check(made)).findings
    assert finding.place == "1.6"
    assert finding.message.startswith("Part 2 of 4 of the blob of record 1.6")


async def test_how_far_an_archive_reached_is_held_against_the_log(made: MemoryLog) -> None:
    head = made.log.head.head
    for archived, found in (
        (head, None),
        (head._replace(position=4, hash=b"\1" * 32), "The archive says that the record at 4"),
        (head._replace(position=6), "its tail was cut off"),
        (head._replace(epoch=2, position=1), "its tail was cut off"),
        (head._replace(log_id="other"), "is of log other"),
    ):
        report = await fsck(made.log.driver, None, archived=archived)
        assert report.clean is (found is None)
        assert found is None or found in report.findings[0].message
