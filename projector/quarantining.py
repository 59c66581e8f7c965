"""What it would come to to put a record in quarantine: the log is folded with and without it. Nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from eventlog.driver import LogDriver
from eventlog.keys.keyring import Keyring
from eventlog.quarantine import Quarantined, read_stored
from eventlog.records import Record
from eventlog.sealing import open_record
from mesh.errors import Conflict, IntegrityError, NotFound, NotReady
from mesh.fold import S
from mesh.position import Position
from projector.replica import Replica
from runtime.limits import EXAMINE_DEADLINE_S
from runtime.supervise import Supervisor

MakeReplica: TypeAlias = Callable[[tuple[Quarantined, ...]], Replica[S]]
"""A replica that takes these records as quarantined, whatever the log says."""


class Examined(NamedTuple):
    """A record that may be put in quarantine.

    `stops` says why no replica gets past it; None if it is sound, and then `record` says what would be lost. `next`
    says what stops the fold once this record is passed over; None if nothing does.
    """

    named: Quarantined
    record: Record | None
    stops: str | None
    next: str | None


async def examine(driver: LogDriver, keyring: Keyring, replica: MakeReplica[S], position: Position) -> Examined:
    """Look at the record at `position`. NotFound, Conflict (it is quarantined already, or another one stops the
    fold), NoQuorum."""
    head = await driver.read_head()
    if head is None or not 0 < position.position <= head.head.position:
        raise NotFound(f"The log has no record {position}")
    await keyring.load(head.head.log_id)
    stored = await read_stored(driver, position)
    try:
        record = open_record(stored, head.head.log_id, position, keyring)
    except IntegrityError:
        record = None
    by = Position(head.head.epoch, head.head.position + 1)
    named = Quarantined(position, record.time_us if record is not None else 0, by)
    now = replica(())
    stops = await _fold(now)
    if position in now.quarantined:
        raise Conflict(f"Record {position} is quarantined already, by record {now.quarantined[position].by}")
    blocked = now.position.position + 1
    if stops is not None and blocked != position.position:
        raise Conflict(f"What stops the fold is record {blocked}, not {position}: look at that one first. {stops}")
    return Examined(named, record, stops, await _fold(replica((named,))))


async def _fold(replica: Replica[S]) -> str | None:
    """Fold up to the head; what stopped it, if anything did."""
    async with Supervisor() as tasks:
        tasks.start(replica.run(), "replica")
        try:
            await replica.confirmed(EXAMINE_DEADLINE_S)
        except (NotReady, IntegrityError):
            if replica.halted is None:
                raise
    return replica.halted
