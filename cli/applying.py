"""A plan carried out over the API: one step after the other, with a progress bar, and a way on after a failure.

Creates and updates carry a clientToken, so that one which is repeated at another server counts once. A deletion that is
repeated and finds nothing has been carried out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from manifests.calls import ApiCall, call_for
from manifests.document import Reading
from manifests.plan import DELETE, Step
from mesh.commands import Command
from mesh.errors import CallerError, MeshlogError, NotFound, TimedOut, TooManyRequests, Unavailable
from runtime.clock import Clock, Entropy
from runtime.limits import APPLY_ATTEMPTS, APPLY_PAUSE_S


class Writer(Protocol):
    """What carries out calls: `cli.client.ApiClient`."""

    position: str | None

    def write(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        *,
        repeatable: bool = False,
    ) -> Mapping[str, Any]: ...


@dataclass(slots=True)
class Outcome:
    """What came of a plan. `failed`: what the API refused, and why. `first`: the log's position after the first."""

    done: list[Step] = field(default_factory=list)
    failed: list[tuple[Step, MeshlogError]] = field(default_factory=list)
    first: str | None = None
    interrupted: bool = False


class Runner:
    """Carries out steps for one caller."""

    def __init__(self, client: Writer, reading: Reading, clock: Clock, entropy: Entropy) -> None:
        self._client, self._reading, self._clock, self._entropy = client, reading, clock, entropy

    def run(self, steps: Sequence[Step], *, keep_going: bool, told: Callable[[Step], None]) -> Outcome:
        """All steps in order; the first failure ends it unless `keep_going`. `told` is called after each step."""
        outcome = Outcome()
        for step in steps:
            try:
                for command in step.commands:
                    self._carry_out(command, deleting=step.action == DELETE)
                    outcome.first = outcome.first or self._client.position
            except KeyboardInterrupt:
                outcome.interrupted = True
                break
            except MeshlogError as error:
                outcome.failed.append((step, error))
                if not keep_going or not isinstance(error, CallerError):
                    break
            else:
                outcome.done.append(step)
            told(step)
        return outcome

    def _carry_out(self, command: Command, *, deleting: bool) -> None:
        call = call_for(command, self._reading.account, self._reading.region)
        body = (
            {**call.body, "clientToken": self._entropy.uuid()} if call.tokened and call.body is not None else call.body
        )
        call = call._replace(body=body)
        for attempt in range(1, APPLY_ATTEMPTS + 1):
            try:
                self._send(call)
            except NotFound:
                if deleting and attempt > 1:
                    return
                raise
            except (TooManyRequests, TimedOut, Unavailable):
                # Each of these calls may be repeated: it has a token, or says what shall be rather than what to do.
                if attempt == APPLY_ATTEMPTS:
                    raise
                asyncio.run(self._clock.sleep(APPLY_PAUSE_S * attempt))
            else:
                return

    def _send(self, call: ApiCall) -> None:
        self._client.write(call.method, call.path, call.query, call.body, repeatable=call.tokened)
