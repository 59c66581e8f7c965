"""A plan carried out: repeated where that is safe, ended where it must, and told how far it came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from cli.applying import Outcome, Runner
from manifests.document import Reading
from manifests.live import LiveResource
from manifests.plan import CREATE, DELETE, UPDATE, Step
from mesh.commands import Create, Delete, TagResource, UntagResource, Update
from mesh.errors import Conflict, MeshlogError, NotFound, TimedOut, TooManyRequests, Unavailable
from mesh.kinds import ResourceKey, mesh_key
from runtime.clock import SystemEntropy
from runtime.limits import APPLY_ATTEMPTS

ACCOUNT, OTHER = "123456789012", "210987654321"
READING = Reading(ACCOUNT, "eu-west-1")


class Patient:
    """A clock that does not wait."""

    def __init__(self) -> None:
        self.waited_s: list[float] = []

    def now_us(self) -> int:
        return 0

    def monotonic_s(self) -> float:
        return 0.0

    async def sleep(self, delay_s: float) -> None:
        self.waited_s.append(delay_s)


class Server:
    """Answers calls with what it was told to; remembers them. `answers` by path: errors in turn, then success."""

    def __init__(self, **answers: Sequence[BaseException]) -> None:
        self.position: str | None = None
        self.calls: list[tuple[str, str, Mapping[str, str], Mapping[str, Any] | None, bool]] = []
        self._answers = {name: list(errors) for name, errors in answers.items()}

    def write(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        *,
        repeatable: bool = False,
    ) -> Mapping[str, Any]:
        self.calls.append((method, path, query or {}, body, repeatable))
        name = (body or {}).get("meshName") or path.rsplit("/", 1)[-1]
        waiting = self._answers.get(name)
        if waiting:
            raise waiting.pop(0)
        self.position = f"1.{len(self.calls)}"
        return {}


def made(name: str) -> Step:
    key = mesh_key(ACCOUNT, name)
    return Step(CREATE, key, (Create(key, {}, {}),), None, f"f:{name}")


def gone(name: str) -> Step:
    key = mesh_key(ACCOUNT, name)
    return Step(DELETE, key, (Delete(key),), LiveResource(key, {}), f"f:{name}")


def run(server: Server, *steps: Step, keep_going: bool = False) -> tuple[Outcome, list[str], Patient]:
    clock, told = Patient(), list[str]()
    runner = Runner(server, READING, clock, SystemEntropy())
    outcome = runner.run(steps, keep_going=keep_going, told=lambda step: told.append(step.key.name))
    return outcome, told, clock


def names(steps: list[Step]) -> list[str]:
    return [step.key.name for step in steps]


def test_steps_are_carried_out_in_order_and_told() -> None:
    server = Server()
    outcome, told, _clock = run(server, made("a"), made("b"), gone("c"))
    assert (names(outcome.done), told, outcome.failed) == (["a", "b", "c"], ["a", "b", "c"], [])
    assert outcome.first == "1.1"
    assert [(method, path) for method, path, *_rest in server.calls] == [
        ("PUT", "/v20190125/meshes"),
        ("PUT", "/v20190125/meshes"),
        ("DELETE", "/v20190125/meshes/c"),
    ]


def test_the_first_failure_ends_it() -> None:
    outcome, told, _clock = run(Server(b=[Conflict("taken")]), made("a"), made("b"), made("c"))
    assert (names(outcome.done), told) == (["a"], ["a"])
    assert [(step.key.name, str(error)) for step, error in outcome.failed] == [("b", "taken")]


def test_what_is_interrupted_is_told_as_far_as_it_came() -> None:
    outcome, told, _clock = run(Server(b=[KeyboardInterrupt()]), made("a"), made("b"), made("c"))
    assert (names(outcome.done), told, outcome.failed, outcome.interrupted) == (["a"], ["a"], [], True)


def test_keep_going_goes_on_after_a_refusal_but_not_without_a_server() -> None:
    outcome, _told, _clock = run(Server(b=[Conflict("taken")]), made("a"), made("b"), made("c"), keep_going=True)
    assert names(outcome.done) == ["a", "c"]
    down: list[MeshlogError] = [Unavailable("down") for _ in range(APPLY_ATTEMPTS)]
    outcome, _told, _clock = run(Server(b=down), made("a"), made("b"), made("c"), keep_going=True)
    assert names(outcome.done) == ["a"]


@pytest.mark.parametrize("error", [TooManyRequests("busy"), TimedOut("late"), Unavailable("no quorum")])
def test_what_passes_is_waited_for_and_sent_again_under_one_token(error: MeshlogError) -> None:
    server = Server(a=[error, error])
    outcome, _told, clock = run(server, made("a"))
    assert names(outcome.done) == ["a"]
    tokens = {(body or {})["clientToken"] for _method, _path, _query, body, _repeatable in server.calls}
    assert (len(server.calls), len(tokens)) == (3, 1)
    assert clock.waited_s == sorted(clock.waited_s)
    assert len(clock.waited_s) == 2


def test_a_deletion_that_is_repeated_and_finds_nothing_is_done() -> None:
    outcome, _told, _clock = run(Server(a=[TimedOut("late"), NotFound("gone")]), gone("a"))
    assert names(outcome.done) == ["a"]
    outcome, _told, _clock = run(Server(a=[NotFound("never was")]), gone("a"))
    assert [str(error) for _step, error in outcome.failed] == ["never was"]


def test_calls_name_everything_where_the_model_has_it() -> None:
    key = ResourceKey(OTHER, "m", "route", "a b", "x/é")
    step = Step(
        UPDATE,
        key,
        (Update(key, {"priority": 1}), UntagResource(key, ("t",)), TagResource(key, {"k": "v"})),
        LiveResource(key, {}),
    )
    server = Server()
    run(server, step)
    update, untag, tag = server.calls
    assert update[:3] == ("PUT", "/v20190125/meshes/m/virtualRouter/a%20b/routes/x%2F%C3%A9", {"meshOwner": OTHER})
    assert {**(update[3] or {}), "clientToken": ""} == {"spec": {"priority": 1}, "clientToken": ""}
    arn = f"arn:aws:appmesh:eu-west-1:{OTHER}:mesh/m/virtualRouter/a b/route/x/é"
    assert untag == ("PUT", "/v20190125/untag", {"resourceArn": arn}, {"tagKeys": ["t"]}, False)
    assert tag == ("PUT", "/v20190125/tag", {"resourceArn": arn}, {"tags": [{"key": "k", "value": "v"}]}, False)
