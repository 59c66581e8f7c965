"""How many streams a frontend takes, and how fast. Who is refused backs off by itself, which beats waiting in a queue:
those let in are served in time, and a herd that lost its frontend spreads out."""

from __future__ import annotations

from runtime.clock import Clock
from runtime.limits import XDS_NEW_STREAMS_BURST, XDS_NEW_STREAMS_PER_S, XDS_STREAMS_MAX


class Admission:
    """A token bucket for new streams below a bound on open ones."""

    def __init__(
        self,
        clock: Clock,
        streams_max: int = XDS_STREAMS_MAX,
        per_s: float = XDS_NEW_STREAMS_PER_S,
        burst: int = XDS_NEW_STREAMS_BURST,
    ) -> None:
        self._clock, self._streams_max, self._per_s, self._burst = clock, streams_max, per_s, burst
        self._tokens = float(burst)
        self._at_s = clock.monotonic_s()

    def refusal(self, open_streams: int) -> str | None:
        """Why one more stream is not taken now; None takes it."""
        now_s = self._clock.monotonic_s()
        self._tokens = min(self._burst, self._tokens + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if open_streams >= self._streams_max:
            return f"this frontend serves {open_streams} proxies and takes no more: try another"
        if self._tokens < 1:
            return "too many proxies connect at once: try again"
        self._tokens -= 1
        return None
