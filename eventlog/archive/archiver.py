"""The archiver: does the machine's steps against the log's store and the archive, for as long as a fence is held.

What fails is done again, the same step with the same bytes. What is wrong (a damaged archive, another log's, refused
credentials) stops shipping, is told as `ArchiverStatus.error`, and is looked at anew every now and then: nothing is
lost meanwhile, since nothing is trimmed that the archive does not have.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge

from cluster.duties import FenceFell
from eventlog.archive.machine import (
    Action,
    ArchiveMachine,
    Begin,
    Claims,
    Commit,
    Delete,
    Fetch,
    Load,
    Loaded,
    Now,
    Put,
    Read,
    Recall,
    Survey,
    WriteMark,
)
from eventlog.archive.news import Known, find_base, read_news
from eventlog.archive.reader import ArchiveReader
from eventlog.archive.shipment import DEFAULT_SHAPE, Floor, Shape
from eventlog.archive.store import ObjectStore, together
from eventlog.checkpoints import parse_manifest
from eventlog.driver import Committed, Fence, HeadMoved, LogDriver
from eventlog.keys.keyring import Keyring
from eventlog.records import Head, KeyClass
from eventlog.signing import known_signers, signing_key
from mesh.errors import MeshlogError, NoQuorum, NotReady, Unavailable
from mesh.position import ORIGIN, Position
from runtime.clock import Clock, Entropy
from runtime.limits import ARCHIVE_HALT_S, ARCHIVE_NONCE_BYTES, ARCHIVE_RETRY_MAX_S, ARCHIVE_RETRY_S

log = structlog.get_logger(__name__)

MARK = "archive"
"""The log's entry that says how far the archive reaches; the trim duty reads it."""


class ArchiverMetrics:
    """Prometheus metrics of the process that holds the duty; `of` is what their names begin with, one for each log."""

    def __init__(self, registry: CollectorRegistry = REGISTRY, of: str = "meshlog") -> None:
        self.position = Gauge(f"{of}_archive_position", "Position that the archive reaches", registry=registry)
        self.lag_s = Gauge(f"{of}_archive_lag_seconds", "Time since the archive had the whole log", registry=registry)
        self.shipments = Counter(f"{of}_archive_shipments", "Manifests written", registry=registry)
        self.bytes = Counter(f"{of}_archive_bytes", "Bytes put into the archive", registry=registry)
        self.failures = Counter(f"{of}_archive_failures", "Steps of the archiver that failed", registry=registry)


@dataclass(slots=True)
class ArchiverStatus:
    """What the archiver last saw. At monotonic `whole_s` the archive had the whole log; `error`: what is wrong now."""

    holding: bool = False
    position: Position = ORIGIN
    whole_s: float | None = None
    error: str = ""


class Archiver:
    """Ships one log to one archive. `run` is a duty's work; `status` may be read at any time."""

    def __init__(
        self,
        store: ObjectStore,
        driver: LogDriver,
        keyring: Keyring,
        clock: Clock,
        entropy: Entropy,
        *,
        holder_id: str,
        retention_us: int,
        metrics: ArchiverMetrics | None = None,
        shape: Shape = DEFAULT_SHAPE,
    ) -> None:
        self._store = store
        self._driver = driver
        self._keyring = keyring
        self._clock = clock
        self._entropy = entropy
        self._holder_id = holder_id
        self._retention_us = retention_us
        self._metrics = metrics
        self._shape = shape
        self._reader = ArchiveReader(store)
        self._whole_from_s: float | None = None
        self.status = ArchiverStatus()
        if metrics is not None:
            metrics.lag_s.set_function(self.lag_s)

    def lag_s(self) -> float:
        """For how long the archive has not had the whole log, as far as is known; 0 in a process that does not ship."""
        whole_s = self.status.whole_s
        return self._clock.monotonic_s() - whole_s if self.status.holding and whole_s is not None else 0.0

    async def run(self, fence: Fence) -> None:
        """Archive until cancelled. FenceFell once the duty was lost; nothing else is raised."""
        self.status.holding = True
        try:
            while True:
                try:
                    await self._archive(fence)
                except MeshlogError as failure:
                    self._failed(failure)
                    await self._clock.sleep(ARCHIVE_HALT_S)
        finally:
            self.status.holding = False

    async def _archive(self, fence: Fence) -> None:
        """Do the machine's steps. Unavailable is waited out, at the same step; all else is raised."""
        machine: ArchiveMachine | None = None
        action: Action = Load()
        pause_s = ARCHIVE_RETRY_S
        while True:
            try:
                if machine is not None and isinstance(action, Read) and self._rotated(machine):
                    machine, action = None, Load()  # all is written: begin anew, which publishes the new public key
                if machine is None:
                    machine = await self._machine(fence)
                action = await self._carry_out(action, machine, fence)
            except Unavailable as failure:
                self._failed(failure)
                await self._clock.sleep(pause_s * (0.5 + self._entropy.jitter()))
                pause_s = min(2 * pause_s, ARCHIVE_RETRY_MAX_S)
                continue
            pause_s = ARCHIVE_RETRY_S

    def _rotated(self, machine: ArchiveMachine) -> bool:
        return self._keyring.newest(KeyClass.SIGNING).key_id != machine.signed_by

    async def _machine(self, fence: Fence) -> ArchiveMachine:
        log_id = (await self._head()).log_id
        signer = await signing_key(self._driver, self._keyring, log_id, self._clock, self._entropy)
        return ArchiveMachine(self._store.place, signer, fence.token, self._retention_us, self._shape)

    async def _carry_out(self, action: Action, machine: ArchiveMachine, fence: Fence) -> Action:
        match action:
            case Load():
                return machine.on_loaded(await self._load())
            case Begin(head):
                base = await find_base(self._driver, head)
                return machine.on_base(base, head.epoch, self._holder_id, self._now())
            case Read():
                return await self._read(action, machine)
            case Put(objects):
                await together(partial(self._put, name, data) for name, data in objects.items())
                return machine.on_put()
            case Recall(name):
                return machine.on_recalled(await self._store.get(name))
            case Commit(name, data):
                placed = await self._store.put_new(name, data)
                return self._committed(machine, machine.on_commit(placed), data, placed)
            case WriteMark():
                return machine.on_marked(await self._write_mark(action, fence), self._now())
            case Survey():
                return machine.on_floor(await self._survey(action))
            case Fetch(hashes):
                fetched = await together(partial(self._reader.object, digest) for digest in hashes)
                return machine.on_fetched(dict(zip(hashes, fetched, strict=True)), self._nonce(), self._now())
            case Claims():
                return machine.on_claims([claim.epoch for claim in await self._reader.claims()])
            case Delete(names):
                await together(partial(self._store.delete, name) for name in names)
                return machine.on_deleted()

    async def _put(self, name: str, data: bytes) -> None:
        self._count(data, await self._store.put_new(name, data))

    async def _load(self) -> Loaded:
        # The entry before the archive, and the archive before the head: each is then at least what the one before says.
        log_id = (await self._head()).log_id
        await self._keyring.load(log_id)
        self._reader = ArchiveReader(self._store, known_signers(self._keyring))
        mark = await self._driver.read_entry(MARK)
        index = await self._reader.load_if_any()
        known = Known({}, None, frozenset())
        if index is not None:
            checkpoints = await self._reader.checkpoints()
            newest = checkpoints[-1].at if checkpoints else None
            known = Known(await self._reader.data_keys(), newest, await self._reader.part_names())
        return Loaded(index, known, mark, await self._head())

    async def _read(self, action: Read, machine: ArchiveMachine) -> Action:
        await self._clock.sleep(action.pause_s)
        began_s = self._clock.monotonic_s()
        news = await read_news(self._driver, self._keyring, action.archive, action.known, action.thorough)
        self._whole_from_s = None if news.behind else began_s
        if news.empty:
            self._whole(action.archive.head.at, began_s)
        return machine.on_news(news, self._nonce(), self._now())

    async def _write_mark(self, action: WriteMark, fence: Fence) -> int:
        result = await self._driver.write_entries({MARK: action.value}, expected={MARK: action.expected}, fence=fence)
        if isinstance(result, Committed):
            return result.mod_revision
        if not isinstance(result, HeadMoved):
            raise NoQuorum(f"etcd took no certain write of the archive's position ({result.reason}): it is tried again")
        entry = await self._driver.read_entry(MARK)
        if entry is not None and entry.value == action.value and entry.mod_revision != action.expected:
            return entry.mod_revision  # an earlier sending of the same, whose answer was lost
        raise FenceFell

    async def _survey(self, action: Survey) -> Floor | None:
        """The newest checkpoint that is old enough, if it is whole: all that is older may then go."""
        index = action.archive
        fitting = [ref for ref in await self._reader.checkpoints() if ref.time_us <= action.horizon_us]
        if not fitting or fitting[-1].at.position <= index.base.position:
            return None
        ref = fitting[-1]
        manifest, _ = await self._reader.checkpoint(ref)
        return Floor(parse_manifest(manifest).at, await self._reader.leaves_until(ref.at.position))

    def _committed(self, machine: ArchiveMachine, following: Action, data: bytes, placed: bool) -> Action:
        self._count(data, placed)
        if placed and isinstance(following, WriteMark) and machine.index is not None:
            self._reader.adopt(machine.index)
            if self._metrics is not None:
                self._metrics.shipments.inc()
            if self._whole_from_s is not None:
                self._whole(machine.index.head.at, self._whole_from_s)
            self.status.position, self.status.error = machine.index.head.at, ""
        return following

    def _whole(self, position: Position, at_s: float) -> None:
        self.status.position, self.status.whole_s, self.status.error = position, at_s, ""
        if self._metrics is not None:
            self._metrics.position.set(position.position)

    def _count(self, data: bytes, placed: bool) -> None:
        if placed and self._metrics is not None:
            self._metrics.bytes.inc(len(data))

    def _failed(self, failure: MeshlogError) -> None:
        if failure.message != self.status.error:
            log.warning("archive not written", place=self._store.place, reason=failure.message)
        self.status.error = failure.message
        if self._metrics is not None:
            self._metrics.failures.inc()

    async def _head(self) -> Head:
        head = await self._driver.read_head()
        if head is None:
            raise NotReady("There is no log in the store yet: an API server makes one")
        return head.head

    def _nonce(self) -> bytes:
        return self._entropy.token_bytes(ARCHIVE_NONCE_BYTES)

    def _now(self) -> Now:
        return Now(self._clock.now_us(), self._clock.monotonic_s())
