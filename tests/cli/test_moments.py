"""What people write for a moment: read on their own clock, refused where it could mean two things."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import subprocess
import sys
from zoneinfo import ZoneInfo

import hypothesis.strategies as st
import pytest
from hypothesis import given

from cli.moments import Moment, SystemZone, parse_moment, utc
from mesh.errors import SettingsError

BERLIN, NEW_YORK, KOLKATA = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York"), ZoneInfo("Asia/Kolkata")
NOW = "2026-11-24T14:30:00Z"
"""A Tuesday; 15:30 in Berlin."""


def us(text: str) -> int:
    return int(dt.datetime.fromisoformat(text).timestamp() * 1_000_000)


def moment(text: str, now: str = NOW, zone: dt.tzinfo = BERLIN) -> Moment:
    return parse_moment(text, us(now), zone)


def read(text: str, now: str = NOW, zone: dt.tzinfo = BERLIN) -> str:
    time_us = moment(text, now, zone).time_us
    assert time_us is not None
    return utc(time_us)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-22T10:42:00Z", "2026-11-22T10:42:00Z"),
        ("2026-11-22T10:42+01:00", "2026-11-22T09:42:00Z"),
        ("2026-11-22T10:42", "2026-11-22T09:42:00Z"),
        ("2026-11-22 10:42:30.5", "2026-11-22T09:42:30.500000Z"),
        ("2026-07-01T10:42", "2026-07-01T08:42:00Z"),
        ("2026-11-22", "2026-11-21T23:00:00Z"),
        ("20261122T104200Z", "2026-11-22T10:42:00Z"),
        ("10:42", "2026-11-24T09:42:00Z"),
        ("15:30", "2026-11-24T14:30:00Z"),
        ("15:31", "2026-11-23T14:31:00Z"),
        ("9:05:07.25", "2026-11-24T08:05:07.250000Z"),
        ("today 10:42", "2026-11-24T09:42:00Z"),
        ("today", "2026-11-23T23:00:00Z"),
        ("yesterday 10:42", "2026-11-23T09:42:00Z"),
        ("Yesterday  at 10:42", "2026-11-23T09:42:00Z"),
        ("monday 10:42", "2026-11-23T09:42:00Z"),
        ("tuesday 10:42", "2026-11-24T09:42:00Z"),
        ("last tuesday 16:00", "2026-11-17T15:00:00Z"),
        ("wednesday 00:00", "2026-11-17T23:00:00Z"),
        ("2h ago", "2026-11-24T12:30:00Z"),
        ("1h 30m ago", "2026-11-24T13:00:00Z"),
        ("1h30m ago", "2026-11-24T13:00:00Z"),
        ("90 seconds ago", "2026-11-24T14:28:30Z"),
        ("1.5 days ago", "2026-11-23T02:30:00Z"),
        ("2 weeks ago", "2026-11-10T14:30:00Z"),
        ("now", NOW),
    ],
)
def test_times_in_berlin(text: str, expected: str) -> None:
    assert read(text) == expected


@pytest.mark.parametrize(
    ("text", "position", "epoch"), [("42", 42, None), ("1.42", 42, 1), ("0", 0, None), ("20261122", 20261122, None)]
)
def test_digits_are_a_position(text: str, position: int, epoch: int | None) -> None:
    found = moment(text)
    assert (found.time_us, found.position, found.epoch) == (None, position, epoch)
    assert found.wire == text
    assert found.echo is None


def test_today_is_the_callers_day_not_that_of_utc() -> None:
    late = "2026-11-22T23:30:00Z"  # the 23rd in Berlin, still the 22nd in New York
    assert read("00:15", late) == "2026-11-22T23:15:00Z"
    assert read("00:45", late) == "2026-11-21T23:45:00Z"
    assert read("18:00", late, NEW_YORK) == "2026-11-22T23:00:00Z"
    assert read("05:00", late, KOLKATA) == "2026-11-22T23:30:00Z"


def test_an_hour_that_was_there_twice_is_asked_back() -> None:
    with pytest.raises(SettingsError, match="was there twice") as asked:
        moment("2026-10-25T02:30")
    assert "2026-10-25T02:30+02:00 or 2026-10-25T02:30+01:00" in asked.value.message
    assert read("2026-10-25T02:30+01:00") == "2026-10-25T01:30:00Z"
    assert read("2026-10-25T01:59") == "2026-10-24T23:59:00Z"
    assert read("2026-10-25T03:00") == "2026-10-25T02:00:00Z"
    with pytest.raises(SettingsError, match="was there twice"):
        moment("02:30", now="2026-10-25T12:00:00Z")


def test_within_the_repeated_hour_a_time_of_day_is_not_taken_for_yesterdays() -> None:
    first_pass = "2026-10-25T00:40:00Z"  # 02:40 for the first time
    with pytest.raises(SettingsError, match="was there twice"):
        moment("02:30", now=first_pass)
    assert read("02:45", now="2026-10-25T00:20:00Z") == "2026-10-24T00:45:00Z"


def test_an_hour_that_never_was_is_asked_back() -> None:
    with pytest.raises(SettingsError, match="was never there") as asked:
        moment("2026-03-29T02:30")
    assert "write 2026-03-29T02:30+01:00 or 2026-03-29T02:30+02:00" in asked.value.message
    assert read("2026-03-29T03:00") == "2026-03-29T01:00:00Z"
    with pytest.raises(SettingsError, match="was never there"):
        moment("2026-03-08T02:30", zone=NEW_YORK)


def test_a_day_ago_is_so_many_hours_whatever_the_clocks_did() -> None:
    after = "2026-10-25T12:00:00Z"
    assert read("1d ago", after) == "2026-10-24T12:00:00Z"
    assert read("yesterday 13:00", after) == "2026-10-24T11:00:00Z"


@pytest.mark.parametrize(
    "text",
    ["", " ", "soon", "25:00", "10:60", "2026-13-01", "2 fortnights ago", "ago", "-5", "1.2.3", "1.", "last",
     "last 10:42", "10:42 yesterday x", "9" * 19, "99999999999999999999 days ago", "999999999 weeks ago",
     "2026-11-22T10:42+99:00"],
)  # fmt: skip
def test_what_is_no_moment_is_told_how_to_write_one(text: str) -> None:
    with pytest.raises(SettingsError) as refused:
        moment(text)
    assert text in refused.value.message


def test_times_are_echoed_in_utc() -> None:
    assert moment("10:42").echo == "10:42 is 2026-11-24T09:42:00Z"
    assert moment("10:42").wire == "2026-11-24T09:42:00Z"
    assert moment("now").echo is None


@given(
    st.datetimes(dt.datetime.fromisoformat("2000-01-01"), dt.datetime.fromisoformat("2037-01-01")),
    st.sampled_from([BERLIN, NEW_YORK, KOLKATA]),
)
def test_every_unambiguous_local_time_is_read_as_the_zone_says(local: dt.datetime, zone: ZoneInfo) -> None:
    try:
        found = moment(local.isoformat(), zone=zone)
    except SettingsError:
        offsets = {local.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1)}
        assert len(offsets) == 2
        return
    assert found.time_us is not None
    back = dt.datetime.fromtimestamp(found.time_us // 1_000_000, zone).replace(
        tzinfo=None, microsecond=found.time_us % 1_000_000
    )
    assert back == local


@given(st.text(max_size=30))
def test_nothing_but_a_settings_error_comes_of_any_text(text: str) -> None:
    with contextlib.suppress(SettingsError):
        parse_moment(text, us(NOW), BERLIN)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "UTC", "CET-1CEST,M3.5.0,M10.5.0/3"])
def test_the_machines_own_zone_is_used_with_its_changes_of_clock(zone: str) -> None:
    code = (
        "from cli.moments import *\n"
        "for text in ('2026-07-01T12:00', '2026-12-01T12:00', '2026-10-25T02:30', '2026-03-29T02:30', '10:42'):\n"
        f"    try: print(utc(parse_moment(text, {us(NOW)}).time_us))\n"
        "    except SettingsError as error: print(error.message.split(',')[0])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "TZ": zone}, capture_output=True, text=True, check=True
    )
    berlin = ["2026-07-01T10:00:00Z", "2026-12-01T11:00:00Z", "2026-10-25 02:30 was there twice",
              "2026-03-29 02:30 was never there", "2026-11-24T09:42:00Z"]  # fmt: skip
    expected = {
        "UTC": ["2026-07-01T12:00:00Z", "2026-12-01T12:00:00Z", "2026-10-25T02:30:00Z", "2026-03-29T02:30:00Z",
                "2026-11-24T10:42:00Z"],
        "America/New_York": ["2026-07-01T16:00:00Z", "2026-12-01T17:00:00Z", "2026-10-25T06:30:00Z",
                             "2026-03-29T06:30:00Z", "2026-11-23T15:42:00Z"],
    }  # fmt: skip
    assert ran.stdout.splitlines() == expected.get(zone, berlin)
    assert SystemZone().utcoffset(None) is None
