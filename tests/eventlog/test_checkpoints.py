"""Checkpoints as bytes: what goes in comes out, for whom it is meant, and with any byte changed it does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from cluster.duties import FenceFell
from eventlog.checkpoints import (
    CheckpointPlace,
    OpenCheckpoint,
    SealedCheckpoint,
    delete_checkpoint,
    list_checkpoints,
    manifest_name,
    newest_checkpoint,
    open_checkpoint,
    parse_manifest,
    part_name,
    read_checkpoint,
    seal_checkpoint,
    write_checkpoint,
)
from eventlog.driver import AppendResult, Entry, Fence, Unknown
from eventlog.drivers.memory import MemoryDriver, MemoryStore
from eventlog.keys.keyring import Keyring
from eventlog.keys.provider import KeyProvider
from eventlog.records import KeyClass
from eventlog.signing import signing_key
from mesh.errors import Damaged, IntegrityError, MissingKey, NoQuorum
from mesh.position import Position
from runtime.limits import CHECKPOINT_MANIFEST_BYTES, CHECKPOINT_PART_BYTES, MAX_FRAME_BYTES
from tests.eventlog.logs import BOTH, CONFIG_ONLY, Log, MemoryLog, SeededEntropy, make_memory_log, new_record

CONFIG = [1, {"resources": ["cart.internal"] * 3}]
SECRETS = [1, ["a planted secret"]]


@pytest.fixture
async def made() -> MemoryLog:
    return await make_memory_log(new_record(1), new_record(2))


async def sealed_of(log: Log, config: Any = None, secrets: Any = None) -> SealedCheckpoint:
    """A checkpoint at the log's head."""
    head = log.head.head
    signer = await signing_key(log.driver, log.keyring, head.log_id, log.clock, log.entropy)
    keys = log.keyring.held(KeyClass.CONFIG)[-1], log.keyring.held(KeyClass.SECRETS)[-1]
    place = CheckpointPlace(head, head.at, log.clock.wall_us, 1, "ab" * 32)
    documents = (CONFIG if config is None else config, SECRETS if secrets is None else secrets)
    return seal_checkpoint(documents, place, keys, signer, created_us=log.clock.wall_us, entropy=log.entropy)


async def write(made: MemoryLog, **documents: Any) -> Position:
    sealed = await sealed_of(made.log, **documents)
    await write_checkpoint(made.log.driver, made.store.grant("checkpoint"), sealed, made.log.clock)
    return made.log.head.head.at


def ring(made: MemoryLog, providers: Mapping[KeyClass, KeyProvider] = BOTH) -> Keyring:
    return Keyring(made.log.driver, providers)


async def test_what_goes_in_comes_out(made: MemoryLog) -> None:
    at = await write(made)
    opened = await read_checkpoint(made.log.driver, ring(made), at)
    assert opened is not None
    assert (opened.config, opened.secrets) == (CONFIG, SECRETS)
    manifest = opened.manifest
    assert manifest.at == made.log.head.head
    assert (manifest.log_id, manifest.state_at, manifest.state_hash) == (manifest.at.log_id, at, "ab" * 32)
    assert manifest.signer.startswith("signing-")
    assert sorted(made.store.entries)[:3] == [manifest_name(at), part_name(at, 0), part_name(at, 1)]


async def test_a_role_without_secrets_opens_the_rest(made: MemoryLog) -> None:
    opened = await read_checkpoint(made.log.driver, ring(made, CONFIG_ONLY), await write(made))
    assert opened is not None
    assert (opened.config, opened.secrets) == (CONFIG, None)


async def test_nothing_in_it_can_be_read_without_a_key(made: MemoryLog) -> None:
    sealed = await sealed_of(made.log)
    stored = sealed.manifest + b"".join(sealed.parts.values())
    assert b"planted" not in stored
    assert b"cart.internal" not in stored


async def test_a_large_one_is_cut_into_parts_that_fit(made: MemoryLog) -> None:
    config = [SeededEntropy("large").token_bytes(3 * CHECKPOINT_PART_BYTES)]
    opened = await read_checkpoint(made.log.driver, ring(made), await write(made, config=config))
    assert opened is not None
    assert opened.config == config
    assert len(opened.manifest.parts) == 5
    assert all(part.size_bytes <= 192 * 1024 for part in opened.manifest.parts)
    assert all(len(entry.value) < MAX_FRAME_BYTES for entry in made.store.entries.values())


async def open_from(made: MemoryLog, name: str, value: bytes, at: Position) -> OpenCheckpoint | None:
    """Open with one entry changed."""
    entry = made.store.entries[name]
    made.store.entries[name] = Entry(value, entry.mod_revision)
    try:
        return await read_checkpoint(made.log.driver, ring(made), at)
    finally:
        made.store.entries[name] = entry


async def test_each_byte_of_manifest_and_parts_is_proven(made: MemoryLog) -> None:
    at = await write(made)
    names = [name for name in made.store.entries if name.startswith("checkpoint/")]
    assert len(names) == 3
    for name in names:
        value = made.store.entries[name].value
        for index in range(len(value)):
            with pytest.raises(IntegrityError):
                await open_from(made, name, value[:index] + bytes((value[index] ^ 1,)) + value[index + 1 :], at)
        for cut in (value[:-1], b"", value + b"\0"):
            with pytest.raises(Damaged):
                await open_from(made, name, cut, at)


async def test_parts_dropped_swapped_or_of_another_checkpoint_are_damage(made: MemoryLog) -> None:
    first = await sealed_of(made.log)
    second = await sealed_of(made.log)
    parts = list(first.parts.values())
    await made.log.keyring.load(made.log.head.head.log_id)
    keyring = made.log.keyring
    assert open_checkpoint(first.manifest, first.parts.__getitem__, keyring).config == CONFIG
    wrong: list[Mapping[bytes, bytes]] = [
        {},
        dict(zip(first.parts, reversed(parts), strict=True)),
        second.parts,
        dict(zip(first.parts, second.parts.values(), strict=True)),
    ]
    for found in wrong:
        with pytest.raises(Damaged):
            open_checkpoint(first.manifest, found.__getitem__, keyring)


async def test_one_of_another_cluster_or_place_is_damage(made: MemoryLog) -> None:
    at = await write(made)
    entry = made.store.entries[manifest_name(at)]
    # The same key-encryption keys, as in a copied cluster: all of it opens there, and none of it here.
    other = await make_memory_log(new_record(1), new_record(2), seed="other")
    other.store.entries |= made.store.entries
    with pytest.raises(Damaged, match="another log"):
        await read_checkpoint(other.log.driver, ring(other), at)
    moved = Position(1, 1)
    made.store.entries[manifest_name(moved)] = entry
    made.store.entries |= {part_name(moved, n): made.store.entries[part_name(at, n)] for n in range(2)}
    with pytest.raises(Damaged, match=r"1\.1 is one of 1\.2"):
        await read_checkpoint(made.log.driver, ring(made), moved)


async def test_one_that_a_stranger_signed_is_damage_where_signers_are_known(made: MemoryLog) -> None:
    stranger = await make_memory_log(seed="stranger")
    head = made.log.head.head
    forger = stranger.log
    signer = await signing_key(
        forger.driver, forger.keyring, forger.head.head.log_id, forger.clock, SeededEntropy("forger")
    )
    await made.log.keyring.load(head.log_id)
    keys = made.log.keyring.held(KeyClass.CONFIG)[-1], made.log.keyring.held(KeyClass.SECRETS)[-1]
    place = CheckpointPlace(head, head.at, 1, 1, "ab" * 32)
    sealed = seal_checkpoint((CONFIG, SECRETS), place, keys, signer, created_us=1, entropy=made.log.entropy)
    fence = made.store.grant("checkpoint")
    await write_checkpoint(made.log.driver, fence, sealed, made.log.clock)
    with pytest.raises(Damaged, match=signer.name):
        await read_checkpoint(made.log.driver, ring(made), head.at)
    assert parse_manifest(sealed.manifest, {signer.name: signer.public}).signer == signer.name
    with pytest.raises(Damaged):
        parse_manifest(sealed.manifest, {})


async def test_a_missing_key_is_named(made: MemoryLog) -> None:
    at = await write(made)
    config = next(name for name in made.store.entries if name.startswith("datakey/config"))
    del made.store.entries[config]
    with pytest.raises(MissingKey, match=config):
        await read_checkpoint(made.log.driver, ring(made), at)
    with pytest.raises(MissingKey):
        await newest_checkpoint(made.log.driver, ring(made))


async def test_the_newest_sound_one_is_found(made: MemoryLog) -> None:
    driver = made.log.driver
    assert await newest_checkpoint(driver, ring(made)) is None
    first = await write(made)
    await made.log.append(new_record(3))
    second = await write(made)
    assert await list_checkpoints(driver) == [first, second]

    async def found(before: Position | None = None) -> Position | None:
        opened = await newest_checkpoint(driver, ring(made), before)
        return opened and opened.manifest.at.at

    assert await found() == second
    assert await found(second) == second
    assert await found(Position(1, 2)) == first
    assert await found(Position(1, 1)) is None
    entry = made.store.entries[part_name(second, 0)]
    made.store.entries[part_name(second, 0)] = Entry(entry.value[:-1] + b"?", entry.mod_revision)
    assert await found() == first
    await delete_checkpoint(driver, made.store.grant("trim"), second, made.log.clock)
    assert await list_checkpoints(driver) == [first]
    assert not [name for name in made.store.entries if name.startswith("checkpoint/1/00000000000000000003")]


async def test_until_the_manifest_is_written_there_is_none(made: MemoryLog) -> None:
    at = await write(made)
    del made.store.entries[manifest_name(at)]
    assert await read_checkpoint(made.log.driver, ring(made), at) is None
    assert await list_checkpoints(made.log.driver) == []
    await delete_checkpoint(made.log.driver, made.store.grant("trim"), at, made.log.clock)
    assert not [name for name in made.store.entries if name.startswith("checkpoint/")]


async def test_a_writer_that_lost_its_duty_writes_nothing_more(made: MemoryLog) -> None:
    sealed = await sealed_of(made.log)
    old, new = made.store.grant("checkpoint"), made.store.grant("checkpoint")
    with pytest.raises(FenceFell):
        await write_checkpoint(made.log.driver, old, sealed, made.log.clock)
    assert await list_checkpoints(made.log.driver) == []
    await write_checkpoint(made.log.driver, new, sealed, made.log.clock)
    with pytest.raises(FenceFell):
        await delete_checkpoint(made.log.driver, old, made.log.head.head.at, made.log.clock)
    assert await read_checkpoint(made.log.driver, ring(made), made.log.head.head.at) is not None


class Lossy(MemoryDriver):
    """Lands every write and loses the first `lost` answers."""

    def __init__(self, store: MemoryStore, lost: int) -> None:
        super().__init__(store)
        self.lost = lost

    async def write_entries(
        self, puts: Mapping[str, bytes | None], *, expected: Mapping[str, int] = {}, fence: Fence | None = None
    ) -> AppendResult:
        result = await super().write_entries(puts, expected=expected, fence=fence)
        self.lost -= 1
        return Unknown("lost") if self.lost >= 0 else result


async def test_lost_answers_are_asked_after(made: MemoryLog) -> None:
    sealed, fence = await sealed_of(made.log), made.store.grant("checkpoint")
    await write_checkpoint(Lossy(made.store, 3), fence, sealed, made.log.clock)
    assert await read_checkpoint(made.log.driver, ring(made), made.log.head.head.at) is not None
    with pytest.raises(NoQuorum):
        await write_checkpoint(Lossy(made.store, 10**6), fence, sealed, made.log.clock)


async def test_a_manifest_has_a_bound(made: MemoryLog) -> None:
    """Sound and signed, and still too large to be read."""
    head, log = made.log.head.head, made.log
    signer = await signing_key(log.driver, log.keyring, head.log_id, log.clock, SeededEntropy("large"))
    await log.keyring.load(head.log_id)
    keys = log.keyring.held(KeyClass.CONFIG)[-1], log.keyring.held(KeyClass.SECRETS)[-1]

    def manifest(words: int) -> bytes:
        place = CheckpointPlace(head, head.at, 1, 1, "x" * words)
        return seal_checkpoint((CONFIG, SECRETS), place, keys, signer, created_us=1, entropy=log.entropy).manifest

    assert parse_manifest(manifest(CHECKPOINT_MANIFEST_BYTES // 2)).at == head
    with pytest.raises(Damaged, match="not readable"):
        parse_manifest(manifest(CHECKPOINT_MANIFEST_BYTES))
