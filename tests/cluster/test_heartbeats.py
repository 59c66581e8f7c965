"""Heartbeats in a real etcd: kept while they are beaten, gone with their lease, few leases for many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from cluster.etcd.choice import EtcdMember
from cluster.etcd.connection import EtcdConnection
from cluster.etcd.values import RangeRead, prefix_end
from cluster.heartbeats import Heartbeats
from runtime.clock import SystemClock, SystemEntropy
from tests.conditions import PATIENCE_S, POLL_S
from tests.etcd_cluster import EtcdCluster

PREFIX = "/meshlog/"


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path_factory.mktemp("etcd"), size=1) as cluster:
        yield cluster


@pytest.fixture
async def connection(etcd: EtcdCluster) -> AsyncIterator[EtcdConnection]:
    members = [EtcdMember(zone, address) for zone, address in etcd.endpoints]
    connection = EtcdConnection(members, "z1", None, SystemClock(), SystemEntropy())
    yield connection
    connection.close()


async def test_kept_while_beaten_and_gone_with_the_lease(connection: EtcdConnection) -> None:
    beats = Heartbeats(connection, PREFIX, SystemClock())
    long, short = ("123456789012", "a/b", "s", "i/1"), ("123456789012", "a/b", "s", "i/2")
    await beats.beat({long: 3_600, short: 5})
    assert set(await beats.kept()) == {long, short}

    async with asyncio.timeout(PATIENCE_S):
        while set(await beats.kept()) != {long}:  # noqa: ASYNC110 - etcd ends the lease, and tells nobody
            await asyncio.sleep(POLL_S)
    await beats.beat({short: 5})
    assert set(await beats.kept()) == {long, short}


async def test_many_share_few_leases(connection: EtcdConnection) -> None:
    beats = Heartbeats(connection, "/many/", SystemClock())
    await beats.beat({("123456789012", "n", "s", f"i{number}"): 100 + number for number in range(20)})
    prefix = b"/many/registry/heartbeats/"
    found = await connection.range(RangeRead(prefix, prefix_end(prefix)))
    assert len(found.items) == 20
    assert len({item.lease for item in found.items}) == 1
