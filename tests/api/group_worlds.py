"""Several `GroupCommit` machines over one model of the log, stepped one event at a time, with every fault there is.

The model is a list of events and the fold after each; a Txn lands if its head is the log's. What a machine asks for is
done in steps that a schedule (a list of numbers) picks from what can happen now: an append may be answered, lost,
landed without an answer or landed later; servers lag, are killed and begin anew; callers give up and repeat their
call with the same token elsewhere; batches are handed over, and hand-overs break. `check` methods raise AssertionError.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from api.domain import MESH_DOMAIN, Domain
from api.group_commit import Append, GroupCommit, HandOver
from api.outcomes import ConfirmFirst, Origin, Outcome, Ticket, Verdict, too_late
from eventlog.records import HeadRef, genesis_head
from mesh.commands import Command, Context, Create, Delete, TagResource, Update, idempotency_token
from mesh.decide import decide
from mesh.errors import CallerError, LimitExceeded, NoQuorum, OutcomeUnknown, TooManyRequests, Unavailable
from mesh.events import Event, Token
from mesh.evolve import evolve
from mesh.kinds import ResourceKey, mesh_key
from mesh.position import ORIGIN, Position
from mesh.state import State, state_hash

ACCOUNT, PRINCIPAL = "123456789012", "arn:aws:iam::123456789012:user/ann"
MESH, OTHER = mesh_key(ACCOUNT, "m"), mesh_key(ACCOUNT, "n")
NODE = ResourceKey(ACCOUNT, "m", "virtualNode", "", "x")
COMMANDS: tuple[Command, ...] = (
    Create(MESH, {}),
    Create(NODE, {}),
    Delete(NODE),
    Delete(MESH),
    Update(MESH, {"egressFilter": {"type": "ALLOW_ALL"}}),
    TagResource(MESH, {"team": "web"}),
    Create(OTHER, {}),
)
"""Few names, so that what one command does decides what becomes of the next."""


RARELY = 24
"""One in so many steps is a misfortune."""


Make = Callable[[Domain], GroupCommit]


class Silence(Exception):  # noqa: N818 - what a caller hears of a killed server
    pass


class Bug(Exception):  # noqa: N818 - not one of ours to have a name for
    pass


class Log:
    """Events, the fold after each, and the head."""

    def __init__(self) -> None:
        self.head = HeadRef(genesis_head("log"), 1)
        self.heads = {ORIGIN.position: self.head, 0: self.head}
        self.events: list[Event] = []
        self.states = [State()]

    def __len__(self) -> int:
        return len(self.events)

    def commit(self, txn: Append) -> bool:
        """The Txn: compare, and put."""
        if txn.head != self.head:
            return False
        time_us = max(txn.base.time_us, txn.wall_us)
        for new in txn.records:
            token = Token(new.token.digest, new.token.body) if new.token else None
            event = Event(
                Position(1, len(self) + 1), time_us, txn.wall_us, new.type, new.schema, new.account, new.actor,
                new.source_ip, new.request_id, token, new.data,
            )  # fmt: skip
            self.events.append(event)
            self.states.append(evolve(self.states[-1], event))
        assert state_hash(self.states[-1]) == state_hash(txn.after), "decided on states that the log does not have"
        digest = hashlib.sha256(self.head.head.hash + repr(txn.records).encode()).digest()
        head = self.head.head._replace(position=len(self), hash=digest)
        self.head = self.heads[len(self)] = HeadRef(head, self.head.mod_revision + 1)
        return True


@dataclass(eq=False)
class Call:
    """One caller's call at one server. `begun`, `ended`: lengths of the log. A guest is another server's call."""

    command: Command
    token: Token
    begun: int
    guest: bool = False
    answer: Verdict | None = None
    ended: int = 0
    confirming: bool = False
    repeated: bool = False

    @property
    def may_have_written(self) -> bool:
        """Whether the caller was left in the belief that its call was done, or may have been."""
        if isinstance(self.answer, Outcome):
            return self.answer.written
        return isinstance(self.answer, (OutcomeUnknown, Silence))


@dataclass(eq=False)
class Server:
    """One machine and what its shell would know."""

    machine: GroupCommit
    folded: int
    calls: dict[Ticket, Call] = field(default_factory=dict)
    flight: Append | None = None
    guests: list[Call] | None = None
    host: Server | None = None


class World:
    """`steps()` is what can happen now."""

    def __init__(self, servers: int, make: Make) -> None:
        self.log, self._make = Log(), make
        self.servers = [Server(make(MESH_DOMAIN), 0) for _ in range(servers)]
        self.late: list[Append] = []
        self.calls: list[Call] = []
        self.by_request: dict[str, Call] = {}
        self.now_us = 1_000_000
        self.clients = 0

    def run(self, schedule: Iterable[int], calls: int) -> None:
        """Follow a schedule, then let everything that is on its way arrive, and check the whole."""
        for number in schedule:
            steps = [*self._beginnings(calls)] + [step for server in self.servers for step in self._steps(server)]
            if number % RARELY == 0 or not steps:
                steps = [step for server in self.servers for step in self._misfortunes(server)]
            self.now_us += 10
            steps[number // RARELY % len(steps)]()
            self.hear()
        self.finish()
        self.check()

    # --- what can happen

    def _beginnings(self, calls: int) -> Iterable[Callable[[], None]]:
        if self.clients < calls:
            for command in COMMANDS:
                yield lambda command=command: self.call(self.clients % len(self.servers), command)  # type: ignore[misc]
        for txn in self.late:
            yield lambda txn=txn: self.deliver(txn)  # type: ignore[misc]
        for call in self.calls:
            if isinstance(call.answer, (Unavailable, Silence)) and not call.repeated:
                yield lambda call=call: self._repeat(call)  # type: ignore[misc]

    def _steps(self, server: Server) -> Iterable[Callable[[], None]]:
        machine = server.machine
        if server.flight is not None:
            yield lambda: self.result(server)
            yield lambda: self.result(server)  # twice as likely as any one fault
            yield lambda: self.result(server, answered=False)
            yield lambda: self.unknown(server, later=True)
            yield lambda: self.unknown(server, later=False)
            yield lambda: self._refused(server)
        elif server.guests is not None:
            if all(guest.answer is not None for guest in server.guests):
                yield lambda: self.handed_over(server)
        elif machine.unsettled:
            yield lambda: self.settle(server)
        elif machine.waiting:
            yield lambda: self.plan(server)
        for ticket, call in server.calls.items():
            if call.confirming:
                yield lambda ticket=ticket: self.confirm(server, ticket)  # type: ignore[misc]
        if server.folded < len(self.log):
            yield lambda: self._follow(server)

    def _misfortunes(self, server: Server) -> Iterable[Callable[[], None]]:
        yield lambda: self.kill(server)
        if server.guests is not None:
            yield lambda: self._hand_over_breaks(server)
        for ticket, call in server.calls.items():
            if call.answer is None and not call.guest:
                yield lambda ticket=ticket: self.give_up(server, ticket)  # type: ignore[misc]

    def call(self, at: int, command: Command, token: Token | None = None) -> Call:
        """A caller calls."""
        self.clients += 0 if token else 1
        token = token or idempotency_token(ACCOUNT, PRINCIPAL, "op", str(self.clients), {"command": repr(command)})
        call = Call(command, token, len(self.log))
        self.calls.append(call)
        self._submit(self.servers[at], call)
        return call

    def _submit(self, server: Server, call: Call, of: Call | None = None) -> None:
        """`of`: the call that a guest stands for; its origin travels along."""
        number = len(self.by_request)
        self.by_request[f"rq-{number}"] = of or call
        origin = Origin(ACCOUNT, PRINCIPAL, "10.0.0.1", f"rq-{number}", "op", call.token)
        context = Context(ACCOUNT, PRINCIPAL, "op", call.token, f"uid-{number}", self.now_us)
        ticket = Ticket(call.command, origin, context, 1e9, may_hand_over=not call.guest)
        server.calls[ticket] = call
        try:
            server.machine.submit(ticket)
        except TooManyRequests as error:
            self._answer(call, error)

    def _repeat(self, call: Call) -> None:
        call.repeated = True
        self.call((self.calls.index(call) + 1) % len(self.servers), call.command, call.token)

    def _follow(self, server: Server) -> None:
        server.folded = min(at for at in self.log.heads if at > server.folded)

    def plan(self, server: Server) -> None:
        """The machine's next thing to do."""
        head = self.log.heads[server.folded]
        todo = server.machine.plan(self.log.states[server.folded], head, self.now_us, peers=len(self.servers) > 1)
        if isinstance(todo, Append):
            assert todo.head in self.log.heads.values(), "an append on something that is not in the log"
            server.flight = todo
        elif isinstance(todo, HandOver):
            host = self.servers[(self.servers.index(server) + 1) % len(self.servers)]
            if host.guests is not None or host.machine.losses:
                server.machine.declined()
                return
            server.guests = []
            server.host = host
            for ticket in todo.tickets:
                guest = Call(ticket.command, ticket.origin.token, len(self.log), guest=True)
                server.guests.append(guest)
                self._submit(host, guest, server.calls[ticket])

    def result(self, server: Server, *, answered: bool = True) -> None:
        """The Txn is carried out; its answer may be lost."""
        txn, server.flight = server.flight, None
        assert txn is not None
        landed = self.log.commit(txn)
        if not answered:
            server.machine.unknown()
        elif landed:
            server.machine.committed()
            server.folded = len(self.log)
            server.machine.folded()
        else:
            server.machine.lost(self.log.head.head.at)
            server.folded = len(self.log)

    def unknown(self, server: Server, *, later: bool) -> None:
        """No answer, and not carried out: or not yet."""
        assert server.flight is not None
        if later:
            self.late.append(server.flight)
        server.flight = None
        server.machine.unknown()

    def _refused(self, server: Server) -> None:
        server.flight = None
        server.machine.refused(NoQuorum("etcd takes no writes; nothing was written: try again"))

    def deliver(self, txn: Append) -> None:
        self.late.remove(txn)
        self.log.commit(txn)

    def settle(self, server: Server) -> None:
        server.folded = len(self.log)
        server.machine.settled()

    def confirm(self, server: Server, ticket: Ticket) -> None:
        """A quorum read, folded."""
        server.calls[ticket].confirming = False
        server.folded = len(self.log)
        server.machine.confirmed(ticket, self.log.head.head.at)

    def give_up(self, server: Server, ticket: Ticket) -> None:
        """The caller's time is over."""
        call = server.calls[ticket]
        call.confirming = False
        self._answer(call, too_late(ticket, 15.0))
        server.machine.abandon(ticket)

    def handed_over(self, server: Server) -> None:
        guests, server.guests, server.host = server.guests or [], None, None
        told = [guest.answer for guest in guests]
        if any(isinstance(answer, (OutcomeUnknown, Silence)) for answer in told):
            server.machine.hand_over_unknown()
            return
        server.folded = max([server.folded] + [one.position.position for one in told if isinstance(one, Outcome)])
        server.folded = min(at for at in self.log.heads if at >= server.folded)
        server.machine.handed_over()

    def _hand_over_breaks(self, server: Server) -> None:
        guests, server.guests = server.guests or [], None
        for ticket, call in (server.host.calls if server.host else {}).items():
            if call in guests and call.answer is None:
                call.answer, call.confirming = Silence(), False
                server.host.machine.abandon(ticket)  # type: ignore[union-attr]
        server.host = None
        server.machine.hand_over_unknown()

    def kill(self, server: Server) -> None:
        """SIGKILL, and a new process that has read the log. What was sent may yet land."""
        if server.flight is not None:
            self.late.append(server.flight)
        for call in server.calls.values():
            if call.answer is None:
                self._answer(call, Silence())
        self.servers[self.servers.index(server)] = Server(self._make(MESH_DOMAIN), len(self.log))
        for other in self.servers:
            if other.host is server:
                self._hand_over_breaks(other)

    # --- what is heard, and whether it is true

    def hear(self) -> None:
        for server in self.servers:
            for ticket, verdict in server.machine.take_answers():
                call = server.calls[ticket]
                if call.answer is not None:
                    continue
                if isinstance(verdict, ConfirmFirst):
                    call.confirming = True
                else:
                    self._answer(call, verdict)
                    server.machine.abandon(ticket)

    def _answer(self, call: Call, verdict: Verdict) -> None:
        call.answer, call.ended = verdict, len(self.log)
        if isinstance(verdict, Outcome) and verdict.written:
            self._check_written(call, verdict)
        elif isinstance(verdict, (Outcome, CallerError)) and not isinstance(verdict, (TooManyRequests, LimitExceeded)):
            self._check_refused(call, verdict)
        else:
            assert isinstance(verdict, (Unavailable, Silence, TooManyRequests, LimitExceeded, Bug)), repr(verdict)

    def _check_written(self, call: Call, outcome: Outcome) -> None:
        at = outcome.position.position
        assert at <= len(self.log), "acknowledged before it is in the log"
        assert self.log.events[at - 1].token == call.token, "acknowledged at the position of another command"
        kept = self.log.states[at].tokens[call.token.digest]
        assert outcome.resource == kept.outcome, "acknowledged as something else"

    def _check_refused(self, call: Call, verdict: Outcome | CallerError) -> None:
        """Linearizable: at some moment of the call the log was such that this was the right thing to say."""
        for state in self.log.states[call.begun : call.ended + 1]:
            context = Context(ACCOUNT, PRINCIPAL, "op", None, "uid", self.now_us)
            try:
                decision = decide(state, call.command, context)
            except CallerError as error:
                if (type(error), error.message) == (type(verdict), getattr(verdict, "message", "")):
                    return
            else:
                if isinstance(verdict, Outcome) and not decision.events:
                    return
        raise AssertionError(f"{call.command} was told {verdict!r}, which was never so while it waited")

    def finish(self) -> None:
        """No more faults: what is on its way lands or not, and everybody is answered."""
        for txn in [*self.late]:
            self.deliver(txn)
        for _ in range(200):
            self.hear()
            for server in self.servers:
                if server.flight is not None:
                    self.result(server)
                elif server.guests is not None:
                    if all(guest.answer is not None for guest in server.guests):
                        self.handed_over(server)
                elif server.machine.unsettled:
                    self.settle(server)
                elif server.machine.waiting:
                    self.plan(server)
                for ticket in [ticket for ticket, call in server.calls.items() if call.confirming]:
                    self.confirm(server, ticket)
            if all(call.answer is not None for call in self.calls):
                return
        waiting = [call.command for call in self.calls if call.answer is None]
        raise AssertionError(f"never answered: {waiting}")

    def check(self) -> None:
        """What was told, against the log in the end."""
        written = Counter(event.token for event in self.log.events)
        twice = [token for token, count in written.items() if count > 1]
        assert not twice, "a token is in the log twice"
        for event in self.log.events:
            call = self.by_request[event.request_id]
            assert call.may_have_written, f"{call.command} was told {call.answer!r}, and is in the log"
