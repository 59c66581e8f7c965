"""Group commit, without I/O: commands that wait together become one frame. Commands in, results of what was asked for
in; out come the next thing to do (`plan`) and the answers (`take_answers`).

    plan       → Append      → committed, then folded | not_folded, or lost | unknown | refused
               → HandOver    → handed_over | declined | hand_over_unknown
    an answer  → Outcome, an error, or ConfirmFirst → confirmed

What this must never do:

- acknowledge before everything that it was decided on is in the log;
- answer a rejection that was decided on a speculative state before that is committed (a commit proves that its base was
  the head, after all in it had arrived), or one that was decided on a folded state before a quorum read begun after the
  command arrived has shown a head that is not beyond it;
- plan anything while an append is not settled;
- take an unknown outcome for a failure. While the head that it was compared with stands, that append may yet land: its
  commands are decided again first and in the same order, callers gone or not, so that nothing is refused that it holds,
  and whatever is built next competes for the same head. On a state beyond that head, the tokens tell.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Generic, NamedTuple

from api.batch import Accepted, Batch, Place, Refused, Repeated, data_bytes
from api.domain import C, Domain, R
from api.outcomes import ConfirmFirst, Outcome, Ticket, Verdict, failed, final, outrun, stopping, unknown
from eventlog.records import HeadRef, NewRecord
from mesh.commands import Create, Delete, TagResource, UntagResource, Update
from mesh.errors import CallerError, MeshlogError, TooManyRequests
from mesh.events import Event
from mesh.fold import S
from mesh.position import Position
from runtime.limits import (
    COMMAND_ATTEMPTS_MAX,
    COMMAND_QUEUE_MAX,
    GROUP_COMMANDS_MAX,
    HAND_OVER_AFTER_LOSSES,
    HAND_OVER_STREAK,
    MAX_FRAME_BYTES,
    RECORD_OVERHEAD_BYTES,
)

TRANSFERABLE = (Create, Update, Delete, TagResource, UntagResource)
"""Commands that another server may be handed: plain values without secrets."""


class Append(NamedTuple, Generic[S]):
    """Append `records` as one frame right after `head`, with times from `base` and `wall_us`.

    `base` is the state at `head`, `after` the one that the records, as `events`, lead to.
    """

    head: HeadRef
    records: tuple[NewRecord, ...]
    wall_us: int
    base: S
    events: tuple[Event, ...]
    after: S


class HandOver(NamedTuple, Generic[S, C, R]):
    """Give these to a server that has won lately."""

    tickets: tuple[Ticket[S, C, R], ...]


class GroupCommit(Generic[S, C, R]):
    """One server's commands on their way into the log."""

    def __init__(
        self,
        domain: Domain[S, C, R],
        *,
        commands_max: int = GROUP_COMMANDS_MAX,
        bytes_max: int = MAX_FRAME_BYTES,
        queue_max: int = COMMAND_QUEUE_MAX,
        attempts_max: int = COMMAND_ATTEMPTS_MAX,
        hand_over_after: int = HAND_OVER_AFTER_LOSSES,
        hand_over_streak: int = HAND_OVER_STREAK,
    ) -> None:
        self._domain = domain
        self._commands_max, self._bytes_max = commands_max, bytes_max
        self._queue_max, self._attempts_max, self._hand_over_after = queue_max, attempts_max, hand_over_after
        self._streak_max, self._streak = hand_over_streak, 0
        self._queue: deque[Ticket[S, C, R]] = deque()
        self._flight: Batch[S, C, R] | None = None
        self._away: tuple[Ticket[S, C, R], ...] = ()
        self._answers: list[tuple[Ticket[S, C, R], Verdict[S, R]]] = []
        self._accept_max = commands_max
        self._stopped = False
        self.unsettled = False
        """An append ended unknown: catch up to a confirmed head, say `settled`, and only then plan."""
        self.losses = 0
        """Races lost in a row."""

    @property
    def waiting(self) -> bool:
        """Whether there is something to plan."""
        return bool(self._queue)

    def take_answers(self) -> list[tuple[Ticket[S, C, R], Verdict[S, R]]]:
        """The answers since the last call. An answer to an abandoned ticket is nobody's."""
        answers, self._answers = self._answers, []
        return answers

    # --- commands in

    def submit(self, ticket: Ticket[S, C, R]) -> None:
        """Take a command in; TooManyRequests when too many wait."""
        if self._stopped:
            raise stopping(ticket)
        if len(self._queue) >= self._queue_max:
            raise TooManyRequests(
                f"This server has {self._queue_max} writes waiting; nothing was written. Try again in a second."
            )
        self._queue.append(ticket)

    def abandon(self, ticket: Ticket[S, C, R]) -> None:
        """Nobody waits for it any more. What is on its way, or may be, goes on."""
        ticket.abandoned = True
        if ticket.doubt is None and ticket in self._queue:
            self._queue.remove(ticket)

    def confirmed(self, ticket: Ticket[S, C, R], position: Position) -> None:
        """After ConfirmFirst: the log had reached `position`, by a quorum read begun since then, and it is folded."""
        ticket.confirmed = position
        refusal, ticket.refusal = ticket.refusal, None
        if self._stopped:
            self._answer(ticket, stopping(ticket))
        elif refusal is not None and refusal.at >= position:
            self._answer(ticket, final(refusal, ticket))
        else:
            self._queue.append(ticket)

    # --- what to do next

    def plan(
        self, state: S, head: HeadRef, wall_us: int, *, peers: bool = False
    ) -> Append[S] | HandOver[S, C, R] | None:
        """Decide what waits, on `state`, the fold up to `head`; None when nothing of it is to be written.

        `peers`: another server could be handed a batch.
        """
        assert self._flight is None, "nothing may be planned past an append that is not settled"  # noqa: S101
        assert not self.unsettled, "nothing may be planned before an unknown outcome is looked up"  # noqa: S101
        assert not self._away, "a batch is with another server"  # noqa: S101
        count = min(self._commands_max, len(self._queue))
        if peers and self.losses >= self._hand_over_after:
            # Who is back from another server is answered first, without the others, who would need an append.
            back = sum(ticket.done_elsewhere for ticket in self._queue)
            if not back and self._choose(state, head.head.at):
                return HandOver(self._away)
            count = min(count, back) if back else count
        batch = Batch(self._domain, state, head, wall_us)
        accepted = 0
        for _ in range(count):
            if accepted >= self._accept_max:
                break
            ticket = self._queue[0]
            if not ticket.abandoned or ticket.doubt == batch.at:
                found = batch.add(ticket, self._bytes_max)
                if found is Place.NO_ROOM:
                    break
                if not isinstance(found, Place):
                    self._answer(ticket, found)
                elif isinstance(batch.members[-1], Accepted):
                    accepted += 1
            self._queue.popleft()
        if batch.records:
            self._flight = batch
            return Append(head, tuple(batch.records), wall_us, state, tuple(batch.events), batch.after)
        for member in batch.members:
            assert isinstance(member, Refused)  # noqa: S101 - nothing was accepted
            member.ticket.refusal = member.refusal
            self._answer(member.ticket, ConfirmFirst())
        return None

    # --- what came of an append

    def committed(self) -> None:
        """It is in the log. Fold it, then say `folded` or `not_folded`."""
        self.losses = 0
        self._accept_max = self._commands_max

    def folded(self) -> None:
        """The state includes it."""
        batch = self._landed()
        for member in batch.members:
            match member:
                case Accepted(ticket, decided, last, _):
                    kept = self._domain.remembered(batch.after, ticket.origin.token.digest)
                    self._answer(ticket, Outcome(last, kept.outcome if kept else None, decided=decided))
                case Repeated(ticket, entry):
                    self._answer(ticket, Outcome(entry.position, entry.outcome, replayed=True))
                case Refused(ticket, refusal):
                    ticket.doubt = None  # the head that an earlier append was compared with is replaced
                    self._answer(ticket, final(refusal, ticket))

    def not_folded(self, error: MeshlogError) -> None:
        """It is in the log, and this server cannot follow: what it would answer may not be so."""
        for ticket in self._landed().tickets:
            self._answer(ticket, unknown(error.message))

    def lost(self, head: Position) -> None:
        """It is not in the log and never will be; the log is at `head`. Catch up to there before the next plan."""
        self.losses += 1
        batch = self._landed()
        _restore_doubt(batch)
        left = []
        for ticket in batch.tickets:
            # The Txn that failed was a quorum's word on the head, given after all in the batch had arrived.
            ticket.confirmed = head if ticket.confirmed is None else max(head, ticket.confirmed)
            ticket.attempts += 1
            if ticket.attempts < self._attempts_max:
                left.append(ticket)
            else:
                self._answer(ticket, outrun(ticket))
        self._requeue(left)

    def unknown(self) -> None:
        """Nobody knows whether it landed, or yet will."""
        self.unsettled = True
        left = []
        for ticket in self._landed().tickets:
            ticket.attempts += 1
            if ticket.attempts < self._attempts_max:
                left.append(ticket)
            else:
                self._answer(ticket, outrun(ticket))
        self._requeue(left)

    def settled(self) -> None:
        """The state is folded up to a head that was confirmed after the last unknown outcome."""
        self.unsettled = False

    def refused(self, error: Exception) -> None:
        """It is certainly not in the log, and `error` says why: what is in it, or (Unavailable and the like) what is
        not about it. What is no MeshlogError is a bug of ours that one of the commands brings out.
        """
        batch = self._landed()
        _restore_doubt(batch)
        accepted = batch.accepted
        if isinstance(error, MeshlogError) and not isinstance(error, CallerError):
            for ticket in batch.tickets:
                self._answer(ticket, failed(ticket, error))
        elif len(accepted) > 1:
            # One of them cannot be written: find out which by trying fewer.
            self._accept_max = len(accepted) // 2
            self._requeue(batch.tickets)
        else:
            guilty = accepted[0].ticket
            self._answer(guilty, failed(guilty, error) if isinstance(error, MeshlogError) else error)
            self._requeue(ticket for ticket in batch.tickets if ticket is not guilty)

    def unavailable(self, error: MeshlogError) -> None:
        """Nothing can be planned here, now or ever: tell all that wait."""
        for ticket in self._queue:
            self._answer(ticket, failed(ticket, error))
        self._queue.clear()

    def stop(self) -> None:
        """This server ends: tell everybody what is known."""
        self._stopped = True
        flight = self._landed().tickets if self._flight else []
        for ticket in (*flight, *self._away, *self._queue):
            self._answer(ticket, stopping(ticket))
        self._away = ()
        self._queue.clear()

    # --- what came of a hand-over

    def handed_over(self) -> None:
        """The other server is done with them: what it wrote is folded here, and it will write no more of them."""
        for ticket in self._away:
            ticket.done_elsewhere = True
        # A server that lost to the other's full frames would lose again. Now and then it tries: the other may be idle.
        self._streak = (self._streak + 1) % self._streak_max
        self._back(losses=self._hand_over_after - (0 if self._streak else 1))

    def declined(self) -> None:
        """Nobody took them."""
        for ticket in self._away:
            ticket.elsewhere = False
        self._back(losses=0)

    def hand_over_unknown(self) -> None:
        """The other server was given them and gave no answer: it may yet write them."""
        self._back(losses=0)

    def _choose(self, state: S, at: Position) -> bool:
        """Put aside what another server is to be given.

        Not while an append of our own may yet land, and not by whom others have given theirs: no two wait in a circle.
        """
        if any(ticket.doubt == at or not ticket.may_hand_over for ticket in self._queue):
            return False
        left: list[Ticket[S, C, R]] = []
        chosen: list[Ticket[S, C, R]] = []
        size_bytes = 0
        for ticket in self._queue:
            wanted = (
                len(chosen) < self._commands_max and self._domain.remembered(state, ticket.origin.token.digest) is None
            )
            more_bytes = _movable_bytes(ticket) if wanted else None
            if more_bytes is None or (chosen and size_bytes + more_bytes > self._bytes_max):
                left.append(ticket)
                continue
            ticket.elsewhere = True
            chosen.append(ticket)
            size_bytes += more_bytes
        self._queue, self._away = deque(left), tuple(chosen)
        return bool(chosen)

    def _back(self, losses: int) -> None:
        away, self._away = self._away, ()
        self.losses = losses
        self._requeue(away)

    # --- inside

    def _landed(self) -> Batch[S, C, R]:
        batch, self._flight = self._flight, None
        assert batch is not None, "there is no append under way"  # noqa: S101
        return batch

    def _requeue(self, tickets: Iterable[Ticket[S, C, R]]) -> None:
        self._queue.extendleft(reversed([*tickets]))

    def _answer(self, ticket: Ticket[S, C, R], verdict: Verdict[S, R]) -> None:
        self._answers.append((ticket, verdict))


def _movable_bytes(ticket: Ticket[S, C, R]) -> int | None:
    """About what the command takes on its way to another server; None if it has to stay."""
    command = ticket.command
    if ticket.abandoned or ticket.elsewhere or not isinstance(command, TRANSFERABLE):
        return None
    try:
        data = getattr(command, "spec", None) or getattr(command, "tags", None) or {}
        return data_bytes(data) + RECORD_OVERHEAD_BYTES
    except CallerError:
        return None  # it will be refused here


def _restore_doubt(batch: Batch[S, C, R]) -> None:
    """This attempt is certainly not in the log; an earlier one may be."""
    for member in batch.accepted:
        member.ticket.doubt = member.earlier_doubt
