"""One frame in the making: commands decided in order, each on the state that those before it lead to. Pure.

The speculative states are the very ones that the log will have if the frame is committed: positions and times are
those that the records get. So what was decided on them is true as soon as the frame is in the log, and not before.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any, Generic, NamedTuple

from api.domain import C, Decision, Domain, R, Remembered
from api.outcomes import Decided, Origin, Outcome, Refusal, Ticket, Verdict, failed, final
from eventlog.records import HeadRef, KeyClass, NewRecord, TokenMark
from eventlog.sealing import encode_data, place_record
from mesh.errors import CallerError, MeshlogError
from mesh.events import Event
from mesh.fold import S
from mesh.position import Position
from projector.bulk_fold import event_of
from runtime.limits import INLINE_RECORD_BYTES, RECORD_OVERHEAD_BYTES


class Accepted(NamedTuple, Generic[S, C, R]):
    """Its events are in the frame, the last one at `last`. `earlier_doubt`: as it was before this attempt."""

    ticket: Ticket[S, C, R]
    decided: Decided[S]
    last: Position
    earlier_doubt: Position | None


class Refused(NamedTuple, Generic[S, C, R]):
    """It waits for what it was decided on."""

    ticket: Ticket[S, C, R]
    refusal: Refusal[S, R]


class Repeated(NamedTuple, Generic[S, C, R]):
    """Its token is in an event of the same frame."""

    ticket: Ticket[S, C, R]
    entry: Remembered[R]


class Place(Enum):
    """What became of a command that has no answer yet."""

    TAKEN = "its answer waits for the batch"
    NO_ROOM = "it does not fit into this frame any more"


class Batch(Generic[S, C, R]):
    """Commands decided on `base`, the fold up to `head`; `after` is what they lead to, `records` what is to be written.

    `members` is whoever gets an answer when it is known what became of the frame.
    """

    def __init__(self, domain: Domain[S, C, R], base: S, head: HeadRef, wall_us: int) -> None:
        self._domain = domain
        self.base, self.head, self.wall_us = base, head, wall_us
        self.after = base
        self.members: list[Accepted[S, C, R] | Refused[S, C, R] | Repeated[S, C, R]] = []
        self.records: list[NewRecord] = []
        self.events: list[Event] = []
        self.size_bytes = 0

    @property
    def at(self) -> Position:
        """The point of the log that the frame is to follow."""
        return self.head.head.at

    @property
    def tickets(self) -> list[Ticket[S, C, R]]:
        return [member.ticket for member in self.members]

    @property
    def accepted(self) -> list[Accepted[S, C, R]]:
        return [member for member in self.members if isinstance(member, Accepted)]

    def add(self, ticket: Ticket[S, C, R], bytes_max: int) -> Verdict[S, R] | Place:
        """Decide one more command; the answer, if the log up to `head` already bears it out."""
        if ticket.doubt is not None and self.at > ticket.doubt:
            ticket.doubt = None  # it is not in the log if its token is not: that head cannot come back
        if ticket.done_elsewhere:
            ticket.elsewhere = ticket.done_elsewhere = False  # likewise: what came of it is folded
        try:
            decision = self._domain.decide(self.after, ticket.command, ticket.context)
            if decision.replay is not None:
                return self._repeat(ticket, decision.replay)
            if not decision.events:
                return self._refuse(ticket, None)
            return self._accept(ticket, decision, bytes_max)
        except CallerError as error:
            return self._refuse(ticket, error)
        except MeshlogError as error:
            return failed(ticket, error)
        except Exception as error:  # a bug in one command is that command's alone
            return error

    def _accept(self, ticket: Ticket[S, C, R], decision: Decision[R], bytes_max: int) -> Place:
        records = _records(self._domain, decision, ticket.origin)
        size_bytes = sum(map(_size_bytes, records))
        if self.records and self.size_bytes + size_bytes > bytes_max:
            return Place.NO_ROOM
        decided = Decided(self.after, tuple(decision.events))
        # Also the proof that every replica can fold it: what cannot be folded must never get into the log.
        events = self._events(records)
        after = self.after
        for event in events:
            after = self._domain.fold.evolve(after, event)
        self.after = after
        self.records += records
        self.events += events
        self.size_bytes += size_bytes
        self.members.append(Accepted(ticket, decided, self.after.position, ticket.doubt))
        ticket.doubt = self.at
        return Place.TAKEN

    def _repeat(self, ticket: Ticket[S, C, R], entry: Remembered[R]) -> Verdict[S, R] | Place:
        if entry.position <= self.at:
            return Outcome(entry.position, entry.outcome, replayed=True)
        self.members.append(Repeated(ticket, entry))
        return Place.TAKEN

    def _refuse(self, ticket: Ticket[S, C, R], error: CallerError | None) -> Verdict[S, R] | Place:
        if self.records:
            refusal = Refusal(error or self._unchanged(self.after, ticket), self.after.position)
        else:
            refusal = Refusal(error or self._unchanged(self.base, ticket), self.at)
            if ticket.confirmed is not None and ticket.confirmed <= self.at:
                return final(refusal, ticket)
        self.members.append(Refused(ticket, refusal))
        return Place.TAKEN

    def _unchanged(self, state: S, ticket: Ticket[S, C, R]) -> Outcome[S, R]:
        return Outcome(state.position, self._domain.unchanged(state, ticket.command), written=False)

    def _events(self, records: Iterable[NewRecord]) -> list[Event]:
        """The records as every replica will fold them: at their very positions and times."""
        time_us = max(self.base.time_us, self.wall_us)
        point = self.head.head
        if self.records:
            point = point._replace(position=self.after.position.position)
        events = []
        for new in records:
            events.append(event_of(place_record(new, point, time_us, self.wall_us)))
            point = point._replace(position=point.position + 1)
        return events


def data_bytes(data: Any) -> int:
    """What a JSON-like value takes in msgpack; BadRequest or LimitExceeded where it has no place in a record."""
    return len(encode_data(data))


def _records(domain: Domain[S, C, R], decision: Decision[R], origin: Origin) -> list[NewRecord]:
    """The decided events as records; the token marks the last, so that it is known when all are."""
    last = len(decision.events) - 1
    mark = TokenMark(origin.token.digest, origin.token.body)
    return [
        NewRecord(
            type=event.type,
            schema=domain.schemas[event.type],
            account=origin.account,
            actor=origin.principal,
            source_ip=origin.source_ip,
            request_id=origin.request_id,
            token=mark if index == last else None,
            data=event.data,
            key_class=KeyClass.SECRETS if event.type in domain.secret_types else KeyClass.CONFIG,
        )
        for index, event in enumerate(decision.events)
    ]


def _size_bytes(new: NewRecord) -> int:
    """At least what the record takes in a frame: data too large for one is kept beside it."""
    words = sum(len(word) for word in (new.type, new.account, new.actor, new.source_ip, new.request_id))
    return min(4 * words + data_bytes(new.data), INLINE_RECORD_BYTES) + RECORD_OVERHEAD_BYTES
