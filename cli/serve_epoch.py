"""An API server that has lost its etcd looks whether a restore has begun another epoch, and ends if so.

A restore makes etcd's credentials anew, so a server of the old epoch would otherwise wait for ever for members that do
not let it in. It looks only while no quorum answers: a healthy cluster costs no call.
"""

from __future__ import annotations

from typing import Protocol

import structlog

from eventlog.archive.reader import ArchiveReader
from eventlog.archive.store import ObjectStore
from mesh.errors import TimelineMoved, Unavailable
from mesh.position import Position
from runtime.clock import Clock
from runtime.limits import CONFIRMED_AGE_READY_S, EPOCH_LOOK_S


class Folded(Protocol):
    """What is needed of `projector.replica.Replica`."""

    @property
    def ready(self) -> bool: ...

    @property
    def position(self) -> Position: ...

    @property
    def confirmed_age_s(self) -> float: ...


log = structlog.get_logger(__name__)


async def end_with_the_epoch(store: ObjectStore, replica: Folded, clock: Clock) -> None:
    """Raise TimelineMoved once the archive has a claim of a later epoch than this server's; else go on for ever."""
    while True:
        await clock.sleep(EPOCH_LOOK_S)
        # Before the log was read once, this server is of no epoch yet.
        if not replica.ready or replica.confirmed_age_s < CONFIRMED_AGE_READY_S:
            continue
        try:
            claims = await ArchiveReader(store).claims()
        except Unavailable as failure:
            log.info("the archive's epochs cannot be read", reason=failure.message)
            continue
        later = max((claim.epoch for claim in claims), default=0)
        if later > replica.position.epoch:
            raise TimelineMoved(
                f"A restore has begun epoch {later}, as the archive in {store.place} says, and this server is of epoch "
                f"{replica.position.epoch}: start it again, with the certificates that the restore made for etcd"
            )
