"""Duties: one holder at a time, handed on when it dies, and fenced off when it sleeps through its lease."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.duties import FenceFell, Tenure, abreast, duty_key, list_duties, run_duty
from cluster.etcd.choice import EtcdMember
from cluster.etcd.connection import EtcdConnection
from cluster.etcd.values import (
    Comparison,
    CreateRevisionIs,
    KeyValue,
    Operation,
    Put,
    RangeRead,
    RangeResult,
    TxnDone,
    TxnOutcome,
    TxnUnknown,
)
from mesh.errors import Damaged, NoQuorum
from runtime.clock import Clock, SystemClock, SystemEntropy
from runtime.limits import DUTY_LEASE_S, DUTY_MARGIN_S, DUTY_PAUSE_S, DUTY_RENEW_S, DUTY_RETRY_S
from tests.conditions import await_until
from tests.etcd_cluster import EtcdCluster

PREFIX = "/meshlog/"


class HandClock(SystemClock):
    """Time stands still but in `run`, so that no stall of this machine ever ends a lease."""

    def __init__(self) -> None:
        self.time_s = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def monotonic_s(self) -> float:
        return self.time_s

    async def sleep(self, delay_s: float) -> None:
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.time_s + delay_s, next(self._order), over))
        await over

    async def run(self, seconds: float) -> None:
        """Let that much time pass, waking each sleeper at its moment, and everybody do what they can do at it."""
        end_s = self.time_s + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end_s:
            self.wake_next()
            await settle()
        self.time_s = end_s

    def wake_next(self) -> None:
        """Go on to the moment of the next sleeper and wake it; nothing of it has run when this returns."""
        self.time_s, _, over = heapq.heappop(self._sleepers)
        if not over.done():
            over.set_result(None)


async def settle(turns: int = 50) -> None:
    """Give every task turns of the event loop, until nobody has anything to do at this moment."""
    for _ in range(turns):
        await asyncio.sleep(0)


class LeaseStore:
    """Keys under leases that a test ends. `away`: no call is answered. `lose_next`: a Txn lands, its answer is lost."""

    def __init__(self) -> None:
        self.keys: dict[bytes, KeyValue] = {}
        self.leases: set[int] = set()
        self.revision = 1
        self.away = False
        self.lose_next = False
        self.taken: list[int] = []

    def end(self, lease: int) -> None:
        self.leases.discard(lease)
        self.keys = {key: item for key, item in self.keys.items() if item.lease != lease}

    def _check(self) -> None:
        if self.away:
            raise NoQuorum("etcd is away")

    async def range(self, read: RangeRead) -> RangeResult:
        await asyncio.sleep(0)
        self._check()
        end = read.range_end or read.key + b"\0"
        items = [item for key, item in sorted(self.keys.items()) if read.key <= key < end]
        return RangeResult(items, self.revision, False)

    async def txn(
        self, compare: Sequence[Comparison], success: Sequence[Operation], failure: Sequence[Operation] = ()
    ) -> TxnOutcome:
        await asyncio.sleep(0)
        self._check()
        (wanted,), (put,) = compare, success
        assert isinstance(wanted, CreateRevisionIs)
        assert isinstance(put, Put)
        present = self.keys.get(wanted.key)
        done = (present.create_revision if present else 0) == wanted.revision and put.lease in self.leases
        if done:
            self.revision += 1
            self.keys[put.key] = KeyValue(put.key, put.value, self.revision, self.revision, 1, put.lease)
            self.taken.append(self.revision)
        if self.lose_next:
            self.lose_next = False
            return TxnUnknown("lost")
        return TxnDone(done, self.revision, ())

    async def lease_grant(self, ttl_s: int) -> int:
        self._check()
        self.revision += 1
        self.leases.add(self.revision)
        return self.revision

    async def lease_keepalive(self, lease: int) -> int:
        await asyncio.sleep(0)
        self._check()
        return DUTY_LEASE_S if lease in self.leases else 0

    async def lease_revoke(self, lease: int) -> None:
        self._check()
        self.end(lease)


class Worker:
    """Counts its tenures. `failure`: what the work raises at once; `over`: what ends it, nothing by default."""

    def __init__(self, store: LeaseStore | EtcdConnection, holder: str, clock: Clock) -> None:
        self.tokens: list[int] = []
        self._at_work = False
        self.failure: Exception | None = None
        self.over: asyncio.Event | None = None
        self._duty = run_duty(store, PREFIX, "archive", holder_id=holder, work=self._work, clock=clock)

    async def _work(self, token: int) -> None:
        self.tokens.append(token)
        self._at_work = True
        try:
            if self.failure is not None:
                raise self.failure
            await (self.over or asyncio.Event()).wait()
        finally:
            self._at_work = False

    def works(self) -> bool:
        return self._at_work

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.ensure_future(self._duty)
        try:
            yield task
        finally:
            task.cancel()
            await settle()
            assert task.cancelled(), "who is told to stop stops"


@pytest.fixture
def store() -> LeaseStore:
    return LeaseStore()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


async def test_one_of_many_holds_it_and_the_next_takes_it_over(store: LeaseStore, clock: HandClock) -> None:
    workers = [Worker(store, f"api-z{number}", clock) for number in range(3)]
    async with workers[0].running():
        await clock.run(1)
        async with workers[1].running(), workers[2].running():
            assert await list_duties(store, PREFIX) == {"archive": "api-z0"}
            await clock.run(100)
            assert [worker.works() for worker in workers] == [True, False, False]
            store.end(store.keys[duty_key(PREFIX, "archive")].lease)
            await clock.run(DUTY_RENEW_S + DUTY_RETRY_S)
            assert len(store.taken) == 2
            assert sum(worker.works() for worker in workers) == 1
    assert not store.keys, "who stops lets go at once"
    assert not store.leases


async def test_a_holder_whose_lease_cannot_be_renewed_stops(store: LeaseStore, clock: HandClock) -> None:
    worker = Worker(store, "api-z1", clock)
    async with worker.running():
        await clock.run(1)
        assert worker.works()
        store.away = True
        await clock.run(DUTY_LEASE_S)
        assert not worker.works()
        store.away = False
        store.end(min(store.leases))
        await clock.run(DUTY_RETRY_S)
        assert worker.works()
    assert len(set(worker.tokens)) == 2


async def test_a_lost_answer_is_looked_up(store: LeaseStore, clock: HandClock) -> None:
    store.lose_next = True
    worker = Worker(store, "api-z1", clock)
    async with worker.running():
        await clock.run(1)
        assert worker.works()
        assert worker.tokens == store.taken == [store.keys[duty_key(PREFIX, "archive")].create_revision]


@pytest.mark.parametrize("failure", [NoQuorum("away"), Damaged("bytes"), FenceFell(), ZeroDivisionError()])
async def test_a_work_that_fails_is_begun_again(store: LeaseStore, clock: HandClock, failure: Exception) -> None:
    worker = Worker(store, "api-z1", clock)
    worker.failure = failure
    async with worker.running():
        await clock.run(10 * DUTY_PAUSE_S)
        assert 5 < len(worker.tokens) <= 11, "again and again, with a pause after each"
        worker.failure = None
        await clock.run(DUTY_PAUSE_S)
        assert worker.works()
    assert worker.tokens == sorted(set(worker.tokens))


@pytest.mark.parametrize("turns", range(8))
async def test_who_is_told_to_stop_while_its_lease_falls_stops(store: LeaseStore, clock: HandClock, turns: int) -> None:
    """A process that stalled wakes up to both at once, in either order: the lease is over, and it shall end."""
    worker = Worker(store, "api-z1", clock)
    async with worker.running() as duty:
        await clock.run(1)
        assert worker.works()
        store.end(store.keys[duty_key(PREFIX, "archive")].lease)
        clock.wake_next()
        await settle(turns)
        duty.cancel()
        await settle()
        assert duty.cancelled()
    assert not store.keys


@pytest.mark.parametrize("turns", range(8))
async def test_a_work_that_ends_while_its_lease_falls_is_begun_again(
    store: LeaseStore, clock: HandClock, turns: int
) -> None:
    """What falls while the tenure is over anyway must not end the duty."""
    worker = Worker(store, "api-z1", clock)
    worker.over = asyncio.Event()
    async with worker.running() as duty:
        await clock.run(1)
        store.end(store.keys[duty_key(PREFIX, "archive")].lease)
        clock.wake_next()
        await settle(turns)
        worker.over.set()
        await settle()
        worker.over = None
        await clock.run(10)
        assert not duty.done()
        assert worker.works()


@pytest.mark.parametrize("turns", range(8))
async def test_who_is_told_to_stop_while_its_work_fails_stops(store: LeaseStore, clock: HandClock, turns: int) -> None:
    worker = Worker(store, "api-z1", clock)
    worker.failure = ZeroDivisionError()
    async with worker.running() as duty:
        await settle(turns)
        duty.cancel()
        await settle()
        assert duty.cancelled()
    assert not store.keys


@given(
    answers=st.lists(st.tuples(st.floats(0, 20), st.integers(-1, DUTY_LEASE_S)), max_size=10),
    asked_s=st.floats(0, 100),
)
def test_nobody_believes_longer_than_the_lease_that_was_last_answered(
    answers: list[tuple[float, int]], asked_s: float
) -> None:
    tenure, begun_s, until_s = Tenure(0.0), 0.0, float(DUTY_LEASE_S)
    for waited_s, left_s in answers:
        begun_s += waited_s
        if left_s <= 0:
            with pytest.raises(FenceFell):
                tenure.on_renewed(begun_s, left_s)
            break
        tenure.on_renewed(begun_s, left_s)
        until_s = max(until_s, begun_s + left_s)
    if asked_s >= until_s - DUTY_MARGIN_S:
        with pytest.raises(FenceFell):
            tenure.check(asked_s)
    else:
        tenure.check(asked_s)


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path_factory.mktemp("etcd"), size=1) as cluster:
        yield cluster


async def test_with_real_etcd_a_holder_that_slept_too_long_writes_nothing_more(etcd: EtcdCluster) -> None:
    """Its lease ends while it sleeps; the next holder writes; then it wakes up and tries what it was about to do."""
    members = [EtcdMember(*endpoint) for endpoint in etcd.endpoints]
    connection = EtcdConnection(members, "z1", None, SystemClock(), SystemEntropy())
    key, begun, written = b"/meshlog/archive", asyncio.Event(), asyncio.Event()
    woken: list[bool] = []

    async def fenced_put(token: int, value: bytes) -> bool:
        fence = CreateRevisionIs(duty_key(PREFIX, "archive"), token)
        outcome = await connection.txn([fence], [Put(key, value)])
        assert isinstance(outcome, TxnDone)
        return outcome.succeeded

    async def sleeps(token: int) -> None:
        # What a stopped process looks like to etcd: no renewals, then one write, as if no time had passed.
        lease = (await connection.range(RangeRead(duty_key(PREFIX, "archive")))).items[0].lease
        assert await fenced_put(token, b"the first holder, in time")
        begun.set()
        await connection.lease_revoke(lease)
        await written.wait()
        woken.append(await fenced_put(token, b"the first holder, late"))

    async def writes(token: int) -> None:
        assert await fenced_put(token, b"the second holder")
        written.set()
        await asyncio.Event().wait()

    def duty(holder: str, work: object) -> asyncio.Future[None]:
        assert callable(work)
        return asyncio.ensure_future(
            run_duty(connection, PREFIX, "archive", holder_id=holder, work=work, clock=SystemClock())
        )

    running = [duty("api-z1", sleeps)]
    try:
        await await_until(begun.is_set)
        running.append(duty("api-z2", writes))
        await await_until(lambda: bool(woken))
        assert woken == [False]
        assert (await connection.range(RangeRead(key))).items[0].value == b"the second holder"
        assert await list_duties(connection, PREFIX) == {"archive": "api-z2"}
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        connection.close()


async def test_of_works_under_one_duty_each_fails_alone_and_the_fences_fall_ends_all() -> None:
    clock, begun, tokens = HandClock(), [0, 0], []

    async def breaks(token: int) -> None:
        begun[0] += 1
        raise Damaged("one log of the two")

    async def goes_on(token: int) -> None:
        begun[1] += 1
        tokens.append(token)
        await clock.sleep(1e6)

    async def fenced_off(token: int) -> None:
        await clock.sleep(60.0)
        raise FenceFell

    works = {"broken": breaks, "whole": goes_on, "fenced": fenced_off}
    working = asyncio.ensure_future(abreast(works, clock)(7))
    await clock.run(10 * DUTY_PAUSE_S)
    assert begun[0] > 5
    assert (begun[1], tokens) == (1, [7])
    await clock.run(60.0)
    with pytest.raises(BaseExceptionGroup) as ended:
        await working
    assert ended.value.split(FenceFell)[1] is None
