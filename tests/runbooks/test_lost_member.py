"""docs/runbooks/lost-member.md and lost-quorum.md on a real cluster: disks wiped, members killed, writes going on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.cli.test_local_cluster import Commands
from tests.conditions import eventually
from tests.runbooks import runner

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    commands = Commands(tmp_path_factory.mktemp("lost") / "state")
    try:
        commands.run("up", "--detach", "--zones", "3")
        yield commands
    finally:
        commands.close()


def rows(cluster: Commands, role: str) -> dict[str, dict[str, Any]]:
    """By zone."""
    return {row["zone"]: row for row in cluster.data("status")["processes"] if row["role"] == role}


def client_of(cluster: Commands, zone: str) -> Any:
    values = cluster.data("env")
    return boto3.client(
        "appmesh",
        endpoint_url=rows(cluster, "api")[zone]["address"],
        region_name=values["AWS_REGION"],
        aws_access_key_id=values["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=values["AWS_SECRET_ACCESS_KEY"],
        config=Config(retries={"total_max_attempts": 1}, read_timeout=20),
    )


class Writes:
    """One write after the other through one API server, until stopped; what failed, with when."""

    def __init__(self, client: Any) -> None:
        self._client, self._over = client, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.done: list[tuple[float, str]] = []
        self.failed: list[tuple[float, str]] = []

    def __enter__(self) -> Writes:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._over.wait(0.02):
            name = f"n-{number}"
            number += 1
            try:
                self._client.create_virtual_node(meshName="kept", virtualNodeName=name, spec={})
            except ClientError as refused:
                self.failed.append((time.monotonic(), f"{name}: {refused}"))
            else:
                self.done.append((time.monotonic(), name))

    def since(self, at_s: float) -> int:
        return sum(done_s > at_s for done_s, _ in self.done)


def test_a_lost_member_is_replaced_while_writes_go_on(cluster: Commands) -> None:
    client = client_of(cluster, "z2")
    cluster.run("quotas", "set", "L-E043DFB4", "100000")
    client.create_mesh(meshName="kept")
    lost = rows(cluster, "etcd")["z1"]
    with Writes(client) as writes:
        eventually(lambda: len(writes.done) > 20, what="writes")
        os.kill(lost["pid"], signal.SIGKILL)
        shutil.rmtree(cluster.data_dir / "zones" / "z1" / "etcd" / "state")
        lost_s = time.monotonic()
        eventually(lambda: writes.since(lost_s + 3.0) > 10, what="writes without the member")
        quiet_s = time.monotonic()
        runner.run("lost-member", cluster.data_dir, {"ZONE": "z1"}, timeout_s=200)
        whole_s = time.monotonic()
        eventually(lambda: writes.since(whole_s) > 20, what="writes with the new member")
    assert [failure for at_s, failure in writes.failed if at_s > quiet_s] == []
    listed = cluster.data("etcd", "members")
    assert [(row["zone"], row["name"], row["kind"]) for row in listed] == [
        (zone, f"etcd-{zone}", "voter") for zone in ("z1", "z2", "z3")
    ]
    names = {
        node["virtualNodeName"]
        for page in client.get_paginator("list_virtual_nodes").paginate(meshName="kept")
        for node in page["virtualNodes"]
    }
    assert {name for _, name in writes.done} <= names


def test_a_member_that_is_well_is_not_replaced(cluster: Commands) -> None:
    assert "nothing to replace" in cluster.run("etcd", "replace-member", "z2", code=5).stderr
    assert "the zones are z1, z2, z3" in cluster.run("etcd", "replace-member", "z9", code=2).stderr


def test_a_lost_quorum_is_told_and_comes_back_with_the_disks(cluster: Commands) -> None:
    client = client_of(cluster, "z3")
    lost = [rows(cluster, "etcd")[zone] for zone in ("z1", "z2")]
    for row in lost:
        os.kill(row["pid"], signal.SIGKILL)
    with pytest.raises(ClientError) as refused:
        client.create_mesh(meshName="during")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    frontends = rows(cluster, "frontend")
    assert all(row["ready"] for row in frontends.values()), "the data plane serves on"
    runner.run("lost-quorum", cluster.data_dir, timeout_s=200)
    meshes = [mesh["meshName"] for mesh in client.list_meshes()["meshes"]]
    assert "kept" in meshes
    client.create_mesh(meshName="after")
    assert json.loads(cluster.run("status", "-o", "json").stdout)["ready"]
