"""Walking a log's frames in order, as fsck does: every record checked, every fault told where it is, then on.

What is checked with no key: contiguity and the hash chain, and that what else names a record's hash (checkpoints, the
archive) names this one. With keys: that each record and its blob open in their place and log time never goes back; with
a fold too: that checkpoints are the fold of what is before them.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from eventlog.blobs import PartsOf, fetch, part_names
from eventlog.checkpoints import OpenCheckpoint
from eventlog.frames import decode_frame
from eventlog.keys.keyring import Keyring
from eventlog.quarantine import quarantined_by
from eventlog.records import Head, Record
from eventlog.sealing import SealedEnvelope, open_envelope, parse_stored
from mesh.errors import Damaged, MeshlogError, MissingKey, Unavailable
from mesh.position import Position
from runtime.limits import MAX_FINDINGS


class Finding(NamedTuple):
    """One thing that is wrong: where (a position, a key's name) and what."""

    place: str
    message: str


@dataclass(slots=True)
class FsckReport:
    """What was checked and what was found, in etcd or in an archive.

    `begins` is the point after which records are there. `opened` counts records opened, `withheld` those of them whose
    data is of a class that was not given, `quarantined` those that do not count since a later one says so, `states`
    checkpoints whose state hash was folded anew, `unnamed_parts` parts of blobs that no record names (left by writers
    that lost a race). `findings` is cut off at MAX_FINDINGS; `more_findings` says how many were left out. `archive` is
    the report of the archive, if one was looked at.
    """

    log_id: str = ""
    head: Head | None = None
    begins: int = 0
    frames: int = 0
    records: int = 0
    opened: int = 0
    withheld: int = 0
    quarantined: int = 0
    data_keys: int = 0
    older_epoch_frames: int = 0
    checkpoints: int = 0
    states: int = 0
    blob_parts: int = 0
    unnamed_parts: int = 0
    manifests: int = 0
    objects: int = 0
    audit_segments: int = 0
    findings: list[Finding] = field(default_factory=list)
    more_findings: int = 0
    archive: FsckReport | None = None

    @property
    def clean(self) -> bool:
        return not self.findings and (self.archive is None or self.archive.clean)

    def add(self, place: object, message: str) -> Finding:
        finding = Finding(str(place), message)
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(finding)
        else:
            self.more_findings += 1
        return finding


class Fold(Protocol):
    """The fold above the log, as far as a check needs it. Errors are MeshlogError."""

    def begin(self, checkpoint: OpenCheckpoint | None) -> None:
        """Go on from a checkpoint; None: from nothing."""
        ...

    def apply(self, record: Record) -> None: ...

    def state_hash(self) -> str: ...

    def hash_of(self, checkpoint: OpenCheckpoint) -> str:
        """The hash of the state that a checkpoint holds, whatever it says that it is."""
        ...


class Anchor(NamedTuple):
    """Something beside the chain that names the hash of a record."""

    what: str
    hash: bytes


class Opened(NamedTuple):
    """What a walk opens records with: keys, where blobs are, and the fold, if it is to be checked."""

    keyring: Keyring
    parts_of: PartsOf
    fold: Fold | None = None


Checkpoints = Mapping[int, Callable[[], Awaitable[OpenCheckpoint | None]]]
"""By the position that they are of; None where one does not open, which is told elsewhere."""


class RecordWalk:
    """One pass over one timeline. `begin`, then every frame, then `finish`. `point` is None where it is not known."""

    def __init__(self, report: FsckReport, opened: Opened | None, checkpoints: Checkpoints) -> None:
        self.keys_named: Counter[str] = Counter()
        self.parts_named: set[str] = set()
        self.anchors: defaultdict[int, list[Anchor]] = defaultdict(list)
        self.at = 0
        self.hash: bytes | None = None
        self._report = report
        self._opened = opened
        self._checkpoints = checkpoints
        self._folding = False
        self._stopped: dict[Position, Finding] = {}
        self._without_key: dict[Position, str] = {}
        self._time_us = 0

    async def begin(self, position: int, digest: bytes | None) -> None:
        """The walk begins after `position`, whose record has the hash `digest` (None: what an anchor says of it)."""
        known = {anchor.hash for anchor in self.anchors[position]}
        self.at, self.hash = position, digest if digest or len(known) != 1 else known.pop()
        self._report.begins = position
        if position == 0 and self._opened and self._opened.fold:
            self._opened.fold.begin(None)
            self._folding = True
        await self._reached(position)

    async def frame(self, last: Position, value: bytes) -> None:
        """The next frame."""
        report = self._report
        report.frames += 1
        try:
            stored_records = decode_frame(value, last)
        except Damaged as damage:
            report.add(last, damage.message)
            self._lost(last.position)
            return
        first = last.position - len(stored_records) + 1
        if first != self.at + 1:
            report.add(last, f"The frame holds {first} to {last.position}, but the one before it ends at {self.at}")
            self._lost(first - 1)
        for offset, stored in enumerate(stored_records):
            await self._record(Position(last.epoch, first + offset), stored)

    def finish(self, stored_keys: Container[str]) -> None:
        """Tell the data keys that records need and that are not among the stored ones, or did not open."""
        shut: defaultdict[str, list[Position]] = defaultdict(list)
        for position, key_id in self._without_key.items():
            shut[key_id].append(position)
        for key_id in sorted(self.keys_named.keys() | shut.keys()):
            place = f"datakey/{key_id}"
            if key_id not in stored_keys:
                count = self.keys_named[key_id]
                self._report.add(
                    place,
                    f"This data key is not in the store, and {count} records need it: bring it back with `meshlog "
                    "keys import`, from the archive or a copy",
                )
            elif found := shut.get(key_id):
                self._report.add(
                    place,
                    f"This data key did not open here, so {len(found)} records, from {min(found)} on, were not opened: "
                    "`meshlog keys status` says which key-encryption key it needs",
                )

    def _lost(self, position: int) -> None:
        self.at, self.hash, self._folding = position, None, False

    async def _record(self, position: Position, stored: bytes) -> None:
        report = self._report
        report.records += 1
        expected, self.hash = self.hash, hashlib.sha256(stored).digest()
        self.at = position.position
        try:
            envelope = parse_stored(stored, position)
        except Damaged as damage:
            report.add(position, damage.message)
            self._folding = False
            return
        self.keys_named[envelope.key_id] += 1
        if expected is not None and envelope.previous_hash != expected:
            report.add(position, "The chain is broken before this record: it, or the one before it, was changed")
        if self._opened is not None:
            await self._open(position, envelope)
        await self._reached(position.position)

    async def _open(self, position: Position, envelope: SealedEnvelope) -> None:
        report, opened = self._report, self._opened
        assert opened is not None  # noqa: S101 - the caller looked
        try:
            record = open_envelope(envelope, report.log_id, position, opened.keyring)
            if record.blob is not None:
                self.parts_named.update(part_names(record.blob))
                record = await fetch(record, report.log_id, opened.parts_of, opened.keyring)
        except Unavailable:
            raise
        except MissingKey:
            # A lost key is told once, by `finish`, and not for each of its thousands of records.
            self._folding = False
            self._without_key[position] = envelope.key_id
            return
        except MeshlogError as failure:
            self._stop(position, failure.message)
            return
        report.opened += 1
        report.withheld += record.data is None
        if record.time_us < self._time_us:
            report.add(position, "Log time goes back here")
        self._time_us = max(self._time_us, record.time_us)
        if self._folding and opened.fold:
            try:
                opened.fold.apply(record)
            except MeshlogError as failure:
                self._stop(position, f"This record cannot be folded: {failure.message}")
        self._quarantine(record)

    def _stop(self, position: Position, message: str) -> None:
        """A record that stops every replica, unless a later one puts it in quarantine."""
        self._folding = False
        self._stopped[position] = self._report.add(position, message)

    def _quarantine(self, record: Record) -> None:
        try:
            named = quarantined_by(record) if record.data is not None else None
        except MeshlogError as failure:
            self._report.add(record.position, failure.message)
            return
        if named is None:
            return
        self._report.quarantined += 1
        self._without_key.pop(named.position, None)
        finding = self._stopped.pop(named.position, None)
        if finding in self._report.findings:
            self._report.findings.remove(finding)
        # It may have been folded above: from here on states are without it, and the next checkpoint knows one.
        self._folding = False

    async def _reached(self, position: int) -> None:
        for anchor in self.anchors.get(position, ()):
            if self.hash is not None and anchor.hash != self.hash:
                self._report.add(
                    position,
                    f"{anchor.what} says that the record at {position} has hash {anchor.hash.hex()[:16]}…, and it has "
                    f"{self.hash.hex()[:16]}…: one of them was changed, or is of another history",
                )
        if position in self._checkpoints and self._opened and self._opened.fold:
            checkpoint = await self._checkpoints[position]()
            if checkpoint is not None:
                self._compare(checkpoint, self._opened.fold)

    def _compare(self, checkpoint: OpenCheckpoint, fold: Fold) -> None:
        manifest, place = checkpoint.manifest, f"checkpoint {checkpoint.manifest.at.at}"
        try:
            held = fold.hash_of(checkpoint)
        except MeshlogError as failure:
            self._report.add(place, failure.message)
            return
        self._report.states += 1
        if held != manifest.state_hash:
            self._report.add(place, "Its documents are not of the state whose hash it names")
        if not self._folding:
            fold.begin(checkpoint)
            self._folding = True
        elif fold.state_hash() != manifest.state_hash:
            self._report.add(
                place,
                f"It is of a state with hash {manifest.state_hash[:16]}…, and the records up to there fold to "
                f"{fold.state_hash()[:16]}…",
            )
