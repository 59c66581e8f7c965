"""kill -9 of everything in one zone, etcd member included, under traffic; then the zone comes back by its `serve`
lines.
"""

from __future__ import annotations

import time

from chaos import checks
from chaos.cluster import Cluster
from chaos.traffic import Traffic, quantiles
from tests.conditions import eventually
from tests.e2e import figures
from tests.e2e.conftest import Connect, Gateway


def test_a_dead_zone_fails_no_request_and_stops_no_write(cluster: Cluster, connect: Connect, gateway: Gateway) -> None:
    gateway.canary.set_weights(gateway.client, 100, 0)
    processes = cluster.processes()
    lost = cluster.etcd_leader_zone()
    doomed = [process for process in processes if process.zone == lost]
    assert {process.role for process in doomed} == {"etcd", "api", "projector", "frontend"}
    survivor = next(process for process in processes if process.role == "api" and process.zone != lost)

    with Traffic("127.0.0.1", gateway.port, rate_per_s=100.0) as traffic:
        eventually(lambda: len(traffic.snapshot()) >= 100, what="traffic before the fault")
        cluster.kill(doomed)
        killed_s = time.monotonic()
        gateway.canary.set_weights(connect.at(survivor.url), 0, 100)
        accepted_s = time.monotonic()
        eventually(lambda: traffic.recent(1)[0].upstream == "v2", what="the write in Envoy")
        seen_s = time.monotonic()
        status = cluster.status()
        assert not status["ready"], "a cluster with a dead zone must say so"
        assert {entry["zone"] for entry in status["processes"] if not entry["ready"]} == {lost}

        cluster.restart(doomed)
        cluster.wait_ready()
        back_s = time.monotonic()
        gateway.canary.set_weights(connect(), 100, 0)
        eventually(lambda: traffic.recent(1)[0].upstream == "v1", what="a write with the zone back")
    report = traffic.stop()

    figures.report(
        "zone killed",
        accepted_after_s=round(accepted_s - killed_s, 2),
        in_envoy_after_s=round(seen_s - killed_s, 2),
        back_after_s=round(back_s - seen_s, 2),
        requests=len(report.samples),
        failed=len(report.failed),
        latency_ms=quantiles([sample.latency_ms for sample in report.samples]),
    )
    verdict = checks.no_request_failed(report, at_least=200)
    assert verdict.ok, f"{verdict.detail}\n{report.explained(gateway.envoy.failures())}"


def test_afterwards_the_replicas_agree_and_the_log_is_whole(cluster: Cluster) -> None:
    log = cluster.log()

    def agree() -> bool:
        return checks.hashes_equal(cluster.status()["processes"], checks.position_of(log[-1])).ok

    eventually(agree, what="equal state hashes at the log's end")
    assert checks.positions_contiguous(log).ok
    verdict = checks.fsck_clean(*cluster.fsck())
    assert verdict.ok, verdict.detail
