"""Quarantine: an operator's record that says of another one that it does not count. Written with the head alone.

A record that cannot be opened, or not folded, stops every replica before it. The way out is one more record, of type
RecordQuarantined, that names it; who meets the bad record looks for that one further on, without folding what is
between. A quarantined record moves position and time and nothing else, in every role alike, also in one that could
open it: so the naming record says which time is taken for its own.

    data of a RecordQuarantined   {position: [epoch, position], time_us, reason}
"""

from __future__ import annotations

from typing import NamedTuple

from eventlog.driver import LogDriver
from eventlog.frames import decode_frame
from eventlog.keys.keyring import Keyring
from eventlog.records import Head, KeyClass, NewRecord, Record
from eventlog.sealing import open_record
from eventlog.writer import Appended, LogWriter
from mesh.errors import Damaged, IntegrityError, NotFound, NotReady, Unavailable
from mesh.position import Position
from runtime.limits import QUARANTINE_RACES_MAX

RECORD_QUARANTINED = "RecordQuarantined"
_SCHEMA = 1


class Quarantined(NamedTuple):
    """A record that does not count, the log time that is taken for its own (0 where nobody could read it), and the
    position of the record that says so."""

    position: Position
    time_us: int
    by: Position

    def voids(self, at: Position) -> bool:
        """Whether a fold up to there may have counted it: one that came to `by` left it out."""
        return self.position <= at < self.by


class Operator(NamedTuple):
    """Who quarantines, as the record tells."""

    account: str
    actor: str
    request_id: str


def quarantined_by(record: Record) -> Quarantined | None:
    """What the record puts in quarantine; None if it is of any other type. Damaged if it does not say."""
    if record.type != RECORD_QUARANTINED:
        return None
    try:
        data = record.data or {}
        epoch, number = data["position"]
        named = Quarantined(Position(epoch, number), data["time_us"], record.position)
    except (KeyError, TypeError, ValueError) as failure:
        raise Damaged(f"Record {record.position} quarantines nothing that can be read: run a newer build") from failure
    sound = all(type(value) is int for value in (*named.position, named.time_us))
    if not sound or not named.voids(named.position):
        raise Damaged(f"Record {record.position} does not quarantine a record before it")
    return named


def stand_in(quarantined: Quarantined) -> Record:
    """What every reader gets in the record's place: folding it moves position and time."""
    at, time_us, _by = quarantined
    return Record(at, time_us, 0, RECORD_QUARANTINED, _SCHEMA, "", "", "", "", None, {}, KeyClass.CONFIG)


async def read_stored(driver: LogDriver, position: Position) -> bytes:
    """The stored record at `position`; NotFound if the store does not have it. Damaged, NoQuorum."""
    page = await driver.read_frames(Position(position.epoch, position.position - 1), limit=1)
    for frame in page.frames:
        stored_records = decode_frame(frame.value, frame.last)
        first = frame.last.position - len(stored_records) + 1
        if first <= position.position <= frame.last.position:
            return stored_records[position.position - first]
    raise NotFound(f"The log in etcd has no record {position}: `meshlog fsck` says where it begins and ends")


async def quarantine(
    driver: LogDriver,
    keyring: Keyring,
    writer: LogWriter,
    *,
    position: Position,
    time_us: int,
    reason: str,
    operator: Operator,
) -> Appended:
    """Append the record that puts another one in quarantine. Needs no fold: the head says all that an append needs.

    Raises what `LogWriter.append` does, NotReady if there is no log, and Unavailable if others kept winning the head.
    """
    new = NewRecord(
        RECORD_QUARANTINED,
        _SCHEMA,
        operator.account,
        operator.actor,
        "",
        operator.request_id,
        None,
        {"position": [*position], "time_us": time_us, "reason": reason},
    )
    for _ in range(QUARANTINE_RACES_MAX):
        head = await driver.read_head()
        if head is None:
            raise NotReady("There is no log in the store yet")
        result = await writer.append(head, [new], await last_time_us(driver, keyring, head.head))
        if isinstance(result, Appended):
            return result
    raise Unavailable("Other writers kept winning the log's head; nothing was written. Try again.")


async def last_time_us(driver: LogDriver, keyring: Keyring, head: Head) -> int:
    """Log time at the head; 0 if its record does not open, since the wall clock must do then."""
    if head.position == 0:
        return 0
    try:
        return open_record(await read_stored(driver, head.at), head.log_id, head.at, keyring).time_us
    except (IntegrityError, NotFound):
        return 0
