"""Following the log: the store's listings and changes become opened, proven records in order, each once, for ever.

`FollowMachine` is sans-I/O and holds the rules; `Follower` is the shell. Watches are not trusted: every batch must
continue the chain and end at the head it came with, else the log is listed again by quorum reads, and what does not
fit then is damage. Nothing is ever skipped.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from types import MappingProxyType
from typing import NamedTuple

import structlog

from eventlog.append import check_same_timeline
from eventlog.blobs import fetch, parts_in
from eventlog.chain import Chain, ChainedRecord
from eventlog.driver import Compacted, FramePage, LogDriver, StoredFrame, WatchBatch
from eventlog.keys.keyring import Keyring
from eventlog.quarantine import Quarantined, quarantined_by, stand_in
from eventlog.records import Head, HeadRef, Record, genesis_head
from eventlog.sealing import open_envelope
from mesh.errors import Damaged, IntegrityError, LogTrimmed, MissingKey, NotReady, TimelineMoved, Unavailable
from mesh.position import Position
from runtime.clock import Clock, Entropy
from runtime.limits import FOLD_BATCH_RECORDS, FOLLOW_PAGE_FRAMES, FOLLOW_RETRY_MAX_S, FOLLOW_RETRY_S

log = structlog.get_logger(__name__)


AtHand = Callable[[Head], bool]
"""Whether all up to a head is at hand already, since this process itself has sealed it: it need not be opened again."""


def nothing_at_hand(_head: Head) -> bool:
    """For whoever appends nothing."""
    return False


class FollowBatch(NamedTuple):
    """Records in order. `head` is the point right after them: fold them, and append on it.

    `caught_up`: when read, it was the log's head. The first such batch may have no records.
    """

    records: tuple[Record, ...]
    head: HeadRef
    caught_up: bool


class Step(NamedTuple):
    """What the machine gives for one input: proven records, then either `failure` or, if `relist`, a new listing."""

    records: Sequence[ChainedRecord]
    failure: IntegrityError | None = None
    relist: str = ""


class FollowMachine:
    """The rules of following one log from a point. Inputs: a listing's pages up to the head, then changes."""

    def __init__(self, after: Head | None) -> None:
        self._chain = Chain(after) if after is not None else None
        self._target: HeadRef | None = None
        self._seen_revision = 0

    @property
    def head(self) -> HeadRef:
        """The head last reached."""
        assert self._target is not None  # noqa: S101 - set by the first page
        return self._target

    @property
    def next_revision(self) -> int:
        """Where a watch goes on after what was seen."""
        return self._seen_revision + 1

    def begin_listing(self, head: HeadRef | None) -> Position:
        """A listing begins; gives the position to list after. `head`, by a quorum read, says which log this is.

        NotReady if there is no log and none was ever seen; TimelineMoved if it is not the one that was followed.
        """
        if head is None:
            if self._chain is None:
                raise NotReady("There is no log in the store yet: start an API server, which makes one")
            raise self._gone()
        if self._chain is None:
            self._chain = Chain(genesis_head(head.head.log_id)._replace(epoch=head.head.epoch))
        self._chain.drop_unproven()
        check_same_timeline(self._chain.point, head.head)
        return self._chain.point.at

    def on_page(self, page: FramePage, first: bool) -> Step:
        """A page of the listing; the first one brings the head that the last one must end at."""
        chain = self._following()
        if first:
            if page.head is None:
                return Step((), self._gone())
            try:
                check_same_timeline(chain.proven, page.head.head)
            except TimelineMoved as moved:
                return Step((), moved)
            self._target = page.head
        records, failure = chain.extend(page.frames)
        if failure is None and not page.more:
            if chain.point.position < self.head.head.position:
                return Step(records, _trimmed(chain.point.at, self.head.head.at))
            try:
                held = chain.settle(self.head.head)
            except Damaged as broken:
                return Step(records, broken)
            records.extend([held] if held is not None else [])
            self._seen_revision = page.revision
        return Step(records, failure)

    def on_change(self, change: WatchBatch, at_hand: AtHand = nothing_at_hand) -> Step:
        """What one store revision changed, after the listing. A second delivery changes nothing.

        No records where the new head is `at_hand`: its hash says that they are those that the caller has.
        """
        chain = self._following()
        if change.revision <= self._seen_revision:
            return Step(())
        if change.head_deleted:
            return Step((), self._gone())
        for frame in change.frames:
            if frame.last <= chain.point.at:
                text = f"The log's frame at {frame.last} was written a second time: stop, and run `meshlog fsck`"
                return Step((), Damaged(text))
        if change.head is None:
            if change.frames:
                return Step((), relist=f"store revision {change.revision} brought a frame without a head")
            return Step(())
        try:
            check_same_timeline(chain.point, change.head.head)
        except TimelineMoved as moved:
            return Step((), moved)
        if at_hand(change.head.head):
            self._chain, self._target, self._seen_revision = Chain(change.head.head), change.head, change.revision
            return Step(())
        return self._advance(change.frames, change.head, change.revision)

    def _advance(self, frames: Sequence[StoredFrame], head: HeadRef, revision: int) -> Step:
        trial = Chain(self._following().point)
        records, failure = trial.extend(frames)
        try:
            held = None if failure else trial.settle(head.head)
        except Damaged as broken:
            failure = broken
        if failure is not None:
            # Not yet damage: the watch may have left something out. A quorum listing decides.
            return Step((), relist=failure.message)
        records.extend([held] if held is not None else [])
        self._chain, self._target, self._seen_revision = trial, head, revision
        return Step(records)

    def _following(self) -> Chain:
        assert self._chain is not None  # noqa: S101 - set by begin_listing
        return self._chain

    def _gone(self) -> TimelineMoved:
        at = self._following().proven.at
        return TimelineMoved(f"The log's head is gone; it was at {at}: the store was emptied or replaced: find out why")


class Follower:
    """Follows one log. `contact_s` is the monotonic time of the store's last word, None before the first."""

    def __init__(self, driver: LogDriver, keyring: Keyring, clock: Clock, entropy: Entropy) -> None:
        self._driver = driver
        self._keyring = keyring
        self._clock = clock
        self._entropy = entropy
        self.contact_s: float | None = None

    async def follow(
        self,
        after: Head | None = None,
        quarantined: Mapping[Position, Quarantined] = MappingProxyType({}),
        at_hand: AtHand = nothing_at_hand,
    ) -> AsyncGenerator[FollowBatch, None]:
        """Yield what comes after `after` (None: from the first record), and go on for ever.

        In place of `quarantined` records come their stand-ins; in place of those that lead to a head that is
        `at_hand`, an empty batch. A store that does not answer, or has no log yet, is
        waited for. Raises TimelineMoved, Damaged (LogTrimmed if records are not there any more), WrongKey or
        MissingKey, naming the position, after everything before it was yielded. Close it with `aclose`.
        """
        async with aclosing(self._steps(FollowMachine(after), at_hand)) as steps:
            async for step, reached in steps:
                async with aclosing(self._give(step, reached, quarantined)) as batches:
                    async for batch in batches:
                        yield batch

    async def quarantines(self, after: Head | None) -> AsyncGenerator[Quarantined | None, None]:
        """Yield what the records after `after` put in quarantine, and go on for ever, past whatever does not open.

        None says that the log's head is reached. Raises what makes the chain itself unsound: TimelineMoved, Damaged,
        LogTrimmed.
        """
        async with aclosing(self._steps(FollowMachine(after))) as steps:
            async for step, reached in steps:
                for chained in step.records:
                    try:
                        named = quarantined_by(await self._opened(chained))
                    except IntegrityError:
                        continue
                    if named is not None:
                        yield named
                if step.failure is not None:
                    raise step.failure
                if reached is not None:
                    yield None

    async def _steps(
        self, machine: FollowMachine, at_hand: AtHand = nothing_at_hand
    ) -> AsyncGenerator[tuple[Step, HeadRef | None], None]:
        """What is proven next, and the log's head if that reaches it; for ever."""
        pause_s = FOLLOW_RETRY_S
        while True:
            try:
                async with aclosing(self._list(machine)) as listing:
                    async for step in listing:
                        yield step
                pause_s = FOLLOW_RETRY_S
                async with aclosing(self._watch(machine, at_hand)) as changes:
                    async for step in changes:
                        yield step
            except Compacted:
                log.info("store compacted, listing again", after=machine.next_revision)
            except Unavailable as failure:
                log.warning("store does not answer, trying again", reason=failure.message)
                await self._clock.sleep(pause_s * (0.5 + self._entropy.jitter()))
                pause_s = min(2 * pause_s, FOLLOW_RETRY_MAX_S)

    async def _list(self, machine: FollowMachine) -> AsyncGenerator[tuple[Step, HeadRef | None], None]:
        position = machine.begin_listing(await self._driver.read_head())
        revision: int | None = None
        while True:
            page = await self._driver.read_frames(position, FOLLOW_PAGE_FRAMES, revision)
            self.contact_s = self._clock.monotonic_s()
            yield machine.on_page(page, first=revision is None), None if page.more else machine.head
            if not page.more:
                return
            revision, position = page.revision, page.frames[-1].last

    async def _watch(
        self, machine: FollowMachine, at_hand: AtHand
    ) -> AsyncGenerator[tuple[Step, HeadRef | None], None]:
        async with aclosing(self._driver.watch(machine.next_revision)) as changes:
            async for change in changes:
                self.contact_s = self._clock.monotonic_s()
                before = machine.head
                step = machine.on_change(change, at_hand)
                if step.relist:
                    log.warning("watch does not continue the log, listing again", reason=step.relist)
                    return
                if step.failure or machine.head != before:
                    yield step, machine.head

    async def _give(
        self, step: Step, reached: HeadRef | None, quarantined: Mapping[Position, Quarantined]
    ) -> AsyncGenerator[FollowBatch, None]:
        """Open the step's records and yield them: with `reached`, up to that head. Then raise what went wrong."""
        failure = step.failure
        opened: list[Record] = []
        given = 0
        for number, chained in enumerate(step.records):
            try:
                named = quarantined.get(chained.as_head.at) if quarantined else None
                opened.append(await self._opened(chained) if named is None else stand_in(named))
            except IntegrityError as broken:
                failure = broken
                break
            if len(opened) == FOLD_BATCH_RECORDS and number + 1 < len(step.records):
                yield FollowBatch(tuple(opened), HeadRef(chained.as_head, chained.mod_revision), caught_up=False)
                given, opened = number + 1, []
                await self._clock.sleep(0)
        if reached is not None and failure is None:
            yield FollowBatch(tuple(opened), reached, caught_up=True)
        elif opened:
            last = step.records[given + len(opened) - 1]
            yield FollowBatch(tuple(opened), HeadRef(last.as_head, last.mod_revision), caught_up=False)
        if failure is not None:
            raise failure

    async def _opened(self, chained: ChainedRecord) -> Record:
        log_id, at = chained.as_head.log_id, chained.as_head.at
        try:
            record = open_envelope(chained.envelope, log_id, at, self._keyring)
        except MissingKey:
            # A data key drawn since the last load.
            await self._load_new_keys(log_id)
            record = open_envelope(chained.envelope, log_id, at, self._keyring)
        return record if record.blob is None else await self._fetch(record, log_id)

    async def _fetch(self, record: Record, log_id: str) -> Record:
        # Waits here for the store, for the reason that `_load_new_keys` does.
        while True:
            try:
                return await fetch(record, log_id, parts_in(self._driver), self._keyring)
            except Unavailable as failure:
                log.warning("store does not answer, cannot read a blob", reason=failure.message)
                await self._clock.sleep(FOLLOW_RETRY_S)

    async def _load_new_keys(self, log_id: str) -> None:
        # Waits here, not in `follow`: the records at hand are taken off the chain already and must not be dropped.
        while True:
            try:
                return await self._keyring.load(log_id)
            except Unavailable as failure:
                log.warning("store does not answer, cannot load data keys", reason=failure.message)
                await self._clock.sleep(FOLLOW_RETRY_S)


def _trimmed(known: Position, head: Position) -> LogTrimmed:
    return LogTrimmed(
        f"The log goes from {known} to {head}, but the records between are not in the store: run `meshlog fsck` and "
        "restore from the archive"
    )
