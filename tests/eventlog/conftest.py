"""Real etcd clusters, started once for a test session; every test works under a prefix of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Any

import pytest

from cluster.etcd.choice import EtcdMember
from cluster.etcd.connection import EtcdConnection
from runtime.clock import SystemClock, SystemEntropy
from tests.etcd_cluster import EtcdCluster
from tests.eventlog import damage

_prefixes = count(1)


@pytest.fixture(scope="session")
def etcd_single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path_factory.mktemp("etcd-single"), size=1) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def etcd_three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path_factory.mktemp("etcd-three"), size=3) as cluster:
        yield cluster


@pytest.fixture
def prefix() -> str:
    """A key prefix that no other test of this session uses."""
    return f"/test-{next(_prefixes)}/"


@pytest.fixture(params=["one member", "three members"])
async def connection(request: pytest.FixtureRequest) -> AsyncIterator[EtcdConnection]:
    name = "etcd_single" if request.param == "one member" else "etcd_three"
    cluster: EtcdCluster = request.getfixturevalue(name)
    members = [EtcdMember(*endpoint) for endpoint in cluster.endpoints]
    opened = EtcdConnection(members, "z1", None, SystemClock(), SystemEntropy())
    yield opened
    opened.close()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if damage.lines():
        terminalreporter.section("damage")
        for line in damage.lines():
            terminalreporter.write_line(line)
