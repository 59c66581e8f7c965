"""The short form of `make chaos`: each kind of process is killed once under traffic and writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.cluster import Cluster
from chaos.suite import SHORT, Suite, table
from tests.e2e import figures


@pytest.mark.timeout(900)
def test_every_kind_of_kill_leaves_the_invariants_whole(cluster: Cluster, tmp_path: Path) -> None:
    report = Suite(cluster, seed=20261122, pace=SHORT, scratch=tmp_path, say=print).run()
    figures.report("chaos, writes", **report.writes)
    figures.report("chaos, traffic", **{key: report.traffic[key] for key in ("scheduled", "failed", "latency_ms")})
    assert report.ok, table(report)
