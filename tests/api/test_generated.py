"""Requests generated from the model, over HTTP: what is valid is taken and comes back as it was, what breaks one
constraint is refused with 400 by its path, nothing is answered 500, and nothing changes without an event.

The default suite sends a thousand; `make test-generated` sends 100 000 and prints what came of them.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from mesh.model.operations import CREATE, OPERATIONS, Operation
from mesh.state import state_hash
from tests.api.conftest import Server, running
from tests.api.generated import OTHERS, WORLD, WRITES, inputs, other_inputs, target_and_body
from tests.api.signing import Signing, signed_headers
from tests.api.violations import violations

REQUESTS = int(os.environ.get("MESHLOG_TEST_GENERATED", "1000"))
SEED = int(os.environ.get("MESHLOG_TEST_SEED", "4"))
EXAMPLES = 10
"""Of one run of hypothesis, of which there are as many as it takes."""
PER_INPUT_MAX = 60
"""Broken variants tried of one input, so that small runs see many inputs."""


@dataclass
class Caller:
    """A connection that stays open, and the statuses that came over it."""

    server: Server
    statuses: Counter[int] = field(default_factory=Counter)
    _connection: HTTPConnection | None = None

    def __call__(self, operation: Operation, members: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """One signed request; status and document."""
        target, body = target_and_body(operation, members)
        content = json.dumps(body).encode() if body or operation.method == "PUT" else b""
        headers = signed_headers(self.server.url, operation.method, target, content, Signing())
        if self._connection is None:
            self._connection = HTTPConnection(urlsplit(self.server.url).netloc, timeout=20)
        self._connection.request(operation.method, target, content or None, headers)
        answer = self._connection.getresponse()
        document = json.loads(answer.read())
        self.statuses[answer.status] += 1
        return answer.status, document

    @property
    def sent(self) -> int:
        return self.statuses.total()


def before_and_after(server: Server) -> tuple[Any, str]:
    """Where the log is, and what it adds up to."""
    state = server.replica.state
    return state.position, state_hash(state)


def named(operation: Operation, verb: str) -> Operation:
    return OPERATIONS[operation.name.replace("Create", verb).replace("Update", verb)]


def taken_and_given_back(call: Caller, operation: Operation, members: dict[str, Any]) -> None:
    """Create or update, describe, delete: the specification comes back as it went in, one event for each change."""
    names = {name: members[name] for name in operation.path_members} | {
        member: value for member, value in members.items() if isinstance(value, str)
    }
    if operation.verb != CREATE:
        call(named(operation, "Create"), {**members, "spec": _least(operation)})
    position = call.server.replica.state.position
    status, created = call(operation, members)
    assert status == 200, (operation.name, members, created)
    assert created["spec"] == members["spec"]
    assert call.server.replica.state.position.position == position.position + 1
    status, described = call(named(operation, "Describe"), names)
    assert (status, described) == (200, created)
    status, gone = call(named(operation, "Delete"), names)
    assert (status, gone["status"], gone["spec"]) == (200, {"status": "DELETED"}, members["spec"])
    assert call(named(operation, "Describe"), names)[0] == 404
    assert call.server.replica.state.position.position == position.position + 2


def _least(operation: Operation) -> dict[str, Any]:
    assert operation.kind is not None
    listener = {"portMapping": {"port": 1, "protocol": "http"}}
    service = {"virtualService": {"virtualServiceName": "s.local"}}
    action = {"weightedTargets": [{"virtualNode": "n0", "weight": 1}]}
    least: dict[str, dict[str, Any]] = {
        "virtualGateway": {"listeners": [listener]},
        "route": {"httpRoute": {"match": {"prefix": "/"}, "action": action}},
        "gatewayRoute": {"httpRoute": {"match": {"prefix": "/"}, "action": {"target": service}}},
    }
    return least.get(operation.kind.name, {})


def refused_by_path(call: Caller, operation: Operation, members: dict[str, Any]) -> None:
    """Each broken variant is answered 400 and names the place; nothing is written."""
    found = list(violations(operation, members))
    before = before_and_after(call.server)
    for broken in found[:: max(1, len(found) // PER_INPUT_MAX)]:
        if call.sent >= REQUESTS:
            break
        status, document = call(operation, broken.members)
        assert (status, document["__type"]) == (400, "BadRequestException"), (operation.name, broken, document)
        assert broken.path in document["message"], (operation.name, broken, document)
    assert before_and_after(call.server) == before


@contextmanager
def served(directory: Path) -> Iterator[Server]:
    """A server with `WORLD` in it, in a loop of its own, so that hypothesis can call it from a plain function."""
    ready: list[Server] = []
    started, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with running(directory) as cloud:
            ready.append(cloud.server)
            started.set()
            await stop.wait()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert started.wait(30), "the server did not start"
    try:
        yield ready[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()


@pytest.mark.timeout(3600)
def test_generated_requests(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        call = Caller(server)
        for name, members in WORLD:
            assert call(OPERATIONS[name], members)[0] == 200

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        @given(data=st.data(), operation=st.sampled_from(WRITES) | st.sampled_from(OTHERS))
        def generated(data: st.DataObject, operation: Operation) -> None:
            members = data.draw(inputs(operation) if operation in WRITES else other_inputs(operation))
            if call.sent >= REQUESTS:
                return
            if operation not in WRITES:
                refused_by_path(call, operation, members)
                assert call(operation, members)[0] == 200, (operation.name, members)
                return
            if operation.name.endswith("Mesh"):
                members["meshName"] = "x"
            refused_by_path(call, operation, members)
            taken_and_given_back(call, operation, members)

        for number in itertools.count():
            if call.sent >= REQUESTS:
                break
            seed(f"{SEED}/{number}")(generated)()
        print(f"{call.sent} requests: {dict(sorted(call.statuses.items()))}")
        assert call.statuses.keys() <= {200, 400, 404}
        assert call.sent >= REQUESTS
