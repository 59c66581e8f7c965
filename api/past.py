"""The past: events of any stretch of the log, and the state after any position. Reads only.

    stored frames (etcd, archive) → opened records → events → states

A state is folded from the nearest one that is known: one that was asked for lately, or a checkpoint. What this must
never do: tell a state whose events it has not all seen, or hold up the event loop while it folds.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Protocol

import structlog

from api.ports import EventHistory, StateHistory
from eventlog.archive.reader import ArchiveReader
from eventlog.blobs import fetch
from eventlog.checkpoints import OpenCheckpoint, newest_checkpoint, open_checkpoint
from eventlog.driver import LogDriver, StoredFrame
from eventlog.frames import decode_frame
from eventlog.keys.keyring import Keyring
from eventlog.quarantine import RECORD_QUARANTINED, Quarantined, quarantined_by, stand_in
from eventlog.records import BlobRef, Record
from eventlog.sealing import open_envelope, parse_stored
from eventlog.signing import known_signers
from mesh.checkpoint import from_documents
from mesh.errors import Damaged, IntegrityError, MissingKey, NotFound, Poison, Unavailable
from mesh.events import Event
from mesh.evolve import evolve
from mesh.position import ORIGIN, Position
from mesh.state import State
from projector.replica import event_of
from runtime.limits import (
    HISTORY_BATCH_EVENTS,
    HISTORY_STRETCH_GAP,
    PAST_CHECKPOINT_WORTH_EVENTS,
    PAST_FOLDS_AT_ONCE,
    PAST_STATE_EVERY_EVENTS,
    PAST_STATES_KEPT,
)

log = structlog.get_logger(__name__)


class FrameSource(Protocol):
    """Stored frames along the log's timeline, each after the one before it: `eventlog.timeline.Timeline`."""

    async def log_id(self) -> str: ...

    async def begins(self) -> Position:
        """The position after which every frame up to the head can be had."""
        ...

    def frames(self, after: Position, upto: Position | None) -> AsyncGenerator[StoredFrame, None]:
        """Frames that hold what comes after `after`, up to `upto`."""
        ...

    async def parts(self, ref: BlobRef) -> Mapping[str, bytes]:
        """A blob's stored parts by name."""
        ...


class LogHistory:
    """`EventHistory` over the timeline. `archive`: where it looks up old times quicker than by halving."""

    def __init__(self, source: FrameSource, keyring: Keyring, archive: ArchiveReader | None = None) -> None:
        self._source, self._keyring, self._archive = source, keyring, archive

    async def begins(self) -> Position:
        """See `EventHistory.begins`."""
        return await self._source.begins()

    async def read(self, after: Position, upto: Position) -> AsyncIterator[Sequence[Event]]:
        """See `EventHistory.read`."""
        if upto.position <= after.position:
            return
        log_id = await self._source.log_id()
        batch: list[Event] = []
        async with aclosing(self._source.frames(after, upto)) as frames:
            async for frame in frames:
                stored_records = decode_frame(frame.value, frame.last)
                first = frame.last.position - len(stored_records) + 1
                for number, stored in enumerate(stored_records, start=first):
                    if after.position < number <= upto.position:
                        position = Position(frame.last.epoch, number)
                        try:
                            record = await self._open(stored, log_id, position)
                        except IntegrityError as broken:
                            record = await self._stand_in(broken, position)
                        batch.append(event_of(record))
                    if len(batch) >= HISTORY_BATCH_EVENTS:
                        yield batch
                        batch = []
                        await asyncio.sleep(0)
        if batch:
            yield batch

    async def position_at(self, time_us: int, now: State) -> Position:
        """See `EventHistory.position_at`."""
        if time_us >= now.time_us:
            return now.position
        begins = (await self.begins()).position
        known, settled = await self._archived_at(time_us, now)
        low, high = max(begins, known), now.position.position  # time(low) <= time_us < time(high)
        while not settled and high - low > 1:
            middle = (low + high) // 2
            event = await event_at(self, now.at(middle), now)
            low, high = (middle, high) if event.time_us <= time_us else (low, middle)
        if low == begins and begins:
            raise NotFound(f"That moment is before {now.at(begins + 1)}, with which the history that is kept begins")
        return now.at(low) if low else ORIGIN

    async def _archived_at(self, time_us: int, now: State) -> tuple[int, bool]:
        """How far the archive's own index brings the search, and whether that settles it."""
        if self._archive is None:
            return 0, False
        try:
            index = await self._archive.load_if_any()
            if index is None or index.log_id != await self._source.log_id() or index.epoch != now.position.epoch:
                return 0, False
            found = (await self._archive.position_at(time_us)).position
        except (Unavailable, NotFound):  # etcd may still have all of it
            return 0, False
        return found, found < index.head.position

    async def _open(self, stored: bytes, log_id: str, position: Position) -> Record:
        envelope = parse_stored(stored, position)
        try:
            record = open_envelope(envelope, log_id, position, self._keyring)
        except MissingKey:  # drawn since the last load
            await self._keyring.load(log_id)
            record = open_envelope(envelope, log_id, position, self._keyring)
        return await fetch(record, log_id, self._source.parts, self._keyring)

    async def quarantine_of(self, position: Position) -> Quarantined | None:
        """See `EventHistory.quarantine_of`."""
        log_id = await self._source.log_id()
        async with aclosing(self._source.frames(position, None)) as frames:
            async for frame in frames:
                stored_records = decode_frame(frame.value, frame.last)
                first = frame.last.position - len(stored_records) + 1
                for number, stored in enumerate(stored_records, start=first):
                    try:
                        named = quarantined_by(await self._open(stored, log_id, Position(frame.last.epoch, number)))
                    except IntegrityError:
                        continue
                    if named is not None and named.position == position:
                        return named
                await asyncio.sleep(0)
        return None

    async def _stand_in(self, broken: IntegrityError, position: Position) -> Record:
        """What is given in place of a record that does not open, if it is quarantined; else raises why not."""
        named = await self.quarantine_of(position)
        if named is None:
            raise broken
        return stand_in(named)


class StoredCheckpoints:
    """`StateHistory` over the checkpoints in etcd, and, for what is older than those, in the archive."""

    def __init__(self, driver: LogDriver, keyring: Keyring, archive: ArchiveReader | None = None) -> None:
        self._driver, self._keyring, self._archive = driver, keyring, archive

    async def before(self, position: Position) -> State | None:
        """See `StateHistory.before`."""
        opened = await newest_checkpoint(self._driver, self._keyring, before=position)
        if opened is None and self._archive is not None:
            opened = await self._archived(self._archive, position)
        if opened is None:
            return None
        # Sealed and signed, so what it says is what was folded; it takes a while, so the loop is left alone.
        return await asyncio.to_thread(from_documents, opened.config, opened.secrets, verify=False)

    async def _archived(self, archive: ArchiveReader, position: Position) -> OpenCheckpoint | None:
        try:
            index = await archive.load_if_any()
            if index is None or index.head.position < position.position:
                return None
            ref = await archive.checkpoint_before(position)
            if ref is None:
                return None
            manifest, parts = await archive.checkpoint(ref)
        except Unavailable as failure:  # then it is folded from what etcd has
            log.warning("the archive does not answer, folding without its checkpoints", reason=failure.message)
            return None
        await self._keyring.load(index.log_id)
        return open_checkpoint(manifest, parts.__getitem__, self._keyring, known_signers(self._keyring))


class _TakenOut(Exception):  # noqa: N818 - what an event asks for, not an error
    """An event that may be in the fold already is quarantined."""

    def __init__(self, named: Quarantined) -> None:
        super().__init__(str(named.position))
        self.named = named


class PastStates:
    """The state after any position of the log, folded from the nearest one that is known.

    It is what a replica had there: an event that was quarantined by then does not count, one that was quarantined later
    does, unless it is one that nobody could fold.
    """

    def __init__(self, history: EventHistory, checkpoints: StateHistory) -> None:
        self._history, self._checkpoints = history, checkpoints
        self._kept: OrderedDict[Position, State] = OrderedDict()
        self._turns = asyncio.Semaphore(PAST_FOLDS_AT_ONCE)

    async def at(self, position: Position, now: State) -> State:
        """The fold of the log up to and with `position`, which is on the timeline that led to `now`."""
        if position == now.position:
            return now
        if position.position == 0:
            return State()
        taken_out: dict[Position, Quarantined] = {}
        async with self._turns:
            while True:
                try:
                    return await self._fold(position, now, taken_out)
                except _TakenOut as found:
                    taken_out[found.named.position] = found.named

    async def _fold(self, position: Position, now: State, taken_out: Mapping[Position, Quarantined]) -> State:
        state = await self._base(position, now, taken_out)
        unsaved = 0
        async for events in self._history.read(state.position, position):
            for event in events:
                state = await self._next(state, event, taken_out)
            unsaved += len(events)
            if unsaved >= PAST_STATE_EVERY_EVENTS:  # so that a fold that runs out of time goes on from here
                self._keep(state, taken_out)
                unsaved = 0
        if state.position != position:
            raise Damaged(f"the log was folded to {state.position} on the way to {position}: run `meshlog fsck`")
        self._keep(state, taken_out)
        return state

    async def _next(self, state: State, event: Event, taken_out: Mapping[Position, Quarantined]) -> State:
        named = taken_out.get(event.position)
        if named is None:
            if event.type == RECORD_QUARANTINED and event.data:
                quarantined = Quarantined(Position(*event.data["position"]), event.data["time_us"], event.position)
                if quarantined.position not in taken_out:
                    raise _TakenOut(quarantined)
            try:
                return evolve(state, event)
            except Poison as poison:
                named = await self._history.quarantine_of(event.position)
                if named is None:
                    raise poison from None
        return evolve(state, event_of(stand_in(named)))

    async def _base(self, position: Position, now: State, taken_out: Mapping[Position, Quarantined]) -> State:
        limit = position
        while True:
            state = await self._nearest(limit)
            void = [named.position for named in taken_out.values() if named.voids(state.position)]
            if not void:
                return state
            limit = now.at(min(void).position - 1)

    async def _nearest(self, limit: Position) -> State:
        lately = max((at for at in self._kept if at <= limit), default=ORIGIN)
        if lately.position and limit.position - lately.position <= PAST_CHECKPOINT_WORTH_EVENTS:
            self._kept.move_to_end(lately)
            return self._kept[lately]
        checkpoint = await self._checkpoints.before(limit)
        if checkpoint is not None and checkpoint.position > lately:
            return checkpoint
        return self._kept.get(lately, State())

    def _keep(self, state: State, taken_out: Mapping[Position, Quarantined]) -> None:
        if any(named.voids(state.position) for named in taken_out.values()):
            return  # on the way to another position; what was here counted the event
        self._kept[state.position] = state
        self._kept.move_to_end(state.position)
        while len(self._kept) > PAST_STATES_KEPT:
            self._kept.popitem(last=False)


async def event_at(history: EventHistory, position: Position, now: State) -> Event:
    """The event at `position` of the timeline that led to `now`."""
    async for events in history.read(now.at(position.position - 1), position):
        return events[0]
    raise NotFound(f"Position {position} of the log is not kept any more")


async def events_at(history: EventHistory, positions: Sequence[Position], now: State) -> dict[Position, Event]:
    """The events at `positions`, neighbours read together; those that are not kept any more are left out."""
    found: dict[Position, Event] = {}
    wanted = set(positions)
    for first, last in _stretches(sorted(wanted)):
        try:
            async for events in history.read(now.at(first.position - 1), last):
                found.update({event.position: event for event in events if event.position in wanted})
        except NotFound:
            continue
    return found


def _stretches(positions: Sequence[Position]) -> list[tuple[Position, Position]]:
    """Sorted positions as stretches to read in one go: small gaps are read over."""
    stretches: list[tuple[Position, Position]] = []
    for position in positions:
        if stretches and position.position - stretches[-1][1].position <= HISTORY_STRETCH_GAP:
            stretches[-1] = (stretches[-1][0], position)
        else:
            stretches.append((position, position))
    return stretches
