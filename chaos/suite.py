"""The fault suite: traffic through a real Envoy and writes through the API while processes are killed and brought back.

Stage: `make chaos`. Turns a seed into a run on a real cluster and the run into a report of checks. It must never
retry until green: one run, one verdict. The same load without a fault runs first as the control, and both are
reported.

    python -m chaos.suite [--short] [--seed N] [--rounds N] [--data-dir D] [--report FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chaos import checks, faults
from chaos.cluster import SETUP_ATTEMPTS, Cluster, appmesh_client, wait_for
from chaos.envoy import Envoy
from chaos.example import Canary
from chaos.traffic import Traffic, TrafficReport, quantiles
from chaos.upstream import UpstreamProcess
from chaos.writers import ACKED, Write, Writer
from runtime.ports import free_port

WRITERS_ROUTER = "written"
WRITE_STAT_FILTER = "cds|lds|rds|control_plane"
RECOVERY_BOUND_S = 120.0
CATCH_UP_S = 60.0


@dataclass(frozen=True)
class Pace:
    """How hard and how long. `hold_s` is how long the victims stay dead."""

    rounds: int
    rate_per_s: float
    writers: int
    control_s: float
    hold_s: float


SHORT = Pace(rounds=1, rate_per_s=50.0, writers=2, control_s=2.0, hold_s=1.5)
FULL = Pace(rounds=3, rate_per_s=100.0, writers=4, control_s=10.0, hold_s=5.0)


@dataclass(frozen=True)
class Blow:
    """One fault as it happened. `at_s` since the suite began, `first_ack_s` from the kill to the first
    acknowledgement of a write begun after it, `back_s` from the restart to every role being ready.
    """

    target: str
    victims: tuple[str, ...]
    at_s: float
    first_ack_s: float
    back_s: float
    acked_while_down: int


@dataclass
class Report:
    """All that a run found; `ok` is every check."""

    seed: int
    pace: Pace
    checks: list[checks.Check] = field(default_factory=list)
    blows: list[Blow] = field(default_factory=list)
    control: dict[str, Any] = field(default_factory=dict)
    traffic: dict[str, Any] = field(default_factory=dict)
    writes: dict[str, Any] = field(default_factory=dict)
    envoy: dict[str, int] = field(default_factory=dict)
    envoy_failures: dict[str, int] = field(default_factory=dict)
    host: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return bool(self.checks) and all(check.ok for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}


class Suite:
    """One run against `cluster`, which must be up. `say` gets a line for each step."""

    def __init__(self, cluster: Cluster, *, seed: int, pace: Pace, scratch: Path, say: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._pace = pace
        self._seed = seed
        self._scratch = scratch
        self._say = say
        self._began_s = time.monotonic()
        self._report = Report(seed=seed, pace=pace, host=host_facts())
        self._recoveries_s: dict[str, float] = {}

    def run(self) -> Report:
        with ExitStack() as stack:
            one = stack.enter_context(UpstreamProcess("v1"))
            two = stack.enter_context(UpstreamProcess("v2"))
            canary = Canary(f"chaos-{self._seed}", one.port, two.port, gateway_port=free_port())
            environment = self._cluster.environment()
            clients = {url: appmesh_client(url, environment) for url in self._cluster.api_urls()}
            first = appmesh_client(next(iter(clients)), environment, attempts=SETUP_ATTEMPTS)
            canary.create(first)
            first.create_virtual_router(meshName=canary.mesh, virtualRouterName=WRITERS_ROUTER, spec={})
            envoy = stack.enter_context(self._envoy(canary))
            envoy.wait_live(canary.gateway_port)
            self._control(canary)
            traffic = stack.enter_context(Traffic("127.0.0.1", canary.gateway_port, rate_per_s=self._pace.rate_per_s))
            writers = [
                Writer(
                    f"w{number}", clients, mesh=canary.mesh, router=WRITERS_ROUTER, target=canary.one, seed=self._seed
                )
                for number in range(self._pace.writers)
            ]
            for writer in writers:
                writer.start()
            for fault in faults.plan(self._seed, self._pace.rounds):
                self._strike(fault, writers)
            writes = [write for writer in writers for write in writer.stop()]
            self._judge(canary, traffic.stop(), writes, envoy)
        return self._report

    def _envoy(self, canary: Canary) -> Envoy:
        admin_port = free_port()
        bootstrap = self._cluster.bootstrap(canary.gateway_node, admin_port=admin_port, out=self._scratch / "gateway")
        return Envoy(bootstrap, admin_port=admin_port, log=self._scratch / "envoy.log")

    def _control(self, canary: Canary) -> None:
        self._say(f"control run without faults, {self._pace.control_s:.0f} s at {self._pace.rate_per_s:.0f} requests/s")
        traffic = Traffic("127.0.0.1", canary.gateway_port, rate_per_s=self._pace.rate_per_s).start()
        wait_for(
            lambda: len(traffic.snapshot()) >= self._pace.control_s * self._pace.rate_per_s,
            self._pace.control_s * 3 + CATCH_UP_S,
            "the control run",
        )
        report = traffic.stop()
        self._report.control = report.summary()
        self._report.checks.append(checks.no_request_failed(report, at_least=int(self._pace.rate_per_s)))

    def _strike(self, fault: faults.Fault, writers: Sequence[Writer]) -> None:
        processes = self._cluster.processes()
        chosen = faults.victims(fault, processes, self._cluster.etcd_leader_zone())
        at_s = time.monotonic()
        self._say(f"kill -9 {fault.target}: {', '.join(victim.name for victim in chosen)}")
        self._cluster.kill(chosen)
        down_s = time.monotonic()
        wait_for(
            lambda: time.monotonic() - down_s >= self._pace.hold_s, self._pace.hold_s + CATCH_UP_S, "the dead time"
        )
        # A suite in which nobody was acknowledged while something was dead would prove nothing about that time.
        wait_for(lambda: acked_since(writers, down_s), CATCH_UP_S, f"a write acknowledged with {fault.target} dead")
        acked = acked_since(writers, down_s)
        restart_s = time.monotonic()
        self._cluster.restart(chosen)
        self._cluster.wait_ready(RECOVERY_BOUND_S)
        back_s = time.monotonic() - restart_s
        names = tuple(victim.name for victim in chosen)
        first_ack_s = min(write.ended_s for write in acked) - down_s
        self._recoveries_s[f"{len(self._report.blows)}:{fault.target}"] = back_s
        self._report.blows.append(Blow(str(fault.target), names, at_s - self._began_s, first_ack_s, back_s, len(acked)))
        self._say(f"  {len(acked)} writes acknowledged meanwhile, the first after {first_ack_s:.2f} s")
        self._say(f"  brought back, all ready after {back_s:.1f} s")

    def _judge(self, canary: Canary, traffic: TrafficReport, writes: Sequence[Write], envoy: Envoy) -> None:
        log = self._cluster.log()
        status = self._settled_status(checks.position_of(log[-1]))
        code, output = self._cluster.fsck()
        stats = envoy.stats(WRITE_STAT_FILTER)
        report = self._report
        report.traffic = traffic.summary()
        report.writes = summary_of_writes(writes)
        report.envoy = {name: value for name, value in stats.items() if value}
        report.envoy_failures = envoy.failures()
        report.checks.extend(
            [
                checks.no_request_failed(traffic, at_least=int(self._pace.rate_per_s)),
                checks.acked_exactly_once(writes, [event for event in log if event.get("mesh") == canary.mesh]),
                checks.versions_never_repeat(writes),
                checks.none_refused(writes),
                checks.positions_contiguous(log),
                checks.hashes_equal(status["processes"], checks.position_of(log[-1])),
                checks.fsck_clean(code, output),
                checks.recovered_in_time(self._recoveries_s, RECOVERY_BOUND_S),
                checks.envoy_accepted_all(stats),
            ]
        )

    def _settled_status(self, log_end: str) -> dict[str, Any]:
        """The status once all replicas are at the log's end; the last one seen if they never get there."""
        deadline_s = time.monotonic() + CATCH_UP_S
        while True:
            status = self._cluster.status()
            if checks.hashes_equal(status["processes"], log_end).ok or time.monotonic() > deadline_s:
                return status


def acked_since(writers: Sequence[Writer], since_s: float) -> list[Write]:
    """The writes that were both started and acknowledged after `since_s`."""
    writes = (write for writer in writers for write in writer.snapshot())
    return [write for write in writes if write.outcome == ACKED and write.started_s >= since_s]


def summary_of_writes(writes: Sequence[Write]) -> dict[str, Any]:
    outcomes: dict[str, int] = {}
    for write in writes:
        outcomes[write.outcome] = outcomes.get(write.outcome, 0) + 1
    return {
        "total": len(writes),
        "outcomes": outcomes,
        "retried": sum(write.attempts > 1 for write in writes),
        "latency_ms": quantiles(
            [(write.ended_s - write.started_s) * 1e3 for write in writes if write.outcome == ACKED]
        ),
    }


def host_facts() -> dict[str, Any]:
    """What the figures depend on."""
    return {"cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}


def table(report: Report) -> str:
    """The report for a reader at a terminal."""
    lines = [f"seed {report.seed}"]
    for blow in report.blows:
        lines.append(
            f"  {blow.at_s:7.1f} s  kill -9 {blow.target:<14} {', '.join(blow.victims):<55} "
            f"acked {blow.acked_while_down:>4}, first after {blow.first_ack_s:4.2f} s  back in {blow.back_s:5.1f} s"
        )
    for name, summary in (("control", report.control), ("traffic", report.traffic)):
        shown = {key: summary.get(key) for key in ("scheduled", "failed", "latency_ms", "late_ms")}
        lines.append(f"  {name}  {json.dumps(shown)}")
    lines.append(f"  writes   {json.dumps(report.writes)}")
    if report.traffic.get("failed") or report.control.get("failed"):
        lines.append(f"  Envoy counted  {json.dumps(report.envoy_failures)}")
    for check in report.checks:
        lines.append(f"  {'ok ' if check.ok else 'RED'} {check.invariant:<3} {check.name:<42} {check.detail}")
    lines.append("all checks hold" if report.ok else "CHECKS FAILED")
    return "\n".join(lines)


def _run(data_dir: Path | None, scratch: Path, seed: int, pace: Pace, say: Callable[[str], None]) -> Report:
    """On the cluster in `data_dir`, or on one made in `scratch` and stopped again."""
    with ExitStack() as stack:
        if data_dir is None:
            cluster = Cluster(scratch / "cluster")
            stack.callback(cluster.down)
            cluster.up()
        else:
            cluster = Cluster(data_dir)
        cluster.lift_quotas()
        return Suite(cluster, seed=seed, pace=pace, scratch=scratch, say=say).run()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos.suite", description=__doc__)
    parser.add_argument("--short", action="store_true", help="one round, gentle and quick")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument(
        "--data-dir", type=Path, default=None, help="a running cluster; without it one is made and removed"
    )
    parser.add_argument("--report", type=Path, default=None, help="also write the JSON report to this file")
    chosen = parser.parse_args(arguments)
    pace = SHORT if chosen.short else FULL
    if chosen.rounds is not None:
        pace = Pace(**{**asdict(pace), "rounds": chosen.rounds})

    def say(line: str) -> None:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    scratch = Path(tempfile.mkdtemp(prefix="meshlog-chaos-"))
    report: Report | None = None
    try:
        report = _run(chosen.data_dir, scratch, chosen.seed, pace, say)
    finally:
        if report is not None and report.ok:
            shutil.rmtree(scratch)
        else:
            say(f"kept for a look, remove it when done: {scratch}")
    text = json.dumps(report.as_json(), indent=2)
    if chosen.report is not None:
        chosen.report.write_text(text)
    sys.stdout.write(text + "\n")
    say(table(report))
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
