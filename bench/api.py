"""The API over HTTP: create and describe on three members, at 1, 16 and 64 callers, each beside a yardstick of its run.

    python -m bench.api [--seconds S] [--rounds N] [--data-dir D] [--zones 3]

Callers (scripts/api_load) are closed loops spread over all API servers, on the machine that runs the cluster. Rounds of
Meshlog and of the yardstick take turns; the median round is told, as a JSON line for each call and number of callers.

    describe   beside moto's server, which keeps everything in one process and answers from memory; a describe here is
               linearizable: it is answered behind a quorum read
    create     beside raw etcd: Txns of an append's shape and size on three members of their own, with group commit, and
               nothing signed, checked, decided, sealed or folded (bench/appender.py)
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import figures
from bench.cluster import MeasuredCluster, measured_cluster
from bench.etcd import etcd_members, free_addresses, until_listening
from bench.log_append import appenders
from bench.log_append import measured as appended
from bench.log_observer import LogObserver, etcd_connection
from bench.write_to_ack import api_client
from mesh.errors import MeshlogError
from runtime.logging import configure_logging

CALLERS = (1, 16, 64)
MESH, NODE = "bench-api", "described"
NODE_QUOTA = ("L-E043DFB4", "100000")
PROGRAM = Path(__file__).resolve().parents[1] / ".cache" / "bin" / "api_load"
Round = Callable[[int], dict[str, Any]]
"""One round of so many callers: its figures."""


class Load:
    """The process of the callers. `environment` has the credentials."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._rounds = 0

    def round(self, call: str, urls: Sequence[str], callers: int, seconds: float) -> dict[str, Any]:
        """calls_per_s, quantiles and `failed`: how many calls were answered otherwise, by what."""
        self._rounds += 1
        prefix = f"r{self._rounds}" if call == "create" else NODE
        asked = {"op": call, "callers": callers, "seconds": seconds, "urls": urls, "mesh": MESH, "prefix": prefix}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise MeshlogError(f"{PROGRAM.name} ended with {self._process.wait()}")
        return told(json.loads(line))


def told(answer: Mapping[str, Any]) -> dict[str, Any]:
    """A round's figures from what the callers saw."""
    latencies = [latency / 1e6 for latency in answer["latencies_us"]]
    return {
        "calls_per_s": round(len(latencies) / answer["took_s"], 1),
        **figures.quantiles_ms(latencies),
        "client_cpu_share": round(answer["cpu_s"] / answer["took_s"], 2),
        "failed": answer["errors"],
    }


def raw(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The same of a round of raw appends."""
    return {
        "calls_per_s": answer["events_per_s"],
        **{name: answer[name] for name in ("n", "p50_ms", "p99_ms", "max_ms")},
        "event_bytes": answer["event_bytes"],
        "failed": {},
    }


def compared(call: str, callers: int, yardstick: str, ours: Sequence[Any], theirs: Sequence[Any]) -> dict[str, Any]:
    """The median rounds side by side, and their ratios."""

    def median(rounds: Sequence[Any]) -> dict[str, Any]:
        middle: dict[str, Any] = dict(sorted(rounds, key=lambda one: one["calls_per_s"])[len(rounds) // 2])
        middle["p99_ms"] = statistics.median(one["p99_ms"] for one in rounds)
        middle["failed"] = sum(sum(one["failed"].values()) for one in rounds)
        return middle

    own, other = median(ours), median(theirs)
    return {
        "bench": "api",
        "call": call,
        "callers": callers,
        "meshlog": own,
        yardstick: other,
        "throughput_ratio": round(own["calls_per_s"] / other["calls_per_s"], 3),
        "p99_ratio": round(own["p99_ms"] / other["p99_ms"], 3),
    }


def turns(rounds: int, callers: int, ours: Round, theirs: Round) -> tuple[list[Any], list[Any]]:
    """Rounds of both by turns, so that neither has the machine's better moments."""
    pairs = [(ours(callers), theirs(callers)) for _ in range(rounds)]
    return [one for one, _ in pairs], [other for _, other in pairs]


@contextmanager
def load(environment: Mapping[str, str]) -> Iterator[Load]:
    """The callers, gone at the end."""
    if not PROGRAM.exists():
        raise MeshlogError(f"{PROGRAM} is not built: run `make bench-api`")
    own = {**os.environ, **environment}
    with subprocess.Popen([PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=own) as process:
        try:
            yield Load(process)
        finally:
            process.kill()


@contextmanager
def moto(scratch: Path) -> Iterator[str]:
    """moto's server; its url."""
    [address] = free_addresses(1)
    argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", address.rpartition(":")[2]]
    with (scratch / "moto.log").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as process:
        try:
            until_listening([address])
            yield f"http://{address}"
        finally:
            process.kill()


def prepare(client: Any) -> None:
    """A mesh with the node that is described."""
    client.create_mesh(meshName=MESH)
    port = {"port": 8080, "protocol": "http"}
    spec = {"listeners": [{"portMapping": port}], "serviceDiscovery": {"dns": {"hostname": "n.example.internal"}}}
    client.create_virtual_node(meshName=MESH, virtualNodeName=NODE, spec=spec)


async def frame_size_bytes(cluster: MeasuredCluster, client: Any) -> int:
    """Of a creation in the log."""
    async with etcd_connection(cluster) as connection, LogObserver(connection) as log:
        spec = {"serviceDiscovery": {"dns": {"hostname": "size.service.example.internal"}}}
        make = asyncio.to_thread(client.create_virtual_node, meshName=MESH, virtualNodeName="size", spec=spec)
        made = await make
        await log.at(int(made["ResponseMetadata"]["HTTPHeaders"]["x-meshlog-position"].rpartition(".")[2]))
        return log.frame_bytes


def measure(
    cluster: MeasuredCluster, seconds: float, rounds: int, callers: Sequence[int] = CALLERS
) -> Iterator[dict[str, Any]]:
    """A line for each call and number of callers."""
    environment = cluster.environment()
    urls = [f"http://{address}" for _, address in cluster.addresses("api")]
    client = api_client(environment)
    cluster.run("quotas", "set", *NODE_QUOTA)
    prepare(client)
    with tempfile.TemporaryDirectory(prefix="meshlog-bench-") as directory, load(environment) as process:
        with moto(Path(directory)) as url:
            prepare(api_client({**environment, "AWS_ENDPOINT_URL_APP_MESH": url}))
            for each in callers:
                ours, theirs = turns(
                    rounds,
                    each,
                    lambda count: process.round("describe", urls, count, seconds),
                    lambda count: process.round("describe", [url], count, seconds),
                )
                yield compared("describe", each, "moto", ours, theirs)
        size_bytes = asyncio.run(frame_size_bytes(cluster, client))
        scratch = Path(directory)
        with etcd_members(scratch, 3) as members, appenders("raw", 1, members, scratch) as raws:
            for each in callers:
                ours, theirs = turns(
                    rounds,
                    each,
                    lambda count: process.round("create", urls, count, seconds),
                    lambda count: raw(appended(raws.round(count, seconds, size_bytes))),
                )
                yield compared("create", each, "raw_etcd", ours, theirs)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.api", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of one round")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is told")
    parser.add_argument("--zones", type=int, default=3)
    parser.add_argument("--data-dir", type=Path, default=None, help=f"a running cluster without a mesh named {MESH}")
    chosen = parser.parse_args(arguments)
    configure_logging("bench", "", "warning")
    with measured_cluster(chosen.data_dir, chosen.zones) as cluster:
        servers = len(cluster.addresses("api"))
        sys.stdout.write(figures.host(servers=servers, seconds=chosen.seconds, rounds=chosen.rounds) + "\n")
        for line in measure(cluster, chosen.seconds, chosen.rounds):
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
