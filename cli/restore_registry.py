"""The registry's part of a restore: its newest archived state, whatever moment the meshes go back to.

A registry is never rolled back: who was there at ten is not there now. So it is restored as a timeline of its own, in
an epoch of its own, that goes on from all that its archive holds. It has no writes that somebody could be asked about:
instances register again, and what is beyond the archive is counted, not named.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eventlog.archive.reader import ArchiveReader
from eventlog.archive.store import ObjectStore
from eventlog.driver import LogDriver
from eventlog.keys.provider import KeyProvider
from eventlog.records import KeyClass
from eventlog.restore import LATEST, Journal, Kind, Witness, loss, new_epoch
from mesh.errors import IntegrityError, MeshlogError, Unavailable
from mesh.position import Position
from mesh.registry.fold import REGISTRY_FOLD
from mesh.registry.state import RegistryState
from projector.refold import OpenArchive, Progress, Refolded, open_archive, refold
from runtime.clock import Clock
from runtime.limits import RESTORE_ARCHIVE_WAIT_S, RESTORE_POLL_S


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySource:
    """Where it is read from: the registry's folder of the archive. `driver`: the old etcd's, if it still answers."""

    store: ObjectStore
    providers: Mapping[KeyClass, KeyProvider]
    driver: LogDriver | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRegistry:
    """All that the steps need, in memory."""

    journal: Journal
    archive: OpenArchive
    state: Refolded[RegistryState]


async def prepare_registry(
    source: RegistrySource, beside: Journal, witnesses: Sequence[Witness], log_id: str, progress: Progress | None
) -> PreparedRegistry | None:
    """What the restore of `beside` does to the registry; None where the archive has none: an empty one is made.

    `log_id`: that of a clone. Raises Unavailable, Damaged, MissingKey, WrongKey; changes nothing.
    """
    if await ArchiveReader(source.store).load_if_any() is None:
        return None
    archive, state = await _newest(source, None, progress)
    index = archive.index
    heard = [Witness(each.name, each.registry) for each in witnesses if each.registry is not None]
    journal = dataclasses.replace(
        beside,
        source=source.store.place,
        asked=LATEST,
        base=state.base,
        head=new_epoch(state.base, [claim.epoch for claim in index.claims]),
        loss=loss(state.base.at, index.head.at, [], heard),
        archive_head=index.head.at,
        restricting=(),
        registry=None,
        done=(),
    )
    if beside.kind is Kind.CLONE:
        base, head = journal.base._replace(log_id=log_id), journal.head._replace(log_id=log_id)
        journal = dataclasses.replace(journal, base=base, head=head)
    return PreparedRegistry(journal=journal, archive=archive, state=state)


async def resume_registry(source: RegistrySource, journal: Journal, progress: Progress | None) -> PreparedRegistry:
    """What a restore under way goes on with."""
    archive, state = await _newest(source, journal.base.at, progress)
    return PreparedRegistry(journal=journal, archive=archive, state=state)


async def archive_reaches(source: RegistrySource, clock: Clock) -> None:
    """Wait until the archive has all that a living etcd has of the registry; Unavailable if that takes too long."""
    try:
        head = None if source.driver is None else await source.driver.read_head()
    except MeshlogError:
        return
    deadline_s = clock.monotonic_s() + RESTORE_ARCHIVE_WAIT_S
    while head is not None and head.head.position:
        index = await ArchiveReader(source.store).load_if_any()
        if index is not None and index.head.at >= head.head.at:
            return
        if clock.monotonic_s() > deadline_s:
            reached = "nothing" if index is None else index.head.at
            raise Unavailable(
                f"The registry's archive in {source.store.place} is at {reached}, etcd at {head.head.at}: going back "
                "now would lose what only etcd has. See why the archive is behind with `meshlog status`, and try again"
            )
        await clock.sleep(RESTORE_POLL_S)


async def _newest(
    source: RegistrySource, upto: Position | None, progress: Progress | None
) -> tuple[OpenArchive, Refolded[RegistryState]]:
    try:
        archive = await open_archive(source.store, source.providers)
        return archive, await refold(REGISTRY_FOLD, archive, upto or archive.index.head.at, progress=progress)
    except IntegrityError as failure:
        raise type(failure)(
            f"{failure.message} (this is the registry's archive, {source.store.place}: move it away to restore the "
            "meshes without it, and let every instance register again)"
        ) from failure
