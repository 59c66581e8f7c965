"""Making a log: once, whoever does it, however the answers get lost."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from cluster.etcd.connection import EtcdConnection
from eventlog.driver import AppendResult, Unknown
from eventlog.drivers.etcd import EtcdDriver
from eventlog.drivers.memory import MemoryDriver, MemoryStore
from eventlog.genesis import Genesis, create_log
from eventlog.records import Head, KeyClass, genesis_hash
from mesh.errors import MissingKey, NoQuorum
from tests.eventlog.logs import BOTH, CONFIG_ONLY, SeededEntropy, ToldClock, make_log, new_record


class LossyDriver(MemoryDriver):
    """The first answers to `create` are lost, having landed or not."""

    def __init__(self, store: MemoryStore, lost: list[bool]) -> None:
        super().__init__(store)
        self._lost = lost

    async def create(self, head: Head, data_keys: Mapping[str, bytes]) -> AppendResult:
        if self._lost:
            if self._lost.pop():
                await super().create(head, data_keys)
            return Unknown("timeout")
        return await super().create(head, data_keys)


def create(driver: MemoryDriver, seed: str = "seed") -> asyncio.Future[Genesis]:
    return asyncio.ensure_future(create_log(driver, BOTH, ToldClock(), SeededEntropy(seed)))


async def test_a_new_log_begins_at_the_hash_of_its_own_id() -> None:
    made = await create(MemoryDriver(MemoryStore()))
    assert made.created
    assert (made.head.head.epoch, made.head.head.position) == (1, 0)
    assert made.head.head.hash == genesis_hash(made.head.head.log_id) != genesis_hash("another")


async def test_of_many_at_once_one_makes_it_and_all_get_it() -> None:
    store = MemoryStore()
    made = await asyncio.gather(*(create(MemoryDriver(store), f"seed {number}") for number in range(5)))
    assert sum(each.created for each in made) == 1
    assert {each.head for each in made} == {store.head_ref()}
    assert len(store.entries) == len(KeyClass)


@pytest.mark.parametrize("lost", [[True], [False], [True, False, False]])
async def test_lost_answers_make_no_second_log(lost: list[bool]) -> None:
    store = MemoryStore()
    made = await create(LossyDriver(store, lost))
    assert made.created
    assert made.head == store.head_ref()
    assert len(store.entries) == len(KeyClass)


async def test_an_existing_log_is_left_alone() -> None:
    log = await make_log()
    done = await log.append(new_record(1))
    again = await create_log(log.driver, {}, ToldClock(), SeededEntropy("again"))
    assert again == Genesis(done.head, created=False)


async def test_both_classes_are_needed_to_make_one() -> None:
    with pytest.raises(MissingKey, match="class 'secrets'"):
        await create_log(MemoryDriver(MemoryStore()), CONFIG_ONLY, ToldClock(), SeededEntropy())


async def test_a_store_without_quorum_is_waited_for_and_then_given_up() -> None:
    store = MemoryStore()
    store.reachable = False
    clock = ToldClock()
    with pytest.raises(NoQuorum):
        await create_log(MemoryDriver(store), BOTH, clock, SeededEntropy())
    assert 19 < clock.time_s < 22


async def test_real_etcd_makes_one_log_for_many(connection: EtcdConnection, prefix: str) -> None:
    drivers = [EtcdDriver(connection, prefix) for _ in range(6)]
    made = await asyncio.gather(
        *(create_log(driver, BOTH, ToldClock(), SeededEntropy(str(n))) for n, driver in enumerate(drivers))
    )
    assert sum(each.created for each in made) == 1
    assert {each.head for each in made} == {await drivers[0].read_head()}
    assert len(await drivers[0].list_data_keys()) == len(KeyClass)
