"""A moment as a user types it: a position (`42`, `1.42`), a time (ISO 8601, `10:42`), or how long ago (`2h ago`).

A time without a zone is this machine's own; whoever prints it back says it in UTC.
"""

from __future__ import annotations

import datetime
import re
from typing import NamedTuple

from mesh.errors import SettingsError

_POSITION = re.compile(r"(?:(\d{1,9})\.)?(\d{1,18})", re.ASCII)
_AGO = re.compile(r"(\d{1,9})\s*(s|m|min|h|d)\s+ago", re.ASCII)
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?", re.ASCII)
_UNIT_S = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}


class Moment(NamedTuple):
    """Either a time (microseconds since the Unix epoch), or a position: `epoch` None where it was not said."""

    time_us: int | None = None
    epoch: int | None = None
    position: int = 0


def parse_moment(text: str, now_us: int) -> Moment:
    """SettingsError, saying what may be written, for anything else. `10:42` is the last such time that has been."""
    text = text.strip()
    if found := _POSITION.fullmatch(text):
        return Moment(None, int(found[1]) if found[1] else None, int(found[2]))
    if found := _AGO.fullmatch(text):
        return Moment(now_us - int(found[1]) * _UNIT_S[found[2]] * 1_000_000)
    try:
        if found := _CLOCK.fullmatch(text):
            now = _local(now_us)
            at = now.replace(hour=int(found[1]), minute=int(found[2]), second=int(found[3] or 0), microsecond=0)
            return Moment(_us(at if at <= now else at - datetime.timedelta(days=1)))
        return Moment(_us(datetime.datetime.fromisoformat(text)))
    except (ValueError, OverflowError) as error:
        raise SettingsError(
            f"'{text}' is no moment: write a position (42, 1.42), a time (2026-11-22T10:42, 10:42), or '2h ago'"
        ) from error


def iso_utc(time_us: int) -> str:
    """A time as it is printed."""
    at = datetime.datetime.fromtimestamp(time_us // 1_000_000, datetime.UTC)
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


def _local(time_us: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(time_us / 1_000_000, datetime.UTC).astimezone()


def _us(at: datetime.datetime) -> int:
    return round(at.astimezone(datetime.UTC).timestamp() * 1_000_000)
