"""One real three-zone cluster for the whole session; a real Envoy for each module that asks for the gateway.

A test may kill parts of the cluster, but leaves it whole: every process ready again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from chaos.cluster import Cluster
from chaos.envoy import Envoy
from chaos.example import Canary
from chaos.upstream import UpstreamProcess
from runtime.ports import free_port
from tests.conditions import PATIENCE_S
from tests.e2e import figures

REPOSITORY = Path(__file__).resolve().parents[2]
PINNED_ETCD = REPOSITORY / ".cache" / "bin" / "etcd"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(item.fspath).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.e2e)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if figures.lines():
        terminalreporter.section("measured end to end")
        for line in figures.lines():
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    environment = dict(os.environ)
    environment.setdefault("MESHLOG_ETCD", str(PINNED_ETCD))
    assert Path(environment["MESHLOG_ETCD"]).exists(), "the pinned etcd is not built: run `make setup-dev`"
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), environment=environment)
    try:
        cluster.up(zones=3)
        cluster.lift_quotas()
        yield cluster
    finally:
        cluster.down()


@pytest.fixture(scope="session")
def upstreams() -> Iterator[tuple[UpstreamProcess, UpstreamProcess]]:
    with UpstreamProcess("v1") as one, UpstreamProcess("v2") as two:
        yield one, two


class Connect:
    """boto3 `appmesh` clients as a user's script gets them, of any API server by its index in zone order."""

    def __init__(self, cluster: Cluster) -> None:
        self.environment = cluster.environment()
        self.urls = cluster.api_urls()

    def __call__(self, index: int = 0, **config: Any) -> Any:
        return self.at(self.urls[index], **config)

    def at(self, url: str, **config: Any) -> Any:
        return boto3.client(
            "appmesh",
            endpoint_url=url,
            region_name=self.environment["AWS_REGION"],
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
            config=Config(connect_timeout=PATIENCE_S, read_timeout=PATIENCE_S, **config),
        )


@pytest.fixture(scope="session")
def connect(cluster: Cluster) -> Connect:
    return Connect(cluster)


@dataclass
class Gateway:
    """The example mesh with a live Envoy in front of it."""

    canary: Canary
    envoy: Envoy
    client: Any

    @property
    def port(self) -> int:
        return self.canary.gateway_port


@pytest.fixture(scope="module")
def gateway(
    request: pytest.FixtureRequest,
    cluster: Cluster,
    connect: Connect,
    upstreams: tuple[UpstreamProcess, UpstreamProcess],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    """A mesh of its own for the asking module, 90/10, and an Envoy in the host's network namespace."""
    name = Path(request.path).stem.removeprefix("test_").replace("_", "-")
    one, two = upstreams
    canary = Canary(f"e2e-{name}", one.port, two.port, gateway_port=free_port())
    client = connect()
    canary.create(client)
    scratch = tmp_path_factory.mktemp(f"envoy-{name}")
    admin_port = free_port()
    bootstrap = cluster.bootstrap(canary.gateway_node, admin_port=admin_port, out=scratch / "bootstrap")
    with Envoy(bootstrap, admin_port=admin_port, log=scratch / "envoy.log") as envoy:
        envoy.wait_live(canary.gateway_port)
        yield Gateway(canary, envoy, client)
