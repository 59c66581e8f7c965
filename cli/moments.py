"""What people write for a moment, as a time or a position of the log. Pure: the clock and the zone are handed in.

    2026-11-22T10:42:00Z   2026-11-22T10:42+01:00     a time
    2026-11-22T10:42       2026-11-22 10:42:30.5      a time on the local clock; without a time of day: midnight
    10:42                  10:42:30                   today; if that has not come yet, yesterday
    yesterday 10:42        today 10:42  tuesday 10:42 the last Tuesday at which it was that time
    2h ago                 1h 30m ago   90 seconds ago
    42                     1.42                       a position (of the present epoch; of epoch 1)
    now

A local time that a change of the clocks skipped or repeated is refused, with what to write in its place: a guess could
be an hour off. Digits alone are always a position, so `20261122` is one.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import NamedTuple

from mesh.errors import SettingsError

MICROSECONDS = 1_000_000
_EPOCH = dt.datetime.fromtimestamp(0, dt.UTC)
_POSITION = re.compile(r"(?:(\d{1,18})\.)?(\d{1,18})", re.ASCII)
_CLOCK_TIME = r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:\.(?P<fraction>\d{1,6}))?)?"
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_OF_A_DAY = re.compile(
    rf"(?:(?:last\s+)?(?P<day>today|yesterday|{'|'.join(_DAYS)}))?\s*(?:(?:at\s+)?{_CLOCK_TIME})?", re.ASCII
)
_AGO = re.compile(r"((?:\d{1,9}(?:\.\d{1,6})?\s*[a-z]+\s*)+)ago", re.ASCII)
_AGO_PART = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*([a-z]+)", re.ASCII)
_UNITS_S = {
    unit: seconds
    for seconds, units in (
        (1, ("s", "sec", "secs", "second", "seconds")),
        (60, ("m", "min", "mins", "minute", "minutes")),
        (3600, ("h", "hr", "hrs", "hour", "hours")),
        (86_400, ("d", "day", "days")),
        (7 * 86_400, ("w", "week", "weeks")),
    )
    for unit in units
}
"""Days and weeks are so many hours here, whatever the clocks did meanwhile."""


class Moment(NamedTuple):
    """A moment: a time in microseconds of UTC, or else a position, whose epoch may be left open.

    `text` is what was written. `now` is a time, and the only one for which `is_now` holds.
    """

    text: str
    time_us: int | None = None
    position: int = 0
    epoch: int | None = None
    is_now: bool = False

    @property
    def wire(self) -> str:
        """As the API takes it."""
        if self.time_us is not None:
            return utc(self.time_us)
        return str(self.position) if self.epoch is None else f"{self.epoch}.{self.position}"

    @property
    def echo(self) -> str | None:
        """What to tell whoever wrote it, in UTC; None where they named a position, or now."""
        return None if self.time_us is None or self.is_now else f"{self.text} is {utc(self.time_us)}"


class SystemZone(dt.tzinfo):
    """The zone of this machine (TZ, /etc/localtime), with its changes of clock."""

    def utcoffset(self, at: dt.datetime | None) -> dt.timedelta | None:
        return None if at is None else at.replace(tzinfo=None).astimezone().utcoffset()

    def dst(self, at: dt.datetime | None) -> dt.timedelta | None:  # noqa: ARG002 - tzinfo's signature
        return None

    def tzname(self, at: dt.datetime | None) -> str | None:
        return None if at is None else at.replace(tzinfo=None).astimezone().tzname()

    def fromutc(self, at: dt.datetime) -> dt.datetime:
        return at.replace(tzinfo=dt.UTC).astimezone().replace(tzinfo=self)


def parse_moment(text: str, now_us: int, zone: dt.tzinfo | None = None) -> Moment:
    """Read what somebody wrote; SettingsError with examples if it is no moment. `zone`: else this machine's."""
    wanted = " ".join(text.split())
    small = wanted.lower()
    if small == "now":
        return Moment(text, now_us, is_now=True)
    if position := _POSITION.fullmatch(small):
        return Moment(text, position=int(position[2]), epoch=int(position[1]) if position[1] else None)
    try:
        at_us = _time_of(wanted, small, now_us, zone or SystemZone())
    except (OverflowError, OSError) as error:
        raise SettingsError(f"'{text}' is out of the range of times") from error
    if at_us is None:
        raise SettingsError(
            f"'{text}' is no moment: write a time (2026-11-22T10:42, 10:42, yesterday 10:42, 2h ago) or a position of "
            "the log (42, 1.42)"
        )
    if at_us < 0:
        raise SettingsError(f"'{text}' is before 1970, and so before any log")
    return Moment(text, at_us)


def utc(time_us: int) -> str:
    """ISO 8601 in UTC, no more digits than needed."""
    at = _EPOCH + dt.timedelta(microseconds=time_us)
    return at.isoformat(timespec="microseconds" if at.microsecond else "seconds").replace("+00:00", "Z")


def _time_of(wanted: str, small: str, now_us: int, zone: dt.tzinfo) -> int | None:
    if ago := _AGO.fullmatch(small):
        return _ago(ago[1], now_us)
    if of_day := _OF_A_DAY.fullmatch(small):
        return _of_a_day(of_day, now_us, zone)
    try:
        at = dt.datetime.fromisoformat(wanted)
    except ValueError:
        return None
    return _us(_settled(at, zone) if at.tzinfo is None else at)


def _ago(parts: str, now_us: int) -> int | None:
    total_us = 0
    for number, unit in _AGO_PART.findall(parts):
        if unit not in _UNITS_S:
            return None
        total_us += round(float(number) * _UNITS_S[unit] * MICROSECONDS)
    return now_us - total_us


def _of_a_day(match: re.Match[str], now_us: int, zone: dt.tzinfo) -> int | None:
    day, hour = match["day"], match["hour"]
    if day is None and hour is None:
        return None
    try:
        clock = dt.time(
            int(hour or 0),
            int(match["minute"] or 0),
            int(match["second"] or 0),
            int((match["fraction"] or "").ljust(6, "0")),
        )
    except ValueError:
        return None
    today = (_EPOCH + dt.timedelta(microseconds=now_us)).astimezone(zone).date()
    if day == "today":
        return _us(_settled(dt.datetime.combine(today, clock), zone))
    if day == "yesterday":
        return _us(_settled(dt.datetime.combine(today - dt.timedelta(1), clock), zone))
    back = 0 if day is None else (today.weekday() - _DAYS.index(day)) % 7
    latest = dt.datetime.combine(today - dt.timedelta(back), clock)
    if _earliest_us(latest, zone) > now_us:
        latest -= dt.timedelta(1 if day is None else 7)
    return _us(_settled(latest, zone))


def _earliest_us(local: dt.datetime, zone: dt.tzinfo) -> int:
    return min(_us(local.replace(tzinfo=zone, fold=fold)) for fold in (0, 1))


def _settled(local: dt.datetime, zone: dt.tzinfo) -> dt.datetime:
    """The one moment at which local clocks showed that; SettingsError if there were none or two."""
    first, second = (local.replace(tzinfo=zone, fold=fold).utcoffset() or dt.timedelta() for fold in (0, 1))
    if first == second:
        return local.replace(tzinfo=dt.timezone(first))
    shown = local.isoformat(sep=" ", timespec="minutes")
    one, two = (local.replace(tzinfo=dt.timezone(offset)).isoformat(timespec="minutes") for offset in (first, second))
    if first > second:
        raise SettingsError(f"{shown} was there twice, since the clocks went back: write {one} or {two}")
    raise SettingsError(f"{shown} was never there, since the clocks went forward past it: write {one} or {two}")


def _us(at: dt.datetime) -> int:
    return (at - _EPOCH) // dt.timedelta(microseconds=1)
