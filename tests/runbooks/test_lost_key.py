"""docs/runbooks/lost-key.md, command by command: three losses at once on a real cluster, and a key that has got out."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from chaos.cluster import Cluster
from cli.establish import api_settings
from cli.layout import Layout
from cli.log_access import etcd_connection
from eventlog.drivers.etcd import EtcdDriver
from runtime.clock import SystemClock, SystemEntropy
from tests.conditions import eventually
from tests.etcd_cluster import etcd_binary
from tests.runbooks import runner

pytestmark = pytest.mark.e2e


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path / "cluster", environment={"PATH": "/usr/bin:/bin", "MESHLOG_ETCD": str(etcd_binary())})
    try:
        cluster.up(zones=1)
        yield cluster
    finally:
        cluster.down()


def keys_status(cluster: Cluster) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(cluster.run("keys", "status", "-o", "json"))
    return status


def meshes(cluster: Cluster) -> list[str]:
    environment = cluster.environment()
    client = boto3.client(
        "appmesh",
        endpoint_url=cluster.api_urls()[0],
        region_name=environment["AWS_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )
    if not (found := client.list_meshes()["meshes"]):
        client.create_mesh(meshName="shop")
        found = client.list_meshes()["meshes"]
    return [mesh["meshName"] for mesh in found]


async def lose_data_key(layout: Layout, key_id: str) -> bytes:
    """Delete it from etcd; gives the wrapped key that was there."""
    settings = api_settings(layout, layout.load())
    connection = etcd_connection(settings, SystemClock(), SystemEntropy())
    try:
        driver = EtcdDriver(connection, settings.key_prefix)
        entry = await driver.read_entry(f"datakey/{key_id}")
        await driver.write_entries({f"datakey/{key_id}": None})
    finally:
        connection.close()
    assert entry is not None
    return entry.value


def test_the_runbook_brings_every_key_back_and_makes_a_stolen_one_useless(cluster: Cluster, tmp_path: Path) -> None:
    layout, copy = Layout(cluster.data_dir), tmp_path / "custodian"
    assert meshes(cluster) == ["shop"]
    before = keys_status(cluster)
    shutil.copytree(layout.root / "keys", copy)
    (signing,) = [key["id"] for key in before["data_keys"] if key["class"] == "signing"]
    eventually(lambda: any((layout.root / "archive" / "manifests").rglob("0*")), what="the first manifest")

    cluster.kill([process for process in cluster.processes() if process.role in ("api", "projector")])
    asyncio.run(lose_data_key(layout, signing))
    layout.key_file("config").unlink()
    for name in ("api/config.kek", "projector/config.kek", "api/secrets.kek"):
        (layout.zone("z1") / name).unlink()
    for role in ("api", "projector"):
        refused_to_start(cluster, layout, role)

    said = runner.run("lost-key", cluster.data_dir, {"COPY": str(copy)}, timeout_s=200)

    assert f"{signing}: brought back" in said.stderr
    after = keys_status(cluster)
    assert not [key for key in after["data_keys"] if key["problem"]]
    assert {key["id"] for key in before["data_keys"]} <= {key["id"] for key in after["data_keys"]}
    stolen = {key["kek"] for key in before["data_keys"]}
    assert not stolen & {key["kek"] for key in after["data_keys"]}
    assert not {key["id"] for key in after["data_keys"] if key["sealing"]} & {key["id"] for key in before["data_keys"]}
    assert meshes(cluster) == ["shop"]

    # A single wrapped key from a file, as etcdctl or a backup of etcd gives it.
    wrapped = tmp_path / "wrapped"
    wrapped.write_bytes(asyncio.run(lose_data_key(layout, signing)))
    cluster.run("keys", "import", str(wrapped), "--data-key", signing)
    assert not [key for key in keys_status(cluster)["data_keys"] if key["problem"]]


def refused_to_start(cluster: Cluster, layout: Layout, role: str) -> None:
    """It ends by itself, with a code, and the last line of its log says which key, where, and what to do."""
    (process,) = [process for process in cluster.processes() if process.role == role]
    log = layout.log_file(f"{role}-z1")
    with log.open("ab") as output:
        ended = subprocess.run(process.serve, stdin=subprocess.DEVNULL, stderr=output, timeout=60, check=False)
    assert ended.returncode == 1
    last = log.read_text().splitlines()[-1]
    assert last.startswith(f"Error: There is no key file for class 'config' at {layout.role('z1', role)}/config.kek")
    assert "put it back from its copy" in last
