"""The drill: now and then the archive is folded from nothing and compared with the log, so that a restore is known to
work before it is needed. The newest result is an entry of the log's store, `drill`.

It opens the archive's own copies of the data keys with this server's key providers, as a restore would. It claims no
epoch, writes nothing into the archive, and takes half a core at most.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Generic, Protocol

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Gauge

from eventlog.archive.reader import ArchiveReader
from eventlog.archive.store import ObjectStore
from eventlog.driver import Fence, LogDriver
from eventlog.fenced import write_fenced
from eventlog.keys.provider import KeyProvider
from eventlog.records import KeyClass
from mesh.errors import Damaged, MeshlogError, Unavailable
from mesh.fold import Fold, S, S_co
from projector.refold import open_archive, refold
from runtime.clock import Clock
from runtime.limits import (
    DRILL_ARCHIVE_WAIT_S,
    DRILL_POLL_S,
    DRILL_RETRY_S,
    DRILL_SLICE_RECORDS,
)

log = structlog.get_logger(__name__)

ENTRY = "drill"
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillResult:
    """One drill: the log up to `position` was folded from the archive, and gave the log's own state if `ok`."""

    time_us: int
    epoch: int
    position: int
    ok: bool
    reason: str
    records: int
    seconds: float
    state_hash: str
    by: str


class Folded(Protocol[S_co]):
    """What a drill needs of `projector.replica.Replica`."""

    @property
    def state(self) -> S_co: ...

    @property
    def ready(self) -> bool: ...


class DrillMetrics:
    """Prometheus metrics, the same in every API server; `of` is what their names begin with, one for each log."""

    def __init__(self, registry: CollectorRegistry = REGISTRY, of: str = "meshlog") -> None:
        self.ok = Gauge(f"{of}_drill_ok", "1 if the last drill gave the log's own state, else 0", registry=registry)
        self.time_s = Gauge(f"{of}_drill_time_seconds", "When the last drill ended, Unix time", registry=registry)
        self.seconds = Gauge(f"{of}_drill_duration_seconds", "How long the last drill took", registry=registry)

    def told(self, result: DrillResult) -> None:
        self.ok.set(result.ok)
        self.time_s.set(result.time_us / 1e6)
        self.seconds.set(result.seconds)


def encode_result(result: DrillResult) -> bytes:
    return json.dumps({"format": FORMAT} | asdict(result), separators=(",", ":")).encode()


def decode_result(value: bytes) -> DrillResult:
    """Damaged if it is none."""
    try:
        document = json.loads(value)
        if document.pop("format") == FORMAT:
            return DrillResult(**document)
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    raise Damaged("The entry `drill` is not a drill's result: delete it, and the next drill writes it anew")


async def last_result(driver: LogDriver) -> DrillResult | None:
    """The newest result; None before the first, or where what is there is none."""
    entry = await driver.read_entry(ENTRY)
    try:
        return None if entry is None else decode_result(entry.value)
    except Damaged as damage:
        log.warning("the last drill cannot be read", reason=damage.message)
        return None


def due_in_s(last: DrillResult | None, now_us: int, interval_s: float) -> float:
    """How long until the next drill; one that failed is tried again sooner."""
    if last is None:
        return 0.0
    after_s = interval_s if last.ok else min(interval_s, DRILL_RETRY_S)
    return max(0.0, last.time_us / 1e6 + after_s - now_us / 1e6)


class Drill(Generic[S]):
    """`run` is a duty's work."""

    def __init__(
        self,
        fold: Fold[S],
        store: ObjectStore,
        providers: Mapping[KeyClass, KeyProvider],
        driver: LogDriver,
        replica: Folded[S],
        *,
        clock: Clock,
        holder_id: str,
        interval_s: float,
    ) -> None:
        self._fold = fold
        self._store = store
        self._providers = providers
        self._driver = driver
        self._replica = replica
        self._clock = clock
        self._holder_id = holder_id
        self._interval_s = interval_s

    async def run(self, fence: Fence) -> None:
        """Drill when it is time, until cancelled. FenceFell once the duty was lost; NoQuorum."""
        while True:
            wait_s = due_in_s(await last_result(self._driver), self._clock.now_us(), self._interval_s)
            empty = not self._replica.state.position.position  # an archive need not have it, and a restore makes it
            if wait_s > 0 or empty or not self._replica.ready:
                await self._clock.sleep(min(max(wait_s, DRILL_POLL_S), DRILL_RETRY_S))
                continue
            result = await self.once()
            await write_fenced(self._driver, {ENTRY: encode_result(result)}, fence, self._clock)

    async def once(self) -> DrillResult:
        """One drill. What goes wrong is in the result."""
        state, begun_s = self._replica.state, self._clock.monotonic_s()
        records, reason = 0, ""
        try:
            records = await self._compare(state)
        except MeshlogError as failure:
            reason = failure.message
            log.error("a drill failed: the archive may not restore", at=str(state.position), reason=reason)  # noqa: TRY400
        return DrillResult(
            time_us=self._clock.now_us(),
            epoch=state.position.epoch,
            position=state.position.position,
            ok=not reason,
            reason=reason,
            records=records,
            seconds=round(self._clock.monotonic_s() - begun_s, 3),
            state_hash=self._fold.state_hash(state),
            by=self._holder_id,
        )

    async def _compare(self, state: S) -> int:
        await self._archive_reaches(state)
        archive = await open_archive(self._store, self._providers)
        slice_s = self._clock.monotonic_s()

        async def breathe(done: int) -> None:
            nonlocal slice_s
            if done % DRILL_SLICE_RECORDS == 0:
                await self._clock.sleep(self._clock.monotonic_s() - slice_s)
                slice_s = self._clock.monotonic_s()

        folded = await refold(self._fold, archive, state.position, from_nothing=True, breathe=breathe)
        if not self._fold.same(folded.state, state):
            raise Damaged(
                f"The archive in {self._store.place} folds to another state than the log's own at {state.position}: "
                "do not trust it; run `meshlog backup verify` and `meshlog fsck`"
            )
        return folded.records

    async def _archive_reaches(self, state: S) -> None:
        deadline_s = self._clock.monotonic_s() + DRILL_ARCHIVE_WAIT_S
        while True:
            index = await ArchiveReader(self._store).load_if_any()
            if index is not None and index.head.at >= state.position:
                return
            if self._clock.monotonic_s() > deadline_s:
                reached = "nothing" if index is None else str(index.head.at)
                raise Unavailable(
                    f"The archive in {self._store.place} holds {reached}, and not {state.position} after "
                    f"{DRILL_ARCHIVE_WAIT_S:g} s: see why it is behind"
                )
            await self._clock.sleep(DRILL_POLL_S)


def status_document(result: DrillResult | None) -> dict[str, Any] | None:
    """As /status and `meshlog backup list` show it: the time in ISO 8601."""
    if result is None:
        return None
    at = datetime.datetime.fromtimestamp(result.time_us // 1_000_000, datetime.UTC)
    return {"time": at.isoformat().replace("+00:00", "Z")} | asdict(result)
