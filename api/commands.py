"""The write path: commands become events in the log, one after the other, and each caller gets the log's own answer.

Per command: decide on the folded state, append with a compare on the very head that the state was folded to, fold what
was committed, answer. What this must never do:

- answer a rejection that was decided on a state older than the call: a rejection counts only on a state folded to a
  head that a quorum read begun after the command arrived has confirmed;
- take an unknown outcome for a failure: the token is in the log, so the command is decided again, and either finds its
  own event or competes for the same head, which only one of the two can replace;
- build on an append that is not settled.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from api.ports import Replica, Writer
from eventlog.records import HeadRef, KeyClass, NewRecord, TokenMark
from eventlog.writer import Appended, LostRace
from mesh.commands import Command, Context
from mesh.decide import Decision, decide
from mesh.errors import CallerError, MeshlogError, NoQuorum, NotReady, OutcomeUnknown, TooManyRequests, Unavailable
from mesh.events import SCHEMAS, SECRET_TYPES, Event, NewEvent, Token
from mesh.evolve import evolve
from mesh.position import Position
from mesh.state import Resource, State
from runtime.clock import Clock, Entropy
from runtime.limits import (
    COMMAND_ATTEMPTS_MAX,
    COMMAND_BACKOFF_MAX_S,
    COMMAND_BACKOFF_S,
    COMMAND_DEADLINE_S,
    COMMAND_QUEUE_MAX,
)
from runtime.logging import where

log = structlog.get_logger(__name__)

_REPEAT = "Repeat the call with the same clientToken: it will be made once."


class Origin(NamedTuple):
    """Where a command comes from, as its records tell. `token` makes a repeated call one event."""

    account: str
    principal: str
    source_ip: str
    request_id: str
    operation: str
    token: Token


class Decided(NamedTuple):
    """The events of a command that was written, and the state just before them."""

    before: State
    events: tuple[NewEvent, ...]


class Outcome(NamedTuple):
    """What came of a command. `position`: of its (last) event, or, where nothing was to be written, of the state.

    `resource` is as the command left it (for a delete: as it was when it went); None where there is none.
    """

    position: Position
    resource: Resource | None
    replayed: bool = False
    written: bool = True
    decided: Decided | None = None
    """What was decided on which state; None for a repeated call, whose first answer is in the log only."""


class _Refusal(NamedTuple):
    """A rejection (or that there is nothing to write), and the position of the state that it was decided on."""

    error: CallerError | None
    state: State


@dataclass(slots=True, eq=False)
class _Pending:
    """A command in the queue.

    `doubt`: the position that an append of it was compared with, while that append may have landed or may yet land.
    It is gone once the command was decided on a state beyond there: the token tells, and that head cannot come back.
    """

    command: Command
    origin: Origin
    context: Context
    verdict: asyncio.Future[Outcome | _Refusal]
    doubt: Position | None = None


class CommandService:
    """The serial writer of one API server. `run` is the worker, to be supervised; `submit` is for callers."""

    def __init__(
        self,
        replica: Replica,
        writer: Writer,
        clock: Clock,
        entropy: Entropy,
        deadline_s: float = COMMAND_DEADLINE_S,
    ) -> None:
        self._replica = replica
        self._deadline_s = deadline_s
        self._writer = writer
        self._clock = clock
        self._entropy = entropy
        self._queue: asyncio.Queue[_Pending] = asyncio.Queue(COMMAND_QUEUE_MAX)
        self._unsettled = False

    async def submit(self, command: Command, origin: Origin) -> Outcome:
        """Do `command` once; raises what `decide` raises, TooManyRequests, Unavailable, or OutcomeUnknown."""
        context = Context(
            account=origin.account,
            principal=origin.principal,
            operation=origin.operation,
            token=origin.token,
            uid=self._entropy.uuid(),
            now_us=self._clock.now_us(),
        )
        confirmed: Position | None = None
        pending: _Pending | None = None
        try:
            async with asyncio.timeout(self._deadline_s):
                while True:
                    future = asyncio.get_running_loop().create_future()
                    pending = _Pending(command, origin, context, future)
                    self._enqueue(pending)
                    verdict = await future
                    if isinstance(verdict, Outcome):
                        return verdict
                    if confirmed is not None and verdict.state.position >= confirmed:
                        return _final(verdict, command)
                    confirmed = await self._replica.confirmed(self._deadline_s)
        except TimeoutError:
            raise _too_late(pending, self._deadline_s) from None

    def _enqueue(self, pending: _Pending) -> None:
        try:
            self._queue.put_nowait(pending)
        except asyncio.QueueFull:
            raise TooManyRequests(
                f"This server has {COMMAND_QUEUE_MAX} writes waiting; nothing was written. Try again in a second."
            ) from None

    async def run(self) -> None:
        """Settle queued commands one at a time, for ever."""
        while True:
            pending = await self._queue.get()
            if pending.verdict.done():
                continue  # its caller has given up
            try:
                verdict = await self._settle(pending)
            except MeshlogError as error:
                _fail(pending, error if pending.doubt is None else _unknown(error.message))
            except asyncio.CancelledError:
                _fail(pending, _stopping(pending))
                raise
            except Exception as error:
                log.error(  # noqa: TRY400 - its text may hold configuration (I6)
                    "command failed",
                    request_id=pending.origin.request_id,
                    kind=type(error).__name__,
                    place=where(error),
                )
                self._unsettled = True
                _fail(pending, error)
            else:
                if not pending.verdict.done():
                    pending.verdict.set_result(verdict)

    async def _settle(self, pending: _Pending) -> Outcome | _Refusal:
        for attempt in range(COMMAND_ATTEMPTS_MAX):
            if self._unsettled:
                await self._replica.confirmed(self._deadline_s)
                self._unsettled = False
            if self._replica.halted is not None:
                raise NotReady(self._replica.halted)
            state, head = self._replica.state, self._replica.head_ref
            try:
                decision = decide(state, pending.command, pending.context)
            except CallerError as error:
                return _Refusal(error, state)
            if decision.replay is not None:
                return Outcome(decision.replay.position, decision.replay.outcome, replayed=True)
            if not decision.events:
                return _Refusal(None, state)
            if pending.doubt is not None and state.position > pending.doubt:
                pending.doubt = None
            _prove(state, decision, pending)
            result = await self._append(pending, _records(decision, pending.origin), head, state)
            if isinstance(result, Appended):
                return await self._committed(result, pending, Decided(state, decision.events))
            if isinstance(result, LostRace):
                await self._replica.wait_for(result.head.head.at, self._deadline_s)
            if pending.verdict.done():
                break
            await self._clock.sleep(self._pause_s(attempt))
        told = "" if pending.doubt is not None else " Nothing was written. Try again."
        raise Unavailable(f"Other writers kept winning the log's head.{told}")

    async def _append(
        self, pending: _Pending, records: list[NewRecord], head: HeadRef, state: State
    ) -> Appended | LostRace | None:
        """One attempt; None when nobody knows how it ended. Leaves `doubt` standing unless this attempt is settled."""
        earlier = pending.doubt
        pending.doubt = state.position
        try:
            result = await self._writer.append(head, records, state.time_us)
        except OutcomeUnknown:
            self._unsettled = True
            return None
        except MeshlogError:
            pending.doubt = earlier  # this attempt is certainly not in the log; an earlier one may be
            raise
        if isinstance(result, LostRace):
            pending.doubt = earlier
        return result

    async def _committed(self, appended: Appended, pending: _Pending, decided: Decided) -> Outcome:
        position = appended.records[-1].position
        if not self._replica.advance(appended.records, appended.head):
            await self._replica.wait_for(position, self._deadline_s)
        kept = self._replica.state.tokens.get(pending.origin.token.digest)
        return Outcome(position, kept.outcome if kept else None, decided=decided)

    def _pause_s(self, attempt: int) -> float:
        ceiling = min(COMMAND_BACKOFF_MAX_S, COMMAND_BACKOFF_S * 2.0 ** min(attempt, 16))
        return ceiling * self._entropy.jitter()


def _records(decision: Decision, origin: Origin) -> list[NewRecord]:
    """The decided events as records of one frame; the token marks the last, so that it is known when all are."""
    last = len(decision.events) - 1
    mark = TokenMark(origin.token.digest, origin.token.body)
    return [
        NewRecord(
            type=event.type,
            schema=SCHEMAS[event.type],
            account=origin.account,
            actor=origin.principal,
            source_ip=origin.source_ip,
            request_id=origin.request_id,
            token=mark if index == last else None,
            data=event.data,
            key_class=KeyClass.SECRETS if event.type in SECRET_TYPES else KeyClass.CONFIG,
        )
        for index, event in enumerate(decision.events)
    ]


def _prove(state: State, decision: Decision, pending: _Pending) -> None:
    """Fold what is about to be appended: an event that no replica could fold must never get into the log. Poison."""
    origin = pending.origin
    for number, new in enumerate(decision.events, start=1):
        event = Event(
            position=Position(state.position.epoch, state.position.position + 1),
            time_us=max(state.time_us, pending.context.now_us),
            wall_us=pending.context.now_us,
            type=new.type,
            schema=SCHEMAS[new.type],
            account=origin.account,
            actor=origin.principal,
            source_ip=origin.source_ip,
            request_id=origin.request_id,
            token=origin.token if number == len(decision.events) else None,
            data=new.data,
        )
        state = evolve(state, event)


def _final(verdict: _Refusal, command: Command) -> Outcome:
    if verdict.error is not None:
        raise verdict.error
    key = getattr(command, "key", None)
    return Outcome(verdict.state.position, verdict.state.get(key) if key else None, written=False)


def _fail(pending: _Pending, error: Exception) -> None:
    if not pending.verdict.done():
        pending.verdict.set_exception(error)


def _unknown(why: str) -> OutcomeUnknown:
    return OutcomeUnknown(f"{why} The outcome of the write is unknown. {_REPEAT}")


def _stopping(pending: _Pending) -> Unavailable:
    if pending.doubt is not None:
        return _unknown("This server is stopping.")
    return NotReady("This server is stopping; nothing was written. Try another server.")


def _too_late(pending: _Pending | None, deadline_s: float) -> Unavailable:
    if pending is not None and pending.doubt is not None:
        return _unknown(f"The write did not settle within {deadline_s:g} s.")
    return NoQuorum(f"The write was not made within {deadline_s:g} s; nothing was written. Try again.")
