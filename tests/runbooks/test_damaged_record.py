"""docs/runbooks/damaged-record.md on a real cluster: a record that no build would write stops it, until it is out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cli.layout import Layout
from mesh.position import Position
from tests.cli.test_local_cluster import Commands
from tests.conditions import eventually
from tests.poison import append_poison, flip_bit
from tests.runbooks import runner

pytestmark = pytest.mark.e2e

NODE = {
    "listeners": [{"portMapping": {"port": 8080, "protocol": "http"}}],
    "serviceDiscovery": {"dns": {"hostname": "cart.internal"}},
}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Commands]:
    commands = Commands(tmp_path / "state")
    try:
        commands.run("up", "--detach", "--zones", "1")
        yield commands
    finally:
        commands.close()


def roles(cluster: Commands) -> dict[str, dict[str, Any]]:
    return cluster.processes()


def test_the_runbook_takes_a_cluster_past_a_record_that_stops_it(cluster: Commands) -> None:
    client = cluster.appmesh()
    client.create_mesh(meshName="shop")
    client.create_virtual_node(meshName="shop", virtualNodeName="cart", spec=NODE)

    poison = asyncio.run(append_poison(Layout(cluster.data_dir), "shop"))

    def stopped() -> bool:
        rows = roles(cluster)
        return not rows["api"]["ready"] and not rows["projector"]["ready"]

    eventually(stopped, what="API server and projector stop")
    with pytest.raises(ClientError) as refused:
        client.describe_mesh(meshName="shop")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert str(poison) in refused.value.response["Error"]["Message"]
    with pytest.raises(ClientError) as refused:
        client.create_mesh(meshName="other")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert roles(cluster)["frontend"]["ready"], "a frontend goes on with what its projector has"
    pids = {role: row["pid"] for role, row in roles(cluster).items()}
    sound = cluster.run("quarantine", str(poison.position - 1), "--reason", "the wrong one", code=5)
    assert f"What stops the fold is record {poison.position}" in sound.stderr

    said = runner.run("damaged-record", cluster.data_dir, {"POSITION": str(poison.position)}, timeout_s=120)

    assert f"record {poison} is in quarantine" in said.stdout
    after = roles(cluster)
    assert {role: row["pid"] for role, row in after.items()} == pids, "no role was started anew"
    assert after["api"]["state_hash"] == after["projector"]["state_hash"]
    assert client.describe_mesh(meshName="shop")["mesh"]["metadata"]["version"] == 1
    client.create_mesh(meshName="other")
    events = cluster.data("log")
    assert [event["type"] for event in events].count("RecordQuarantined") >= 1
    again = cluster.run("quarantine", str(poison.position), "--reason", "twice", code=5)
    assert "already" in again.stderr

    created = next(event["position"] for event in events if event["type"] == "ResourceCreated")
    refused_sound = cluster.run("quarantine", str(created + 1), "--reason", "not wanted", code=5)
    assert "virtualNode/cart created" in refused_sound.stderr
    assert "--force" in refused_sound.stderr


def test_a_record_damaged_in_etcd_that_the_archive_holds_whole_comes_back_by_a_restore(cluster: Commands) -> None:
    client = cluster.appmesh()
    client.create_mesh(meshName="shop")
    client.create_virtual_node(meshName="shop", virtualNodeName="cart", spec=NODE)
    node = Position(1, cluster.data("log")[-1]["position"])
    eventually(lambda: cluster.data("backup", "list")["position"] >= node.position, what="the archive has it")
    sound = cluster.run("backup", "restore", "--to", "latest", "--yes", code=5)
    assert "there is nothing to restore" in sound.stderr

    asyncio.run(flip_bit(Layout(cluster.data_dir), node))

    assert cluster.run("fsck", code=1)
    cluster.run("backup", "restore", "--to", "latest", "--yes")
    assert client.describe_virtual_node(meshName="shop", virtualNodeName="cart")["virtualNode"]["spec"] == NODE
    cluster.run("fsck")
