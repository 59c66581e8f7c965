"""Audit segments: chained, sealed, signed; nothing in them can be changed, moved or left out of the middle unseen."""

from __future__ import annotations

import asyncio

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from eventlog.archive.memory import MemoryObjectStore
from eventlog.audit import (
    ChainWriter,
    Link,
    Refusals,
    chain_start,
    follows,
    link_of,
    list_chains,
    open_segment,
    parse_segment,
    read_segment,
    segment_name,
)
from eventlog.records import KeyClass
from eventlog.sealing import DataKey
from eventlog.signing import SigningKey
from mesh.errors import Damaged, IntegrityError, Unavailable, WrongKey
from mesh.position import Position

KEY = DataKey("config-1", KeyClass.CONFIG, bytes(range(32)), 1)
LOG_ID, SERVER = "a-log", "api-z1"
WORD = "velociraptor"


class Keys:
    def __init__(self, key: DataKey = KEY) -> None:
        self._key = key

    def opens(self, key_class: KeyClass) -> bool:
        return key_class is KeyClass.CONFIG

    def find(self, key_id: str, position: Position) -> DataKey:
        return self._key


def signing_key() -> SigningKey:
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    return SigningKey("signing-1", private.public_key().public_bytes_raw(), private)


def refusals(number: int, dropped: int = 0) -> Refusals:
    entry = {"time_us": number * 1_000, "eventName": "CreateMesh", "requestParameters": {"meshName": WORD}}
    return Refusals((entry,), {"InvalidSignatureException": dropped} if dropped else {})


async def written(count: int = 3, signer: SigningKey | None = None) -> MemoryObjectStore:
    store = MemoryObjectStore()
    writer = ChainWriter(store, LOG_ID, SERVER)
    for number in range(1, count + 1):
        await writer.append(refusals(number), KEY, bytes([number]) * 32, signer)
    return store


async def sound(store: MemoryObjectStore, trusted: dict[str, bytes] | None = None) -> list[Refusals]:
    """What the chain holds, every link checked."""
    found: list[Refusals] = []
    end = Link(0, chain_start(LOG_ID, SERVER), 0)
    for name in (await list_chains(store))[SERVER]:
        read = await read_segment(store, name, trusted)
        assert read is not None
        segment, data = read
        if not follows(segment, end):
            raise Damaged(f"{name} does not follow")
        end = link_of(segment, data)
        found.append(open_segment(segment, Keys()))
    return found


@pytest.mark.parametrize("signer", [None, signing_key()], ids=["bare", "signed"])
async def test_what_is_written_is_read_in_order(signer: SigningKey | None) -> None:
    store = await written(3, signer)
    assert [each.entries for each in await sound(store)] == [list(refusals(number).entries) for number in (1, 2, 3)]
    assert list(store.objects) == [segment_name(SERVER, seq) for seq in (1, 2, 3)]


async def test_nothing_asked_for_is_in_the_clear() -> None:
    store = await written(2)
    assert not any(WORD.encode() in data or b"CreateMesh" in data for data in store.objects.values())


@pytest.mark.parametrize("trusted", [None, {"signing-1": signing_key().public}], ids=["any key", "pinned"])
async def test_each_byte_of_each_segment_is_vouched_for(trusted: dict[str, bytes] | None) -> None:
    store = await written(2, signing_key())
    flips = 0
    for name, data in list(store.objects.items()):
        for index in range(len(data)):
            changed = bytearray(data)
            changed[index] ^= 1
            store.objects[name] = bytes(changed)
            with pytest.raises(IntegrityError):
                await sound(store, trusted)
            flips += 1
        store.objects[name] = data
    assert flips > 600
    assert len(await sound(store, trusted)) == 2


async def test_a_segment_left_out_swapped_or_taken_from_another_server_is_found() -> None:
    store = await written(3)
    two = store.objects.pop(segment_name(SERVER, 2))
    with pytest.raises(Damaged, match="does not follow"):
        await sound(store)
    store.objects[segment_name(SERVER, 2)] = store.objects[segment_name(SERVER, 3)]
    with pytest.raises(Damaged, match="not readable"):
        await sound(store)
    with pytest.raises(Damaged):
        parse_segment(segment_name("api-z2", 2), two)


async def test_a_segment_without_the_signature_that_is_asked_for_is_refused() -> None:
    store = await written(1)
    with pytest.raises(Damaged):
        await sound(store, {"signing-1": signing_key().public})
    store = await written(1, signing_key())
    with pytest.raises(Damaged, match="not known by that name"):
        await sound(store, {"signing-1": bytes(32)})


async def test_a_wrong_key_is_told_from_damage() -> None:
    store = await written(1)
    read = await read_segment(store, segment_name(SERVER, 1))
    assert read is not None
    with pytest.raises(WrongKey, match=SERVER):
        open_segment(read[0], Keys(DataKey("config-1", KeyClass.CONFIG, bytes(32), 1)))


async def test_a_restarted_server_goes_on_with_its_chain() -> None:
    store = await written(2)
    await ChainWriter(store, LOG_ID, SERVER).append(refusals(3), KEY, bytes(32), None)
    assert len(await sound(store)) == 3


async def test_an_archive_of_another_log_is_refused() -> None:
    store = await written(1)
    with pytest.raises(Damaged, match="not of this log"):
        await ChainWriter(store, "another-log", SERVER).append(refusals(2), KEY, bytes(32), None)


async def test_two_processes_of_one_id_never_fork_the_chain() -> None:
    store = await written(1)
    one, other = ChainWriter(store, LOG_ID, SERVER), ChainWriter(store, LOG_ID, SERVER)
    await one.end()
    await other.end()
    await asyncio.gather(
        *(one.append(refusals(2), KEY, bytes(32), None), other.append(refusals(3), KEY, b"x" * 32, None))
    )
    assert len(await sound(store)) == 3


class Losing(MemoryObjectStore):
    """Loses every second answer to a put, after it landed."""

    calls = 0

    async def put_new(self, name: str, data: bytes) -> bool:
        done = await super().put_new(name, data)
        self.calls += 1
        if self.calls % 2:
            raise Unavailable("no answer")
        return done


async def test_a_lost_answer_is_repeated_and_written_once() -> None:
    store = Losing()
    writer = ChainWriter(store, LOG_ID, SERVER)
    for number in (1, 2, 3):
        with pytest.raises(Unavailable):
            await writer.append(refusals(number), KEY, bytes([number]) * 32, None)
        await writer.append(refusals(number), KEY, bytes([number, 0]) * 16, None)
    assert [each.entries for each in await sound(store)] == [list(refusals(number).entries) for number in (1, 2, 3)]


async def test_the_retention_takes_the_oldest_and_leaves_the_last() -> None:
    store = await written(4)
    assert await ChainWriter(store, LOG_ID, SERVER).prune(3_000) == 2
    assert list(store.objects) == [segment_name(SERVER, 3), segment_name(SERVER, 4)]
    assert await ChainWriter(store, LOG_ID, SERVER).prune(9_000_000) == 1
    assert list(store.objects) == [segment_name(SERVER, 4)]
