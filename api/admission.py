"""Who may call just now: rates of principals and of addresses, and how much of one principal is worked on at once.

An address is judged before a body is read, by its calls that had no valid signature: above their rate, only access keys
that have signed rightly from there before are still verified, so that a flood costs a dictionary look-up, and whoever
shares a NAT with it goes on. A principal is judged once it is known. Values and a clock; no I/O.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter as Metric

from identity.caller import Caller
from mesh.errors import NotAuthenticated, TooManyRequests
from runtime.clock import Clock
from runtime.http_connection import source_of
from runtime.limits import PRINCIPALS_REMEMBERED, SOURCE_KEYS_REMEMBERED, SOURCES_REMEMBERED
from runtime.rates import Rates
from runtime.settings import LimitSettings

THROTTLED = Metric("meshlog_api_throttled", "Calls answered with TooManyRequestsException", ["why"])


class Admission:
    """One API server's limits."""

    def __init__(self, limits: LimitSettings, clock: Clock) -> None:
        self._clock = clock
        self._at_once = limits.requests_at_once
        self._principals = Rates(limits.requests_per_s, limits.requests_burst, PRINCIPALS_REMEMBERED)
        self._sources = Rates(limits.refusals_per_s, limits.refusals_burst, SOURCES_REMEMBERED)
        self._running: Counter[str] = Counter()
        self._known: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()

    def check_source(self, address: str, key_id: str) -> None:
        """TooManyRequests where the address has no refusals left and `key_id` never signed rightly from there."""
        source = source_of(address)
        if key_id not in self._known.get(source, ()) and self._sources.wait_s(source, self._clock.monotonic_s()):
            raise self._flood(source)

    def not_authenticated(self, address: str, error: NotAuthenticated) -> TooManyRequests | NotAuthenticated:
        """What to answer to a call without a valid signature, which is counted: `error`, or that there were too many.

        Known and unknown access keys alike, so that nothing is told about either.
        """
        source = source_of(address)
        return error if self._sources.take(source, self._clock.monotonic_s()) else self._flood(source)

    def verified(self, address: str, key_id: str) -> None:
        """Remember that this access key signed rightly from there."""
        keys = self._known.setdefault(source_of(address), OrderedDict())
        self._known.move_to_end(source_of(address))
        keys[key_id] = None
        keys.move_to_end(key_id)
        if len(keys) > SOURCE_KEYS_REMEMBERED:
            keys.popitem(last=False)
        if len(self._known) > SOURCES_REMEMBERED:
            self._known.popitem(last=False)

    @contextmanager
    def of(self, caller: Caller) -> Iterator[None]:
        """Hold a place for one of the caller's requests; TooManyRequests where it has none left."""
        who = caller.identity
        if self._running[who] >= self._at_once:
            THROTTLED.labels("concurrency").inc()
            raise TooManyRequests(
                f"{who} has {self._at_once} requests under way at this server; nothing was done. Wait for their "
                "answers, or ask an operator for a larger limits.requests_at_once."
            )
        now_s = self._clock.monotonic_s()
        if not self._principals.take(who, now_s):
            THROTTLED.labels("rate").inc()
            raise TooManyRequests(
                f"{who} calls more often than {self._principals.per_s:g} times a second; nothing was done. Slow down, "
                "or ask an operator for a larger limits.requests_per_s.",
                _whole_s(self._principals.wait_s(who, now_s)),
            )
        self._running[who] += 1
        try:
            yield
        finally:
            self._running[who] -= 1
            if not self._running[who]:
                del self._running[who]

    def _flood(self, source: str) -> TooManyRequests:
        THROTTLED.labels("source").inc()
        return TooManyRequests(
            f"Too many calls without a valid signature came from {source}. Check the access key and the secret that "
            "are used there, and slow down.",
            _whole_s(self._sources.wait_s(source, self._clock.monotonic_s())),
        )


def _whole_s(wait_s: float) -> int:
    return max(1, math.ceil(wait_s))
