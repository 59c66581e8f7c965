"""Token buckets by name, for the names heard of last. Values only: the caller brings the time."""

from __future__ import annotations

from collections import OrderedDict


class Rates:
    """For each name `burst` at once and `per_s` sustained; the least recently used beyond `names_max` are forgotten."""

    def __init__(self, per_s: float, burst: int, names_max: int) -> None:
        self.per_s = per_s
        self._burst, self._names_max = burst, names_max
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, name: str, now_s: float) -> bool:
        """Whether one more of `name` passes now; it is counted if so."""
        tokens = self._tokens(name, now_s)
        passes = tokens >= 1
        self._buckets[name] = (tokens - passes, now_s)
        self._buckets.move_to_end(name)
        if len(self._buckets) > self._names_max:
            self._buckets.popitem(last=False)
        return passes

    def wait_s(self, name: str, now_s: float) -> float:
        """How long until one more passes; 0 when it would now. Nothing is counted."""
        return max(0.0, 1 - self._tokens(name, now_s)) / self.per_s

    def _tokens(self, name: str, now_s: float) -> float:
        tokens, at_s = self._buckets.get(name, (float(self._burst), now_s))
        return min(float(self._burst), tokens + (now_s - at_s) * self.per_s)
