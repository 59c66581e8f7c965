"""Confirming the head: shared, and never by a read that began before the asker asked."""

from __future__ import annotations

import asyncio

import pytest

from eventlog.drivers.memory import MemoryDriver, MemoryStore
from eventlog.reads import HeadConfirmer
from eventlog.records import HeadRef
from mesh.errors import NoQuorum, NotReady, TimelineMoved
from tests.eventlog.logs import make_memory_log, new_record


class GatedDriver(MemoryDriver):
    """Reads of the head take their value at once and answer when the test lets them."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.gates: list[asyncio.Event] = []

    async def read_head(self) -> HeadRef | None:
        value = await super().read_head()
        gate = asyncio.Event()
        self.gates.append(gate)
        await gate.wait()
        return value


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_askers_that_wait_together_share_one_read() -> None:
    made = await make_memory_log(new_record(1))
    driver = GatedDriver(made.store)
    confirmer = HeadConfirmer(driver)
    first = asyncio.ensure_future(confirmer.confirm())
    await turns()
    waiting = [asyncio.ensure_future(confirmer.confirm()) for _ in range(50)]
    await turns()
    driver.gates[0].set()
    await turns()
    driver.gates[1].set()
    heads = await asyncio.gather(first, *waiting)
    assert set(heads) == {made.log.head}
    assert confirmer.reads_begun == 2


async def test_a_read_under_way_never_answers_a_later_asker() -> None:
    made = await make_memory_log(new_record(1))
    driver = GatedDriver(made.store)
    confirmer = HeadConfirmer(driver)
    early = asyncio.ensure_future(confirmer.confirm())
    await turns()
    before = made.log.head
    after = (await made.log.append(new_record(2))).head
    late = asyncio.ensure_future(confirmer.confirm())
    await turns()
    driver.gates[0].set()
    await turns()
    assert early.result() == before
    assert not late.done()
    driver.gates[1].set()
    assert await late == after


async def test_a_failed_read_fails_those_that_shared_it_and_no_later_one() -> None:
    made = await make_memory_log(new_record(1))
    confirmer = HeadConfirmer(made.log.driver)
    made.store.reachable = False
    outcomes = await asyncio.gather(*(confirmer.confirm() for _ in range(10)), return_exceptions=True)
    assert all(isinstance(outcome, NoQuorum) for outcome in outcomes)
    assert confirmer.reads_begun <= 2
    made.store.reachable = True
    assert await confirmer.confirm() == made.log.head


async def test_a_cancelled_reader_hands_over() -> None:
    made = await make_memory_log(new_record(1))
    driver = GatedDriver(made.store)
    confirmer = HeadConfirmer(driver)
    first, second = (asyncio.ensure_future(confirmer.confirm()) for _ in range(2))
    await turns()
    first.cancel()
    await turns()
    driver.gates[1].set()
    assert await second == made.log.head


async def test_no_log_is_not_ready_and_a_head_that_moved_back_stops() -> None:
    with pytest.raises(NotReady):
        await HeadConfirmer(MemoryDriver(MemoryStore())).confirm()
    made = await make_memory_log(new_record(1))
    confirmer = HeadConfirmer(made.log.driver)
    older = made.store.head
    await made.log.append(new_record(2))
    await confirmer.confirm()
    made.store.head = older
    with pytest.raises(TimelineMoved):
        await confirmer.confirm()
