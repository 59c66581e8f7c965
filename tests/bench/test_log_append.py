"""The append bench runs on real etcd, its figures belong together, and every acknowledged command is in the log."""

from __future__ import annotations

import json

from bench import append_cpu
from bench.log_append import compared, measure, measured


def test_a_short_run_gives_one_line_for_each_number_of_callers() -> None:
    host, *lines = map(json.loads, measure(0.4, 1, members=1, counts=(2,), callers=(1, 4)))
    assert host["host"]["members"] == 1
    assert [(line["appenders"], line["callers"]) for line in lines] == [(2, 1), (2, 4)]
    for line in lines:
        assert line["unavailable"] == 0
        assert line["n"] > 0
        assert 0 < line["share_min"] <= line["share_max"] < 1
        assert line["meshlog"]["event_bytes"] == line["raw_etcd"]["event_bytes"] > 300
        ratio = line["meshlog"]["events_per_s"] / line["raw_etcd"]["events_per_s"]
        assert abs(line["throughput_ratio"] - ratio) < 0.01


def answer(calls: int, **changes: float) -> dict[str, object]:
    counts = {"took_s": 2.0, "cpu_s": 1.0, "unavailable": 0, "events": calls, "frames": 4, "frame_bytes": 512 * calls}
    return {**counts, "lost": 1, "handed_over": 0, "txn_s": [0.002], "latencies_s": [0.004] * calls, **changes}


def test_appenders_of_a_round_are_told_together() -> None:
    together = measured([answer(30), answer(10, unavailable=2, took_s=1.9)])
    assert together["events_per_s"] == 20.0
    assert (together["share_min"], together["share_max"]) == (0.25, 0.75)
    assert (together["batch_mean"], together["event_bytes"]) == (5.0, 512)
    assert (together["unavailable"], together["lost_races"], together["n"]) == (2, 2, 40)


def test_the_goals_are_about_medians_and_both_count() -> None:
    slow, raw = measured([answer(10)]), measured([answer(10)])
    fast = measured([answer(100)])
    assert compared(1, 1, [fast, slow, slow], [raw] * 3)["goals_met"]
    assert not compared(1, 1, [slow], [fast])["goals_met"]
    late = measured([answer(10, latencies_s=[0.006] * 10)])  # type: ignore[arg-type]
    assert compared(1, 1, [late], [raw])["p99_ratio"] == 1.5
    assert not compared(1, 1, [late], [raw])["goals_met"]


def test_what_an_event_costs_is_told_step_by_step() -> None:
    told = json.loads(append_cpu.measure())
    assert all(told[step] > 0 for step in ("decide_us", "fold_us", "seal_us", "open_us", "events_per_s_at_most"))
