"""What a user may type where a command asks for a moment."""

from __future__ import annotations

import datetime

import pytest

from cli.moments import Moment, iso_utc, parse_moment
from mesh.errors import SettingsError

NOW = datetime.datetime(2026, 11, 22, 16, 30, 5, tzinfo=datetime.UTC)
NOW_US = int(NOW.timestamp()) * 1_000_000


@pytest.mark.parametrize(("text", "moment"), [("42", Moment(None, None, 42)), ("1.42", Moment(None, 1, 42))])
def test_a_position(text: str, moment: Moment) -> None:
    assert parse_moment(text, NOW_US) == moment


@pytest.mark.parametrize(
    ("text", "before_s"), [("2h ago", 7200), ("90 min ago", 5400), ("30s ago", 30), ("1d ago", 86_400)]
)
def test_how_long_ago(text: str, before_s: int) -> None:
    assert parse_moment(text, NOW_US) == Moment(NOW_US - before_s * 1_000_000)


@pytest.mark.parametrize("text", ["2026-11-22T10:42:00Z", "2026-11-22T11:42:00+01:00", "2026-11-22 10:42:00+00:00"])
def test_a_time_with_its_zone(text: str) -> None:
    found = parse_moment(text, NOW_US).time_us
    assert found is not None
    assert iso_utc(found) == "2026-11-22T10:42:00Z"


def test_a_time_without_a_zone_is_this_machines() -> None:
    local = NOW.astimezone().replace(tzinfo=None, microsecond=0)
    assert parse_moment(local.isoformat(), NOW_US) == Moment(NOW_US)


@pytest.mark.parametrize("hours", [1, -1])
def test_a_time_of_day_is_the_last_one_that_has_been(hours: int) -> None:
    asked = (NOW.astimezone() + datetime.timedelta(hours=hours)).replace(second=0, microsecond=0)
    found = parse_moment(asked.strftime("%H:%M"), NOW_US).time_us
    assert found is not None
    assert NOW_US - 86_400_000_000 < found <= NOW_US
    assert (found // 1_000_000 - int(asked.timestamp())) % 86_400 == 0


@pytest.mark.parametrize("text", ["", "yesterday", "25:00", "1.2.3", "-4", "2026-13-01", "99999-01-01"])
def test_anything_else_is_refused_and_it_is_said_what_may_be_written(text: str) -> None:
    with pytest.raises(SettingsError, match="2h ago"):
        parse_moment(text, NOW_US)
