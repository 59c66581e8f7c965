"""A figure tells its n, and ranks are those of the sorted values."""

from __future__ import annotations

import json

from bench.figures import line, quantiles_ms


def test_quantiles_are_nearest_ranks_in_milliseconds() -> None:
    seconds = [value / 1000 for value in range(100, 0, -1)]
    assert quantiles_ms(seconds) == {"n": 100, "p50_ms": 51.0, "p99_ms": 100.0, "max_ms": 100.0}
    assert quantiles_ms([]) == {"n": 0}


def test_a_line_is_json_and_says_what_was_measured() -> None:
    told = json.loads(line("feed", "from here to there", [0.002]))
    assert told == {"hop": "feed", "what": "from here to there", "n": 1, "p50_ms": 2.0, "p99_ms": 2.0, "max_ms": 2.0}
