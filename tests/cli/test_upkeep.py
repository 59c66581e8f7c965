"""What an API server knows of its clock, against real etcd: with a clock that is off it writes nothing and says why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from cli.log_access import access_to, registry_driver
from cli.serve_upkeep import Upkeep
from cluster.etcd.choice import EtcdMember
from cluster.etcd.connection import EtcdConnection
from cluster.members import Member, Registration
from eventlog.drivers.etcd import EtcdDriver
from eventlog.genesis import create_log
from eventlog.records import HeadRef
from mesh.errors import NotReady
from mesh.fold import MESH_FOLD
from mesh.registry.fold import REGISTRY_FOLD
from runtime.clock import SystemClock, SystemEntropy
from runtime.settings import ApiSettings, AuthorityFiles, Endpoint, KekSettings, TlsFiles
from runtime.supervise import Supervisor
from tests.conditions import await_until
from tests.etcd_cluster import EtcdCluster
from tests.eventlog.logs import BOTH, new_record

PREFIX = "/meshlog/"


class Skewed(SystemClock):
    """The machine's clock, set wrong by a test."""

    ahead_s = 0.0

    def now_us(self) -> int:
        return super().now_us() + int(self.ahead_s * 1e6)


def settings(directory: Path, address: str) -> ApiSettings:
    nothing = TlsFiles(certificate=directory / "none.crt", key=directory / "none.key", authority=directory / "none-ca")
    return ApiSettings(
        id="api-z1",
        zone="z1",
        data_dir=directory,
        listen="127.0.0.1:1",
        advertise="127.0.0.1:1",
        health="127.0.0.1:2",
        pid_file=directory / "pid",
        account_id="123456789012",
        etcd_endpoints=(Endpoint("z1", address),),
        etcd_tls=nothing,
        role_tls=nothing,
        kek=KekSettings(config=()),
        proxy_authority=AuthorityFiles(certificate=nothing.certificate, key=nothing.key),
        frontends=(),
    )


@pytest.fixture
async def connection(tmp_path: Path) -> AsyncIterator[EtcdConnection]:
    with EtcdCluster(tmp_path, size=1) as cluster:
        opened = EtcdConnection([EtcdMember(*cluster.endpoints[0])], "z1", None, SystemClock(), SystemEntropy())
        yield opened
        opened.close()


@pytest.fixture
def no_metrics_left() -> Iterator[None]:
    """An Upkeep registers its gauges in the process's registry."""
    before = set(REGISTRY._collector_to_names)
    yield
    for collector in set(REGISTRY._collector_to_names) - before:
        REGISTRY.unregister(collector)


@pytest.mark.usefixtures("no_metrics_left")
async def test_a_server_whose_clock_is_off_writes_nothing_until_it_is_set(
    connection: EtcdConnection, tmp_path: Path
) -> None:
    clock, entropy = Skewed(), SystemEntropy()
    driver = EtcdDriver(connection, PREFIX)
    head: HeadRef = (await create_log(driver, BOTH, clock, entropy)).head
    access = access_to(MESH_FOLD, driver, connection, BOTH, clock, entropy)
    beside = access_to(REGISTRY_FOLD, registry_driver(connection, PREFIX), connection, BOTH, clock, entropy)
    upkeep = Upkeep(settings(tmp_path, connection.members[0].address), access, beside, clock, entropy)
    keyring = access.keyring
    writer, check = upkeep.writer(driver, keyring), upkeep.checks()["clock"]

    def other(number: int) -> Member:
        return Member(role="api", id=f"api-z{number}", zone="z", address="a:1", level=1, build="0")

    async with Supervisor() as supervisor:
        for number in (2, 3):
            registration = Registration(connection, PREFIX, partial(other, number), SystemClock())
            supervisor.start(registration.run(), f"member {number}")
        upkeep.start(supervisor)
        await await_until(lambda: len(upkeep._members) == 2)
        await asyncio.sleep(0)
        assert check() is None
        await writer.seal(head, [new_record()], 0, clock.now_us())

        for ahead_s, which in ((30.0, "ahead of"), (-30.0, "behind")):
            clock.ahead_s = ahead_s
            said = check()
            assert said is not None
            assert which in said
            with pytest.raises(NotReady, match=r"Nothing is written here: .*NTP"):
                await writer.seal(head, [new_record()], 0, clock.now_us())
            assert said.split(" s ")[1] == upkeep.status()["warnings"][0].split(" s ")[1]

        clock.ahead_s = 0.0
        assert check() is None
        (left,) = upkeep.status()["warnings"]
        assert "no certificate for etcd's user `maintenance`" in left
    upkeep.close()
