"""Every etcd member and disk gone at once, under load: restored into new ones, with Envoys served all the while.

A cluster of its own, since it does not leave it as it was.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from chaos.cluster import Cluster
from chaos.envoy import Envoy
from chaos.example import Canary
from chaos.traffic import Traffic
from chaos.upstream import UpstreamProcess
from chaos.writers import Write, Writer, acknowledged
from cli.layout import Layout
from cluster.etcd.choice import EtcdMember
from cluster.etcd.connection import EtcdConnection, TlsFiles
from cluster.etcd.values import Put, RangeRead, TxnDone
from mesh.errors import NoQuorum, SettingsError
from runtime.clock import SystemClock, SystemEntropy
from runtime.ports import free_port
from tests.conditions import eventually
from tests.e2e import figures
from tests.e2e.conftest import PINNED_ETCD, Connect
from tests.runbooks import runner


@pytest.fixture(scope="module")
def doomed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    environment = dict(os.environ)
    environment.setdefault("MESHLOG_ETCD", str(PINNED_ETCD))
    cluster = Cluster(tmp_path_factory.mktemp("doomed"), environment=environment)
    try:
        cluster.up(zones=3)
        yield cluster
    finally:
        cluster.down()


def lose_every_etcd(cluster: Cluster) -> float:
    """kill -9 and rm -rf, all at once; the moment that it was done."""
    members = cluster.processes("etcd")
    for member in members:
        assert member.pid is not None
        os.kill(member.pid, signal.SIGKILL)
    at_s = time.monotonic()
    for member in members:
        shutil.rmtree(cluster.data_dir / "zones" / member.zone / "etcd" / "state")
    return at_s


def position_of(write: Write) -> tuple[int, int]:
    epoch, _, position = write.position.partition(".")
    return int(epoch), int(position)


def events_of(cluster: Cluster) -> dict[int, Any]:
    return {event["position"]: event for event in json.loads(cluster.run("log", "-o", "json"))}


def report_of(cluster: Cluster) -> dict[str, Any]:
    (path,) = (cluster.data_dir / "restores").glob("epoch-*.json")
    report: dict[str, Any] = json.loads(path.read_text())
    return report


async def dead_epochs_writer_is_refused(copied: Path, cluster: Cluster) -> str:
    """What a process gets that slept through it all and still has its old certificates."""
    members = [EtcdMember(p.zone, p.address) for p in Layout(cluster.data_dir).load().of_role("etcd")]
    tls = TlsFiles(copied / "etcd-client-ca.crt", copied / "etcd-client.crt", copied / "etcd-client.key")
    connection = EtcdConnection(members, "z1", tls, SystemClock(), SystemEntropy())
    try:
        outcome = await connection.txn([], [Put(b"/meshlog/head", b"overwritten")])
        assert not isinstance(outcome, TxnDone), "a dead epoch's writer wrote"
        async with asyncio.timeout(3.0):
            await connection.range(RangeRead(b"/meshlog/head"))
    except (NoQuorum, SettingsError, TimeoutError) as refused:
        return type(refused).__name__
    finally:
        connection.close()
    raise AssertionError("a dead epoch's certificate still opens etcd")


def cloud_map(connect: Connect) -> Any:
    """A client of the registry, of a user who knows of AWS alone."""
    environment = connect.environment
    return boto3.client(
        "servicediscovery",
        endpoint_url=connect.urls[0],
        region_name=environment["AWS_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        config=Config(inject_host_prefix=False),
    )


def register(registry: Any, instances: int) -> None:
    """The service `cart` of the namespace `doomed.internal`, with instances i0, i1, …"""
    operation = registry.create_http_namespace(Name="doomed.internal")["OperationId"]
    namespace = registry.get_operation(OperationId=operation)["Operation"]["Targets"]["NAMESPACE"]
    service = registry.create_service(Name="cart", NamespaceId=namespace)["Service"]["Id"]
    for number in range(instances):
        told = {"AWS_INSTANCE_IPV4": f"10.0.0.{number + 1}"}
        registry.register_instance(ServiceId=service, InstanceId=f"i{number}", Attributes=told)


def discovered(registry: Any) -> set[str]:
    found = registry.discover_instances(NamespaceName="doomed.internal", ServiceName="cart")
    return {each["InstanceId"] for each in found["Instances"]}


@pytest.mark.timeout(400)
def test_every_etcd_member_and_disk_gone_at_once(doomed: Cluster, tmp_path: Path) -> None:
    connect = Connect(doomed)
    with UpstreamProcess("v1") as one, UpstreamProcess("v2") as two:
        canary = Canary("doomed", one.port, two.port, gateway_port=free_port())
        canary.create(connect(), 100, 0)
        register(cloud_map(connect), 3)
        shutil.copytree(doomed.data_dir / "zones" / "z1" / "api", tmp_path / "api")
        admin_port = free_port()
        bootstrap = doomed.bootstrap(canary.gateway_node, admin_port=admin_port, out=tmp_path / "bootstrap")
        with Envoy(bootstrap, admin_port=admin_port, log=tmp_path / "envoy.log") as envoy:
            envoy.wait_live(canary.gateway_port)
            clients = {f"api-{index}": connect(index, retries={"total_max_attempts": 1}) for index in range(3)}
            writers = [
                Writer(f"w{number}", clients, mesh=canary.mesh, router=canary.router, target=canary.one, seed=number)
                for number in range(3)
            ]
            with Traffic("127.0.0.1", canary.gateway_port, rate_per_s=50) as traffic:
                for writer in writers:
                    writer.start()
                eventually(lambda: len(acknowledged(writers[0].snapshot())) >= 12, what="writes go on")
                eventually(
                    lambda: (
                        (json.loads(doomed.run("backup", "list", "-o", "json"))["registry"] or {}).get("position", 0)
                        >= 5
                    ),
                    what="the registry is archived",
                )
                lost_s = lose_every_etcd(doomed)
                runner.run("lost-cluster", doomed.data_dir, timeout_s=240)
                report = report_of(doomed)
                rto_s = report["seconds"]
                eventually(
                    lambda: any(position_of(w)[0] == 2 for w in acknowledged(writers[0].snapshot())),
                    what="the writers go on in the new epoch",
                )
                written = [write for writer in writers for write in writer.stop()]
                canary.set_weights(connect(), 0, 100)
                eventually(
                    lambda: all(sample.upstream == "v2" for sample in traffic.recent(20)),
                    what="a change after the restore reaches the Envoy",
                )
            flow = traffic.stop()
    before = [write for write in acknowledged(written) if position_of(write)[0] == 1]
    listed = {lost["position"] for lost in report["lost"]}
    missing = [write for write in before if position_of(write)[1] > report["position"]]
    assert (report["position"], report["certain"]) == (report["archive_position"], True)
    assert {position_of(write)[1] for write in missing} <= listed, "each acknowledged write that is missing is listed"
    assert all(position > report["archive_position"] for position in listed), "and nothing else is"
    assert not report["unnamed"]
    events = events_of(doomed)
    routes = {event["resource"].rsplit("/", 1)[-1] for event in events.values() if event["resource"]}
    assert {w.resource for w in before if position_of(w)[1] <= report["position"]} <= routes
    assert events[report["position"] + 1]["type"] == "LogRestored"
    for write in (write for write in acknowledged(written) if position_of(write)[0] == 2):
        assert events[position_of(write)[1]]["resource"].endswith(f"/{write.resource}")
    assert json.loads(doomed.run("fsck", "-o", "json"))["clean"]
    assert json.loads(doomed.run("backup", "verify", "-o", "json"))["clean"]
    assert report["registry"]["epoch"] == 2
    assert discovered(cloud_map(connect)) == {"i0", "i1", "i2"}
    checked = json.loads(doomed.run("fsck", "--archive", "default", "-o", "json"))
    assert (checked["registry"]["clean"], checked["registry"]["archive"]["clean"]) == (True, True)
    refused = asyncio.run(dead_epochs_writer_is_refused(tmp_path / "api", doomed))
    assert flow.failed == [], flow.summary()
    assert doomed.status()["ready"]
    rpo_s = lost_s - min((write.started_s for write in missing), default=lost_s)
    figures.report(
        "total loss of etcd",
        acknowledged=len(before),
        missing=len(missing),
        oldest_missing_before_loss_s=round(rpo_s, 2),
        restore_s=rto_s,
        requests=len(flow.samples),
        failed=len(flow.failed),
        a_dead_epochs_writer_gets=refused,
    )
