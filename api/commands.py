"""The write path: commands become events in the log, in groups, and each caller gets the log's own answer.

What is decided and answered is in `api.group_commit`; this is the shell around it: it appends, folds, catches up and
waits, one thing at a time, and brings the answers home. What must never happen:

- a rejection that was decided on a state older than the call: it counts only on a state folded to a head that a quorum
  has confirmed after the command arrived;
- an unknown outcome taken for a failure: the token is in the log, so the command is decided again, and either finds its
  own event or competes for the same head, which only one of the two can replace;
- an append built on one that is not settled.
"""

from __future__ import annotations

import asyncio
from typing import Generic

import structlog

from api.domain import C, Domain, R
from api.group_commit import Append, GroupCommit, HandOver
from api.outcomes import ConfirmFirst, Decided, Origin, Outcome, Ticket, Verdict, too_late
from api.ports import Declined, MembersSource, Peers, Replica, Writer
from eventlog.writer import Appended, LostRace
from mesh.commands import Context
from mesh.errors import LevelTooLow, MeshlogError, NotReady, OutcomeUnknown, Unavailable
from mesh.events import LEVEL
from mesh.fold import S
from runtime.clock import Clock, Entropy
from runtime.limits import (
    COMMAND_BACKOFF_MAX_S,
    COMMAND_BACKOFF_S,
    COMMAND_DEADLINE_S,
    HAND_OVER_TIMEOUT_S,
    RECENT_WIN_S,
    SETTLE_RETRY_S,
)
from runtime.logging import where

__all__ = ["CommandService", "Decided", "Origin", "Outcome"]

log = structlog.get_logger(__name__)


class CommandService(Generic[S, C, R]):
    """The writer of one log in one API server. `run` is the worker, to be supervised; `submit` is for callers."""

    def __init__(
        self,
        domain: Domain[S, C, R],
        replica: Replica[S],
        writer: Writer,
        clock: Clock,
        entropy: Entropy,
        *,
        deadline_s: float = COMMAND_DEADLINE_S,
        peers: Peers[S, C, R] | None = None,
        members: MembersSource | None = None,
    ) -> None:
        self._domain, self._members = domain, members
        self._replica, self._writer, self._peers = replica, writer, peers
        self._clock, self._entropy, self._deadline_s = clock, entropy, deadline_s
        self._group = GroupCommit(domain)
        self._callers: dict[Ticket[S, C, R], asyncio.Future[Verdict[S, R]]] = {}
        self._wake = asyncio.Event()
        self._won_s: float | None = None

    @property
    def winning(self) -> bool:
        """Whether this server's own appends get through at present: a good one to hand a batch to."""
        now_s = self._clock.monotonic_s()
        return self._won_s is not None and now_s - self._won_s < RECENT_WIN_S and not self._group.losses

    async def submit(
        self, command: C, origin: Origin, *, within_s: float | None = None, may_hand_over: bool = True
    ) -> Outcome[S, R]:
        """Do `command` once; raises what `decide` raises, TooManyRequests, Unavailable, or OutcomeUnknown."""
        within_s = self._deadline_s if within_s is None else within_s
        try:
            return await self._submit(command, origin, within_s, may_hand_over=may_hand_over)
        except LevelTooLow:
            # Asked for only now: it happens once in the life of a cluster.
            level = await self._understood()
        return await self._submit(command, origin, within_s, may_hand_over=False, level=level)

    async def _understood(self) -> int:
        """The level that all live members understand."""
        if self._members is None:
            return LEVEL
        return min((int(member.get("level", 1)) for member in await self._members()), default=1)

    async def _submit(
        self, command: C, origin: Origin, within_s: float, *, may_hand_over: bool, level: int = 1
    ) -> Outcome[S, R]:
        context = Context(
            account=origin.account,
            principal=origin.principal,
            operation=origin.operation,
            token=origin.token,
            uid=self._entropy.uuid() if self._domain.draws_uid(command) else "",
            now_us=self._clock.now_us(),
            level=level,
            allowed=origin.allowed,
        )
        ticket: Ticket[S, C, R] = Ticket(command, origin, context, self._clock.monotonic_s() + within_s, may_hand_over)
        try:
            async with asyncio.timeout(within_s):
                self._group.submit(ticket)
                verdict = await self._verdict(ticket)
                while isinstance(verdict, ConfirmFirst):
                    self._group.confirmed(ticket, await self._replica.confirmed(within_s))
                    verdict = await self._verdict(ticket)
        except TimeoutError:
            raise too_late(ticket, within_s) from None
        finally:
            self._group.abandon(ticket)
            self._callers.pop(ticket, None)
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    async def _verdict(self, ticket: Ticket[S, C, R]) -> Verdict[S, R]:
        future: asyncio.Future[Verdict[S, R]] = asyncio.get_running_loop().create_future()
        self._callers[ticket] = future
        self._deliver()
        self._wake.set()
        return await future

    def _deliver(self) -> None:
        for ticket, verdict in self._group.take_answers():
            if isinstance(verdict, Exception) and not isinstance(verdict, MeshlogError):
                # Not its text: it may hold configuration (I6).
                kind, place = type(verdict).__name__, where(verdict)
                log.error("command failed", request_id=ticket.origin.request_id, kind=kind, place=place)
            future = self._callers.get(ticket)
            if future is not None and not future.done():
                future.set_result(verdict)

    async def run(self) -> None:
        """Settle what waits, group by group, for ever."""
        try:
            while True:
                await self._wake.wait()
                if self._group.waiting:
                    await self._round()
                else:
                    self._wake.clear()
        finally:
            self._group.stop()
            self._deliver()

    async def _round(self) -> None:
        """Do the next thing. No waiting for more to come: what piles up meanwhile is the next group."""
        replica, group = self._replica, self._group
        if group.unsettled and not await self._settle():
            return
        try:
            head = replica.head_ref
        except NotReady as error:
            group.unavailable(error)
        else:
            if replica.halted is not None:
                group.unavailable(NotReady(replica.halted))
        if not group.waiting:
            self._deliver()
            return
        todo = group.plan(replica.state, head, self._clock.now_us(), peers=self._peers is not None and self._peers.any)
        self._deliver()
        match todo:
            case Append():
                await self._append(todo)
            case HandOver():
                await self._hand_over(todo)
            case None:
                await self._clock.sleep(0)  # others' turn
        self._deliver()

    async def _settle(self) -> bool:
        """Catch up with a confirmed head. False: not possible now; those who wait for too long are told by `submit`."""
        try:
            await self._replica.confirmed(self._deadline_s)
        except Unavailable as error:
            log.info("an unknown outcome cannot be looked up yet", reason=error.message)
            await self._clock.sleep(SETTLE_RETRY_S)
            if self._replica.halted is None:
                return False
        except MeshlogError as error:
            log.error("an unknown outcome cannot be looked up", error=error.message)  # noqa: TRY400
        self._group.settled()
        return True

    async def _append(self, todo: Append[S]) -> None:
        group = self._group
        try:
            sealed = await self._writer.seal(todo.head, todo.records, todo.base.time_us, todo.wall_us)
        except Exception as error:
            group.refused(error)  # nothing was sent
            return
        self._replica.expect(sealed.txn.head, todo.base, todo.events, todo.after)
        try:
            result = await self._writer.send(sealed)
        except OutcomeUnknown:
            group.unknown()
        except MeshlogError as error:
            group.refused(error)
        except Exception as error:
            log.error("append failed", kind=type(error).__name__, place=where(error))  # noqa: TRY400
            group.unknown()
        else:
            if isinstance(result, LostRace):
                group.lost(result.head.head.at)
                await self._catch_up(result)
            else:
                await self._fold(result)

    async def _fold(self, appended: Appended) -> None:
        self._group.committed()
        self._won_s = self._clock.monotonic_s()
        try:
            if not self._replica.advance(appended.records, appended.head):
                await self._replica.wait_for(appended.head.head.at, self._deadline_s)
        except MeshlogError as error:
            self._group.not_folded(error)
        else:
            self._group.folded()

    async def _catch_up(self, lost: LostRace) -> None:
        try:
            await self._replica.wait_for(lost.head.head.at, self._deadline_s)
        except NotReady as error:
            log.info("this server does not keep up with the log", reason=error.message)
        ceiling_s = COMMAND_BACKOFF_S * 2.0 ** min(self._group.losses - 1, 16)
        await self._clock.sleep(min(COMMAND_BACKOFF_MAX_S, ceiling_s) * self._entropy.jitter())

    async def _hand_over(self, todo: HandOver[S, C, R]) -> None:
        """Give a batch away, for half of the time that its most urgent command has left at most: then it is ours."""
        assert self._peers is not None  # noqa: S101 - asked before
        left_s = min(ticket.deadline_s for ticket in todo.tickets) - self._clock.monotonic_s()
        try:
            answer = await self._peers.hand_over(todo.tickets, min(HAND_OVER_TIMEOUT_S, left_s / 2))
            if isinstance(answer, Declined):
                self._group.declined()
                return
            await self._replica.wait_for(answer, HAND_OVER_TIMEOUT_S)
        except Unavailable as error:
            log.info("a hand-over has no known outcome", reason=error.message)
            self._group.hand_over_unknown()
        except Exception as error:
            log.error("hand-over failed", kind=type(error).__name__, place=where(error))  # noqa: TRY400
            self._group.hand_over_unknown()
        else:
            self._group.handed_over()
