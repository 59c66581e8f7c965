"""Many callers, few questions: a frontend's confirms as a pure machine.

A caller may only be answered by a confirm that was sent after it asked. Callers who ask while one is under way share
the next; the next is sent when the first is answered, or after a moment, so that one slow read does not hold up all. A
refused confirm, or one whose projector went away, is asked again while somebody still waits for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from runtime.limits import FEED_CONFIRM_HEDGE_S, FEED_CONFIRM_RETRY_S, FEED_CONFIRMS_MAX


@dataclass(slots=True)
class _Asked:
    sent_at_s: float
    until_s: float
    callers: set[int] = field(default_factory=set)


class Confirms:
    """Callers are numbers; times are monotonic seconds."""

    def __init__(self) -> None:
        self._last = 0
        self._waiting: dict[int, float] = {}
        self._asked: dict[int, _Asked] = {}
        self._deadlines: dict[int, float] = {}
        self._not_before_s = -math.inf

    def call(self, deadline_s: float) -> int:
        """A caller who waits until `deadline_s`."""
        self._last += 1
        self._waiting[self._last] = deadline_s
        self._deadlines[self._last] = deadline_s
        return self._last

    def gone(self, caller: int) -> None:
        """The caller gave up, or was answered."""
        self._waiting.pop(caller, None)
        self._deadlines.pop(caller, None)
        for asked in self._asked.values():
            asked.callers.discard(caller)

    def due(self, now_s: float) -> tuple[int, float] | None:
        """(id, time-out in seconds) of a confirm to send now on the current stream, which must then be sent."""
        if not self._waiting or now_s < self._not_before_s or len(self._asked) >= FEED_CONFIRMS_MAX // 2:
            return None
        if any(asked.callers and now_s - asked.sent_at_s < FEED_CONFIRM_HEDGE_S for asked in self._asked.values()):
            return None
        until_s = max(self._waiting.values())
        if until_s <= now_s:
            return None
        self._last += 1
        self._asked[self._last] = _Asked(now_s, until_s, set(self._waiting))
        self._waiting.clear()
        return self._last, until_s - now_s

    def answered(self, confirm_id: int, ok: bool, now_s: float) -> list[int]:
        """The callers that this answers: all whose confirm was sent no later, for a later read serves them as well."""
        asked = self._asked.pop(confirm_id, None)
        if asked is None:
            return []
        if not ok:
            self._again(asked)
            self._not_before_s = now_s + FEED_CONFIRM_RETRY_S
            return []
        done = set(asked.callers)
        for earlier, other in self._asked.items():
            if earlier < confirm_id:
                done |= other.callers
                other.callers.clear()
        return sorted(done)

    def stream_changed(self) -> None:
        """The stream that was asked is gone: everybody's question goes to the next one."""
        for asked in self._asked.values():
            self._again(asked)
        self._asked.clear()
        self._not_before_s = -math.inf

    def _again(self, asked: _Asked) -> None:
        for caller in asked.callers:
            self._waiting[caller] = self._deadlines[caller]
