"""The group-commit machine, whatever happens around it: each token once, every answer true, rejections linearizable.

The property drives several machines over a model of the log through drawn schedules (tests/api/group_worlds.py). That
its checkers can fail is shown with mutants of the machine, each of which some schedule gives away.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.batch import Batch, Place
from api.domain import MESH_DOMAIN, Domain
from api.group_commit import Append, GroupCommit, HandOver
from api.outcomes import Origin, Outcome, Ticket
from eventlog.drivers.memory import MemoryDriver
from eventlog.records import HeadRef
from eventlog.writer import LogWriter
from mesh.commands import Command, Context, Create, CreateAccessKey, IssueProxyIdentity, TagResource, idempotency_token
from mesh.errors import LimitExceeded, NoQuorum, OutcomeUnknown
from mesh.position import Position
from mesh.state import State
from runtime.clock import SystemClock, SystemEntropy
from tests.api.group_mutants import RejectsFromOldState, RejectsFromSpeculativeState
from tests.api.group_worlds import ACCOUNT, MESH, NODE, OTHER, PRINCIPAL, Bug, Make, World
from tests.projector.logs import BOTH, MemoryLog

SCHEDULES = st.lists(st.integers(0, 2**16), min_size=10, max_size=70)


def eager(domain: Domain) -> GroupCommit:
    """Hands over after its first lost race, and takes few commands at a time, so that little happens to much."""
    return GroupCommit(domain, commands_max=3, hand_over_after=1, hand_over_streak=2)


@settings(max_examples=250)
@given(SCHEDULES, st.integers(1, 3), st.booleans())
def test_each_token_is_appended_once_and_every_answer_is_true(
    schedule: list[int], servers: int, hands_over: bool
) -> None:
    World(servers, eager if hands_over else GroupCommit).run(schedule, calls=8)


# --- the checkers can fail


class _AcknowledgesBeforeCommit(GroupCommit):
    def plan(self, state: State, head: HeadRef, wall_us: int, *, peers: bool = False) -> Append | HandOver | None:
        todo = super().plan(state, head, wall_us, peers=peers)
        for member in self._flight.accepted if self._flight else ():
            self._answer(member.ticket, Outcome(member.last, None, decided=member.decided))
        return todo


class _TakesUnknownForFailed(GroupCommit):
    def unknown(self) -> None:
        self.refused(NoQuorum("nothing was written"))


class _GoesPastAnUnresolvedAppend(GroupCommit):
    """Builds the next Txn on the one whose outcome it does not know."""

    _past: Append | None = None

    def plan(self, state: State, head: HeadRef, wall_us: int, *, peers: bool = False) -> Append | HandOver | None:
        if self._past is not None:
            past, self._past = self._past, None
            ahead = head.head._replace(position=past.after.position.position, hash=bytes(32))
            state, head = past.after, HeadRef(ahead, head.mod_revision + 1)
        todo = super().plan(state, head, wall_us, peers=peers)
        self._sent = todo
        return todo

    def unknown(self) -> None:
        super().unknown()
        self._past = self._sent if isinstance(self._sent, Append) else None


class _ForgetsDoubtOnceTheCallerIsGone(GroupCommit):
    def plan(self, state: State, head: HeadRef, wall_us: int, *, peers: bool = False) -> Append | HandOver | None:
        for ticket in [ticket for ticket in self._queue if ticket.abandoned]:
            self._queue.remove(ticket)
        for ticket in self._queue:
            ticket.doubt = None
        return super().plan(state, head, wall_us, peers=peers)


class _ForgetsThatAnotherServerHasIt(GroupCommit):
    def hand_over_unknown(self) -> None:
        self.declined()


class _AnswersLostCommands(GroupCommit):
    """Believes that whoever lost the race was told so by the winner's state."""

    def lost(self, head: Position) -> None:
        self.committed()
        self.folded()


MUTANTS = [
    _AcknowledgesBeforeCommit,
    RejectsFromSpeculativeState,
    RejectsFromOldState,
    _TakesUnknownForFailed,
    _GoesPastAnUnresolvedAppend,
    _ForgetsThatAnotherServerHasIt,
    _AnswersLostCommands,
]


def caught(make: Make, seeds: int = 1500) -> str | None:
    """What the first schedule that gives a machine away says."""
    for seed in range(seeds):
        draws = random.Random(seed)  # noqa: S311 - reproducible
        try:
            World(1 + seed % 3, make).run([draws.randrange(2**16) for _ in range(60)], calls=8)
        except AssertionError as failure:
            return f"{seed}: {failure}"
    return None


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_machine_that_does_what_must_never_happen_is_caught(mutant: type[GroupCommit]) -> None:
    assert caught(lambda domain: mutant(domain, commands_max=3, hand_over_after=1, hand_over_streak=2)) is not None


@pytest.mark.parametrize("make", [GroupCommit, _ForgetsDoubtOnceTheCallerIsGone])
def test_nothing_is_refused_that_an_append_holds_which_may_yet_land(make: type[GroupCommit]) -> None:
    """A mesh and a node in it, written in one frame that lands late: the mesh's caller is gone when all is decided
    again, and on the state without the mesh the node would be refused.
    """
    world = World(1, make)
    (server,) = world.servers
    mesh, node = world.call(0, Create(MESH, {})), world.call(0, Create(NODE, {}))
    world.plan(server)
    world.unknown(server, later=True)
    world.give_up(server, next(ticket for ticket, call in server.calls.items() if call is mesh))
    if make is GroupCommit:
        world.run([], calls=2)
        assert isinstance(node.answer, Outcome)
        return
    world.settle(server)
    world.plan(server)
    world.hear()
    world.confirm(server, next(ticket for ticket, call in server.calls.items() if call is node))
    with pytest.raises(AssertionError, match="and is in the log"):
        world.run([], calls=2)


@pytest.mark.parametrize("error", [LimitExceeded("the node is too large"), Bug()])
def test_one_bad_command_in_a_frame_is_found_and_the_others_are_written(error: Exception) -> None:
    world = World(1, GroupCommit)
    (server,) = world.servers
    calls = [world.call(0, Create(key, {})) for key in (MESH, NODE, OTHER)]
    while server.machine.waiting:
        world.plan(server)
        flight = server.flight
        assert flight is not None
        if any(new.request_id == "rq-1" for new in flight.records):
            server.flight = None
            server.machine.refused(error)
        else:
            world.result(server)
        world.hear()
    mesh, node, other = (call.answer for call in calls)
    assert isinstance(mesh, Outcome)
    assert isinstance(other, Outcome)
    assert type(node) is type(error)


def test_a_frame_is_bounded_by_its_bytes_and_by_its_commands() -> None:
    world = World(1, lambda domain: GroupCommit(domain, commands_max=3, bytes_max=6_000))
    (server,) = world.servers
    world.call(0, Create(MESH, {}))
    world.plan(server)
    world.result(server)
    for number in range(7):
        world.call(0, TagResource(MESH, {f"note-{each}": str(number) * 200 for each in range(9 if number < 4 else 1)}))
    frames = []
    while server.machine.waiting:
        world.plan(server)
        assert server.flight is not None
        frames.append(len(server.flight.records))
        world.result(server)
    assert frames == [2, 2, 3]


def test_what_is_alone_and_too_large_for_the_estimate_is_tried_all_the_same() -> None:
    world = World(1, lambda domain: GroupCommit(domain, bytes_max=100))
    call = world.call(0, Create(MESH, {}))
    world.run([], calls=1)
    assert isinstance(call.answer, Outcome)


def test_who_is_back_from_another_server_is_in_doubt_until_it_is_decided_here_and_is_not_sent_again() -> None:
    world = World(2, eager)
    asker, taker = world.servers
    calls = [world.call(0, Create(key, {})) for key in (MESH, NODE, MESH)]
    asker.machine.losses = 1
    world.plan(asker)
    assert [guest.token for guest in asker.guests or ()] == [call.token for call in calls]
    world.plan(taker)
    world.result(taker)
    world.hear()
    world.handed_over(asker)
    first, *_ = asker.calls
    world.give_up(asker, first)
    assert isinstance(calls[0].answer, OutcomeUnknown)
    late = world.call(0, Create(OTHER, {}))
    world.plan(asker)
    world.hear()
    assert not asker.guests, "it was decided here"
    assert isinstance(calls[1].answer, Outcome)
    assert calls[2].confirming
    assert late.answer is None
    world.plan(asker)
    assert [guest.token for guest in asker.guests or ()] == [late.token]
    world.finish()
    world.check()


def test_an_outcome_that_stays_unknown_does_not_hold_the_others_up_for_ever() -> None:
    world = World(1, lambda domain: GroupCommit(domain, attempts_max=3))
    (server,) = world.servers
    call = world.call(0, Create(MESH, {}))
    for _ in range(3):
        world.plan(server)
        world.unknown(server, later=True)
        world.hear()
        world.settle(server)
    assert isinstance(call.answer, OutcomeUnknown)
    assert not server.machine.waiting
    world.finish()
    world.check()


@pytest.mark.parametrize("size_bytes", [0, 10, 600, 9_000, 150_000])
async def test_the_size_that_a_frame_is_planned_by_is_at_least_what_is_sealed(tmp_path: Path, size_bytes: int) -> None:
    log = await MemoryLog.create(tmp_path)
    noise = SystemEntropy().token_bytes(size_bytes).decode("latin-1")
    commands: list[Command] = [
        Create(MESH, {"egressFilter": {"type": noise}}, {"a": "b"}, checked=True),
        Create(NODE, {}),
        CreateAccessKey("AKIA" + "X" * 16, "s" * 40, ACCOUNT, PRINCIPAL, admin=True),
        IssueProxyIdentity(NODE, "ab" * 20, 2**60),
    ]
    assert log.head is not None
    batch = Batch(MESH_DOMAIN, State(), log.head, 1)
    for number, command in enumerate(commands):
        token = idempotency_token(ACCOUNT, PRINCIPAL, "op", str(number), {})
        origin = Origin(ACCOUNT, PRINCIPAL, "2001:db8::1", f"rq-{number}" + "x" * 40, "op", token)
        ticket = Ticket(command, origin, Context(ACCOUNT, PRINCIPAL, "op", token, "u" * 36), 0.0)
        assert batch.add(ticket, 2**30) is Place.TAKEN
    writer = LogWriter(MemoryDriver(log.store), log.keyring(BOTH), SystemClock(), SystemEntropy())
    sealed = await writer.seal(log.head, batch.records, 0, batch.wall_us)
    assert len(sealed.txn.frame) <= batch.size_bytes
