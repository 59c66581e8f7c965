"""The one log follower: proven records in, the log's state out. API servers and projectors each run one for each log.

It begins with a checkpoint, follows, turns records into events, folds them and tells who waits or listens. On an
IntegrityError it halts: the last good state stays, nothing more is folded or confirmed, and `halted` says where and
what to do (I7). It goes on past a record that cannot be opened or folded once a later one quarantines it; one that is
folded already when it is quarantined is taken out again, by folding anew from a checkpoint before it. It must never
skip a record that is not quarantined, fold one twice, show an older state than before, or give a position as confirmed
that it has not folded.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Generic, NamedTuple

import structlog

from eventlog.follower import FollowBatch
from eventlog.quarantine import RECORD_QUARANTINED, Quarantined, quarantined_by
from eventlog.records import Head, HeadRef, Record
from mesh.errors import IntegrityError, LogTrimmed, MeshlogError, NotReady, TimelineMoved, Unavailable
from mesh.events import Event
from mesh.fold import Fold, S
from mesh.position import Position
from projector.beginning import Begin, TakenOut, from_nothing, no_way_on
from projector.bulk_fold import BulkFold, event_of
from projector.replica_ports import FoldListener, HeadReader, LogFollower, are_all
from projector.waiters import Waiters
from runtime.clock import Clock
from runtime.limits import FOLD_IN_BULK_FROM, REPLICA_CONFIRM_RETRY_S
from runtime.logging import where

log = structlog.get_logger(__name__)

__all__ = ["FoldListener", "HeadReader", "LogFollower", "Replica", "are_all", "event_of"]


class _Expected(NamedTuple, Generic[S]):
    """What the fold of a frame will be, if it comes to be appended."""

    head: Head
    base: S
    events: tuple[Event, ...]
    after: S


class Replica(Generic[S]):
    """The fold of one log, in memory. `run` belongs under the role's Supervisor, the rest in the same loop."""

    def __init__(
        self,
        fold: Fold[S],
        follower: LogFollower,
        confirmer: HeadReader,
        clock: Clock,
        begin: Begin[S] | None = None,
        *,
        quarantined: Iterable[Quarantined] = (),
    ) -> None:
        self._log_fold, self._follower, self._confirmer, self._clock = fold, follower, confirmer, clock
        self._begin = begin or from_nothing(fold)
        self._state = fold.initial()
        self._bulk = BulkFold(fold)
        self._after: Head | None = None
        self._quarantined = {named.position: named for named in quarantined}
        self._passed_over: tuple[str, ...] = ()
        self._failure: IntegrityError | None = None
        self._head: HeadRef | None = None
        self._caught_up = False
        self._halted: str | None = None
        self._confirmed_begun_s = -math.inf
        self._listeners: dict[int, FoldListener[S]] = {}
        self._waiters = Waiters()
        self._expected: _Expected[S] | None = None
        self._keys = itertools.count()

    @property
    def state(self) -> S:
        """The fold so far. Immutable: keep it as long as you like."""
        return self._state

    @property
    def position(self) -> Position:
        """What is folded."""
        return self._state.position

    @property
    def head_ref(self) -> HeadRef:
        """The point of the log that `state` is the fold of: what an append compares. NotReady before the first."""
        if self._head is None:
            raise NotReady("this server has not read the log yet: try again")
        return self._head

    @property
    def ready(self) -> bool:
        """True once the log was folded up to its head. Stays true when halted: the last good state is still good."""
        return self._caught_up

    @property
    def halted(self) -> str | None:
        """Why and where the fold stopped, and what to do; None while it goes on."""
        return self._halted

    @property
    def quarantined(self) -> Mapping[Position, Quarantined]:
        """The records known not to count."""
        return self._quarantined

    @property
    def alarms(self) -> Sequence[str]:
        """What an operator should know although the fold goes on: checkpoints that did not open."""
        return self._passed_over

    @property
    def confirmed_age_s(self) -> float:
        """Seconds since the beginning of the newest quorum read whose head is folded; infinite before the first."""
        return self._clock.monotonic_s() - self._confirmed_begun_s

    def subscribe(self, listener: FoldListener[S]) -> Callable[[], None]:
        """Call `listener` after each fold; returns what ends that."""
        key = next(self._keys)
        self._listeners[key] = listener

        def end() -> None:
            self._listeners.pop(key, None)

        return end

    async def run(self) -> None:
        """Begin, follow and fold until cancelled; returns only when halted for good."""
        try:
            await self._keep_folding()
        finally:
            self._bulk.stop()

    async def _keep_folding(self) -> None:
        trouble: Exception | None = None
        while True:
            try:
                await (self._begin_anew() if trouble is None else self._mend(trouble))
            except LogTrimmed as gap:
                if gap is trouble:
                    return self._halt(gap)
                trouble = gap
                continue
            except IntegrityError as failure:
                return self._halt(failure)
            try:
                await self._follow()
            except (TakenOut, IntegrityError) as stopped:
                trouble = stopped

    def expect(self, head: Head, base: S, events: Sequence[Event], after: S) -> None:
        """Tell what a frame that is about to be appended will fold to: `events`, up to `head`, lead `base` to `after`.

        Whoever brings that frame, an own `advance` or the watch, is then spared the folding. The head's hash covers
        every byte of the frame, so no other can be taken for it.
        """
        self._expected = _Expected(head, base, tuple(events), after)

    def advance(self, records: Sequence[Record], head: HeadRef) -> bool:
        """Fold what this process itself has appended, without waiting for the watch to bring it.

        `head` is the point after the last of `records`. True when `state` includes them (also if it did before); False
        when there is a gap before them: the watch will fill it. Raises NotReady when halted, and the IntegrityError
        that halts it.
        """
        self._check_halted()
        if self._bulk.going or (records and records[0].position.position > self.position.position + 1):
            return False
        try:
            self._fold(records, head)
        except IntegrityError as failure:
            self._halt(failure)
            raise
        return True

    async def wait_for(self, position: Position, timeout_s: float | None) -> None:
        """Return when `position` is folded; NotReady after `timeout_s` (None: never), or when halted before it."""
        if self.position >= position:
            return
        self._check_halted()
        try:
            await self._waiters.wait(position, timeout_s)
        except TimeoutError:
            raise NotReady(
                f"this server has folded the log up to {self.position}, not yet to {position}: try again"
            ) from None

    async def confirmed(self, timeout_s: float) -> Position:
        """The head by a quorum read begun after this call, once it is folded. Tries again while etcd does not answer.

        Raises NoQuorum or NotReady when it cannot be had within `timeout_s`, or when halted (then at once).
        """
        failure: MeshlogError = NotReady("the head of the log was not confirmed in time: try again")
        at_call = self._head
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    self._check_halted()
                    begun_s = self._clock.monotonic_s()
                    try:
                        found = await self._confirmer.confirm()
                        break
                    except Unavailable as unavailable:
                        failure = unavailable
                    await self._clock.sleep(REPLICA_CONFIRM_RETRY_S)
                self._check_timeline(at_call, found.head)
                failure = NotReady(f"the log is at {found.head.at}, this server at {self.position}: try again")
                await self.wait_for(found.head.at, None)
        except TimeoutError:
            raise failure from None
        except IntegrityError as broken:
            self._halt(broken)
            raise
        self._confirmed_begun_s = max(self._confirmed_begun_s, begun_s)
        return found.head.at

    # --- inside: beginning, following, and going on after trouble

    async def _begin_anew(self) -> None:
        """Fold anew from the newest beginning that is not void; what is shown meanwhile stays."""
        while True:
            try:
                beginning = await self._begin(self._usable)
                break
            except Unavailable as failure:
                log.warning("store does not answer, cannot read checkpoints", reason=failure.message)
                await self._clock.sleep(REPLICA_CONFIRM_RETRY_S)
        self._passed_over = beginning.passed_over
        self._after = beginning.after
        self._bulk.begin(beginning.state)

    def _usable(self, checkpoint: Position) -> bool:
        return not any(named.voids(checkpoint) for named in self._quarantined.values())

    async def _follow(self) -> None:
        async with aclosing(self._follower.follow(self._after, self._quarantined, self._at_hand)) as batches:
            async for batch in batches:
                if self._failure is not None:
                    raise self._failure
                self._take(batch)

    def _take(self, batch: FollowBatch) -> None:
        if not self._bulk.going and batch.caught_up and len(batch.records) < FOLD_IN_BULK_FROM:
            self._fold(batch.records, batch.head)
        else:
            if not self._bulk.going:
                self._bulk.begin(self._state)
            for record in batch.records:
                self._check_quarantine(record)
                self._bulk.fold(record)
            if batch.caught_up:
                self._settle(batch.head)
        self._after = batch.head.head
        self._caught_up = self._caught_up or batch.caught_up

    def _settle(self, head: HeadRef | None) -> Position:
        """Show what is folded in bulk, if it is not older than what is shown; gives how far that is."""
        if not self._bulk.going:
            return self.position
        before, (state, events) = self._state, self._bulk.end()
        if state.position >= before.position:
            self._state = state
            if head is not None:
                self._check_same(head.head)
                self._head = head
            self._publish(before, events)
        return state.position

    def _check_quarantine(self, record: Record) -> None:
        if record.type == RECORD_QUARANTINED and record.position not in self._quarantined:
            named = quarantined_by(record)
            if named is not None and named.position not in self._quarantined:
                raise TakenOut(named)

    async def _mend(self, trouble: Exception) -> None:
        """Make it possible to follow again; raises what stays in the way."""
        match trouble:
            case TakenOut(named=named):
                log.warning("a folded record was quarantined, folding anew without it", position=str(named.position))
                self._quarantined[named.position] = named
                await self._begin_anew()
            case LogTrimmed():
                folded = self._settle(None)
                await self._begin_anew()
                if self._bulk.position <= folded:
                    self._bulk.end()
                    raise no_way_on(trouble, folded, self._passed_over) from trouble
                log.warning("records are gone from the store, going on from a checkpoint", at=str(self._bulk.position))
                self._failure = self._halted = None
            case IntegrityError() if not isinstance(trouble, TimelineMoved):
                await self._wait_for_quarantine(trouble)
            case _:
                raise trouble

    async def _wait_for_quarantine(self, failure: IntegrityError) -> None:
        """Until the record after what is folded is quarantined; halted, unless it is already.

        Raises what makes the chain itself unsound.
        """
        folded = self._settle(None)
        async with aclosing(self._follower.quarantines(self._after)) as quarantines:
            async for named in quarantines:
                if named is None:
                    self._halt(failure)
                elif named.position.position == folded.position + 1:
                    break
        assert named is not None  # noqa: S101 - it goes on until then
        log.warning("going on past a quarantined record", position=str(named.position))
        self._quarantined[named.position] = named
        self._failure = self._halted = None
        if folded < self.position:
            await self._begin_anew()

    # --- inside: folding and telling

    def _at_hand(self, head: Head) -> bool:
        """Whether the fold up to `head` is made already, or will be by taking what is expected."""
        if self._bulk.going or self._head is None:
            return False
        expected = self._expected
        awaited = expected is not None and expected.head == head and expected.base is self._state
        return awaited or self._head.head == head

    def _fold(self, records: Sequence[Record], head: HeadRef) -> None:
        if self._halted is not None:
            return
        self._check_same(head.head)
        before, state, events = self._state, self._state, []
        expected = self._expected
        if expected is not None and expected.head == head.head and expected.base is state:
            self._expected = None
            self._state, self._head = expected.after, head
            self._publish(before, expected.events)
            return
        try:
            for record in records:
                if record.position <= state.position:
                    continue
                if record.position.position != state.position.position + 1:
                    raise TimelineMoved(f"the log goes from {state.position} to {record.position}: run `meshlog fsck`")
                self._check_quarantine(record)
                event = event_of(record)
                state = self._log_fold.evolve(state, event)
                events.append(event)
            if head.head.at > state.position:
                raise TimelineMoved(f"the log goes from {state.position} to {head.head.at}: run `meshlog fsck`")
            if self._head is None or head.head.at >= self._head.head.at:
                self._head = head
        finally:
            # Also what is sound before a poisoned event, so that every replica halts at the same state.
            self._state = state
            if events:
                self._publish(before, events)

    def _check_same(self, head: Head) -> None:
        """The same position must be the same record, whether the watch or an own append told of it."""
        if self._head is not None and head.at == self._head.head.at and head.hash != self._head.head.hash:
            raise TimelineMoved(f"two different records at {head.at}: stop, and run `meshlog fsck`")

    def _check_timeline(self, known: HeadRef | None, head: Head) -> None:
        if known is not None and head.at < known.head.at:
            raise TimelineMoved(f"the log's head moved back from {known.head.at} to {head.at}: run `meshlog fsck`")
        self._check_same(head)

    def _publish(self, before: S, events: Sequence[Event]) -> None:
        for listener in list(self._listeners.values()):
            try:
                listener(before, self._state, events)
            except Exception as error:
                # The fold is what the log says; a listener that cannot follow it must not stop the others.
                kind, place = type(error).__name__, where(error)
                log.error("a listener of the fold failed", at=str(self.position), kind=kind, place=place)  # noqa: TRY400
        self._waiters.reached(self.position)

    def _halt(self, failure: IntegrityError) -> None:
        if self._halted is not None:
            return
        self._failure = failure
        self._halted = f"the fold stopped after {self.position}: {failure.message}"
        log.error("the replica halted", position=str(self.position), error=failure.message, kind=type(failure).__name__)
        self._waiters.give_up(self._halted)

    def _check_halted(self) -> None:
        if self._halted is not None:
            raise NotReady(self._halted)
