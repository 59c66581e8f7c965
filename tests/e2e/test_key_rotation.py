"""Keys are rotated under load: a thousand writes through three API servers, while data keys and the key-encryption keys
around them change again and again. No write fails, everything opens afterwards, and what status calls unused is.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from chaos import checks
from chaos.cluster import Cluster
from eventlog.keys.file import read_key_file
from eventlog.records import KeyClass
from mesh.errors import MeshlogError
from tests.conditions import eventually
from tests.e2e import figures
from tests.e2e.conftest import Connect

WRITES = 1_000
WRITERS = 6
NODES_PER_MESH = 200


class Load:
    """Writers that make one virtual node after the other, every answer counted, nothing retried."""

    def __init__(self, connect: Connect) -> None:
        self._clients = [connect(number % 3, retries={"total_max_attempts": 1}) for number in range(WRITERS)]
        self._next = 0
        self._lock = threading.Lock()
        self.done: list[str] = []
        self.failed: list[str] = []

    def run(self, number: int) -> None:
        while True:
            with self._lock:
                write, self._next = self._next, self._next + 1
            if write >= WRITES:
                return
            name = f"node-{write}"
            try:
                self._clients[number].create_virtual_node(
                    meshName=f"keys-{write // NODES_PER_MESH}", virtualNodeName=name, spec={}
                )
            except Exception as error:
                self.failed.append(f"{name}: {type(error).__name__} {error}")
            else:
                self.done.append(name)


def keys_status(cluster: Cluster) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(cluster.run("keys", "status", "-o", "json"))
    return status


@pytest.fixture(scope="module")
def rotated(cluster: Cluster, connect: Connect) -> dict[str, Any]:
    """The status after the load, with what happened to it."""
    before = keys_status(cluster)
    client = connect()
    for mesh in range(WRITES // NODES_PER_MESH):
        client.create_mesh(meshName=f"keys-{mesh}")
    load, rounds = Load(connect), 0
    started_s = time.monotonic()
    with ThreadPoolExecutor(WRITERS) as pool:
        writers = [pool.submit(load.run, number) for number in range(WRITERS)]
        while not all(writer.done() for writer in writers) or rounds < 2:
            cluster.run("keys", "rotate", "--class", "all")
            cluster.run("keys", "rotate", "--kek")
            rounds += 1
        for writer in writers:
            writer.result()
    took_s = time.monotonic() - started_s
    after = keys_status(cluster)
    figures.report(
        "key rotation under load",
        writes=len(load.done),
        failed=len(load.failed),
        rounds=rounds,
        data_keys=len(after["data_keys"]),
        took_s=round(took_s, 1),
    )
    assert load.failed == []
    assert len(load.done) == WRITES
    return {"before": before, "after": after, "rounds": rounds}


def test_every_class_is_sealed_and_wrapped_by_new_keys(cluster: Cluster, rotated: dict[str, Any]) -> None:
    before, after, rounds = rotated["before"], rotated["after"], rotated["rounds"]
    old = {key["id"]: key["kek"] for key in before["data_keys"]}
    drawn = Counter(key["class"] for key in after["data_keys"] if key["id"] not in old)
    assert drawn == dict.fromkeys(("config", "secrets", "signing"), rounds)
    assert not [key for key in after["data_keys"] if key["problem"]]
    assert not {key["kek"] for key in after["data_keys"]} & set(old.values()), "every data key is under a new one"
    sealing = {key["class"]: key["id"] for key in after["data_keys"] if key["sealing"]}
    assert not set(sealing.values()) & set(old)
    public = cluster.data_dir / "archive" / "keys" / f"{sealing['signing']}.pub"
    eventually(public.exists, what="the archive signed with the new key")


def test_every_record_opens_and_the_replicas_agree(cluster: Cluster, rotated: dict[str, Any]) -> None:
    log = cluster.log()
    created = [event for event in log if event["type"] == "ResourceCreated" and "keys-" in str(event["mesh"])]
    assert len(created) == WRITES + WRITES // NODES_PER_MESH
    kinds = Counter(event["type"] for event in log)
    assert kinds["DataKeysDrawn"] == rotated["rounds"]
    assert kinds["DataKeysRewrapped"] == 2 * rotated["rounds"]
    verdict = checks.fsck_clean(*cluster.fsck())
    assert verdict.ok, verdict.detail


def test_what_status_calls_unused_may_go_and_a_new_process_still_reads_everything(
    cluster: Cluster, rotated: dict[str, Any]
) -> None:
    unused = {kek["id"] for kek in rotated["after"]["key_encryption_keys"] if not kek["data_keys"]}
    assert {key["kek"] for key in rotated["before"]["data_keys"]} <= unused
    for path in cluster.data_dir.rglob("*.kek"):
        drop(path, unused)
    fresh = [process for process in cluster.processes(zone=cluster.zones()[0]) if process.role in ("api", "projector")]
    cluster.kill(fresh)
    cluster.restart(fresh)
    cluster.wait_ready()
    position = checks.position_of(cluster.log()[-1])

    def agree() -> bool:
        return checks.hashes_equal(cluster.status()["processes"], position).ok

    eventually(agree, what="equal state hashes at the log's end")
    assert not [kek for kek in keys_status(cluster)["key_encryption_keys"] if not kek["data_keys"]]


def test_a_key_that_is_not_on_every_host_wraps_nothing(cluster: Cluster, rotated: dict[str, Any]) -> None:
    zone = cluster.zones()[0]
    path = cluster.data_dir / "zones" / zone / "api" / "config.kek"
    path.write_text(f"{path.read_text()}kek-on-one-host {bytes(32).hex()}\n")
    with pytest.raises(MeshlogError, match=r"(?s)projector-.* cannot unwrap with kek-on-one-host.*keys import"):
        cluster.run("keys", "rewrap", "--class", "config", "--to", "kek-on-one-host")
    assert "kek-on-one-host" not in {key["kek"] for key in keys_status(cluster)["data_keys"]}
    drop(path, {"kek-on-one-host"})


def drop(path: Path, kek_ids: set[str]) -> None:
    lines = [line for line in path.read_text().splitlines(keepends=True) if line.split()[0] not in kek_ids]
    path.write_text("".join(lines))
    assert read_key_file(path, KeyClass.CONFIG)
