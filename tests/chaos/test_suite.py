"""The verdict of a run is all of its checks, and a run without checks is no success."""

from __future__ import annotations

from dataclasses import replace

from chaos.checks import Check
from chaos.suite import SHORT, Blow, Report, summary_of_writes, table
from chaos.writers import ACKED, UNKNOWN, Write

GREEN = Check("no request failed", "I3", True, "100 requests")
RED = Check("fsck is clean", "I1", False, "position 4: hash differs")
BLOW = Blow("zone", ("api@z1", "etcd@z1"), at_s=3.0, first_ack_s=0.2, back_s=4.0, acked_while_down=7)
WRITE = Write("create", "a", "t", ACKED, "1.4", 1, "u", attempts=2, started_s=1.0, ended_s=1.5)


def report(*checks: Check) -> Report:
    return Report(seed=7, pace=SHORT, checks=list(checks), blows=[BLOW])


def test_one_red_check_makes_the_run_red() -> None:
    assert report(GREEN).ok
    assert not report(GREEN, RED).ok
    assert not report().ok
    assert report(GREEN, RED).as_json()["ok"] is False


def test_the_table_names_the_victims_and_what_is_red() -> None:
    text = table(report(GREEN, RED))
    assert "api@z1, etcd@z1" in text
    assert "RED I1" in text
    assert "position 4: hash differs" in text
    assert text.endswith("CHECKS FAILED")
    assert table(report(GREEN)).endswith("all checks hold")


def test_writes_are_summed_up_by_what_became_of_them() -> None:
    summary = summary_of_writes([WRITE, WRITE, replace(WRITE, outcome=UNKNOWN, attempts=1)])
    assert summary["outcomes"] == {ACKED: 2, UNKNOWN: 1}
    assert summary["retried"] == 2
    assert summary["latency_ms"]["n"] == 2
