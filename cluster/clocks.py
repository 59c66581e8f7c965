"""Whose clock to believe: what members publish of their clocks, against our own. Pure.

Log time never goes back, so one server with a clock far ahead would push it ahead for all. A member's record says what
its clock said when it renewed; when we first see a new one, that renewal lies between our last look and this one. So
each look bounds how far apart the two clocks are, and looks narrow that down. A server that is more than
CLOCK_SKEW_MAX_US off the median of the members, itself among them, must not write.

All is told in terms of our monotonic clock, so that a step of our own wall clock shows at once and not at the next
look. In doubt a clock is taken to be as near to ours as the bounds allow.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import NamedTuple

from cluster.members import Member
from runtime.limits import CLOCK_RENEWAL_S, CLOCK_SKEW_MAX_US, MEMBER_LEASE_S

_NO_CLOCK_OF_ITS_OWN = frozenset({"frontend"})
"""The projector that serves a frontend keeps its record: that is one clock, not two."""


class _Seen(NamedTuple):
    """A member's wall clock less our monotonic one, in microseconds: between `low` and `high`."""

    wall_us: int
    low: int
    high: int


class ClockJudge:
    """One process's view of the members' clocks. `own` is its role and id."""

    def __init__(self, own: tuple[str, str]) -> None:
        self._own = own
        self._seen: dict[tuple[str, str], _Seen] = {}
        self._last_look_us: int | None = None

    def on_look(self, members: Iterable[Member], begun_s: float, ended_s: float) -> None:
        """The members as listed in between, by the monotonic clock. Those that are gone are forgotten."""
        ended_us = int(ended_s * 1e6)
        first_us = ended_us - MEMBER_LEASE_S * 1_000_000
        seen: dict[tuple[str, str], _Seen] = {}
        for member in members:
            name, wall_us = (member.role, member.id), member.wall_us
            if name == self._own or member.role in _NO_CLOCK_OF_ITS_OWN or not wall_us:
                continue
            known = self._seen.get(name)
            if known is not None and known.wall_us == wall_us:
                seen[name] = known
                continue
            # Of a member not seen before, the renewal is as old as a lease lasts at most.
            oldest_us = self._last_look_us if known is not None and self._last_look_us is not None else first_us
            seen[name] = _narrowed(known, _Seen(wall_us, wall_us - ended_us, wall_us - oldest_us))
        self._seen, self._last_look_us = seen, int((begun_s - CLOCK_RENEWAL_S) * 1e6)

    def ahead_us(self, wall_us: int, monotonic_s: float) -> int:
        """How far our clock is ahead of the median (negative: behind); 0 while nobody else is known."""
        own = wall_us - int(monotonic_s * 1e6)
        others = [min(max(own, seen.low), seen.high) for seen in self._seen.values()]
        return own - int(statistics.median([own, *others]))

    def objection(self, wall_us: int, monotonic_s: float) -> str | None:
        """Why this server must not write, in a sentence; None if it may."""
        ahead_us = self.ahead_us(wall_us, monotonic_s)
        if abs(ahead_us) <= CLOCK_SKEW_MAX_US:
            return None
        which = "ahead of" if ahead_us > 0 else "behind"
        return (
            f"this server's clock is {abs(ahead_us) / 1e6:.1f} s {which} the median of the cluster's members, and more "
            f"than {CLOCK_SKEW_MAX_US / 1e6:g} s is too much to write the log by: set its time (NTP); it takes up "
            "writing again by itself"
        )


def _narrowed(known: _Seen | None, new: _Seen) -> _Seen:
    """Both bounds together, if they agree; else a clock was set in between, and the new ones count."""
    if known is None or new.high < known.low or new.low > known.high:
        return new
    return _Seen(new.wall_us, max(known.low, new.low), min(known.high, new.high))
