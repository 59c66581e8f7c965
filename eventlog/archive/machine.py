"""The archiver's order of steps: what was read and done becomes what to do next. Sans-I/O; `archiver` is the shell.

    Load ─► Begin ─► Commit the claim ─► Load            a place that holds nothing yet
      └───► Read ─► Put ─► Recall ─► Commit ─► WriteMark ─► Read     a shipment
              └───► Survey ─► Fetch ─► Put ─► Recall ─► Commit ─► WriteMark ─► Claims ─► Fetch ─► Delete ─► Delete
                                                                     a roll-up

Any step may be repeated, and the machine may be dropped at any step: the next one begins at Load and finds out what was
done. A manifest name that is taken sends it back to Load too, whoever took it: an earlier try of this machine, or an
archiver that is paused and wakes up. Nothing is deleted before the claims were read *after* the manifest that needs it
no more was in place: an epoch that was claimed meanwhile is built on that manifest or a later one, or keeps it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from eventlog.archive.index import ArchiveIndex, advanced
from eventlog.archive.manifest import (
    EpochClaim,
    Mark,
    claim_name,
    decode_dropped,
    decode_mark,
    encode_mark,
    hash_of,
    manifest_name,
    object_name,
    public_key_name,
    seal_claim,
)
from eventlog.archive.news import Known, News
from eventlog.archive.shipment import DEFAULT_SHAPE, Floor, Shape, Shipment, Stamp, raised, roll_up, ship, to_merge
from eventlog.driver import Entry
from eventlog.records import Head
from eventlog.signing import SigningKey
from mesh.errors import Damaged, SettingsError, TimelineMoved
from runtime.limits import (
    ARCHIVE_RELOAD_READS,
    ARCHIVE_SURVEY_S,
    ARCHIVE_THOROUGH_READS,
)


class Load(NamedTuple):
    """Read the archive's index and what is known beside it, the log's head and its `archive` entry."""


class Begin(NamedTuple):
    """Find out where an archive of the log at `head` begins."""

    head: Head


class Read(NamedTuple):
    """Read what the log has beyond the archive, after `pause_s`."""

    archive: ArchiveIndex
    known: Known
    thorough: bool
    pause_s: float


class Put(NamedTuple):
    """Put objects that say nothing alone, in any order; that one is there already is as good."""

    objects: Mapping[str, bytes]


class Recall(NamedTuple):
    """Get a manifest, to see that the archive still has what it had."""

    name: str


class Commit(NamedTuple):
    """Put a manifest or a claim, and tell whether the name was free."""

    name: str
    data: bytes


class WriteMark(NamedTuple):
    """Write the log's `archive` entry under the fence, if it is as of `expected` (0: if there is none)."""

    value: bytes
    expected: int


class Survey(NamedTuple):
    """Find the floor: the newest checkpoint of a state at `horizon_us` or before, beyond the base."""

    archive: ArchiveIndex
    horizon_us: int


class Fetch(NamedTuple):
    """Get objects by their hashes."""

    hashes: Sequence[bytes]


class Claims(NamedTuple):
    """Read the epochs' claims."""


class Delete(NamedTuple):
    """Delete what is needed no more, in any order."""

    names: Sequence[str]


Action = Load | Begin | Read | Put | Recall | Commit | WriteMark | Survey | Fetch | Claims | Delete


class Loaded(NamedTuple):
    """What Load found. `archive` is None if the place holds nothing; `mark` None if there is no entry."""

    archive: ArchiveIndex | None
    known: Known
    mark: Entry | None
    head: Head


class Now(NamedTuple):
    """The time at a step, on both clocks."""

    wall_us: int
    monotonic_s: float


class ArchiveMachine:
    """Archives one log in one place, as the holder of fencing token `token`. `retention_us` 0 keeps everything.

    `index` is what the archive holds as of the last step, None before the first Load.
    """

    def __init__(
        self, place: str, signer: SigningKey, token: int, retention_us: int, shape: Shape = DEFAULT_SHAPE
    ) -> None:
        self._shape = shape
        self._place = place
        self._signer = signer
        self.signed_by = signer.name
        self._token = token
        self._retention_us = retention_us
        self.index: ArchiveIndex | None = None
        self._known = Known({}, None, frozenset())
        self._mark_revision = 0
        self._published = False
        self._shipment: Shipment | None = None
        self._behind = False
        self._surveyed_s: float | None = None
        self._reads = 0
        self._gone: set[bytes] = set()
        self._raised: ArchiveIndex | None = None
        self._objects_deleted = False

    def start(self) -> Action:
        return Load()

    def on_loaded(self, loaded: Loaded) -> Action:
        """Damaged, SettingsError or TimelineMoved if this archive is not this log's, or not whole."""
        self.index, self._known, self._shipment, self._raised = None, loaded.known, None, None
        self._mark_revision = loaded.mark.mod_revision if loaded.mark else 0
        mark = decode_mark(loaded.mark.value) if loaded.mark else None
        if mark is not None and mark.place != self._place:
            mark = None  # another archive than this one; this one speaks for itself
        index = loaded.archive
        if index is None:
            if mark is not None:
                raise Damaged(
                    f"The archive in {self._place} is empty, and it held the log up to {mark.head.at}: it was removed, "
                    "or its file system is not mounted; bring it back, or set another place to begin a new archive"
                )
            return Begin(loaded.head)
        self._check(index, mark, loaded.head)
        self.index = index
        wanted = self._mark()
        if wanted is not None and mark != decode_mark(wanted):
            return WriteMark(wanted, self._mark_revision)
        return Claims() if index.stale else self._read()

    def on_base(self, base: Head, epoch: int, by: str, now: Now) -> Action:
        claim = EpochClaim(base.log_id, epoch, base, None, now.wall_us, by)
        return Commit(claim_name(epoch), seal_claim(claim, self._signer))

    def on_news(self, news: News, nonce: bytes, now: Now) -> Action:
        """What Read found; `nonce` is fresh."""
        index = self._loaded()
        self._behind = news.behind
        if news.empty and index.newest is not None:
            return self._maintain(now)
        self._known = _knowing(self._known, news)
        return self._send(ship(index, news, self._stamp(nonce, now)))

    def on_put(self) -> Action:
        newest = self._loaded().newest
        return self._commit() if newest is None else Recall(manifest_name(newest.epoch, newest.seq))

    def on_recalled(self, data: bytes | None) -> Action:
        """The newest manifest, as it is now: an archive that was emptied meanwhile is not gone on with."""
        newest = self._loaded().newest
        as_it_was = data is not None and newest is not None and hash_of(data) == newest.hash
        return self._commit() if as_it_was else Load()

    def on_commit(self, placed: bool) -> Action:
        """Whether the name was free. If it was not, loading tells who took it."""
        if not placed or self._shipment is None:
            return Load()
        shipment, self._shipment = self._shipment, None
        self._published = True
        self.index = advanced(self._loaded(), shipment.manifest, hash_of(shipment.data))
        mark = self._mark()
        assert mark is not None  # noqa: S101 - there is a manifest now
        return WriteMark(mark, self._mark_revision)

    def on_marked(self, mod_revision: int, now: Now) -> Action:
        self._mark_revision = mod_revision
        index = self._loaded()
        if index.stale:
            return Claims()
        if self._due(index):
            return self._maintain(now)
        return self._read(0.0 if self._behind else None)

    def on_floor(self, floor: Floor | None) -> Action:
        """What Survey found; None if nothing is to be dropped."""
        index = self._loaded()
        if floor is None and not self._due(index):
            return self._read()
        return self._merge(*((index, set()) if floor is None else raised(index, floor)))

    def on_fetched(self, objects: Mapping[bytes, bytes], nonce: bytes, now: Now) -> Action:
        """The segments to merge, or what a roll-up lists as superfluous."""
        if self._raised is not None:
            base, self._raised = self._raised, None
            return self._send(roll_up(base, self._gone, objects, self._stamp(nonce, now), self._shape))
        listed: set[bytes] = set()
        for digest, data in objects.items():
            listed |= decode_dropped(object_name(digest), data)
        # The manifests after the objects: as long as there is one, a deletion was not finished.
        self._objects_deleted = False
        return Delete(sorted(object_name(digest) for digest in listed))

    def on_claims(self, epochs: Iterable[int]) -> Action:
        """TimelineMoved if another epoch was claimed: then this log is the past, and touches nothing more."""
        index = self._loaded()
        self._check_epoch(max(epochs), index.epoch)
        return Fetch([index.dropped] if index.dropped else [])

    def on_deleted(self) -> Action:
        index = self._loaded()
        if not self._objects_deleted:
            self._objects_deleted = True
            return Delete(index.stale)
        self.index = index._replace(stale=())
        return self._read()

    def _maintain(self, now: Now) -> Action:
        index = self._loaded()
        if self._retention_us and (self._surveyed_s is None or now.monotonic_s >= self._surveyed_s + ARCHIVE_SURVEY_S):
            self._surveyed_s = now.monotonic_s
            return Survey(index, now.wall_us - self._retention_us)
        return self._merge(index, set()) if self._due(index) else self._read()

    def _due(self, index: ArchiveIndex) -> bool:
        return index.newest is not None and index.newest.seq - index.rollup >= self._shape.manifests

    def _merge(self, index: ArchiveIndex, gone: set[bytes]) -> Action:
        self._raised, self._gone = index, gone
        return Fetch([ref.hash for ref in to_merge(index, self._shape)])

    def _commit(self) -> Action:
        assert self._shipment is not None  # noqa: S101 - objects are put for a shipment only
        return Commit(self._shipment.name, self._shipment.data)

    def _read(self, pause_s: float | None = None) -> Action:
        self._reads += 1
        if self._reads % ARCHIVE_RELOAD_READS == 0:
            return Load()
        thorough = self._reads % ARCHIVE_THOROUGH_READS == 1
        return Read(self._loaded(), self._known, thorough, self._shape.poll_s if pause_s is None else pause_s)

    def _send(self, shipment: Shipment) -> Action:
        self._shipment = shipment
        published = {} if self._published else {public_key_name(self._signer.name): self._signer.public}
        return Put({**published, **shipment.objects})

    def _loaded(self) -> ArchiveIndex:
        assert self.index is not None  # noqa: S101 - every step but the first ones comes after Load
        return self.index

    def _stamp(self, nonce: bytes, now: Now) -> Stamp:
        return Stamp(self._signer, self._token, now.wall_us, nonce)

    def _mark(self) -> bytes | None:
        index = self._loaded()
        return encode_mark(Mark(self._place, index.head, index.newest, self._token)) if index.newest else None

    def _check(self, index: ArchiveIndex, mark: Mark | None, head: Head) -> None:
        if index.log_id != head.log_id:
            raise SettingsError(
                f"The archive in {self._place} belongs to another log ({index.log_id}; this one is {head.log_id}): set "
                "a place of its own for each cluster"
            )
        self._check_epoch(index.epoch, head.epoch)
        if index.head.position > head.position or (index.head.at == head.at and index.head != head):
            raise TimelineMoved(
                f"The archive in {self._place} reaches {index.head.at}, and the log's head is another or older, "
                f"{head.at}: etcd was emptied, restored or replaced; restore from the archive"
            )
        newest = index.newest
        if mark is None:
            return
        name = manifest_name(mark.manifest.epoch, mark.manifest.seq)
        if newest is None or mark.manifest[:2] > newest[:2]:
            raise Damaged(f"{name} is missing from the archive in {self._place}: its newest manifests were deleted")
        if mark.manifest[:2] == newest[:2] and mark.manifest != newest:
            raise Damaged(f"{name} in {self._place} is not the manifest that was put there: it was replaced")

    def _check_epoch(self, claimed: int, epoch: int) -> None:
        if claimed > epoch:
            raise TimelineMoved(
                f"Epoch {claimed} was begun by a restore, and this cluster is of epoch {epoch}: it is the past; stop it"
            )
        if claimed < epoch:
            raise SettingsError(
                f"The archive in {self._place} is of epoch {claimed}, and this cluster of epoch {epoch}, which was not "
                "restored from there: set another place to begin an archive"
            )


def _knowing(known: Known, news: News) -> Known:
    """What is known once `news` is archived."""
    newest = [copy.manifest.at.at for copy in news.checkpoints[-1:]]
    return Known(
        known.keys if news.keys is None else news.keys,
        newest[0] if newest else known.checkpoint,
        known.parts.union(part.name for part in news.parts),
    )
