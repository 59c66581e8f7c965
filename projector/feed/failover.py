"""Which projector a frontend listens to, as a pure machine: what happened (and when) in, links to open and close out.

At most two links live: the *current* one, whose snapshots count, and a *candidate*. The rules, in their order:

1. A link that does not greet in time, or falls silent, is lost; so is one whose connection broke. Its projector then
   waits (doubling, capped, jittered) before it is dialled again; the others do not wait for it.
2. With no current link, the own zone's projectors are dialled first, then the others in an order of this process's own
   (so that a lost zone's frontends do not all fall on one projector). The first to greet becomes current, however old
   its head: something stale is better than nothing, and the watches hold back what would go backwards.
3. While the current head is stale, others are probed in turn; one that is clearly fresher takes over.
4. While the current one is in another zone, the own zone's are probed; one that has been fresh for a while takes over.
5. A candidate takes over from a living link only after it was prepared (every node subscribed and caught up), so that
   nothing is missing in between.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from runtime.limits import (
    FEED_BACKOFF_FIRST_S,
    FEED_BACKOFF_MAX_S,
    FEED_DIAL_TIMEOUT_S,
    FEED_FRESHER_BY_S,
    FEED_HOME_STEADY_S,
    FEED_PREPARE_S,
    FEED_PROBE_PAUSE_S,
    FEED_PROBE_S,
    FEED_PROJECTORS_MAX,
    FEED_SILENCE_S,
    FEED_STALE_S,
    FEED_STALL_S,
    FEED_TICK_S,
)


@dataclass(frozen=True, slots=True)
class Dial:
    """Open a stream to this address as `link`; `probe` True when there is a living one beside it."""

    link: int
    zone: str
    address: str
    probe: bool


@dataclass(frozen=True, slots=True)
class Prepare:
    """Subscribe for every node on `link`; say `prepared` when all have caught up with what was delivered."""

    link: int


@dataclass(frozen=True, slots=True)
class Promote:
    """From now on `link` counts."""

    link: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Close `link`; nothing of it is to be heard any more."""

    link: int


FailoverAction = Dial | Prepare | Promote | Drop


@dataclass(slots=True)
class _Link:
    id: int
    zone: str
    address: str
    dialled_at_s: float
    greeted_at_s: float | None = None
    heard_at_s: float = 0.0
    told_age_s: float = math.inf
    told_at_s: float = 0.0
    fresh_since_s: float | None = None
    preparing_since_s: float | None = None
    prepared: bool = False

    def age_s(self, now_s: float) -> float:
        """Age of the confirmed head: what was told, and the time since."""
        return self.told_age_s + (now_s - self.told_at_s)


@dataclass(slots=True)
class _Place:
    """What is remembered of one address between links."""

    zone: str
    rank: float
    failures: int = 0
    retry_at_s: float = -math.inf
    probed_at_s: float = -math.inf


class Failover:
    """The choice of a projector. Methods take the present in monotonic seconds and return what to do, in order."""

    def __init__(self, zone: str, projectors: Iterable[tuple[str, str]], jitter: Callable[[], float]) -> None:
        self._zone, self._jitter = zone, jitter
        self._static = tuple(projectors)
        self._places: dict[str, _Place] = {}
        self._current: _Link | None = None
        self._candidate: _Link | None = None
        self._last_link = 0
        self._probe_at_s = -math.inf
        self._ticked_at_s = math.inf
        self._learn(())

    @property
    def current(self) -> int | None:
        """The link that counts."""
        return self._current.id if self._current else None

    @property
    def projectors(self) -> dict[str, str]:
        """Zone by address of every projector known."""
        return {address: place.zone for address, place in self._places.items()}

    def age_s(self, now_s: float) -> float:
        """Age of the head that the current projector confirmed; infinite without one."""
        return self._current.age_s(now_s) if self._current else math.inf

    def tick(self, now_s: float) -> list[FailoverAction]:
        """Time has passed. Call it every FEED_TICK_S."""
        # What this process slept through (stopped, or starved of CPU) is not its projector's silence.
        stalled_s = now_s - self._ticked_at_s - FEED_TICK_S
        self._ticked_at_s = now_s
        for link in (self._current, self._candidate):
            if link is not None and stalled_s > FEED_STALL_S:
                link.dialled_at_s += stalled_s
                link.heard_at_s += stalled_s
        return self._step(now_s)

    def greeted(self, link: int, projectors: Iterable[tuple[str, str]], now_s: float) -> list[FailoverAction]:
        """The projector's hello came, with the projectors that it knows of."""
        found = self._find(link)
        if found is None:
            return []
        found.greeted_at_s = found.greeted_at_s if found.greeted_at_s is not None else now_s
        found.heard_at_s = now_s
        self._learn(projectors)
        return self._step(now_s)

    def heard(self, link: int, age_s: float | None, now_s: float) -> list[FailoverAction]:
        """A frame came; `age_s` when it tells the age of the confirmed head."""
        found = self._find(link)
        if found is None:
            return []
        found.heard_at_s = now_s
        if age_s is not None:
            found.told_age_s, found.told_at_s = age_s, now_s
            if age_s > FEED_STALE_S:
                found.fresh_since_s = None
            elif found.fresh_since_s is None:
                found.fresh_since_s = now_s
        return self._step(now_s) if found is self._candidate else []

    def prepared(self, link: int, now_s: float) -> list[FailoverAction]:
        """Every node has caught up on the candidate."""
        found = self._find(link)
        if found is None:
            return []
        found.prepared = True
        return self._step(now_s)

    def lost(self, link: int, now_s: float) -> list[FailoverAction]:
        """The connection broke, or the other end broke the protocol."""
        found = self._find(link)
        if found is None:
            return []
        self._forget(found, now_s)
        return self._step(now_s)

    # --- the rules

    def _step(self, now_s: float) -> list[FailoverAction]:
        actions: list[FailoverAction] = []
        for link in (self._current, self._candidate):
            if link is not None and self._is_dead(link, now_s):
                self._forget(link, now_s)
                actions.append(Drop(link.id))
        if self._current is None:
            actions += self._without_current(now_s)
        elif self._candidate is not None:
            actions += self._compare(self._current, self._candidate, now_s)
        elif now_s >= self._probe_at_s:
            actions += self._probe(self._current, now_s)
        return actions

    def _is_dead(self, link: _Link, now_s: float) -> bool:
        if link.greeted_at_s is None:
            return now_s - link.dialled_at_s > FEED_DIAL_TIMEOUT_S
        return now_s - link.heard_at_s > FEED_SILENCE_S

    def _without_current(self, now_s: float) -> list[FailoverAction]:
        candidate = self._candidate
        if candidate is None:
            ready = [(a, p) for a, p in self._places.items() if p.retry_at_s <= now_s]
            ready.sort(key=lambda item: (item[1].zone != self._zone, item[1].failures, item[1].rank))
            return [self._dial(*ready[0], now_s, probe=False)] if ready else []
        if candidate.greeted_at_s is None:
            return []
        return self._promote(candidate, now_s)

    def _compare(self, current: _Link, candidate: _Link, now_s: float) -> list[FailoverAction]:
        if candidate.greeted_at_s is None:
            return []
        if self._is_better(current, candidate, now_s):
            if candidate.prepared:
                return [*self._promote(candidate, now_s), Drop(current.id)]
            if candidate.preparing_since_s is None:
                candidate.preparing_since_s = now_s
                return [Prepare(candidate.id)]
            if now_s - candidate.preparing_since_s <= FEED_PREPARE_S:
                return []
        else:
            patience_s = FEED_PROBE_S + (FEED_HOME_STEADY_S if candidate.zone == self._zone else 0.0)
            if now_s - candidate.dialled_at_s <= patience_s:
                return []
        self._candidate = None
        self._pause_probes(now_s)
        return [Drop(candidate.id)]

    def _is_better(self, current: _Link, candidate: _Link, now_s: float) -> bool:
        age_s = candidate.age_s(now_s)
        if current.age_s(now_s) > FEED_STALE_S and age_s + FEED_FRESHER_BY_S < current.age_s(now_s):
            return True
        steady = candidate.fresh_since_s is not None and now_s - candidate.fresh_since_s >= FEED_HOME_STEADY_S
        return candidate.zone == self._zone != current.zone and steady and age_s <= FEED_STALE_S

    def _probe(self, current: _Link, now_s: float) -> list[FailoverAction]:
        stale, away = current.age_s(now_s) > FEED_STALE_S, current.zone != self._zone
        if not stale and not away:
            return []
        choices = [
            (address, place)
            for address, place in self._places.items()
            if address != current.address and place.retry_at_s <= now_s and (stale or place.zone == self._zone)
        ]
        if not choices:
            return []
        choices.sort(key=lambda item: (item[1].probed_at_s, item[1].zone != self._zone, item[1].rank))
        address, place = choices[0]
        place.probed_at_s = now_s
        return [self._dial(address, place, now_s, probe=True)]

    # --- what they do

    def _dial(self, address: str, place: _Place, now_s: float, probe: bool) -> Dial:
        self._last_link += 1
        self._candidate = _Link(self._last_link, place.zone, address, now_s)
        return Dial(self._last_link, place.zone, address, probe)

    def _promote(self, link: _Link, now_s: float) -> list[FailoverAction]:
        self._current, self._candidate = link, None
        self._pause_probes(now_s)
        return [Promote(link.id)]

    def _pause_probes(self, now_s: float) -> None:
        self._probe_at_s = now_s + FEED_PROBE_PAUSE_S * (1 + self._jitter())

    def _forget(self, link: _Link, now_s: float) -> None:
        if link is self._current:
            self._current = None
        else:
            self._candidate = None
        place = self._places.get(link.address)
        if place is None:
            return
        lived = link.greeted_at_s is not None and now_s - link.greeted_at_s > FEED_BACKOFF_MAX_S
        place.failures = 1 if lived else min(place.failures + 1, 16)
        wait_s = min(FEED_BACKOFF_FIRST_S * 2 ** (place.failures - 1), FEED_BACKOFF_MAX_S)
        place.retry_at_s = now_s + wait_s * (0.5 + self._jitter() / 2)

    def _find(self, link: int) -> _Link | None:
        return next((found for found in (self._current, self._candidate) if found and found.id == link), None)

    def _learn(self, projectors: Iterable[tuple[str, str]]) -> None:
        told = tuple(projectors)
        if not told and self._places:
            return  # a projector that knows of none tells nothing
        wanted = {address: zone for zone, address in (*self._static, *told)}
        for address in list(wanted)[FEED_PROJECTORS_MAX:]:
            del wanted[address]
        for address in [known for known in self._places if known not in wanted]:
            del self._places[address]
        for address, zone in wanted.items():
            place = self._places.setdefault(address, _Place(zone, self._jitter()))
            place.zone = zone
