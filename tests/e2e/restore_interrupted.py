"""`meshlog backup restore` killed at each of its steps, again and again, and each time called once more.

Not part of the default suite (a minute): `make test-restore`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chaos.cluster import Cluster, meshlog_argv
from tests.e2e.conftest import Connect
from tests.e2e.test_total_loss import lose_every_etcd
from tests.etcd_cluster import etcd_binary

KILLED_AT = [
    "claiming the epoch",
    "moving what is left",
    "making new etcd credentials",
    "starting new etcd members",
    "setting up etcd's users",
    "writing the log",
    "appending the first records",
    "starting API servers",
]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path / "cluster", environment=dict(os.environ) | {"MESHLOG_ETCD": str(etcd_binary())})
    try:
        made.up(zones=1)
        yield made
    finally:
        made.down()


def killed_when_it_says(cluster: Cluster, words: str) -> bool:
    """Run the restore, and kill -9 it as soon as it says so; False if it ended before."""
    argv = [*meshlog_argv(), "backup", "restore", "--to", "latest", "--yes", "--data-dir", str(cluster.data_dir)]
    environ = dict(os.environ) | {"MESHLOG_ETCD": str(etcd_binary())}
    with subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environ) as restore:
        assert restore.stderr is not None
        for line in restore.stderr:
            if line.startswith(words):
                restore.send_signal(signal.SIGKILL)
                return True
    return False


@pytest.mark.timeout(600)
def test_a_restore_that_is_killed_at_every_step_is_finished_by_the_last_call(cluster: Cluster) -> None:
    client = Connect(cluster)()
    for number in range(5):
        client.create_mesh(meshName=f"mesh-{number}")
    known = cluster.log()[-1]["position"]
    lose_every_etcd(cluster)
    killed = [words for words in KILLED_AT if killed_when_it_says(cluster, words)]
    assert killed == KILLED_AT
    report: dict[str, Any] = json.loads(cluster.run("backup", "restore", "--yes", "-o", "json", timeout_s=240))
    assert (report["done"], report["epoch"]) == (True, 2)
    assert not (cluster.data_dir / "restore.json").exists()
    events = cluster.log()
    assert [event["type"] for event in events].count("LogRestored") == 1
    assert len(events) == report["position"] + 1
    assert report["position"] + len(report["lost"]) >= known
    code, said = cluster.fsck()
    assert code == 0, said
    assert json.loads(cluster.run("backup", "list", "-o", "json"))["epochs"][-1]["epoch"] == 2
    Connect(cluster)().create_mesh(meshName="after")
