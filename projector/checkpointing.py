"""The checkpoint duty: now and then the folded state is sealed, signed and stored, and old ones are deleted.

A checkpoint stands at the end of a frame, so that a follower can go on after it. It must never hold a state of another
point than its manifest names, and never be deleted while it is one of the newest CHECKPOINTS_KEPT.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Generic, Protocol

import structlog

from eventlog.checkpoints import (
    PREFIX,
    CheckpointPlace,
    delete_checkpoint,
    list_checkpoints,
    manifest_name,
    parse_manifest,
    parse_place,
    seal_checkpoint,
    write_checkpoint,
)
from eventlog.driver import Fence, LogDriver
from eventlog.keys.keyring import Keyring
from eventlog.records import Head, HeadRef, KeyClass
from eventlog.signing import signing_key
from mesh.errors import Damaged
from mesh.fold import Fold, S, S_co
from mesh.position import ORIGIN, Position
from runtime.clock import Clock, Entropy
from runtime.limits import CHECKPOINT_GAP_S, CHECKPOINT_LOOK_S, CHECKPOINTS_KEPT
from runtime.settings import DutySettings

log = structlog.get_logger(__name__)


class Folded(Protocol[S_co]):
    """What is used of `projector.replica.Replica`."""

    @property
    def state(self) -> S_co: ...

    @property
    def head_ref(self) -> HeadRef: ...

    @property
    def ready(self) -> bool: ...

    @property
    def halted(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class LastCheckpoint:
    """The newest one. `made_us`: wall clock of its maker; 0 for none."""

    at: Position
    made_us: int


def is_due(last: LastCheckpoint, position: Position, now_us: int, settings: DutySettings) -> bool:
    """Whether a checkpoint is to be made at `position`.

    After so many events, but never twice within CHECKPOINT_GAP_S; or after so long, if there was an event at all.
    """
    events = position.position - last.at.position
    since_s = max(0.0, (now_us - last.made_us) / 1e6)
    if position <= last.at or events <= 0:
        return False
    many = events >= settings.checkpoint_events and since_s >= min(CHECKPOINT_GAP_S, settings.checkpoint_every_s)
    return many or (since_s >= settings.checkpoint_every_s and last.made_us > 0)


class CheckpointDuty(Generic[S]):
    """Makes checkpoints of one replica's state. `work` is for `cluster.duties.run_duty`."""

    def __init__(
        self,
        fold: Fold[S],
        replica: Folded[S],
        driver: LogDriver,
        keyring: Keyring,
        settings: DutySettings,
        *,
        member_id: str,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._fold = fold
        self._replica, self._driver, self._keyring, self._settings = replica, driver, keyring, settings
        self._member_id, self._clock, self._entropy = member_id, clock, entropy

    async def work(self, fence: Fence) -> None:
        """Make what is due, until cancelled. FenceFell, NoQuorum, and whatever a key that is wrong raises."""
        last = await self._last()
        while True:
            state, head = self._replica.state, self._point()
            due = head is not None and is_due(last, head.at, self._clock.now_us(), self._settings)
            if due and head is not None and await self._ends_a_frame(head):
                await self.make(state, head, fence)
                last = LastCheckpoint(head.at, self._clock.now_us())
                await self.tidy(fence)
            await self._clock.sleep(CHECKPOINT_LOOK_S)

    async def make(self, state: S, head: Head, fence: Fence) -> None:
        """Seal and store `state`, which is the fold up to `head`."""
        signer = await signing_key(self._driver, self._keyring, head.log_id, self._clock, self._entropy)
        config, secrets = await self._keyring.sealing_keys(head.log_id, KeyClass.SECRETS)
        assert secrets is not None  # noqa: S101 - asked for
        place = CheckpointPlace(head, state.position, state.time_us, state.level, self._fold.state_hash(state))
        now_us = self._clock.now_us()
        # Seconds for a large state; it is immutable, so a thread may look at it.
        sealed = await asyncio.to_thread(
            lambda: seal_checkpoint(
                self._fold.to_documents(state),
                place,
                (config, secrets),
                signer,
                created_us=now_us,
                entropy=self._entropy,
                made_by=self._member_id,
            )
        )
        await write_checkpoint(self._driver, fence, sealed, self._clock)
        size_bytes = sum(map(len, sealed.parts.values()))
        log.info("checkpoint made", at=str(head.at), size_bytes=size_bytes, parts=len(sealed.parts))

    async def tidy(self, fence: Fence) -> None:
        """Delete all but the newest CHECKPOINTS_KEPT, and what unfinished ones left."""
        whole = await list_checkpoints(self._driver)
        kept = set(whole[-CHECKPOINTS_KEPT:])
        names = await self._driver.list_entries(PREFIX, keys_only=True)
        there = {place for name in names if (place := parse_place(name)) is not None}
        for at in sorted(there - kept):
            if kept and at < max(kept):
                await delete_checkpoint(self._driver, fence, at, self._clock)

    def _point(self) -> Head | None:
        """The point that the state is the fold of, if there is one to stand on."""
        replica = self._replica
        if not replica.ready or replica.halted is not None:
            return None
        head = replica.head_ref.head
        return head if head.at == replica.state.position else None

    async def _ends_a_frame(self, head: Head) -> bool:
        page = await self._driver.read_frames(Position(head.epoch, head.position - 1), 1)
        return bool(page.frames) and page.frames[0].last == head.at

    async def _last(self) -> LastCheckpoint:
        for at in reversed(await list_checkpoints(self._driver)):
            entry = await self._driver.read_entry(manifest_name(at))
            try:
                if entry is not None:
                    return LastCheckpoint(at, parse_manifest(entry.value).created_us)
            except Damaged:
                continue
        # Of a log that has none yet, the age is that of this tenure.
        return LastCheckpoint(ORIGIN, self._clock.now_us())
