"""The benches of long histories run, small; their figures belong together, and both starts come to one state."""

from __future__ import annotations

import json

from bench import log_history, log_replay
from bench.long_log import NODES, ROUTES


def test_a_replay_is_told_piece_by_piece_beside_its_yardsticks() -> None:
    host, line = map(json.loads, log_replay.measure(1_000))
    assert 300 < host["host"]["event_bytes"] < 1_000
    assert line["n"] == 1_000
    assert set(line["event_us"]) == {"chain", "open", "fold", "settle"}
    assert all(spent > 0 for spent in line["event_us"].values())
    assert min(line["yardstick_events_per_s"].values()) > line["events_per_s"] > 0
    assert line["goal_met"] == (line["events_per_s"] >= log_replay.GOAL_PER_S)


def test_a_history_is_started_from_and_trimmed() -> None:
    _host, written, start, size = map(json.loads, log_history.measure(1_000))
    assert written["n"] == 1_000
    assert start["tokens"] == 1_000
    assert start["ready_s"] >= start["load_s"] + start["tail_s"] - 0.01
    assert start["yardstick_read_s"] > 0
    assert 0 < size["left_events"] <= 500 < size["n"]
    assert size["left_events"] > NODES + ROUTES
    assert size["whole_mb"] > size["yardstick_frames_mb"] > 0
