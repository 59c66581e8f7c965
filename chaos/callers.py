"""Concurrent callers of one small mesh, and the history of what they were told: the evidence for I2.

Stage: before `chaos.linearizable`. Turns boto clients of several API servers into `Call`s. Virtual nodes and routes to
them, few names, many callers: names are made, changed, deleted, refused, described and listed, each call at a server of
its own. What is repeated after silence is one call only under a clientToken; a delete has none, so each attempt counts
by itself. It must never take silence, or a 5xx, for an answer.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from botocore import exceptions

from chaos.checks import event_name, event_verb
from chaos.linearizable import CREATE, DELETE, DESCRIBE, LIST, READS, UPDATE, Call, Seen, unanswered
from chaos.writers import POSITION_HEADER

ROUTER = "all"
NODES, ROUTES = "n", "r"
"""What names begin with, and so which kind of thing they name."""
PATIENCE_S = 8.0
RETRY_PAUSE_S = 0.02
LISTED_AT_ONCE = 100
_VERBS = ((CREATE, 5), (UPDATE, 4), (DELETE, 4), (DESCRIBE, 5), (LIST, 2))
_DROPPED = 0.2
"""How often a caller leaves it at one attempt, so that what became of its write is not known to anybody."""


def prepare(client: Any, mesh: str) -> None:
    """The mesh and the router that the callers' routes are in."""
    client.create_mesh(meshName=mesh)
    client.create_virtual_router(meshName=mesh, virtualRouterName=ROUTER, spec={})


class Caller:
    """One caller's thread: a call after the other until `stop`. `clients` are those of the API servers, never retrying.

    `pace_s`: the longest pause between two calls.
    """

    def __init__(
        self, name: str, clients: Sequence[Any], mesh: str, *, seed: int, names: int = 4, pace_s: float = 0.0
    ) -> None:
        self._name, self._clients, self._mesh, self._names, self._pace_s = name, clients, mesh, names, pace_s
        # Reproducible choices; nothing here is a secret.
        self._random = random.Random(f"{seed}/{mesh}/{name}")  # noqa: S311
        self._calls: list[Call] = []
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"caller-{name}", daemon=True)

    def start(self) -> Caller:
        self._thread.start()
        return self

    @property
    def answered(self) -> int:
        """How many calls have an answer so far."""
        return sum(call.definite for call in self._calls)

    def stop(self) -> list[Call]:
        """Let the call under way end; every call in the order in which they were made."""
        self._stopping.set()
        self._thread.join(PATIENCE_S + 30.0)
        if self._failure is not None:
            raise self._failure
        assert not self._thread.is_alive(), f"caller {self._name} hangs"  # noqa: S101
        return list(self._calls)

    def _run(self) -> None:
        try:
            number = 0
            while not self._stopping.is_set():
                number += 1
                self._one(number)
                self._stopping.wait(self._random.uniform(0.0, self._pace_s))
        except BaseException as failure:  # told by `stop`, in the thread that asks
            self._failure = failure

    def _one(self, number: int) -> None:
        draw = self._random
        verb = draw.choices([verb for verb, _ in _VERBS], [weight for _, weight in _VERBS])[0]
        kind = draw.choice((NODES, ROUTES))
        name = kind if verb == LIST else f"{kind}{draw.randrange(self._names)}"
        wrote = None
        if verb in (CREATE, UPDATE):
            mark = int(f"{number}{draw.randrange(10_000):04}")
            wrote = (mark, f"{NODES}{draw.randrange(self._names)}" if kind == ROUTES else None)
        token = f"{draw.getrandbits(128):032x}"
        patient = draw.random() >= _DROPPED
        self._settle(Call(self._name, verb, name, 0, None, wrote=wrote), token, patient)

    def _settle(self, call: Call, token: str, patient: bool) -> None:
        """Send until there is an answer that decides it, or no more is wanted; keep what can be said of it."""
        deadline_s = time.monotonic() + PATIENCE_S
        began = attempt = time.monotonic_ns()
        while True:
            told = self._send(call, token, began)
            if told is not None and told.code and attempt > began:
                # The refusal is this attempt's. One before it, of which nothing was heard, may take effect yet.
                self._calls.append(unanswered(_at(call, began)))
                told = replace(told, began=attempt)
            if told is not None:
                self._calls.append(told)
                return
            again = patient and time.monotonic() < deadline_s and not self._stopping.is_set()
            under_token = call.wrote is not None
            if call.verb not in READS and not (again and under_token):
                self._calls.append(unanswered(_at(call, began)))
            if not again:
                return
            self._stopping.wait(RETRY_PAUSE_S)
            attempt = time.monotonic_ns()
            if not under_token:
                began = attempt

    def _send(self, call: Call, token: str, began: int) -> Call | None:
        """The call with its answer, if it got one that decides what became of it."""
        client = self._random.choice(self._clients)
        try:
            answer = self._ask(client, call, token)
        except exceptions.ClientError as refused:
            status = int(refused.response["ResponseMetadata"]["HTTPStatusCode"])
            if status >= 500 or status == 429:
                return None
            return Call(
                call.caller, call.verb, call.name, began, time.monotonic_ns(),
                code=str(refused.response["Error"]["Code"]), wrote=call.wrote, position=_position(refused.response),
            )  # fmt: skip
        except (exceptions.ConnectionError, exceptions.HTTPClientError):
            return None
        ended = time.monotonic_ns()
        listed = seen = None
        if call.verb == LIST:
            listed = {item[_NAME[call.name]]: item["version"] for item in answer[_PLURAL[call.name]]}
        else:
            seen = _seen(answer, call.name)
        return Call(
            call.caller, call.verb, call.name, began, ended,
            wrote=call.wrote, seen=seen, listed=listed, position=_position(answer),
        )  # fmt: skip

    def _ask(self, client: Any, call: Call, token: str) -> Mapping[str, Any]:
        route = call.name.startswith(ROUTES)
        title = "route" if route else "virtual_node"
        within: dict[str, Any] = {"meshName": self._mesh} | ({"virtualRouterName": ROUTER} if route else {})
        if call.verb == LIST:
            return dict(getattr(client, f"list_{title}s")(**within, limit=LISTED_AT_ONCE))
        arguments = {**within, _NAME[call.name[0]]: call.name}
        if call.wrote is not None:
            arguments |= {"spec": _spec(*call.wrote), "clientToken": token}
        return dict(getattr(client, f"{call.verb}_{title}")(**arguments))


def placed(calls: Sequence[Call], log: Sequence[Mapping[str, Any]]) -> list[Call]:
    """The calls, those without an answer with the position at which the log of their mesh seems to have them.

    It guides the search for an order, and decides nothing. A delete is told from others by nothing but its name.
    """
    known = {call.position for call in calls if call.position is not None and call.verb not in READS and not call.code}
    by_mark: dict[tuple[str, int], tuple[int, int]] = {}
    deletes: dict[str, list[tuple[int, int]]] = {}
    for event in log:
        name, at = event_name(event), (int(event["epoch"]), int(event["position"]))
        if at in known or name[:1] not in _NAME:
            continue
        if event_verb(event) == DELETE:
            deletes.setdefault(name, []).append(at)
        elif "spec" in event["data"]:
            by_mark[name, _marked(event["data"]["spec"], name)] = at
    found = []
    for call in sorted(calls, key=lambda each: each.began):
        if call.definite:
            found.append(call)
            continue
        place: tuple[int, int] | None = None
        if call.wrote is not None:
            place = by_mark.get((call.name, call.wrote[0]))
        elif deletes.get(call.name):
            place = deletes[call.name].pop(0)
        found.append(replace(call, position=place))
    return found


_NAME = {NODES: "virtualNodeName", ROUTES: "routeName"}
_PLURAL = {NODES: "virtualNodes", ROUTES: "routes"}


def _spec(mark: int, refers: str | None) -> dict[str, Any]:
    if refers is None:
        return {"serviceDiscovery": {"dns": {"hostname": f"{mark}.example"}}}
    target = {"virtualNode": refers, "weight": 1}
    return {"httpRoute": {"match": {"prefix": f"/{mark}"}, "action": {"weightedTargets": [target]}}}


def _seen(answer: Mapping[str, Any], name: str) -> Seen:
    """What the answer to a write or a describe tells."""
    resource = answer["route" if name.startswith(ROUTES) else "virtualNode"]
    metadata, spec = resource["metadata"], resource["spec"]
    refers = None
    if name.startswith(ROUTES):
        refers = spec["httpRoute"]["action"]["weightedTargets"][0]["virtualNode"]
    return Seen(metadata["uid"], metadata["version"], _marked(spec, name), refers)


def _marked(spec: Mapping[str, Any], name: str) -> int:
    """The mark that a writer put into a specification."""
    if name.startswith(ROUTES):
        return int(spec["httpRoute"]["match"]["prefix"].lstrip("/"))
    return int(spec["serviceDiscovery"]["dns"]["hostname"].partition(".")[0])


def _position(answer: Mapping[str, Any]) -> tuple[int, int] | None:
    text = answer["ResponseMetadata"]["HTTPHeaders"].get(POSITION_HEADER)
    if not text:
        return None
    epoch, _, position = text.partition(".")
    return int(epoch), int(position)


def _at(call: Call, began: int) -> Call:
    return Call(call.caller, call.verb, call.name, began, None, wrote=call.wrote)
