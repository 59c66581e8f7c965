"""Checking a whole log: every stored byte that can be checked, with keys or without. Reads only.

Without keys: the names of frames, contiguity, the hash chain from the first record to the head, the shape of wrapped
data keys, and that every data key that a record names is there. With keys, also that each wrapped key unwraps and that
each record opens in its place, and that log time never goes back. One fault is reported once where it is and goes on
after it, so that a report shows all of them. Nothing here knows what a record means.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from eventlog.driver import Compacted, Entry, LogDriver, RawEntry
from eventlog.frames import decode_frame, parse_frame_name
from eventlog.keys.keyring import Keyring
from eventlog.keys.wrapping import parse_wrapped
from eventlog.records import Head, genesis_head
from eventlog.sealing import open_envelope, parse_stored
from mesh.errors import Damaged, IntegrityError, MeshlogError, NoQuorum
from mesh.position import Position
from runtime.limits import FOLLOW_PAGE_FRAMES, FSCK_TRIES, MAX_FINDINGS


class Finding(NamedTuple):
    """One thing that is wrong: where (a position, a key's name) and what."""

    place: str
    message: str


@dataclass(slots=True)
class FsckReport:
    """What was checked and what was found. `opened` counts records opened, `withheld` those of them whose data is of a
    class that was not given. `findings` is cut off at MAX_FINDINGS; `more_findings` says how many were left out."""

    log_id: str = ""
    head: Head | None = None
    frames: int = 0
    records: int = 0
    opened: int = 0
    withheld: int = 0
    data_keys: int = 0
    older_epoch_frames: int = 0
    findings: list[Finding] = field(default_factory=list)
    more_findings: int = 0

    @property
    def clean(self) -> bool:
        return not self.findings

    def add(self, place: object, message: str) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(str(place), message))
        else:
            self.more_findings += 1


async def fsck(driver: LogDriver, keyring: Keyring | None, progress: Callable[[int], None] | None = None) -> FsckReport:
    """Check the log as of one moment, also while it is written. `progress` is told how many records were checked.

    Raises only Unavailable and its like; what is wrong with the log is in the report.
    """
    for _ in range(FSCK_TRIES):
        try:
            return await _fsck(driver, keyring, progress)
        except Compacted:
            continue
    raise NoQuorum("etcd compacted its history while the log was being checked, again and again: try once more")


async def _fsck(driver: LogDriver, keyring: Keyring | None, progress: Callable[[int], None] | None) -> FsckReport:
    report = FsckReport()
    try:
        page = await driver.scan("", FOLLOW_PAGE_FRAMES)
    except Damaged as damage:
        report.add("head", damage.message)
        return report
    if page.head is None:
        report.add("head", "There is no head: there is no log here, or its head was deleted")
    else:
        report.head, report.log_id = page.head.head, page.head.head.log_id
    entries = await driver.list_data_keys()
    await _check_data_keys(report, entries, keyring)
    walk = _Walk(report, keyring, progress)
    while True:
        for entry in page.entries:
            walk.take(entry)
        if not page.more:
            break
        page = await driver.scan(page.entries[-1].name, FOLLOW_PAGE_FRAMES, page.revision)
    walk.finish(entries)
    return report


async def _check_data_keys(report: FsckReport, entries: Mapping[str, Entry], keyring: Keyring | None) -> None:
    report.data_keys = len(entries)
    for key_id, entry in entries.items():
        try:
            parse_wrapped(key_id, entry.value)
        except Damaged as damage:
            report.add(f"datakey/{key_id}", damage.message)
    if keyring is None or not report.log_id:
        return
    try:
        await keyring.load(report.log_id)
    except IntegrityError as failure:
        report.add("datakey", failure.message)


class _Walk:
    """Walks the frames in order. `_point` is None after a fault that leaves the next predecessor unknown."""

    def __init__(self, report: FsckReport, keyring: Keyring | None, progress: Callable[[int], None] | None) -> None:
        self._report = report
        self._keyring = keyring
        self._progress = progress
        self._head = report.head
        self._at = 0
        self._hash = genesis_head(self._head.log_id).hash if self._head else None
        self._time_us = 0
        self._keys_named: Counter[str] = Counter()

    def take(self, entry: RawEntry) -> None:
        report, head = self._report, self._head
        last = parse_frame_name(entry.name)
        if last is None:
            report.add(f"log/{entry.name}", "This key is no frame's name: something else than Meshlog wrote it")
            return
        epoch = head.epoch if head else last.epoch
        if last.epoch < epoch:
            report.older_epoch_frames += 1
            return
        if last.epoch > epoch:
            report.add(last, f"This frame is of epoch {last.epoch}, the log's head of epoch {epoch}")
            return
        if head and last.position > head.position:
            report.add(last, f"This frame is beyond the log's head, which is at {head.at}")
            return
        report.frames += 1
        try:
            stored_records = decode_frame(entry.value, last)
        except Damaged as damage:
            report.add(last, damage.message)
            self._at, self._hash = last.position, None
            return
        first = last.position - len(stored_records) + 1
        if first != self._at + 1:
            report.add(last, f"The frame holds {first} to {last.position}, but the one before it ends at {self._at}")
            self._hash = None
        for offset, stored in enumerate(stored_records):
            self._record(Position(last.epoch, first + offset), stored)
        self._at = last.position
        if self._progress is not None:
            self._progress(report.records)

    def _record(self, position: Position, stored: bytes) -> None:
        report = self._report
        report.records += 1
        expected, self._hash = self._hash, hashlib.sha256(stored).digest()
        try:
            envelope = parse_stored(stored, position)
        except Damaged as damage:
            report.add(position, damage.message)
            return
        self._keys_named[envelope.key_id] += 1
        if expected is not None and envelope.previous_hash != expected:
            report.add(position, "The chain is broken before this record: it, or the one before it, was changed")
        if self._keyring is None:
            return
        try:
            record = open_envelope(envelope, report.log_id, position, self._keyring)
        except MeshlogError as failure:
            report.add(position, failure.message)
            return
        report.opened += 1
        report.withheld += record.data is None
        if record.time_us < self._time_us:
            report.add(position, "Log time goes back here")
        self._time_us = max(self._time_us, record.time_us)

    def finish(self, data_keys: Mapping[str, Entry]) -> None:
        """Compare the end with the head, and the data keys that records name with those that are there."""
        report, head = self._report, self._head
        for key_id, count in sorted(self._keys_named.items()):
            if key_id not in data_keys:
                report.add(f"datakey/{key_id}", f"This data key is not in the store, and {count} records need it")
        if head is None:
            return
        if self._at != head.position:
            report.add("head", f"The head is at {head.at}, the last frame ends at {self._at}: records are missing")
        elif self._hash is not None and self._hash != head.hash:
            report.add("head", f"The head's hash is not that of the last record, {head.at}: one of them was changed")
