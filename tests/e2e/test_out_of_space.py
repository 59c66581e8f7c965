"""etcd runs full under a whole cluster: writes are told so, reads go on, and room that is made is used by itself.

What fills etcd is live, so nothing but its deletion helps; the API server is killed meanwhile, so that the duties must
go on although a full etcd grants no lease.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from botocore.exceptions import ClientError

from chaos.cluster import Cluster, meshlog_argv, says_ready
from cli.layout import Layout
from cluster.etcd import protos
from runtime.tls import channel_credentials
from tests.conditions import eventually
from tests.e2e import figures
from tests.e2e.conftest import PINNED_ETCD, Connect

QUOTA_BYTES = 16 * 2**20
FILLER = b"/not-meshlog/"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One zone, whose etcd takes 16 MiB."""
    environment = {"MESHLOG_ETCD": str(PINNED_ETCD)} | dict(os.environ)
    cluster = Cluster(tmp_path_factory.mktemp("small"), environment=environment)
    try:
        cluster.up(zones=1)
        path = Layout(cluster.data_dir).config("z1", "etcd")
        path.write_text(re.sub(r"quota_bytes = \d+", f"quota_bytes = {QUOTA_BYTES}", path.read_text()))
        etcd = cluster.processes("etcd")
        cluster.kill(etcd)
        cluster.restart(etcd)
        cluster.wait_ready()
        yield cluster
    finally:
        cluster.down()


class Root:
    """etcd as its operator reaches it."""

    def __init__(self, cluster: Cluster) -> None:
        (etcd,) = cluster.processes("etcd")
        channel = grpc.secure_channel(etcd.address, channel_credentials(Layout(cluster.data_dir).admin_etcd_tls))
        self._kv = protos.rpc.KVStub(channel)

    def fill(self) -> None:
        with pytest.raises(grpc.RpcError, match="space"):
            self._put_until_refused()

    def _put_until_refused(self) -> None:
        for number in range(500):
            self._kv.Put(protos.rpc.PutRequest(key=FILLER + b"%d" % number, value=b"x" * 200_000), timeout=5)

    def empty(self) -> None:
        self._kv.DeleteRange(protos.rpc.DeleteRangeRequest(key=FILLER, range_end=b"/not-meshlog0"), timeout=5)


def refusal(client: Any, mesh: str) -> tuple[int, str]:
    """What a write is told; (200, "") when it is done."""
    try:
        client.create_mesh(meshName=mesh)
    except ClientError as refused:
        return refused.response["ResponseMetadata"]["HTTPStatusCode"], refused.response["Error"]["Message"]
    return 200, ""


def api_row(cluster: Cluster) -> dict[str, Any]:
    (row,) = (row for row in cluster.status()["processes"] if row["role"] == "api")
    found: dict[str, Any] = row
    return found


def said_by_status(cluster: Cluster) -> str:
    """What `meshlog status` tells people beside its table."""
    command = [*meshlog_argv(), "status", "--data-dir", str(cluster.data_dir)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stderr


def metric(cluster: Cluster, name: str) -> float:
    (api,) = Layout(cluster.data_dir).load().of_role("api")
    with urllib.request.urlopen(f"http://{api.health}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


def test_a_full_etcd_is_told_and_survived(small: Cluster) -> None:
    client, root = Connect(small)(retries={"total_max_attempts": 1}), Root(small)
    client.create_mesh(meshName="before")
    assert api_row(small)["warnings"] == []

    root.fill()
    eventually(lambda: metric(small, "meshlog_etcd_full") == 1, what="the server noticing")
    eventually(lambda: refusal(client, "during")[1].startswith("etcd is out of space"), what="a write being told")
    began_s = time.monotonic()
    status, message = refusal(client, "during")
    assert (status, "16 MiB" in message, "archive" in message) == (503, True, True), message
    assert time.monotonic() - began_s < 2, "it is told at once"
    assert client.describe_mesh(meshName="before")["mesh"]["meshName"] == "before"
    row = api_row(small)
    assert row["ready"], "reads go on, so it stays in service"
    assert row["space"]["full"]
    assert [said for said in row["warnings"] if said.startswith("etcd is out of space")]
    assert metric(small, "meshlog_etcd_full") == 1
    assert metric(small, "meshlog_etcd_db_bytes") > 0.7 * QUOTA_BYTES
    assert "api-z1: etcd is out of space" in said_by_status(small)

    # Who held the duties dies, and a full etcd grants no lease to the next.
    (api,) = small.processes("api")
    small.kill([api])
    small.restart([api])
    eventually(lambda: says_ready(api), what="the API server being back")
    client = Connect(small)(retries={"total_max_attempts": 1})
    assert refusal(client, "during")[0] == 503

    root.empty()
    freed_s = time.monotonic()
    eventually(lambda: refusal(client, "after") == (200, ""), what="writes being taken again")
    figures.report("etcd full", quota_mib=16, writes_again_s=round(time.monotonic() - freed_s, 1))
    eventually(lambda: metric(small, "meshlog_etcd_space_alarm") == 0, what="the alarm being over")
    assert api_row(small)["warnings"] == []
    assert api_row(small)["space"]["size_bytes"] < 4 * 2**20
    names = [mesh["meshName"] for mesh in client.list_meshes()["meshes"]]
    assert names == ["after", "before"], "what was refused was not done"
    assert small.fsck()[0] == 0
    assert json.loads(small.run("status", "-o", "json"))["ready"]
