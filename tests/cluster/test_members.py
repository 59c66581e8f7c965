"""Leased registrations: alive while renewed, gone with the lease, patient while etcd is away."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.etcd.choice import EtcdMember
from cluster.etcd.connection import EtcdConnection
from cluster.etcd.values import KeyValue, RangeRead, RangeResult
from cluster.members import Member, Registration, cluster_level, list_members, member_key
from mesh.errors import Damaged, NoQuorum
from runtime.clock import SystemClock, SystemEntropy
from runtime.limits import MEMBER_RENEW_S, MEMBER_RETRY_S
from tests.conditions import PATIENCE_S, await_until
from tests.etcd_cluster import EtcdCluster

PREFIX = "/meshlog/"


def member(role: str = "api", member_id: str = "api-z1", level: int = 1) -> Member:
    return Member(role=role, id=member_id, zone="z1", address="127.0.0.1:7411", level=level, build="0.1.0")


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.us = 1_000_000
        self.slept: list[float] = []

    def now_us(self) -> int:
        return self.us

    def monotonic_s(self) -> float:
        return self.us / 1_000_000

    async def sleep(self, delay_s: float) -> None:
        self.slept.append(delay_s)
        self.us += int(delay_s * 1_000_000)
        await asyncio.sleep(0)


class MemoryStore:
    """Keys under leases; `away` makes every call fail."""

    def __init__(self) -> None:
        self.keys: dict[bytes, tuple[bytes, int]] = {}
        self.leases: set[int] = set()
        self.granted = 0
        self.away = False

    def _check(self) -> None:
        if self.away:
            raise NoQuorum("etcd is away")

    def expire(self) -> None:
        self.leases.clear()
        self.keys = {key: kept for key, kept in self.keys.items() if kept[1] in self.leases}

    async def range(self, read: RangeRead) -> RangeResult:
        self._check()
        items = [
            KeyValue(key, value, 1, 1, 1, lease)
            for key, (value, lease) in sorted(self.keys.items())
            if read.key <= key < read.range_end
        ]
        return RangeResult(items, 1, False)

    async def put(self, key: bytes, value: bytes, lease: int = 0) -> int:
        self._check()
        assert lease in self.leases
        self.keys[key] = (value, lease)
        return 1

    async def lease_grant(self, ttl_s: int) -> int:
        self._check()
        self.granted += 1
        self.leases.add(self.granted)
        return self.granted

    async def lease_keepalive(self, lease: int) -> int:
        self._check()
        return 10 if lease in self.leases else 0

    async def lease_revoke(self, lease: int) -> None:
        self._check()
        self.expire()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def time() -> Time:
    return Time()


async def test_a_member_is_listed_with_what_its_clock_says_now(store: MemoryStore, time: Time) -> None:
    registration = Registration(store, PREFIX, member, time)
    assert await registration.renew()
    time.us = 5_000_000
    assert await registration.renew()
    (found,) = await list_members(store, PREFIX)
    assert found == Member(**member().document() | {"wall_us": 5_000_000})
    assert store.granted == 1


async def test_where_batches_are_taken_is_told_and_a_record_of_an_older_build_tells_none(
    store: MemoryStore, time: Time
) -> None:
    told = dataclasses.replace(member(), peer="127.0.0.1:7418")
    await Registration(store, PREFIX, lambda: told, time).renew()
    assert [found.peer for found in await list_members(store, PREFIX)] == ["127.0.0.1:7418"]
    older = {name: value for name, value in told.document().items() if name != "peer"}
    key, lease = member_key(PREFIX, told.role, told.id), await store.lease_grant(10)
    await store.put(key, json.dumps(older).encode(), lease)
    assert [found.peer for found in await list_members(store, PREFIX)] == [""]


async def test_a_raised_level_is_published_at_the_next_renewal(store: MemoryStore, time: Time) -> None:
    level = 1
    registration = Registration(store, PREFIX, lambda: member(level=level), time)
    await registration.renew()
    level = 2
    await registration.renew()
    assert cluster_level(await list_members(store, PREFIX)) == 2


async def test_a_lease_that_ended_is_taken_anew(store: MemoryStore, time: Time) -> None:
    registration = Registration(store, PREFIX, member, time)
    await registration.renew()
    store.expire()
    assert await list_members(store, PREFIX) == []
    assert await registration.renew()
    assert len(await list_members(store, PREFIX)) == 1


async def test_etcd_being_away_is_waited_out_at_a_quicker_pace(store: MemoryStore, time: Time) -> None:
    registration = Registration(store, PREFIX, member, time)
    store.away = True
    running = asyncio.ensure_future(registration.run())
    await await_until(lambda: len(time.slept) >= 3)
    assert set(time.slept) == {MEMBER_RETRY_S}
    store.away = False
    await await_until(lambda: MEMBER_RENEW_S in time.slept)
    assert len(await list_members(store, PREFIX)) == 1
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert await list_members(store, PREFIX) == [], "a member that stops in order takes its record along"


async def test_one_role_is_listed_alone(store: MemoryStore, time: Time) -> None:
    for role in ("api", "projector"):
        await Registration(store, PREFIX, lambda role=role: member(role, f"{role}-z1"), time).renew()  # type: ignore[misc]
    assert [found.role for found in await list_members(store, PREFIX)] == ["api", "projector"]
    assert [found.role for found in await list_members(store, PREFIX, "projector")] == ["projector"]


def test_the_clusters_level_is_the_least_of_its_members() -> None:
    assert cluster_level([member(level=3), member(level=2)]) == 2
    assert cluster_level([]) is None


@pytest.mark.parametrize("value", [b"", b"[]", b"{}", b'{"role":1}', b"\xff", b" " * 10_000])
async def test_a_record_that_is_none_of_ours_is_named(store: MemoryStore, value: bytes) -> None:
    store.leases.add(1)
    await store.put(member_key(PREFIX, "api", "odd"), value, 1)
    with pytest.raises(Damaged, match="members/api/odd"):
        await list_members(store, PREFIX)


async def test_a_record_of_a_newer_build_is_read_as_far_as_it_is_known(store: MemoryStore, time: Time) -> None:
    await Registration(store, PREFIX, member, time).renew()
    key = member_key(PREFIX, "api", "api-z1")
    value, lease = store.keys[key]
    store.keys[key] = (value[:-1] + b',"rack":"r7"}', lease)
    (found,) = await list_members(store, PREFIX)
    assert found.id == "api-z1"


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path, size=1) as cluster:
        yield cluster


async def test_on_real_etcd_a_member_stays_while_it_renews_and_goes_when_it_stops(etcd: EtcdCluster) -> None:
    members = [EtcdMember(zone, address) for zone, address in etcd.endpoints]
    connection = EtcdConnection(members, "z1", None, SystemClock(), SystemEntropy())
    registration = Registration(connection, PREFIX, member, SystemClock())
    running = asyncio.ensure_future(registration.run())
    listed: list[Member] = []

    async def look(count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(listed) != count:
                listed[:] = await list_members(connection, PREFIX)

    await look(1)
    assert listed[0].wall_us > 0
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await look(0)
    connection.close()
