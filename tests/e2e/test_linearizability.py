"""I2 on a real cluster: concurrent callers of three API servers, which are killed one after the other all the while.

Every call and every answer is kept, and the whole history must have an order. How long: MESHLOG_LINEARIZE_S.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from chaos.callers import Caller, placed, prepare
from chaos.cluster import Cluster, appmesh_client
from chaos.linearizable import Call, linearizable, positions_follow_time
from tests.e2e import figures
from tests.e2e.conftest import Connect

SECONDS = float(os.environ.get("MESHLOG_LINEARIZE_S", "60"))
MESH_SECONDS = 30.0
"""A history of its own for each mesh: the longer one is, the longer it takes to find its order."""
CALLERS = 10
KILL_EVERY_S = 2.5
SEED = int(os.environ.get("MESHLOG_SEED", "20261122"))


class Killer:
    """Kills an API server, and brings it back before it kills the next."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._draws = random.Random(SEED)  # noqa: S311 - reproducible
        self.kills = 0

    def until(self, end_s: float) -> None:
        while time.monotonic() < end_s - KILL_EVERY_S:
            time.sleep(self._draws.uniform(0.0, KILL_EVERY_S))
            victim = self._draws.choice(self._cluster.processes("api"))
            self._cluster.kill([victim])
            self.kills += 1
            time.sleep(self._draws.uniform(0.0, 1.0))
            self._cluster.restart([victim])
            self._cluster.wait_ready()
        time.sleep(max(0.0, end_s - time.monotonic()))


def history(cluster: Cluster, connect: Connect, mesh: str, seconds: float, killer: Killer) -> list[Call]:
    clients = [appmesh_client(url, connect.environment) for url in connect.urls]
    prepare(clients[0], mesh)
    callers = [Caller(f"c{number}", clients, mesh, seed=SEED, pace_s=0.05).start() for number in range(CALLERS)]
    killer.until(time.monotonic() + seconds)
    calls = [call for caller in callers for call in caller.stop()]
    cluster.wait_ready()
    return placed(calls, cluster.log(mesh))


@pytest.mark.timeout(SECONDS * 4 + 240)
def test_what_three_servers_answer_while_they_are_killed_is_linearizable(
    cluster: Cluster, connect: Connect, tmp_path: Path
) -> None:
    killer, left_s, number = Killer(cluster), SECONDS, 0
    counted: Counter[str] = Counter()
    while left_s > 0:
        calls = history(cluster, connect, f"linear-{number}", min(MESH_SECONDS, left_s), killer)
        red = [check for check in (linearizable(calls, at_least=100), positions_follow_time(calls)) if not check.ok]
        if red:
            (tmp_path / "history.txt").write_text("\n".join(map(repr, sorted(calls, key=lambda call: call.began))))
        assert not red, (SEED, red, f"the history is in {tmp_path}")
        counted.update("answered" if call.definite else "unanswered" for call in calls)
        counted.update(call.code for call in calls if call.code)
        left_s, number = left_s - MESH_SECONDS, number + 1
    assert killer.kills
    assert counted["unanswered"], "no call lost its answer: the kills hit nothing"
    figures.report("linearizability", seconds=SECONDS, meshes=number, kills=killer.kills, **counted)
    cluster.wait_ready()
