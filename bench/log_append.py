"""Appends: events a second and latency of 1, 16 and 128 callers on one and on three appenders, beside raw etcd.

Appenders (bench/appender.py) are processes of their own, over three real etcd members. Rounds of the log and of the
yardstick take turns on the same members, with as many callers and as many bytes an event; the yardstick's p99 is its
callers' too, so that waiting for the Txn before is in both. After all, the log must hold exactly what was acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench import figures
from bench.appender import create_keys
from bench.etcd import EtcdCluster, etcd_members, free_addresses
from cluster.etcd.values import Delete, prefix_end
from eventlog.drivers.etcd import EtcdDriver
from eventlog.genesis import create_log
from runtime.clock import SystemClock, SystemEntropy

CALLERS = (1, 16, 128)
APPENDERS = (1, 3)
THROUGHPUT_GOAL, P99_GOAL = 0.9, 1.3
EVENT_BYTES = 512
"""Of the yardstick before the log's own are known."""


class Appenders:
    """Some processes of one kind, given rounds together."""

    def __init__(self, processes: Sequence[subprocess.Popen[str]]) -> None:
        self._processes = processes
        for process in processes:
            _told(process)

    def round(self, callers: int, seconds: float, event_bytes: int) -> list[dict[str, Any]]:
        """What each measured; they begin together."""
        for step in ({"callers": callers, "seconds": seconds, "event_bytes": event_bytes}, {"go": True}):
            for process in self._processes:
                assert process.stdin is not None
                process.stdin.write(json.dumps(step) + "\n")
                process.stdin.flush()
            answers = [_told(process) for process in self._processes]
        return answers


def _told(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"an appender ended with {process.wait()}")
    return json.loads(line)


@contextmanager
def appenders(kind: str, count: int, cluster: EtcdCluster, scratch: Path) -> Iterator[Appenders]:
    """`count` processes over a log (or head) of their own."""
    prefix = _prefix(kind, count)
    if kind == "meshlog":
        asyncio.run(_create(cluster, prefix, scratch / "keks"))
    peers = free_addresses(count)
    roles = cluster.roles
    told = {
        "kind": kind,
        "members": [[member.zone, member.address] for member in cluster.members],
        "tls": [str(path) for path in cluster.tls],
        "prefix": prefix,
        "keks": str(scratch / "keks"),
        "role_tls": {name: str(getattr(roles, name)) for name in ("certificate", "key", "authority")},
    }
    with ExitStack() as stack:
        processes = []
        for index in range(count):
            own = {
                "name": f"a{index}",
                "zone": cluster.members[index % len(cluster.members)].zone,
                "peer": peers[index],
            }
            document = json.dumps(told | own | {"peers": [peer for peer in peers if peer != peers[index]]})
            argv = [sys.executable, "-m", "bench.appender", document]
            process = stack.enter_context(
                subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            stack.callback(process.kill)
            processes.append(process)
        yield Appenders(processes)
    asyncio.run(_remove(cluster, prefix))


async def _create(cluster: EtcdCluster, prefix: str, keks: Path) -> None:
    connection = cluster.connection()
    try:
        providers = create_keys(keks)
        await create_log(EtcdDriver(connection, prefix), providers, SystemClock(), SystemEntropy())
    finally:
        connection.close()


async def _check(cluster: EtcdCluster, count: int, answers: Sequence[dict[str, Any]]) -> None:
    """Every acknowledged command is in the log once, and nothing else is."""
    connection = cluster.connection()
    try:
        head = await EtcdDriver(connection, _prefix("meshlog", count)).read_head()
    finally:
        connection.close()
    acknowledged = sum(answer["acknowledged"] for answer in answers)
    if head is None or head.head.position != acknowledged:
        raise AssertionError(f"{acknowledged} commands were acknowledged, and the log's head is {head}")


async def _remove(cluster: EtcdCluster, prefix: str) -> None:
    connection = cluster.connection()
    try:
        await connection.txn([], [Delete(prefix.encode(), prefix_end(prefix.encode()))])
    finally:
        connection.close()


def _prefix(kind: str, count: int) -> str:
    return f"/bench/{kind}-{count}/"


def measured(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One round of all appenders together."""
    took_s = max(answer["took_s"] for answer in answers)
    calls = [len(answer["latencies_s"]) for answer in answers]
    latencies = [latency for answer in answers for latency in answer["latencies_s"]]
    frames, events = (sum(answer[name] for answer in answers) for name in ("frames", "events"))
    return {
        "events_per_s": round(sum(calls) / took_s, 1),
        **figures.quantiles_ms(latencies),
        "txn_p50_ms": figures.quantiles_ms([one for answer in answers for one in answer["txn_s"]]).get("p50_ms", 0),
        "share_min": round(min(calls) / max(1, sum(calls)), 3),
        "share_max": round(max(calls) / max(1, sum(calls)), 3),
        "unavailable": sum(answer["unavailable"] for answer in answers),
        "batch_mean": round(events / max(1, frames), 1),
        "event_bytes": round(sum(answer["frame_bytes"] for answer in answers) / max(1, events)),
        "lost_races": sum(answer["lost"] for answer in answers),
        "handed_over": sum(answer["handed_over"] for answer in answers),
        "txn_share": round(sum(sum(answer["txn_s"]) for answer in answers) / (took_s * len(answers)), 2),
        "cpu_us_per_event": round(1e6 * sum(answer["cpu_s"] for answer in answers) / max(1, sum(calls))),
        "cpu_share": round(sum(answer["cpu_s"] for answer in answers) / (took_s * len(answers)), 2),
    }


def compared(count: int, callers: int, log: Sequence[dict[str, Any]], raw: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The medians of the rounds, and the ratios that the goals are about."""

    def middle(rounds: Sequence[dict[str, Any]], name: str) -> float:
        return float(statistics.median(one[name] for one in rounds))

    names = (
        "events_per_s", "p50_ms", "p99_ms", "txn_p50_ms", "batch_mean", "event_bytes", "cpu_us_per_event", "cpu_share",
        "txn_share",
    )  # fmt: skip
    throughput = middle(log, "events_per_s") / middle(raw, "events_per_s")
    p99 = middle(log, "p99_ms") / middle(raw, "p99_ms")
    return {
        "bench": "append",
        "appenders": count,
        "callers": callers,
        "meshlog": {name: middle(log, name) for name in names},
        "raw_etcd": {name: middle(raw, name) for name in names},
        "throughput_ratio": round(throughput, 3),
        "p99_ratio": round(p99, 3),
        "goals_met": throughput >= THROUGHPUT_GOAL and p99 <= P99_GOAL,
        "n": sum(one["n"] for one in log),
        "share_min": min(one["share_min"] for one in log),
        "share_max": max(one["share_max"] for one in log),
        "lost_races": sum(one["lost_races"] for one in log),
        "handed_over": sum(one["handed_over"] for one in log),
        "raw_lost_races": sum(one["lost_races"] for one in raw),
        "unavailable": sum(one["unavailable"] for one in log),
    }


def measure(
    seconds: float,
    rounds: int,
    *,
    members: int = 3,
    counts: Sequence[int] = APPENDERS,
    callers: Sequence[int] = CALLERS,
) -> Iterator[str]:
    """JSON lines, one for each number of appenders and callers."""
    with tempfile.TemporaryDirectory(prefix="meshlog-bench-") as directory:
        scratch = Path(directory)
        with etcd_members(scratch, members) as cluster:
            yield figures.host(etcd=cluster.version, members=members, seconds=seconds, rounds=rounds)
            for count in counts:
                with (
                    appenders("meshlog", count, cluster, scratch / f"log-{count}") as logs,
                    appenders("raw", count, cluster, scratch) as raws,
                ):
                    for each in callers:
                        log, raw = [], []
                        for _ in range(rounds):
                            answers = logs.round(each, seconds, EVENT_BYTES)
                            log.append(measured(answers))
                            raw.append(measured(raws.round(each, seconds, log[-1]["event_bytes"])))
                        if not any(one["unavailable"] for one in log):
                            asyncio.run(_check(cluster, count, answers))
                        yield json.dumps(compared(count, each, log, raw))
