"""I2 of real API servers, three over one store with faults, by concurrent callers; and of servers that break it.

Each mutant does one thing that a server must never do. The same callers, the same faults and the same checker find it
out by what it tells them: what they are told by servers as they are has an order.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from api.domain import MESH_DOMAIN
from api.group_commit import Append, GroupCommit, HandOver
from api.outcomes import Outcome
from chaos.callers import Caller, prepare
from chaos.linearizable import Call, linearizable, positions_follow_time, stuck_at
from eventlog.driver import AppendTxn
from eventlog.drivers.memory import Fault
from eventlog.records import HeadRef
from mesh.errors import NoQuorum
from mesh.position import Position
from mesh.state import State
from tests.api.conftest import Cloud, Server, running
from tests.api.group_mutants import RejectsFromOldState, RejectsFromSpeculativeState
from tests.conditions import await_until

CALLERS = 8
ANSWERS = 200
SLICE, SLICES = 80, 60
"""A mutant is watched some answers at a time, in a mesh of its own each, until it is found out."""
WATCH_LAG_S = 0.1
"""How late servers hear of each other's writes: enough for one that does not ask to be wrong."""


def faults(seed: int) -> Callable[[AppendTxn], Fault]:
    """Appends that land without an answer, or are lost, now and then."""
    draw = random.Random(seed)  # noqa: S311 - reproducible
    kinds = (Fault.NONE, Fault.LANDED, Fault.LOST)
    return lambda _txn: draw.choices(kinds, (7, 1, 2))[0]


async def history(cloud: Cloud, mesh: str, answers: int) -> list[Call]:
    """What concurrent callers of all servers were told about one mesh, until they have so many answers."""
    clients = [server.client(read_timeout=5) for server in cloud.servers]
    cloud.store.fault_of = lambda _txn: Fault.NONE
    await asyncio.to_thread(prepare, clients[0], mesh)
    cloud.store.fault_of = faults(seed=7)
    callers = [Caller(f"c{number}", clients, mesh, seed=7, names=2).start() for number in range(CALLERS)]
    await await_until(lambda: sum(caller.answered for caller in callers) >= answers, 60.0, what="enough answers")
    return [call for caller in callers for call in await asyncio.to_thread(caller.stop)]


@asynccontextmanager
async def three_servers(directory: Path) -> AsyncIterator[Cloud]:
    """They hear of each other's writes late."""
    async with running(directory, servers=3, append_s=0.05) as cloud:
        changed = cloud.store.wait_changed

        async def late() -> None:
            await changed()
            await asyncio.sleep(WATCH_LAG_S)

        cloud.store.wait_changed = late  # type: ignore[method-assign]
        yield cloud


async def test_what_three_servers_answer_is_linearizable(tmp_path: Path) -> None:
    async with three_servers(tmp_path) as cloud:
        calls = await history(cloud, "m", ANSWERS)
    checks = [linearizable(calls, at_least=ANSWERS), positions_follow_time(calls)]
    assert [check for check in checks if not check.ok] == []
    assert {call.code for call in calls} >= {"", "ConflictException", "NotFoundException"}


class _AcknowledgesBeforeCommit(GroupCommit):
    def plan(self, state: State, head: HeadRef, wall_us: int, *, peers: bool = False) -> Append | HandOver | None:
        todo = super().plan(state, head, wall_us, peers=peers)
        for member in self._flight.accepted if self._flight else ():
            kept = self._flight.after.tokens.get(member.ticket.origin.token.digest) if self._flight else None
            self._answer(member.ticket, Outcome(member.last, kept.outcome if kept else None, decided=member.decided))
        return todo


def with_machine(machine: type[GroupCommit]) -> Callable[[Server], None]:
    def change(server: Server) -> None:
        server.app.state.commands._group = machine(MESH_DOMAIN)

    return change


def reads_without_asking(server: Server) -> None:
    """Answers reads, and refusals, from what it has folded, whatever the log's head is."""

    async def confirmed(timeout_s: float) -> Position:
        return server.replica.state.position

    server.replica.confirmed = confirmed  # type: ignore[method-assign]


def reads_a_head_and_does_not_wait(server: Server) -> None:
    """Asks the quorum, and answers before it has folded what the quorum said."""

    async def confirmed(timeout_s: float) -> Position:
        head = await server.driver.read_head()
        assert head is not None
        return head.head.at

    server.replica.confirmed = confirmed  # type: ignore[method-assign]


def takes_silence_for_failure(server: Server) -> None:
    """Decides again, as if nothing had been written, an append whose answer was lost; and forgets its token."""
    commands = server.app.state.commands
    submit = commands.submit

    async def forgetful(command: Any, origin: Any, **how: Any) -> Any:
        try:
            return await submit(command, origin, **how)
        except NoQuorum:
            again = origin.token.__class__(origin.token.digest[::-1], origin.token.body)
            return await submit(command, origin._replace(token=again), **how)

    class TakesUnknownForFailed(GroupCommit):
        def unknown(self) -> None:
            self.refused(NoQuorum("nothing was written"))

    commands.submit = forgetful
    commands._group = TakesUnknownForFailed(MESH_DOMAIN)


MUTANTS = {
    "acknowledges before the commit": with_machine(_AcknowledgesBeforeCommit),
    "refuses from an old state": with_machine(RejectsFromOldState),
    "refuses from a state that may never be": with_machine(RejectsFromSpeculativeState),
    "reads without asking the quorum": reads_without_asking,
    "reads a head and does not wait for it": reads_a_head_and_does_not_wait,
    "takes silence for failure": takes_silence_for_failure,
}


@pytest.mark.long
@pytest.mark.parametrize("mutant", MUTANTS)
async def test_servers_that_do_what_they_must_never_do_are_found_out(tmp_path: Path, mutant: str) -> None:
    async with three_servers(tmp_path) as cloud:
        for server in cloud.servers:
            MUTANTS[mutant](server)
        for number in range(SLICES):
            if stuck_at(await history(cloud, f"m{number}", SLICE)) is not None:
                return
    raise AssertionError(f"a server that {mutant} was not found out in {SLICES} histories")
