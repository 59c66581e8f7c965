"""Watching how far the archive is behind: the log's `archive` entry against the position that a replica has folded.

Every API server does it, so that a dead archiver is noticed by those that live. Reads only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import structlog

from eventlog.archive.archiver import MARK
from eventlog.archive.manifest import Mark, decode_mark
from eventlog.driver import LogDriver
from mesh.errors import MeshlogError
from mesh.position import Position
from runtime.clock import Clock
from runtime.limits import ARCHIVE_ALARM_S, ARCHIVE_SAMPLES, ARCHIVE_WATCH_S

log = structlog.get_logger(__name__)


class ArchiveMonitor:
    """`mark` is the entry as last read, None while there is none. `position` tells how far the log is known here."""

    def __init__(self, driver: LogDriver, place: str, position: Callable[[], Position], clock: Clock) -> None:
        self._driver = driver
        self.place = place
        self._position = position
        self._clock = clock
        self._ahead: deque[tuple[float, Position]] = deque(maxlen=ARCHIVE_SAMPLES)
        self._alarmed = False
        self.mark: Mark | None = None

    @property
    def lag_s(self) -> float:
        """For how long something of the log has been missing from the archive."""
        return self._clock.monotonic_s() - self._ahead[0][0] if self._ahead else 0.0

    @property
    def alarm(self) -> str | None:
        """What an operator has to know, None while all is well."""
        if self.lag_s < ARCHIVE_ALARM_S:
            return None
        reached = self.mark.head.at if self.mark else "nothing"
        return (
            f"The archive in {self.place} has been behind for {self.lag_s:.0f} s (it has {reached}, the log is at "
            f"{self._position()}): nothing is lost and nothing is trimmed until it is back, and etcd grows meanwhile"
        )

    async def run(self, every_s: float = ARCHIVE_WATCH_S) -> None:
        """Look so often, for ever."""
        while True:
            await self._clock.sleep(every_s)
            try:
                await self.look()
            except MeshlogError as failure:
                log.info("archive entry not read", reason=failure.message)
            alarm = self.alarm
            if (alarm is not None) != self._alarmed:
                self._alarmed = alarm is not None
                if alarm:
                    log.error("archive alarm", reason=alarm)
                else:
                    log.info("archive alarm over", place=self.place)

    async def look(self) -> None:
        """One look. NoQuorum; Damaged if the entry is not readable."""
        at, begun_s = self._position(), self._clock.monotonic_s()
        entry = await self._driver.read_entry(MARK)
        self.mark = None if entry is None else decode_mark(entry.value)
        if len(self._ahead) == self._ahead.maxlen:
            self._ahead.pop()  # the oldest counts
        self._ahead.append((begun_s, at))
        while self._ahead and self.mark is not None and self._ahead[0][1] <= self.mark.head.at:
            self._ahead.popleft()
