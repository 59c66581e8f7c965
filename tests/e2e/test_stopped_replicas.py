"""Replicas that stop while traffic flows: all, at a record that nobody can fold; one, by SIGSTOP, amid its duties.

A cluster of its own, since it does not leave it as it was.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from chaos.cluster import Cluster, Process
from chaos.envoy import Envoy
from chaos.example import Canary
from chaos.traffic import Traffic
from chaos.upstream import UpstreamProcess
from cli.layout import Layout
from runtime.limits import DUTY_LEASE_S
from runtime.ports import free_port
from tests.conditions import eventually
from tests.e2e import figures
from tests.e2e.conftest import PINNED_ETCD, Connect
from tests.poison import append_poison


@pytest.fixture(scope="module")
def stoppable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    environment = dict(os.environ)
    environment.setdefault("MESHLOG_ETCD", str(PINNED_ETCD))
    cluster = Cluster(tmp_path_factory.mktemp("stoppable"), environment=environment)
    try:
        cluster.up(zones=3)
        yield cluster
    finally:
        cluster.down()


@pytest.fixture(scope="module")
def canary(stoppable: Cluster) -> Iterator[Canary]:
    with UpstreamProcess("v1") as one, UpstreamProcess("v2") as two:
        canary = Canary("stoppable", one.port, two.port, gateway_port=free_port())
        canary.create(Connect(stoppable)(), 100, 0)
        yield canary


@pytest.fixture
def traffic(stoppable: Cluster, canary: Canary, tmp_path: Path) -> Iterator[Traffic]:
    admin_port = free_port()
    bootstrap = stoppable.bootstrap(canary.gateway_node, admin_port=admin_port, out=tmp_path / "bootstrap")
    with Envoy(bootstrap, admin_port=admin_port, log=tmp_path / "envoy.log") as envoy:
        envoy.wait_live(canary.gateway_port)
        with Traffic("127.0.0.1", canary.gateway_port, rate_per_s=50) as flowing:
            yield flowing


def none_ready(cluster: Cluster, *roles: str) -> bool:
    return not any(process.ready for process in cluster.processes() if process.role in roles)


def test_traffic_goes_on_while_every_replica_stands_before_a_record_that_nobody_can_fold(
    stoppable: Cluster, canary: Canary, traffic: Traffic
) -> None:
    poison = asyncio.run(append_poison(Layout(stoppable.data_dir), canary.mesh))
    eventually(lambda: none_ready(stoppable, "api", "projector"), what="every API server and projector stops")
    # The Envoy's own frontend dies as well: what takes over has the last good state, too.
    frontends = stoppable.processes("frontend")
    for frontend in frontends:
        stoppable.kill([frontend])
        stoppable.restart([frontend])
        eventually(lambda: len(traffic.recent(40)) == 40, what="requests flow")
    stoppable.run("quarantine", str(poison.position), "--reason", "nobody can fold it", timeout_s=120.0)
    stoppable.wait_ready()
    canary.set_weights(Connect(stoppable)(), 0, 100)
    eventually(
        lambda: all(sample.upstream == "v2" for sample in traffic.recent(20)),
        what="a change after it reaches the Envoy",
    )
    flow = traffic.stop()
    figures.report("poison", frontends_killed=len(frontends), requests=len(flow.samples), failed=len(flow.failed))
    assert flow.failed == [], flow.summary()
    hashes = {process.extra["state_hash"] for process in stoppable.processes() if process.role in ("api", "projector")}
    assert len(hashes) == 1, "every replica passed it over alike (I4)"


def shipper(cluster: Cluster, among: Iterable[str]) -> Process | None:
    """Which of these zones' API servers ships the log to the archive."""
    ships = [p for p in cluster.processes("api") if p.zone in among and p.extra.get("archive", {}).get("ships")]
    return ships[0] if ships else None


def archived(cluster: Cluster, name: str) -> bool:
    """Whether the archive has the event that made this resource."""
    made = json.loads(cluster.run("log", "-o", "json", "--name", name))[-1]
    told = [process.extra.get("archive", {}).get("position", "") for process in cluster.processes("api")]
    return any(tuple(map(int, each.split("."))) >= (made["epoch"], made["position"]) for each in told if each)


def test_a_duty_holder_that_slept_through_its_lease_does_no_harm_when_it_wakes(
    stoppable: Cluster, canary: Canary, traffic: Traffic
) -> None:
    zones = stoppable.zones()
    sleeper = eventually(lambda: shipper(stoppable, zones), what="somebody ships the log")
    assert sleeper is not None
    assert sleeper.pid is not None
    zones.remove(sleeper.zone)
    awake = next(process for process in stoppable.processes("api") if process.zone == zones[0])
    client = Connect(stoppable).at(awake.url)
    os.kill(sleeper.pid, signal.SIGSTOP)
    try:
        client.create_virtual_router(meshName=canary.mesh, virtualRouterName="while-it-sleeps", spec={"listeners": []})
        successor = eventually(
            lambda: shipper(stoppable, zones), 4.0 * DUTY_LEASE_S, "another API server takes the duty"
        )
        assert successor is not None
        eventually(lambda: archived(stoppable, "while-it-sleeps"), what="the successor ships the log")
    finally:
        os.kill(sleeper.pid, signal.SIGCONT)
    client.create_virtual_router(meshName=canary.mesh, virtualRouterName="once-it-woke", spec={"listeners": []})
    eventually(lambda: archived(stoppable, "once-it-woke"), what="the log is shipped on")
    stoppable.wait_ready()
    still = shipper(stoppable, stoppable.zones())
    assert still is not None
    assert still.zone == successor.zone, "who woke does not ship any more"
    assert json.loads(stoppable.run("backup", "verify", "-o", "json"))["clean"]
    assert json.loads(stoppable.run("fsck", "-o", "json"))["clean"]
    flow = traffic.stop()
    figures.report("a duty holder stopped and woken", requests=len(flow.samples), failed=len(flow.failed))
    assert flow.failed == [], flow.summary()
