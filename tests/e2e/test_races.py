"""A thousand races through two API servers against real etcd: one name, or one client token, at the same moment.

Each race's two calls go to two servers and start together. Every few dozen token races an API server is killed with
SIGKILL while it works on the call, and comes back while the races go on elsewhere.
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

NAME_RACES = 500
TOKEN_RACES = 500
KILL_EVERY = 60
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
        client.create_mesh(meshName=f"race-{kind}-{number}")
    return lambda race: f"race-{kind}-{race // RACES_PER_MESH}"


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


def test_of_two_callers_creating_one_name_one_wins_and_one_gets_409(
    cluster: Cluster, clients: list[Any], pool: ThreadPoolExecutor
) -> None:
    mesh_of = meshes(clients[0], "name", NAME_RACES)
    began_s = time.monotonic()
    for race in range(NAME_RACES):
        mesh, name = mesh_of(race), f"n-{race}"
        one, two = clients[race % 3], clients[(race + 1) % 3]
        answers = [
            future.result(2 * PATIENCE_S)
            for future in together(
                pool,
                lambda: call(one, mesh, name, f"a-{name}"),  # noqa: B023 - both have ended before the next race
                lambda: call(two, mesh, name, f"b-{name}"),  # noqa: B023
            )
        ]
        assert sorted(answer.status for answer in answers) == [200, 409], (name, answers)
        assert next(answer.body for answer in answers if answer.status == 409) == "ConflictException"
    figures.report("races for one name", races=NAME_RACES, seconds=round(time.monotonic() - began_s, 1))
    assert creations(cluster, "race-name-") == {(mesh_of(race), f"n-{race}"): 1 for race in range(NAME_RACES)}


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
            self._back.join(150.0)
            self._back = None


def settle(go: Callable[[], Answer]) -> Answer:
    """What a caller does who is told 5xx or nothing: the same token again, until there is a definite answer."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        answer = go()
        if answer.definite or time.monotonic() > deadline_s:
            return answer
        time.sleep(0.02)


def test_one_client_token_twice_is_one_event_and_one_answer_also_with_a_kill_between(
    cluster: Cluster, connect: Connect, clients: list[Any], pool: ThreadPoolExecutor
) -> None:
    mesh_of = meshes(clients[0], "token", TOKEN_RACES)
    killer = Killer(cluster, connect)
    began_s = time.monotonic()
    try:
        for race in range(TOKEN_RACES):
            mesh, name = mesh_of(race), f"n-{race}"
            living = [index for index in range(3) if index != killer.down]
            first, second = living[race % len(living)], living[(race + 1) % len(living)]

            def ask(index: int, mesh: str = mesh, name: str = name) -> Answer:
                return call(clients[index], mesh, name, f"t-{name}")

            if race % KILL_EVERY == KILL_EVERY - 1:
                victim = killer.aim(first)
                early = pool.submit(ask, first)
                killer.strike(victim)
                answers = [settle(lambda: ask(second))]  # noqa: B023
                told = early.result(2 * PATIENCE_S)
                answers += [told] if told.definite else []
            else:
                futures = together(pool, lambda: ask(first), lambda: ask(second))  # noqa: B023
                answers = [future.result(2 * PATIENCE_S) for future in futures]
            assert all(answer.status == 200 for answer in answers), (name, answers)
            assert all(answer.body == answers[0].body for answer in answers), (name, answers)
    finally:
        killer.wait()
    figures.report(
        "races for one token", races=TOKEN_RACES, kills=killer.kills, seconds=round(time.monotonic() - began_s, 1)
    )
    assert creations(cluster, "race-token-") == {(mesh_of(race), f"n-{race}"): 1 for race in range(TOKEN_RACES)}
    cluster.wait_ready()
