"""A new cluster's log has the admin's key as its first event, once, whoever begins."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from cli.genesis import AdminKey, create_cluster_log
from eventlog.drivers.memory import MemoryDriver, MemoryStore
from eventlog.follower import Follower
from eventlog.keys.keyring import Keyring
from eventlog.keys.provider import KeyProvider
from eventlog.records import KeyClass, Record
from mesh.events import ACCESS_KEY_CREATED
from mesh.evolve import evolve
from mesh.state import State
from projector.replica import event_of
from tests.eventlog.logs import BOTH, CONFIG_ONLY, SeededEntropy, ToldClock

ADMIN = AdminKey("MLOGEXAMPLE", "a secret of the admin", "123456789012")


async def _records(store: MemoryStore, providers: Mapping[KeyClass, KeyProvider]) -> list[Record]:
    driver = MemoryDriver(store)
    found: list[Record] = []
    follower = Follower(driver, Keyring(driver, providers), ToldClock(), SeededEntropy("reader"))
    async for batch in follower.follow():
        found += batch.records
        if batch.caught_up:
            return found
    raise AssertionError("the follower never caught up")


async def _create(store: MemoryStore, seed: str) -> bool:
    return await create_cluster_log(MemoryDriver(store), BOTH, ADMIN, ToldClock(), SeededEntropy(seed))


async def test_hosts_that_begin_at_the_same_moment_make_one_log_with_one_admin_key() -> None:
    store = MemoryStore()
    wrote = await asyncio.gather(*(_create(store, f"host {number}") for number in range(3)))
    assert sorted(wrote) == [False, False, True]
    (record,) = await _records(store, BOTH)
    assert record.type == ACCESS_KEY_CREATED
    key = evolve(State(), event_of(record)).access_keys[ADMIN.access_key_id]
    assert (key.secret, key.account, key.principal, key.admin) == (
        ADMIN.secret,
        "123456789012",
        "arn:aws:iam::123456789012:user/admin",
        True,
    )


async def test_a_start_on_a_log_that_exists_writes_nothing() -> None:
    store = MemoryStore()
    assert await _create(store, "first") is True
    assert await _create(store, "again") is False
    assert len(await _records(store, BOTH)) == 1


async def test_a_role_without_the_secrets_key_sees_that_there_is_a_key_but_not_which() -> None:
    store = MemoryStore()
    await _create(store, "first")
    (record,) = await _records(store, CONFIG_ONLY)
    assert record.type == ACCESS_KEY_CREATED
    assert record.data is None
