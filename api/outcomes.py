"""A command on its way into the log, and what may be told of it: the write path's values. Nothing here decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeAlias

from api.domain import C, R
from mesh.commands import Context
from mesh.errors import CallerError, MeshlogError, NotReady, OutcomeUnknown, Unavailable
from mesh.events import NewEvent, Token
from mesh.fold import S
from mesh.position import Position
from mesh.state import State


class Origin(NamedTuple):
    """Where a command comes from, as its records tell. `token` makes a repeated call one event.

    `allowed`: see `mesh.commands.Context`. It stays in this server: who is handed a command believes who hands it.
    """

    account: str
    principal: str
    source_ip: str
    request_id: str
    operation: str
    token: Token
    allowed: Callable[[State], None] | None = None


class Decided(NamedTuple, Generic[S]):
    """The events of a command that was written, and the state just before them."""

    before: S
    events: tuple[NewEvent, ...]


class Outcome(NamedTuple, Generic[S, R]):
    """What came of a command. `position`: of its (last) event, or, where nothing was to be written, of the state.

    `resource` is as the command left it (for a delete: as it was when it went); None where there is none.
    """

    position: Position
    resource: R | None
    replayed: bool = False
    written: bool = True
    decided: Decided[S] | None = None
    """What was decided on which state; None for a repeated call, whose first answer is in the log only."""


class ConfirmFirst(NamedTuple):
    """No answer yet: read the head by a quorum, fold up to it, and tell `GroupCommit.confirmed`."""


Verdict: TypeAlias = Outcome[S, R] | ConfirmFirst | Exception


class Refusal(NamedTuple, Generic[S, R]):
    """A rejection (or that there is nothing to write, and the answer to that), and where in the log it was decided."""

    answer: CallerError | Outcome[S, R]
    at: Position


@dataclass(slots=True, eq=False)
class Ticket(Generic[S, C, R]):
    """A command that was taken in. `deadline_s` is monotonic.

    `confirmed`: a position that the log had reached at some moment after the command arrived. `doubt`: the position
    that an append of it was compared with, while that append may have landed or may yet land. `elsewhere`: another
    server was given it and may have appended it, or may yet, compared with whatever the head is then. Once that server
    is done with it (`done_elsewhere`), the next decision tells.
    """

    command: C
    origin: Origin
    context: Context
    deadline_s: float
    may_hand_over: bool = True
    confirmed: Position | None = None
    doubt: Position | None = None
    elsewhere: bool = False
    done_elsewhere: bool = False
    abandoned: bool = False
    attempts: int = 0
    refusal: Refusal[S, R] | None = None

    @property
    def in_doubt(self) -> bool:
        return self.doubt is not None or self.elsewhere


def final(refusal: Refusal[S, R], ticket: Ticket[S, C, R]) -> Verdict[S, R]:
    """The answer that a true refusal is. Who may yet be written by another attempt is refused nothing."""
    if ticket.in_doubt:
        return unknown("An earlier attempt may yet land.")
    return refusal.answer


def failed(ticket: Ticket[S, C, R], error: MeshlogError) -> MeshlogError:
    """An error of its own for each caller: one shared exception would pile up their tracebacks."""
    return unknown(error.message) if ticket.in_doubt else type(error)(error.message)


def outrun(ticket: Ticket[S, C, R]) -> MeshlogError:
    """After too many lost races."""
    told = "" if ticket.in_doubt else " Nothing was written. Try again."
    return failed(ticket, Unavailable(f"Other writers kept winning the log's head.{told}"))


def too_late(ticket: Ticket[S, C, R], within_s: float) -> Unavailable:
    """What a caller is told whose time is over."""
    if ticket.in_doubt:
        return unknown(f"The write did not settle within {within_s:g} s.")
    return Unavailable(f"The write was not made within {within_s:g} s; nothing was written. Try again.")


def stopping(ticket: Ticket[S, C, R]) -> Unavailable:
    """What a caller is told by a server that ends."""
    if ticket.in_doubt:
        return unknown("This server is stopping.")
    return NotReady("This server is stopping; nothing was written. Try another server.")


def unknown(why: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"{why} The outcome of the write is unknown. Repeat the call with the same clientToken: it will be made once."
    )
