"""A role's start: its keys open the log, or it ends with one sentence; what may come back is waited for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from eventlog.drivers.memory import MemoryDriver, MemoryStore
from eventlog.genesis import create_log
from eventlog.keys.file import FileKeyProvider, create_key_file
from eventlog.keys.keyring import Keyring
from eventlog.keys.opening import KeyCheck, keep_fresh
from eventlog.keys.provider import KeyProvider, WrappedKey
from eventlog.keys.rotation import KeyRotation
from eventlog.records import KeyClass
from mesh.errors import Damaged, MissingKey, SettingsError, Unavailable
from runtime.clock import Clock
from runtime.limits import KEYRING_REFRESH_S
from tests.conditions import await_until
from tests.eventlog.keys.houses import ENTROPY
from tests.eventlog.logs import BOTH, CONFIG_ONLY, SeededEntropy, ToldClock, make_memory_log


class AwayAtFirst:
    """A key service that answers only from the third call on."""

    scheme, place = "memory", "a service"

    def __init__(self, behind: KeyProvider) -> None:
        self.behind, self.calls = behind, 0

    async def wrap(self, material: bytes, context: bytes) -> WrappedKey:
        return await self.behind.wrap(material, context)

    async def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        self.calls += 1
        if self.calls < 3:
            raise Unavailable("The key service does not answer: try again")
        return await self.behind.unwrap(wrapped, context)


def check(driver: MemoryDriver, providers: dict[KeyClass, KeyProvider], clock: Clock | None = None) -> KeyCheck:
    return KeyCheck(driver, Keyring(driver, providers), providers, clock or ToldClock())


async def test_it_passes_when_every_key_of_the_role_opens() -> None:
    made = await make_memory_log()
    for providers in (BOTH, CONFIG_ONLY):
        found = check(MemoryDriver(made.store), dict(providers))
        before = found.waiting_for
        await found.run()
        assert (before, found.waiting_for) == ("the keys have not been tried yet", None)
        assert found.log_id == made.log.head.head.log_id


async def test_a_missing_file_ends_it_even_while_etcd_is_away(tmp_path: Path) -> None:
    store = MemoryStore()
    store.reachable = False
    path = tmp_path / "config.kek"
    providers: dict[KeyClass, KeyProvider] = {KeyClass.CONFIG: FileKeyProvider(path, KeyClass.CONFIG, ENTROPY)}
    with pytest.raises(MissingKey, match=f"class 'config' at {path}: put it back from its copy"):
        await check(MemoryDriver(store), providers).run()
    create_key_file(path, KeyClass.CONFIG, ENTROPY)
    path.chmod(0o644)
    with pytest.raises(SettingsError, match=f"chmod 600 {path}"):
        await check(MemoryDriver(store), providers).run()


async def test_another_clusters_key_file_ends_it(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for path in (ours, theirs):
        create_key_file(path, KeyClass.CONFIG, ENTROPY)
    store = MemoryStore()
    providers = {each: FileKeyProvider(ours, each, ENTROPY) for each in KeyClass}
    await create_log(MemoryDriver(store), providers, ToldClock(), SeededEntropy())
    wrong: dict[KeyClass, KeyProvider] = {KeyClass.CONFIG: FileKeyProvider(theirs, KeyClass.CONFIG, ENTROPY)}
    with pytest.raises(MissingKey, match=rf"kek-\w+ of class 'config' is not in {theirs}"):
        await check(MemoryDriver(store), wrong).run()


async def test_each_byte_of_a_stored_key_ends_it() -> None:
    made = await make_memory_log()
    (key_id, *_), store = sorted(await made.log.driver.list_data_keys()), made.store
    entry = store.entries[f"datakey/{key_id}"]
    for index in range(len(entry.value)):
        changed = bytearray(entry.value)
        changed[index] ^= 1
        store.entries[f"datakey/{key_id}"] = entry._replace(value=bytes(changed))
        with pytest.raises((Damaged, MissingKey)):
            await check(MemoryDriver(store), dict(BOTH)).run()


async def test_a_log_without_a_data_key_of_the_class_ends_it() -> None:
    made = await make_memory_log()
    for key_id in await made.log.driver.list_data_keys():
        if key_id.startswith("secrets-"):
            await made.log.driver.write_entries({f"datakey/{key_id}": None})
    with pytest.raises(MissingKey, match=r"class 'secrets'.*keys import --from-archive"):
        await check(MemoryDriver(made.store), dict(BOTH)).run()


async def test_a_key_service_that_is_away_is_waited_for_and_said_once() -> None:
    made, clock = await make_memory_log(), ToldClock()
    service = AwayAtFirst(BOTH[KeyClass.CONFIG])
    found = check(MemoryDriver(made.store), {KeyClass.CONFIG: service}, clock)
    with capture_logs() as said:
        await found.run()
    assert clock.time_s == 2.0
    assert [line["reason"] for line in said] == ["The key service does not answer: try again"]


async def test_no_log_yet_and_no_quorum_are_waited_for_without_an_end() -> None:
    store, clock = MemoryStore(), ToldClock()
    found = check(MemoryDriver(store), dict(BOTH), clock)
    task = asyncio.ensure_future(found.run())
    for expected in ("meshlog provision", "quorum"):
        await await_until(lambda expected=expected: expected in str(found.waiting_for))  # type: ignore[misc]
        store.reachable = False
    assert not task.done()
    store.reachable = True
    await create_log(MemoryDriver(store), BOTH, ToldClock(), SeededEntropy())
    await task


async def test_a_writer_seals_with_a_key_that_another_server_drew_within_seconds() -> None:
    made, clock = await make_memory_log(), ToldClock()
    log_id = made.log.head.head.log_id
    keyring = Keyring(MemoryDriver(made.store), BOTH)
    await keyring.load(log_id)
    drawn = await KeyRotation(made.log.driver, made.log.keyring, BOTH, clock, SeededEntropy("x")).draw(
        log_id, KeyClass.CONFIG
    )
    fresh = asyncio.ensure_future(keep_fresh(keyring, log_id, clock))
    while clock.time_s < 3 * KEYRING_REFRESH_S and keyring.newest(KeyClass.CONFIG).key_id != drawn:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert keyring.newest(KeyClass.CONFIG).key_id == drawn
    fresh.cancel()


async def test_a_new_key_that_does_not_open_is_said_once_and_ends_nobody() -> None:
    made, clock = await make_memory_log(), ToldClock()
    keyring = made.log.keyring
    await made.log.driver.put_data_key("config-garbage", b"garbage", 0)
    with capture_logs() as said:
        fresh = asyncio.ensure_future(keep_fresh(keyring, made.log.head.head.log_id, clock))
        await await_until(lambda: clock.time_s > 20)
        assert not fresh.done()
        fresh.cancel()
    assert len(said) == 1
    assert "config-garbage" in said[0]["error"]
