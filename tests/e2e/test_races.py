"""Races through two API servers against real etcd: one name, or one client token, at the same moment. A thousand of
them in the long suite.

Each race's two calls go to two servers and start together. Now and then an API server is killed with
SIGKILL while it works on a call with a token, and comes back while the races go on elsewhere.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from botocore import exceptions

from chaos import checks
from chaos.cluster import Cluster, Process
from tests.conditions import PATIENCE_S
from tests.e2e import figures
from tests.e2e.conftest import Connect

RACES = [100, pytest.param(500, marks=pytest.mark.long)]
KILLS = 5
RACES_PER_MESH = 100
SEED = 20261122


@dataclass(frozen=True)
class Answer:
    """What one caller was told: a status and the resource, or a status and an error code; status 0 is silence."""

    status: int
    body: Any

    @property
    def definite(self) -> bool:
        return 200 <= self.status < 500


def call(client: Any, mesh: str, name: str, token: str) -> Answer:
    try:
        answer = client.create_virtual_node(meshName=mesh, virtualNodeName=name, spec={}, clientToken=token)
    except exceptions.ClientError as refused:
        return Answer(refused.response["ResponseMetadata"]["HTTPStatusCode"], refused.response["Error"]["Code"])
    except (exceptions.ConnectionError, exceptions.HTTPClientError) as silence:
        return Answer(0, type(silence).__name__)
    position = answer["ResponseMetadata"]["HTTPHeaders"]["x-meshlog-position"]
    return Answer(200, (position, answer["virtualNode"]))


@pytest.fixture(scope="module")
def clients(connect: Connect) -> list[Any]:
    return [connect(index, retries={"total_max_attempts": 1}) for index in range(3)]


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def meshes(client: Any, kind: str, races: int) -> Callable[[int], str]:
    for number in range(-(-races // RACES_PER_MESH)):
        client.create_mesh(meshName=f"race-{kind}-{races}-{number}")
    return lambda race: f"race-{kind}-{races}-{race // RACES_PER_MESH}"


def together(pool: ThreadPoolExecutor, one: Callable[[], Answer], two: Callable[[], Answer]) -> list[Future[Answer]]:
    """Both start when both are ready to."""
    barrier = threading.Barrier(2)

    def run(go: Callable[[], Answer]) -> Answer:
        barrier.wait()
        return go()

    return [pool.submit(run, one), pool.submit(run, two)]


def creations(cluster: Cluster, prefix: str) -> Counter[tuple[str, str]]:
    return Counter(
        (event["mesh"], checks.event_name(event))
        for event in cluster.log()
        if str(event.get("mesh") or "").startswith(prefix) and checks.event_name(event).startswith("n-")
    )


@pytest.mark.parametrize("races", RACES)
def test_of_two_callers_creating_one_name_one_wins_and_one_gets_409(
    cluster: Cluster, clients: list[Any], pool: ThreadPoolExecutor, races: int
) -> None:
    mesh_of = meshes(clients[0], "name", races)
    began_s = time.monotonic()
    for race in range(races):
        mesh, name = mesh_of(race), f"n-{race}"
        one, two = clients[race % 3], clients[(race + 1) % 3]
        answers = [
            future.result(2 * PATIENCE_S)
            for future in together(
                pool,
                # A 503 while etcd elects a leader is no outcome: the caller asks again with its token.
                lambda: settle(lambda: call(one, mesh, name, f"a-{name}")),  # noqa: B023 - ends before the next race
                lambda: settle(lambda: call(two, mesh, name, f"b-{name}")),  # noqa: B023
            )
        ]
        assert sorted(answer.status for answer in answers) == [200, 409], (name, answers)
        assert next(answer.body for answer in answers if answer.status == 409) == "ConflictException"
    figures.report("races for one name", races=races, seconds=round(time.monotonic() - began_s, 1))
    assert creations(cluster, f"race-name-{races}-") == {(mesh_of(race), f"n-{race}"): 1 for race in range(races)}


class Killer:
    """Kills one API server at a moment drawn from a seed and brings it back in the background."""

    def __init__(self, cluster: Cluster, connect: Connect) -> None:
        self._cluster = cluster
        self._draws = random.Random(SEED)  # noqa: S311 - reproducible
        self._urls = connect.urls
        self._back: threading.Thread | None = None
        self.kills = 0
        self.down: int | None = None

    def aim(self, index: int) -> Process:
        """The server at `index`, alive; waits for an earlier victim to be back."""
        self.wait()
        return next(process for process in self._cluster.processes("api") if process.url == self._urls[index])

    def strike(self, victim: Process) -> None:
        """Wait a little, so that a call is somewhere inside the server, kill it, and bring it back in the
        background.
        """
        time.sleep(self._draws.uniform(0.0, 0.015))
        self._cluster.kill([victim])
        self.kills += 1
        self.down = self._urls.index(victim.url)
        self._back = threading.Thread(target=self._bring_back, args=(victim,))
        self._back.start()

    def _bring_back(self, victim: Process) -> None:
        self._cluster.restart([victim])
        self._cluster.wait_ready()
        self.down = None

    def wait(self) -> None:
        if self._back is not None:
            self._back.join(3 * PATIENCE_S)
            self._back = None


def settle(go: Callable[[], Answer]) -> Answer:
    """What a caller does who is told 5xx or nothing: the same token again, until there is a definite answer."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        answer = go()
        if answer.definite or time.monotonic() > deadline_s:
            return answer
        time.sleep(0.02)


@pytest.mark.parametrize("races", RACES)
def test_one_client_token_twice_is_one_event_and_one_answer_also_with_a_kill_between(
    cluster: Cluster, connect: Connect, clients: list[Any], pool: ThreadPoolExecutor, races: int
) -> None:
    mesh_of = meshes(clients[0], "token", races)
    kill_every = races // KILLS
    killer = Killer(cluster, connect)
    began_s = time.monotonic()
    try:
        for race in range(races):
            mesh, name = mesh_of(race), f"n-{race}"
            living = [index for index in range(3) if index != killer.down]
            first, second = living[race % len(living)], living[(race + 1) % len(living)]

            def ask(index: int, mesh: str = mesh, name: str = name) -> Answer:
                return call(clients[index], mesh, name, f"t-{name}")

            if race % kill_every == kill_every - 1:
                victim = killer.aim(first)
                early = pool.submit(ask, first)
                killer.strike(victim)
                answers = [settle(lambda: ask(second))]  # noqa: B023
                told = early.result(2 * PATIENCE_S)
                answers += [told] if told.definite else []
            else:
                futures = together(pool, lambda: settle(lambda: ask(first)), lambda: settle(lambda: ask(second)))  # noqa: B023
                answers = [future.result(2 * PATIENCE_S) for future in futures]
            assert all(answer.status == 200 for answer in answers), (name, answers)
            assert all(answer.body == answers[0].body for answer in answers), (name, answers)
    finally:
        killer.wait()
    figures.report("races for one token", races=races, kills=killer.kills, seconds=round(time.monotonic() - began_s, 1))
    assert creations(cluster, f"race-token-{races}-") == {(mesh_of(race), f"n-{race}"): 1 for race in range(races)}
    cluster.wait_ready()
