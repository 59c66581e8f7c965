"""The etcd driver against real etcd, one member and three."""

from __future__ import annotations

import pytest

from cluster.etcd import protos
from cluster.etcd.connection import EtcdConnection
from cluster.etcd.values import RangeRead
from eventlog.driver import Fence, LogDriver
from eventlog.drivers.etcd import EtcdDriver
from mesh.errors import Damaged
from mesh.position import Position
from tests.eventlog.conformance import Compact, DriverConformance, Drivers, Grant, begin, commit


@pytest.fixture
def drivers(connection: EtcdConnection, prefix: str) -> Drivers:
    return lambda: EtcdDriver(connection, prefix)


class TestEtcdDriver(DriverConformance):
    @pytest.fixture
    def drivers(self, drivers: Drivers) -> Drivers:
        return drivers

    @pytest.fixture
    def compact(self, connection: EtcdConnection) -> Compact:
        async def forget() -> None:
            now = (await connection.range(RangeRead(b"head"))).revision
            await connection.write("KV", "Compact", protos.rpc.CompactionRequest(revision=now))

        return forget

    @pytest.fixture
    def grant(self, connection: EtcdConnection, prefix: str) -> Grant:
        async def hold(duty: str) -> Fence:
            key = f"{prefix}duties/{duty}".encode()
            await connection.delete(key)
            return Fence(duty, await connection.put(key, b"holder"))

        return hold


async def test_keys_are_those_of_the_design(connection: EtcdConnection, prefix: str, drivers: Drivers) -> None:
    driver: LogDriver = drivers()
    await commit(driver, await begin(driver), b"one", b"two")
    found = await connection.range(RangeRead(prefix.encode(), prefix.encode() + b"\xff"))
    assert [item.key.decode().removeprefix(prefix) for item in found.items] == [
        "datakey/config-1",
        "datakey/secrets-1",
        "head",
        "log/1/00000000000000000002",
    ]


async def test_neighbouring_keys_are_not_watched_or_listed(
    connection: EtcdConnection, prefix: str, drivers: Drivers
) -> None:
    driver: LogDriver = drivers()
    head = await begin(driver)
    for key in ("archive", "headless", "log.old", "members/api/1"):
        await connection.put(f"{prefix}{key}".encode(), b"other")
    head = await commit(driver, head, b"one")
    assert [entry.name for entry in (await driver.scan("", 10)).entries] == ["1/00000000000000000001"]
    assert await driver.read_head() == head


async def test_a_foreign_key_among_the_frames_is_damage(
    connection: EtcdConnection, prefix: str, drivers: Drivers
) -> None:
    driver: LogDriver = drivers()
    await begin(driver)
    await connection.put(f"{prefix}log/1/7".encode(), b"?")
    with pytest.raises(Damaged, match="log/1/7"):
        await driver.read_frames(Position(1, 0), 10)
