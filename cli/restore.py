"""A restore planned: the archive read and opened, the moment found, the loss told. Changes nothing.

    archive + keys + who still lives → `Prepared`: the state to restore, and a journal whose first step is still to come

Whatever is missing or damaged shows here, before anything is touched (I7). The steps themselves are in `cli.rebuild`.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from api.history import event_document
from cli.moments import Moment, parse_moment
from cli.restore_registry import (
    PreparedRegistry,
    RegistrySource,
    archive_reaches,
    prepare_registry,
    resume_registry,
)
from eventlog.archive.store import ObjectStore
from eventlog.blobs import parts_in
from eventlog.chain import Chain
from eventlog.drivers.etcd import EtcdDriver
from eventlog.fsck import fsck
from eventlog.keys.provider import KeyProvider
from eventlog.records import Head, KeyClass
from eventlog.restore import LATEST, Journal, Kind, Witness, check_target, loss, new_epoch
from mesh.errors import Conflict, MeshlogError, MissingKey, Unavailable
from mesh.events import RESTRICTING_TYPES, Event
from mesh.fold import MESH_FOLD
from mesh.position import Position
from projector.refold import OpenArchive, Progress, Refolded, open_archive, opened, read_records, refold
from projector.replica import event_of
from runtime.clock import Clock, Entropy
from runtime.limits import FOLLOW_PAGE_FRAMES, RESTORE_ARCHIVE_WAIT_S, RESTORE_ETCD_ASK_S, RESTORE_POLL_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was asked for. `to`: `latest`, a position, or a time."""

    to: str
    reason: str
    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the logs are read from. `driver`: the old etcd, if there may be one that still answers."""

    store: ObjectStore
    providers: Mapping[KeyClass, KeyProvider]
    registry: RegistrySource
    driver: EtcdDriver | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """All that the steps need, in memory. Nothing of the journal was written yet."""

    journal: Journal
    archive: OpenArchive
    state: Refolded
    registry: PreparedRegistry | None = None
    witnesses: tuple[Witness, ...] = ()


class Preparation:
    """Plans one restore. `witnesses(after)` asks the living roles; `progress` hears how far the fold is."""

    def __init__(
        self,
        source: Source,
        clock: Clock,
        entropy: Entropy,
        witnesses: Callable[[Position], Sequence[Witness]],
        progress: Progress | None = None,
    ) -> None:
        self._source = source
        self._clock = clock
        self._entropy = entropy
        self._witnesses = witnesses
        self._progress = progress

    async def prepare(self, wish: Wish, known: Sequence[Witness] = (), *, writers_stopped: bool = False) -> Prepared:
        """`known`: witnesses that were heard before they were stopped. With the writers, the archiver has stopped too.

        Raises Unavailable, NotFound, Damaged, MissingKey, WrongKey, BadRequest or Conflict; changes nothing.
        """
        source = self._source
        living = await self._old_head()
        if living is not None and wish.kind is Kind.CLUSTER:
            if wish.to == LATEST and await self._is_sound():
                raise Conflict(
                    f"etcd still answers and has the whole log, sound up to {living.at}: there is nothing to restore. "
                    "To go back, name an earlier moment with --to, or use `meshlog rollback` for a mesh"
                )
            if not writers_stopped:
                await self._archive_reaches(living)
                await archive_reaches(source.registry, self._clock)
        archive = await self._open()
        index = archive.index
        target = await self._target(archive, wish.to)
        check_target(wish.to, target, index.first, index.head.at)
        state = await refold(MESH_FOLD, archive, target, progress=self._progress)
        archived = await self._beyond(archive, state.head)
        witnesses = [*known, *await asyncio.to_thread(self._witnesses, index.head.at)]
        if living is not None:
            witnesses.append(Witness("etcd", living.at, await self._in_etcd(archive, living)))
        lost = loss(state.base.at, index.head.at, [event_document(event) for event in archived], witnesses)
        epochs = [claim.epoch for claim in index.claims]
        journal = Journal(
            restore_id=f"restore-{self._entropy.uuid()}",
            kind=wish.kind,
            source=source.store.place,
            asked=wish.to,
            reason=wish.reason,
            base=state.base,
            head=new_epoch(state.base, epochs),
            loss=lost,
            archive_head=index.head.at,
            begun_us=self._clock.now_us(),
            restricting=tuple(_restricting(archived, witnesses)),
        )
        if wish.kind is Kind.CLONE:
            journal = _of_its_own(journal, self._entropy.uuid())
        registry = await prepare_registry(source.registry, journal, witnesses, self._entropy.uuid(), self._progress)
        if registry is not None:
            journal = dataclasses.replace(journal, registry=registry.journal)
        return Prepared(journal=journal, archive=archive, state=state, registry=registry, witnesses=tuple(witnesses))

    async def resume(self, journal: Journal) -> Prepared:
        """What a restore under way goes on with."""
        archive = await self._open()
        at = Position(journal.base.epoch, journal.base.position)
        state = await refold(MESH_FOLD, archive, at, progress=self._progress)
        registry = None
        if journal.registry is not None:
            registry = await resume_registry(self._source.registry, journal.registry, self._progress)
        return Prepared(journal=journal, archive=archive, state=state, registry=registry)

    async def _open(self) -> OpenArchive:
        if not self._source.providers.keys() >= {KeyClass.CONFIG, KeyClass.SECRETS}:
            raise MissingKey(
                "A restore needs the key-encryption keys of both classes, config and secrets, and one is not given "
                "here: access keys would be lost. Set it in the API server's settings, or name it with --keys"
            )
        return await open_archive(self._source.store, self._source.providers)

    async def _target(self, archive: OpenArchive, to: str) -> Position:
        index = archive.index
        if to == LATEST:
            return index.head.at
        moment: Moment = parse_moment(to, self._clock.now_us())
        if moment.time_us is not None:
            return await archive.reader.position_at(moment.time_us)
        number = moment.position
        found = Position(moment.epoch or index.epoch_at(number), number)
        if number <= index.head.position:
            index.check_on_timeline(found)
        return found

    async def _beyond(self, archive: OpenArchive, after: Head) -> list[Event]:
        events: list[Event] = []
        async with aclosing(read_records(archive, after, archive.index.head.at)) as records:
            async for record, _ in records:
                events.append(event_of(record))
        return events

    async def _old_head(self) -> Head | None:
        """The old etcd's head, if a quorum of it answers."""
        if self._source.driver is None:
            return None
        try:
            async with asyncio.timeout(RESTORE_ETCD_ASK_S):
                found = await self._source.driver.read_head()
        except (TimeoutError, MeshlogError):
            return None
        return None if found is None else found.head

    async def _is_sound(self) -> bool:
        """Whether every record, checkpoint and key that the old etcd holds is what was stored; no key is needed."""
        assert self._source.driver is not None  # noqa: S101 - its head was read
        return (await fsck(self._source.driver, None)).clean

    async def _in_etcd(self, archive: OpenArchive, head: Head) -> list[dict[str, Any]]:
        """What only the old etcd has: the events between the archive's head and its own."""
        assert self._source.driver is not None  # noqa: S101 - its head was read
        chain, found = Chain(archive.index.head), []
        while chain.point.position < head.position:
            page = await self._source.driver.read_frames(chain.point.at, FOLLOW_PAGE_FRAMES)
            records, failure = chain.extend(page.frames)
            if failure is not None:
                raise failure
            held = None if page.more or page.head is None else chain.settle(page.head.head)
            for each in (*records, *([held] if held else [])):
                record = await opened(archive, each, parts_in(self._source.driver))
                found.append(event_document(event_of(record)))
            if not page.more:
                break
        return found

    async def _archive_reaches(self, head: Head) -> None:
        """Wait until the archive has all that etcd has: what is left behind is to be kept there."""
        deadline_s = self._clock.monotonic_s() + RESTORE_ARCHIVE_WAIT_S
        while True:
            archive = await open_archive(self._source.store, self._source.providers)
            reached = archive.index.head.at
            if reached >= head.at:
                return
            if self._clock.monotonic_s() > deadline_s:
                raise Unavailable(
                    f"The archive in {self._source.store.place} is at {reached}, etcd at {head.at}: going back now "
                    "would lose what only etcd has. See why the archive is behind with `meshlog status`, and try again"
                )
            await self._clock.sleep(RESTORE_POLL_S)


def _restricting(archived: Sequence[Event], witnesses: Sequence[Witness]) -> list[dict[str, Any]]:
    """What took access away, each once, in order of position."""
    found: dict[int, dict[str, Any]] = {}
    for event in archived:
        if event.type in RESTRICTING_TYPES and event.data is not None:
            found[event.position.position] = event_document(event)
    for witness in witnesses:
        for document in witness.events:
            if document["type"] in RESTRICTING_TYPES:
                found.setdefault(document["position"], dict(document))
    fields = ("type", "account", "actor", "data")
    return [{name: found[at][name] for name in fields} for at in sorted(found)]


def _of_its_own(journal: Journal, log_id: str) -> Journal:
    """A clone's log has an id of its own: nothing that one of the two logs signs or seals fits the other."""
    return dataclasses.replace(
        journal, base=journal.base._replace(log_id=log_id), head=journal.head._replace(log_id=log_id)
    )
