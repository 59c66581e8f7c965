"""Duties: work that one process at a time does for all, under a lease, with a token that fences late writes off.

Whoever writes the leased key `duties/<name>` first holds the duty. The key's create_revision is the fencing token:
every write of the work compares it in the same Txn, so a holder that slept through the end of its lease writes nothing
more. The lease alone promises nothing; it says when to stop trying. No process needs a duty to serve its callers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

import structlog

from cluster.etcd.values import (
    Comparison,
    CreateRevisionIs,
    KeyValue,
    Operation,
    Put,
    RangeRead,
    RangeResult,
    TxnDone,
    TxnOutcome,
    prefix_end,
)
from mesh.errors import MeshlogError, Unavailable
from runtime.clock import Clock
from runtime.limits import DUTY_LEASE_S, DUTY_MARGIN_S, DUTY_PAUSE_S, DUTY_RENEW_S, DUTY_RETRY_S
from runtime.logging import where

log = structlog.get_logger(__name__)

Work = Callable[[int], Awaitable[None]]
"""The work, given the fencing token. It goes on until it is cancelled; what it raises ends this tenure."""


class FenceFell(Exception):  # noqa: N818 - the end of a tenure, which whoever runs the duty always handles
    """The lease ended, and another process may hold the duty now: stop, having written nothing. Reaches no caller."""


class Store(Protocol):
    """What is used of `cluster.etcd.connection.EtcdConnection`."""

    async def range(self, read: RangeRead) -> RangeResult: ...

    async def txn(
        self, compare: Sequence[Comparison], success: Sequence[Operation], failure: Sequence[Operation] = ()
    ) -> TxnOutcome: ...

    async def lease_grant(self, ttl_s: int) -> int: ...

    async def lease_keepalive(self, lease: int) -> int: ...

    async def lease_revoke(self, lease: int) -> None: ...


class Tenure:
    """How long a holder may believe that it holds: from the beginning of the last renewal that was answered.

    Times are monotonic seconds. It ends DUTY_MARGIN_S early, so that a holder mostly stops before its lease does.
    """

    def __init__(self, begun_s: float, ttl_s: float = DUTY_LEASE_S) -> None:
        self._until_s = begun_s + ttl_s - DUTY_MARGIN_S

    def on_renewed(self, begun_s: float, left_s: float) -> None:
        """A renewal that began then was answered: so many seconds are left; FenceFell if none are."""
        if left_s <= 0:
            raise FenceFell
        self._until_s = max(self._until_s, begun_s + left_s - DUTY_MARGIN_S)

    def check(self, now_s: float) -> None:
        """FenceFell if it is over."""
        if now_s >= self._until_s:
            raise FenceFell


class _Held(NamedTuple):
    lease: int
    token: int
    tenure: Tenure


def duty_key(key_prefix: str, name: str) -> bytes:
    """Where a duty's holder is written."""
    return f"{key_prefix}duties/{name}".encode()


async def run_duty(store: Store, key_prefix: str, name: str, *, holder_id: str, work: Work, clock: Clock) -> None:
    """Do `work` whenever this process holds the duty, for ever. Cancelled, it lets go of the duty at once.

    A work that ends, by itself or by an error, is begun again after DUTY_PAUSE_S, by whoever is first.
    """
    while True:
        held = None
        try:
            held = await _take(store, duty_key(key_prefix, name), holder_id, clock)
        except Unavailable as failure:
            log.info("duty not asked for", duty=name, reason=failure.message)
        if held is None:
            await clock.sleep(DUTY_RETRY_S)
            continue
        log.info("duty taken", duty=name, token=held.token)
        try:
            await _hold(store, held, name, work, clock)
        finally:
            await _let_go(store, held.lease)
        log.info("duty left", duty=name, token=held.token)
        await clock.sleep(DUTY_PAUSE_S)


def abreast(works: Mapping[str, Work], clock: Clock) -> Work:
    """Several works under one duty. What one of them raises is that one's alone, but for the fall of the fence."""

    async def work(token: int) -> None:
        async with asyncio.TaskGroup() as tasks:
            for name, each in works.items():
                tasks.create_task(_again_and_again(name, each, token, clock), name=f"duty-{name}")

    return work


async def _again_and_again(name: str, work: Work, token: int, clock: Clock) -> None:
    while True:
        try:
            await work(token)
        except FenceFell:
            raise
        except Exception as failure:
            _tell(name, failure)
        await clock.sleep(DUTY_PAUSE_S)


def _tell(name: str, failure: Exception) -> None:
    said = failure.message if isinstance(failure, MeshlogError) else where(failure)
    log.error("duty failed", duty=name, error=said, kind=type(failure).__name__)


async def list_duties(store: Store, key_prefix: str) -> Mapping[str, str]:
    """Who holds which duty now: member ids by duty. NoQuorum."""
    prefix = duty_key(key_prefix, "")
    found = await store.range(RangeRead(prefix, prefix_end(prefix)))
    return {item.key[len(prefix) :].decode(errors="replace"): _holder(item.value) for item in found.items}


async def _take(store: Store, key: bytes, holder_id: str, clock: Clock) -> _Held | None:
    """Hold the duty if nobody does."""
    if (await store.range(RangeRead(key))).items:
        return None
    begun_s = clock.monotonic_s()
    lease = await store.lease_grant(DUTY_LEASE_S)
    token = 0
    try:
        value = json.dumps({"holder": holder_id}).encode()
        outcome = await store.txn([CreateRevisionIs(key, 0)], [Put(key, value, lease)], [RangeRead(key)])
        if isinstance(outcome, TxnDone) and outcome.succeeded:
            token = outcome.revision
        else:
            # A lost answer: it is ours if the key hangs on our lease. If it lands later, the lease is gone by then.
            token = next((item.create_revision for item in await _items(store, key) if item.lease == lease), 0)
    finally:
        if not token:
            await _let_go(store, lease)
    return _Held(lease, token, Tenure(begun_s)) if token else None


async def _items(store: Store, key: bytes) -> Sequence[KeyValue]:
    return (await store.range(RangeRead(key))).items


async def _hold(store: Store, held: _Held, name: str, work: Work, clock: Clock) -> None:
    """Work and renew until either ends; then neither goes on. Cancelled, it ends both and is cancelled, whatever they
    raised in that moment: a task group would raise their failures in place of the cancellation.
    """
    both = [asyncio.ensure_future(work(held.token)), asyncio.ensure_future(_renew(store, held, clock))]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in both:
            task.cancel()
        ends = await asyncio.gather(*both, return_exceptions=True)
    if failures := [end for end in ends if isinstance(end, Exception)]:
        fell, others = ExceptionGroup(name, failures).split(FenceFell)
        if fell is not None:
            log.warning("duty lost", duty=name, token=held.token)
        # Whatever it is, the process has more to do than this duty, and the next tenure may fare better.
        for failure in others.exceptions if others is not None else ():
            _tell(name, failure)


async def _renew(store: Store, held: _Held, clock: Clock) -> None:
    """Renew until it cannot be done any more in time; raises FenceFell."""
    pause_s = DUTY_RENEW_S
    while True:
        await clock.sleep(pause_s)
        held.tenure.check(clock.monotonic_s())
        begun_s = clock.monotonic_s()
        try:
            async with asyncio.timeout(DUTY_RENEW_S):
                held.tenure.on_renewed(begun_s, await store.lease_keepalive(held.lease))
            pause_s = DUTY_RENEW_S
        except (Unavailable, TimeoutError):
            pause_s = DUTY_RETRY_S / 4


async def _let_go(store: Store, lease: int) -> None:
    with suppress(Unavailable, TimeoutError):
        async with asyncio.timeout(DUTY_MARGIN_S):
            await store.lease_revoke(lease)


def _holder(value: bytes) -> str:
    try:
        return str(json.loads(value)["holder"])
    except (ValueError, TypeError, KeyError):
        return "?"
