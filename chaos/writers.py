"""Writers that record what they were told: who was acknowledged, who was refused, whose fate is unknown.

Stage: the witness of I1. Turns a stream of App Mesh calls with unique client tokens into `Write` records. A call that
gets a 5xx, a time-out or a broken connection is repeated with the *same* token at the next zone's API server. It must
never count silence as failure: a write that was given up on is `unknown` and may be in the log or not.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore import exceptions

GIVE_UP_S = 60.0
JOIN_TIMEOUT_S = 60.0
RETRY_PAUSE_S = 0.05
MOST_ROUTES = 12
POSITION_HEADER = "x-meshlog-position"

ACKED = "acked"
REFUSED = "refused"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Write:
    """One call, however often it was sent. `resource` is the route's name, `verb` create or update, `position` from
    the answer (`<epoch>.<position>`), `version` the answer's metadata.version (0 when there was no answer).
    """

    verb: str
    resource: str
    token: str
    outcome: str
    position: str
    version: int
    uid: str
    attempts: int
    started_s: float
    ended_s: float
    problem: str = ""


class Writer:
    """Creates and updates routes of one virtual router until stopped. `clients` maps a name of each API server to its
    client.
    """

    def __init__(
        self,
        name: str,
        clients: Mapping[str, Any],
        *,
        mesh: str,
        router: str,
        target: str,
        seed: int,
        pause_s: float = 0.05,
        give_up_s: float = GIVE_UP_S,
    ) -> None:
        self._name = name
        self._clients = list(clients.items())
        self._mesh = mesh
        self._router = router
        self._target = target
        self._pause_s = pause_s
        self._give_up_s = give_up_s
        # Reproducible choices of the suite; nothing here is a secret.
        self._random = random.Random(f"{seed}/{name}")  # noqa: S311
        self._next_client = 0
        self._writes: list[Write] = []
        self._created: list[str] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"writer-{name}", daemon=True)
        self.failure: BaseException | None = None

    def start(self) -> Writer:
        self._thread.start()
        return self

    def stop(self) -> list[Write]:
        """Let the call in flight end, and return every write in order."""
        self._stopping.set()
        self._thread.join(self._give_up_s + JOIN_TIMEOUT_S)
        if self.failure is not None:
            raise self.failure
        return list(self._writes)

    def snapshot(self) -> list[Write]:
        return list(self._writes)

    def _run(self) -> None:
        try:
            for number in itertools.count():
                if self._stopping.is_set():
                    return
                self._writes.append(self._one(number))
                self._stopping.wait(self._pause_s)
        except BaseException as failure:
            self.failure = failure

    def _one(self, number: int) -> Write:
        token = f"{self._name}-{number}-{self._random.getrandbits(48):012x}"
        self._next_client = self._random.randrange(len(self._clients))
        enough = len(self._created) >= MOST_ROUTES
        update = enough or (bool(self._created) and self._random.random() < 0.5)
        resource = self._random.choice(self._created) if update else f"{self._name}-{number}"
        write = self._settle("update" if update else "create", resource, token, number)
        if write.verb == "create" and write.outcome == ACKED:
            self._created.append(resource)
        return write

    def _settle(self, verb: str, resource: str, token: str, number: int) -> Write:
        """Send until there is a definite answer or the patience ends."""
        started_s = time.monotonic()
        attempts, problems = 0, list[str]()
        answer: Mapping[str, Any] | None = None
        outcome = UNKNOWN
        while time.monotonic() - started_s < self._give_up_s:
            attempts += 1
            try:
                answer = self._send(verb, resource, token, number)
            except (exceptions.ClientError, exceptions.ConnectionError, exceptions.HTTPClientError) as problem:
                problems.append(str(problem))
                if _is_refusal(problem):
                    outcome = REFUSED
                    break
                self._next_client += 1
                time.sleep(RETRY_PAUSE_S)
            else:
                outcome = ACKED
                break
        headers = answer["ResponseMetadata"]["HTTPHeaders"] if answer else {}
        metadata = answer["route"]["metadata"] if answer else {}
        return Write(
            verb=verb,
            resource=resource,
            token=token,
            outcome=outcome,
            position=headers.get(POSITION_HEADER, ""),
            version=int(metadata.get("version", 0)),
            uid=str(metadata.get("uid", "")),
            attempts=attempts,
            started_s=started_s,
            ended_s=time.monotonic(),
            problem="; ".join(problems)[:500],
        )

    def _send(self, verb: str, resource: str, token: str, number: int) -> Mapping[str, Any]:
        _, client = self._clients[self._next_client % len(self._clients)]
        call: Callable[..., Mapping[str, Any]] = client.create_route if verb == "create" else client.update_route
        spec = {
            "priority": 500,
            "httpRoute": {
                "match": {"prefix": f"/{resource}/{number}"},
                "action": {"weightedTargets": [{"virtualNode": self._target, "weight": 1}]},
            },
        }
        return call(
            meshName=self._mesh, virtualRouterName=self._router, routeName=resource, spec=spec, clientToken=token
        )


def _is_refusal(problem: Exception) -> bool:
    """An answer in the 4xx range says that nothing was written; anything else leaves it open."""
    if not isinstance(problem, exceptions.ClientError):
        return False
    status = int(problem.response["ResponseMetadata"]["HTTPStatusCode"])
    return 400 <= status < 500 and status != 429


def acknowledged(writes: Sequence[Write]) -> list[Write]:
    return [write for write in writes if write.outcome == ACKED]
