"""The past: events of any stretch of the log, and the state after any position. Reads only.

    stored frames (etcd, archive) → opened records → events → states

A state is folded from the nearest one that is known: one that was asked for lately, or a checkpoint. What this must
never do: tell a state whose events it has not all seen, or hold up the event loop while it folds.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Protocol

from api.ports import EventHistory, StateHistory
from eventlog.blobs import PartsOf, fetch
from eventlog.checkpoints import newest_checkpoint
from eventlog.driver import LogDriver, StoredFrame
from eventlog.frames import decode_frame
from eventlog.keys.keyring import Keyring
from eventlog.records import Head, Record
from eventlog.sealing import SealedEnvelope, open_envelope, parse_stored
from mesh.checkpoint import from_documents
from mesh.errors import Damaged, MissingKey, NotFound, NotReady
from mesh.events import Event
from mesh.evolve import evolve
from mesh.position import ORIGIN, Position
from mesh.state import State
from projector.replica import event_of
from runtime.limits import (
    HISTORY_BATCH_EVENTS,
    HISTORY_PAGE_FRAMES,
    PAST_CHECKPOINT_WORTH_EVENTS,
    PAST_FOLDS_AT_ONCE,
    PAST_STATE_EVERY_EVENTS,
    PAST_STATES_KEPT,
)


class FrameSource(Protocol):
    """Stored frames along the log's timeline, wherever they are kept."""

    async def log_id(self) -> str: ...

    async def begins(self) -> Position:
        """The position after which every frame up to the head can be had."""
        ...

    def frames(self, after: Position, upto: Position | None) -> AsyncGenerator[StoredFrame, None]:
        """Frames that hold what comes after `after`, up to `upto`; the first and the last may hold more than that."""
        ...


class DriverFrames:
    """A `FrameSource` over one store: what it still holds of its own epoch."""

    def __init__(self, driver: LogDriver) -> None:
        self._driver = driver

    async def log_id(self) -> str:
        return (await self._head()).log_id

    async def begins(self) -> Position:
        head = await self._head()
        page = await self._driver.read_frames(Position(head.epoch, 0), 1)
        if not page.frames:
            return head.at
        first = page.frames[0]
        return Position(head.epoch, first.last.position - len(decode_frame(first.value, first.last)))

    async def frames(self, after: Position, upto: Position | None) -> AsyncGenerator[StoredFrame, None]:
        head = await self._head()
        end = head.position if upto is None else upto.position
        at = after.position
        while at < end:
            page = await self._driver.read_frames(Position(head.epoch, at), min(HISTORY_PAGE_FRAMES, end - at))
            if not page.frames:
                raise _not_kept(Position(head.epoch, at + 1))
            for frame in page.frames:
                yield frame
                at = frame.last.position
                if at >= end:
                    return

    async def _head(self) -> Head:
        found = await self._driver.read_head()
        if found is None:
            raise NotReady("There is no log in the store yet: start an API server, which makes one")
        return found.head


class LogHistory:
    """`EventHistory` over stored frames: each record opens only at its own place, and follows the one before it."""

    def __init__(self, source: FrameSource, keyring: Keyring, parts_of: PartsOf) -> None:
        self._source, self._keyring, self._parts_of = source, keyring, parts_of

    async def begins(self) -> Position:
        """See `EventHistory.begins`."""
        return await self._source.begins()

    async def read(self, after: Position, upto: Position) -> AsyncIterator[Sequence[Event]]:
        """See `EventHistory.read`."""
        if upto.position <= after.position:
            return
        log_id = await self._source.log_id()
        wanted, batch, link = after.position + 1, list[Event](), b""
        async with aclosing(self._source.frames(after, upto)) as frames:
            async for frame in frames:
                stored_records = decode_frame(frame.value, frame.last)
                first = frame.last.position - len(stored_records) + 1
                if first > wanted:
                    raise _not_kept(Position(frame.last.epoch, wanted))
                for number, stored in enumerate(stored_records, start=first):
                    position = Position(frame.last.epoch, number)
                    envelope = parse_stored(stored, position)
                    if link not in (b"", envelope.previous_hash):
                        raise Damaged(f"The log's chain is broken before {position}: run `meshlog fsck`")
                    link = hashlib.sha256(stored).digest()
                    if wanted <= number <= upto.position:
                        batch.append(event_of(await self._open(envelope, log_id, position)))
                        wanted = number + 1
                    if len(batch) >= HISTORY_BATCH_EVENTS:
                        yield batch
                        batch = []
                        await asyncio.sleep(0)
        if wanted <= upto.position:
            raise _not_kept(Position(upto.epoch, wanted))
        if batch:
            yield batch

    async def _open(self, envelope: SealedEnvelope, log_id: str, position: Position) -> Record:
        try:
            record = open_envelope(envelope, log_id, position, self._keyring)
        except MissingKey:  # drawn since the last load
            await self._keyring.load(log_id)
            record = open_envelope(envelope, log_id, position, self._keyring)
        return await fetch(record, log_id, self._parts_of, self._keyring)


def _not_kept(position: Position) -> NotFound:
    return NotFound(
        f"Position {position} of the log is neither in etcd nor in an archive that this server knows: it is older than "
        "what is kept, or the archive is missing from the settings"
    )


class StoredCheckpoints:
    """`StateHistory` over the checkpoints in one store."""

    def __init__(self, driver: LogDriver, keyring: Keyring) -> None:
        self._driver, self._keyring = driver, keyring

    async def before(self, position: Position) -> State | None:
        """See `StateHistory.before`."""
        opened = await newest_checkpoint(self._driver, self._keyring, before=position)
        if opened is None:
            return None
        # Sealed and signed, so what it says is what was folded; it takes a while, so the loop is left alone.
        return await asyncio.to_thread(from_documents, opened.config, opened.secrets, verify=False)


class PastStates:
    """The state after any position of the log, folded from the nearest one that is known."""

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
        async with self._turns:
            state = await self._base(position)
            unsaved = 0
            async for events in self._history.read(state.position, position):
                for event in events:
                    state = evolve(state, event)
                unsaved += len(events)
                if unsaved >= PAST_STATE_EVERY_EVENTS:  # so that a fold that runs out of time goes on from here
                    self._keep(state)
                    unsaved = 0
            if state.position != position:
                raise Damaged(f"the log was folded to {state.position} on the way to {position}: run `meshlog fsck`")
            self._keep(state)
            return state

    async def _base(self, position: Position) -> State:
        lately = max((at for at in self._kept if at <= position), default=ORIGIN)
        if lately.position and position.position - lately.position <= PAST_CHECKPOINT_WORTH_EVENTS:
            self._kept.move_to_end(lately)
            return self._kept[lately]
        checkpoint = await self._checkpoints.before(position)
        if checkpoint is not None and checkpoint.position > lately:
            return checkpoint
        return self._kept.get(lately, State())

    def _keep(self, state: State) -> None:
        self._kept[state.position] = state
        self._kept.move_to_end(state.position)
        while len(self._kept) > PAST_STATES_KEPT:
            self._kept.popitem(last=False)


async def position_at(history: EventHistory, time_us: int, now: State) -> Position:
    """The last position whose time is at or before `time_us`, found by halving; ORIGIN if it is before all of them.

    NotFound when it is before all that is kept.
    """
    if time_us >= now.time_us:
        return now.position
    begins = await history.begins()
    low, high = begins.position, now.position.position  # time(low) <= time_us < time(high), as far as is known
    while high - low > 1:
        middle = (low + high) // 2
        event = await event_at(history, now.at(middle), now)
        low, high = (middle, high) if event.time_us <= time_us else (low, middle)
    if low == 0:
        return ORIGIN
    if low == begins.position:
        raise NotFound(f"That moment is before {now.at(low + 1)}, with which the history that is kept begins")
    return now.at(low)


async def event_at(history: EventHistory, position: Position, now: State) -> Event:
    """The event at `position` of the timeline that led to `now`."""
    async for events in history.read(now.at(position.position - 1), position):
        return events[0]
    raise _not_kept(position)


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
    """Sorted positions as stretches to read in one go: gaps smaller than a page are read over."""
    stretches: list[tuple[Position, Position]] = []
    for position in positions:
        if stretches and position.position - stretches[-1][1].position <= HISTORY_PAGE_FRAMES:
            stretches[-1] = (stretches[-1][0], position)
        else:
            stretches.append((position, position))
    return stretches
