"""The trim duty: what the archive has, and a reproduced checkpoint covers, leaves etcd. Nothing else does.

    upto = the least of  the archive's mark,
                         the newest but one of the checkpoints that are reproduced and were opened and verified here
                         (the newest, when etcd is short of space), so that one damaged checkpoint is no loss,
                         the head less `keep_events`

Each step is one Txn that compares the archive's mark and the checkpoint's manifest as they were read. What was true
when they were read stays true, so a late trim takes nothing that a timely one would not: that is why trimming may be
done without the duty when no lease can be had, which is so when etcd is full.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Generic, NamedTuple

import structlog

from cluster.duties import FenceFell
from cluster.members import Member
from eventlog import blobs
from eventlog.archive.archiver import MARK
from eventlog.archive.manifest import decode_mark
from eventlog.checkpoints import (
    CheckpointManifest,
    list_checkpoints,
    manifest_name,
    parse_manifest,
    read_checkpoint,
)
from eventlog.driver import Fence, HeadMoved, LogDriver
from eventlog.fenced import settled
from eventlog.keys.keyring import Keyring
from mesh.errors import Damaged
from mesh.fold import Fold, S
from mesh.position import Position
from projector.reproduction import Reproduced
from runtime.clock import Clock
from runtime.limits import BLOB_TXN_PARTS, TRIM_LOOK_S, TRIM_STEP_EVENTS

log = structlog.get_logger(__name__)


class Facts(NamedTuple):
    """What a trim is decided on, as read from the store. `archived` None: there is no archive."""

    head: Position
    first: Position | None
    archived: Position | None
    sound: Sequence[Position]
    revisions: Mapping[str, int]


def trim_target(facts: Facts, keep_events: int, *, pressed: bool) -> Position | None:
    """Up to where to trim; None: there is nothing that may go. `pressed`: etcd is short of space."""
    sound = sorted(at for at in facts.sound if at.epoch == facts.head.epoch)
    spare = 0 if pressed else 1
    if facts.archived is None or facts.archived.epoch != facts.head.epoch or len(sound) <= spare:
        return None
    kept = 0 if pressed else keep_events
    number = min(facts.archived.position, sound[-1 - spare].position, facts.head.position - kept)
    upto = Position(facts.head.epoch, number)
    return upto if facts.first is not None and upto >= facts.first else None


def reproduced_by_another(manifest: CheckpointManifest, members: Iterable[Member]) -> bool:
    """Whether a living member other than the maker came to this checkpoint's state by its own fold."""
    claim = str(Reproduced(manifest.at.at, manifest.state_hash))
    return any(claim in member.reproduced.split() and member.id != manifest.made_by for member in members)


class TrimDuty(Generic[S]):
    """Trims one log. `work` is for `cluster.duties.run_duty`; `trimmed` is how far it has come."""

    def __init__(
        self,
        fold: Fold[S],
        driver: LogDriver,
        keyring: Keyring,
        members: Callable[[], Awaitable[Sequence[Member]]],
        pressed: Callable[[], bool],
        *,
        keep_events: int,
        clock: Clock,
    ) -> None:
        self._fold = fold
        self._driver, self._keyring, self._members, self._pressed = driver, keyring, members, pressed
        self._keep_events, self._clock = keep_events, clock
        self._sound: set[Position] = set()
        self._refused: set[Position] = set()
        self.trimmed: Position | None = None
        self._unfinished = False

    async def work(self, fence: Fence) -> None:
        """Trim what may go, now and then, until cancelled. FenceFell, NoQuorum."""
        while True:
            while await self.step(fence):
                pass
            await self._clock.sleep(TRIM_LOOK_S)

    async def step(self, fence: Fence | None) -> bool:
        """Look, and trim TRIM_STEP_EVENTS at most; True: look again at once. `fence` None: see the module."""
        facts = await self._facts()
        upto = trim_target(facts, self._keep_events, pressed=self._pressed())
        if upto is None or facts.first is None:
            await self._finish()
            return False
        upto = min(upto, Position(upto.epoch, facts.first.position + TRIM_STEP_EVENTS))
        result = await settled(lambda: self._driver.trim(upto, expected=facts.revisions, fence=fence), self._clock)
        if isinstance(result, HeadMoved):
            if await self._unchanged(facts.revisions):
                raise FenceFell
            return True
        self.trimmed, self._unfinished = upto, True
        return True

    async def _finish(self) -> None:
        """After the last step: blobs that nothing names any more."""
        if self.trimmed is None or not self._unfinished:
            return
        gone = list((await blobs.removable(self._driver, self.trimmed)).items())
        for start in range(0, len(gone), BLOB_TXN_PARTS):
            portion = dict(gone[start : start + BLOB_TXN_PARTS])
            await settled(partial(self._driver.write_entries, dict.fromkeys(portion), expected=portion), self._clock)
        log.info("log trimmed", upto=str(self.trimmed), blob_parts=len(gone))
        self._unfinished = False

    async def _unchanged(self, revisions: Mapping[str, int]) -> bool:
        entries = {name: await self._driver.read_entry(name) for name in revisions}
        return all(entry is not None and entry.mod_revision == revisions[name] for name, entry in entries.items())

    async def _facts(self) -> Facts:
        head = await self._driver.read_head()
        mark = await self._driver.read_entry(MARK)
        if head is None or mark is None:
            return Facts(Position(0, 0), None, None, (), {})
        archived = decode_mark(mark.value).head
        same_log = archived.log_id == head.head.log_id
        page = await self._driver.read_frames(Position(head.head.epoch, 0), 1)
        revisions = {MARK: mark.mod_revision}
        members = await self._members()
        for at in await list_checkpoints(self._driver):
            entry = await self._driver.read_entry(manifest_name(at))
            if entry is not None and await self._is_sound(at, entry.value, members):
                revisions[manifest_name(at)] = entry.mod_revision
        sound = [at for at in self._sound if manifest_name(at) in revisions]
        first = page.frames[0].last if page.frames else None
        return Facts(head.head.at, first, archived.at if same_log else None, sound, revisions)

    async def _is_sound(self, at: Position, manifest_bytes: bytes, members: Sequence[Member]) -> bool:
        """Whether another process has reproduced it and, opened here from what is stored, it is what it says."""
        if at in self._sound:
            return True
        if at in self._refused:
            return False
        try:
            if not reproduced_by_another(parse_manifest(manifest_bytes), members):
                return False
            opened = await read_checkpoint(self._driver, self._keyring, at)
            if opened is None:
                return False
            state = await asyncio.to_thread(lambda: self._fold.from_documents(opened.config, opened.secrets))
        except Damaged as damage:
            log.error("a checkpoint cannot be trimmed under", at=str(at), error=damage.message)  # noqa: TRY400
            self._refused.add(at)
            return False
        if self._fold.state_hash(state) != opened.manifest.state_hash:
            log.error("a checkpoint does not hold the state that it names", at=str(at))
            self._refused.add(at)
            return False
        self._sound.add(at)
        return True
