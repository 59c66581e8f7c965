"""Refused calls on their way into the archive: a bounded queue, one segment every few seconds, counts for the rest.

A flood must become neither writes nor memory: each source has a token bucket, the queue has an end, and what does not
pass is counted by error code; the counts go into the next segment. Nothing here is written to the log's own store, and
a broken archive delays segments but never a call.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client import Counter as Metric

from api.trail import Attempt, refused_call
from eventlog.archive.store import ObjectStore
from eventlog.audit import TIME, ChainWriter, Refusals
from eventlog.sealing import SALT_BYTES, DataKey
from eventlog.signing import SigningKey
from mesh.errors import MeshlogError
from runtime.clock import Clock, Entropy
from runtime.limits import (
    AUDIT_CLOSE_S,
    AUDIT_FLUSH_S,
    AUDIT_PRUNE_S,
    AUDIT_QUEUE_MAX,
    AUDIT_SOURCE_BURST,
    AUDIT_SOURCE_PER_S,
    AUDIT_SOURCES_MAX,
)
from runtime.rates import Rates

log = structlog.get_logger(__name__)

SealingKeys = Callable[[], Awaitable[tuple[str, DataKey, SigningKey | None]]]
"""The log's id, its newest config data key, and the signing key if there is one at hand. Raises MeshlogError."""


class AuditMetrics:
    """Counters by error code only: an address as a label would let strangers fill the registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.refused = Metric("meshlog_audit_refused", "Calls refused", ["code"], registry=registry)
        self.dropped = Metric("meshlog_audit_dropped", "Of those, counted only", ["code"], registry=registry)
        self.segments = Metric("meshlog_audit_segments", "Audit segments written", registry=registry)


class RefusedCalls:
    """Takes refused calls of one API server and writes its chain of audit segments."""

    def __init__(
        self,
        store: ObjectStore,
        server_id: str,
        keys: SealingKeys,
        clock: Clock,
        entropy: Entropy,
        *,
        region: str,
        retention_s: float | None = None,
        metrics: AuditMetrics | None = None,
    ) -> None:
        self._store, self._server_id, self._keys = store, server_id, keys
        self._clock, self._entropy, self._region = clock, entropy, region
        self._retention_s = retention_s
        self._metrics = metrics
        self._rates = Rates(AUDIT_SOURCE_PER_S, AUDIT_SOURCE_BURST, AUDIT_SOURCES_MAX)
        self._waiting: deque[dict[str, Any]] = deque()
        self._dropped: Counter[str] = Counter()
        self._sending: Refusals | None = None
        self._chain: ChainWriter | None = None
        self._last_us = 0
        self._turn = asyncio.Lock()

    def refused(self, attempt: Attempt, code: str, message: str) -> None:
        """Take note of a refused call. Never blocks, never raises for want of room."""
        if self._metrics:
            self._metrics.refused.labels(code).inc()
        passes = self._rates.take(attempt.source_ip, self._clock.monotonic_s())
        if not passes or len(self._waiting) >= AUDIT_QUEUE_MAX:
            self._dropped[code] += 1
            if self._metrics:
                self._metrics.dropped.labels(code).inc()
            return
        # Within a chain time never goes back, whatever the clock does.
        self._last_us = max(self._last_us, attempt.time_us)
        self._waiting.append(refused_call(attempt, code, message, self._region) | {TIME: self._last_us})

    async def run(self) -> None:
        """Write segments, for ever; to be supervised."""
        pruned_s = self._clock.monotonic_s() - AUDIT_PRUNE_S
        told = ""
        while True:
            await self._clock.sleep(AUDIT_FLUSH_S)
            try:
                await self.flush()
                if self._chain and self._retention_s and self._clock.monotonic_s() - pruned_s >= AUDIT_PRUNE_S:
                    pruned_s = self._clock.monotonic_s()
                    await self._chain.prune(self._clock.now_us() - int(self._retention_s * 1e6))
                told = ""
            except MeshlogError as error:
                if error.message != told:  # once, not every few seconds of an outage
                    log.warning("audit segment not written", reason=error.message, waiting=len(self._waiting))
                told = error.message

    async def flush(self) -> None:
        """Write what waits, if anything does, as one segment. Unavailable: it waits on."""
        async with self._turn:
            await self._flush()

    async def _flush(self) -> None:
        if self._sending is None:
            if not self._waiting and not self._dropped:
                return
            self._sending = Refusals(tuple(self._waiting), dict(self._dropped))
            self._waiting.clear()
            self._dropped.clear()
        log_id, key, signer = await self._keys()
        self._chain = self._chain or ChainWriter(self._store, log_id, self._server_id)
        end = await self._chain.end()
        self._last_us = max(self._last_us, end.last_us)
        entries = tuple({**entry, TIME: max(entry[TIME], end.last_us)} for entry in self._sending.entries)
        self._sending = self._sending._replace(entries=entries)
        await self._chain.append(self._sending, key, self._entropy.token_bytes(SALT_BYTES), signer)
        self._sending = None
        if self._metrics:
            self._metrics.segments.inc()

    async def close(self) -> None:
        """The last segment, within AUDIT_CLOSE_S; what cannot be written then is lost, and the log says how much."""
        try:
            async with asyncio.timeout(AUDIT_CLOSE_S):
                await self.flush()
                await self.flush()
        except (TimeoutError, MeshlogError) as error:
            lost = len(self._waiting) + (len(self._sending.entries) if self._sending else 0)
            log.warning("audit entries lost at the end", entries=lost, kind=type(error).__name__)
