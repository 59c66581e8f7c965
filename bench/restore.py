"""Total loss: 10 000 events, then every etcd member killed and its disk removed under load, then `backup restore`.

    python -m bench.restore [--events N] [--zones 3] [--writers 8]

RPO: how long before the loss the oldest missing write was acknowledged. RTO: from the loss to the first write that is
acknowledged again, with what `meshlog backup restore` itself took of it. The goals are 1 s and 60 s.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from bench import figures
from bench.cluster import MeasuredCluster, measured_cluster
from bench.write_to_ack import MESH, api_client, create_mesh, say
from mesh.errors import MeshlogError
from runtime.logging import configure_logging

RETRY_PAUSE_S = 0.02
GIVE_UP_S = 180.0


def node_spec(port: int) -> dict[str, Any]:
    listener = {"portMapping": {"port": port, "protocol": "http"}}
    return {"listeners": [listener], "serviceDiscovery": {"dns": {"hostname": "localhost"}}}


class Load:
    """Writers that go on until stopped: of each acknowledged write its position and when it was acknowledged."""

    def __init__(self, cluster: MeasuredCluster, writers: int) -> None:
        environment = cluster.environment()
        urls = [f"http://{address}" for _, address in cluster.addresses("api")]
        self._clients = [
            api_client(environment | {"AWS_ENDPOINT_URL_APP_MESH": urls[number % len(urls)]})
            for number in range(writers)
        ]
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self.acknowledged: list[tuple[int, int, float]] = []
        self.failures: list[str] = []

    def start(self, threads: ThreadPoolExecutor) -> None:
        for number, client in enumerate(self._clients):
            threads.submit(self._write, number, client)

    def stop(self) -> None:
        self._stopping.set()

    def first_in(self, epoch: int, deadline_s: float) -> float:
        """When the first write of an epoch was acknowledged."""
        while time.perf_counter() < deadline_s:
            with self._lock:
                found = [at_s for of, _, at_s in self.acknowledged if of == epoch]
            if found:
                return min(found)
            time.sleep(RETRY_PAUSE_S)
        raise TimeoutError(f"no write of epoch {epoch} was acknowledged within {GIVE_UP_S:g} s")

    def _write(self, number: int, client: Any) -> None:
        count = 0
        call = client.create_virtual_node
        while not self._stopping.is_set():
            try:
                answer = call(meshName=MESH, virtualNodeName=f"node-{number}", spec=node_spec(1 + count % 60_000))
            except (ClientError, BotoCoreError) as error:
                if isinstance(error, ClientError) and error.response["ResponseMetadata"]["HTTPStatusCode"] < 500:
                    self.failures.append(str(error))
                    return
                time.sleep(RETRY_PAUSE_S)
                continue
            call, count = client.update_virtual_node, count + 1
            at_s = time.perf_counter()
            epoch, _, position = answer["ResponseMetadata"]["HTTPHeaders"]["x-meshlog-position"].partition(".")
            with self._lock:
                self.acknowledged.append((int(epoch), int(position), at_s))


def lose(cluster: MeasuredCluster) -> float:
    """Every etcd member and its disk, at once."""
    status = json.loads(cluster.run("status", "-o", "json"))
    members = [process for process in status["processes"] if process["role"] == "etcd"]
    for member in members:
        os.kill(member["pid"], signal.SIGKILL)
    lost_s = time.perf_counter()
    for member in members:
        shutil.rmtree(cluster.data_dir / "zones" / member["zone"] / "etcd" / "state")
    return lost_s


def measure(cluster: MeasuredCluster, events: int, writers: int) -> None:
    create_mesh(api_client(cluster.environment()))
    load = Load(cluster, writers)
    with ThreadPoolExecutor(max_workers=writers) as threads:
        load.start(threads)
        try:
            while len(load.acknowledged) < events and not load.failures:
                time.sleep(RETRY_PAUSE_S)
            if load.failures:
                raise MeshlogError(f"a write was refused: {load.failures[0]}")
            lost_s = lose(cluster)
            report = json.loads(cluster.run("backup", "restore", "--to", "latest", "--yes", "-o", "json"))
            back_s = load.first_in(report["epoch"], time.perf_counter() + GIVE_UP_S)
        finally:
            load.stop()
    listed = {write["position"] for write in report["lost"]}
    missing = [(at, at_s) for epoch, at, at_s in load.acknowledged if epoch == 1 and at > report["position"]]
    say(figures.host(events=report["position"], writers=writers, zones=len(cluster.addresses("frontend"))))
    say(
        json.dumps(
            {
                "total_loss": "every etcd member killed and its disk removed, under load",
                "events": report["position"],
                "missing": len(missing),
                "missing_and_not_listed": len([at for at, _ in missing if at not in listed]),
                "rpo_s": round(max((lost_s - at_s for _, at_s in missing), default=0.0), 3),
                "rpo_goal_s": 1.0,
                "rto_s": round(back_s - lost_s, 2),
                "rto_goal_s": 60.0,
                "restore_s": report["seconds"],
                "fsck_clean": json.loads(cluster.run("fsck", "-o", "json"))["clean"],
            }
        )
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.restore", description=__doc__)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--zones", type=int, default=3)
    parser.add_argument("--writers", type=int, default=8)
    chosen = parser.parse_args(arguments)
    configure_logging("bench", "", "warning")
    with measured_cluster(None, chosen.zones) as cluster:
        measure(cluster, chosen.events, chosen.writers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
