"""The checkers are proven with mutants: each takes a good history, breaks one thing, and the check must turn red."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chaos import checks
from chaos.traffic import Sample, TrafficReport
from chaos.writers import ACKED, REFUSED, UNKNOWN, Write

Log = list[dict[str, Any]]
Writes = list[Write]


def write(verb: str, resource: str, position: int, version: int, outcome: str = ACKED) -> Write:
    acked = outcome == ACKED
    return Write(
        verb=verb,
        resource=resource,
        token=f"t-{position}",
        outcome=outcome,
        position=f"1.{position}" if acked else "",
        version=version if acked else 0,
        uid=f"uid-{resource}" if acked else "",
        attempts=1,
        started_s=float(position),
        ended_s=position + 0.5,
    )


def event(kind: str, resource: str, position: int) -> dict[str, Any]:
    return {
        "epoch": 1,
        "position": position,
        "type": kind,
        "mesh": "m",
        "resource": f"mesh/m/virtualRouter/r/route/{resource}",
        "actor": "admin",
    }


def good_history() -> tuple[Writes, Log]:
    """Three acknowledged writes, one unknown that landed, one unknown that did not."""
    writes = [
        write("create", "a", 4, 1),
        write("create", "b", 5, 1),
        write("update", "a", 6, 2),
        write("update", "b", 7, 2, UNKNOWN),
        write("create", "c", 8, 1, UNKNOWN),
    ]
    log = [
        event("ResourceCreated", "a", 4),
        event("ResourceCreated", "b", 5),
        event("ResourceUpdated", "a", 6),
        event("ResourceUpdated", "b", 7),
    ]
    return writes, log


def test_a_good_history_is_green() -> None:
    writes, log = good_history()
    assert checks.acked_exactly_once(writes, log).ok
    assert checks.versions_never_repeat(writes).ok
    assert checks.positions_contiguous(log).ok
    assert checks.none_refused(writes).ok


def drop_an_acked_write(writes: Writes, log: Log) -> tuple[Writes, Log]:
    return writes, [entry for entry in log if entry["position"] != 5]


def append_it_twice(writes: Writes, log: Log) -> tuple[Writes, Log]:
    return writes, [*log, event("ResourceCreated", "a", 8)]


def swap_two_records(writes: Writes, log: Log) -> tuple[Writes, Log]:
    return writes, [event("ResourceCreated", "b", 4), event("ResourceCreated", "a", 5), *log[2:]]


def answer_another_position(writes: Writes, log: Log) -> tuple[Writes, Log]:
    return [replace(writes[0], position="1.6"), *writes[1:]], log


def answer_two_writes_with_one_event(writes: Writes, log: Log) -> tuple[Writes, Log]:
    return [*writes, replace(write("update", "a", 6, 2), token="other")], log


def land_a_refused_write(writes: Writes, log: Log) -> tuple[Writes, Log]:
    return [*writes, write("create", "d", 8, 1, REFUSED)], [*log, event("ResourceCreated", "d", 8)]


def land_an_unknown_write_twice(writes: Writes, log: Log) -> tuple[Writes, Log]:
    return writes, [*log, event("ResourceUpdated", "b", 8)]


def acknowledge_from_another_epoch(writes: Writes, log: Log) -> tuple[Writes, Log]:
    return [replace(writes[0], position="2.4"), *writes[1:]], log


def acknowledge_nothing(writes: Writes, log: Log) -> tuple[Writes, Log]:
    return [entry for entry in writes if entry.outcome != ACKED], log[3:]


@pytest.mark.parametrize(
    "mutate",
    [
        drop_an_acked_write,
        append_it_twice,
        swap_two_records,
        answer_another_position,
        answer_two_writes_with_one_event,
        land_a_refused_write,
        land_an_unknown_write_twice,
        acknowledge_from_another_epoch,
        acknowledge_nothing,
    ],
)
def test_acked_exactly_once_kills(mutate: Callable[[Writes, Log], tuple[Writes, Log]]) -> None:
    assert not checks.acked_exactly_once(*mutate(*good_history())).ok


def test_a_position_listed_twice_is_red() -> None:
    writes, log = good_history()
    assert not checks.acked_exactly_once(writes, [*log, log[-1]]).ok
    assert not checks.positions_contiguous([*log, log[-1]]).ok


def test_a_gap_in_the_log_is_red() -> None:
    _, log = good_history()
    assert not checks.positions_contiguous([log[0], *log[2:]]).ok
    assert not checks.positions_contiguous([]).ok


def test_a_version_given_twice_is_red() -> None:
    writes, _ = good_history()
    assert not checks.versions_never_repeat([*writes, write("update", "a", 9, 2)]).ok
    assert not checks.versions_never_repeat([*writes, write("update", "a", 9, 1)]).ok
    assert not checks.versions_never_repeat([]).ok


def test_a_refused_legal_write_is_red() -> None:
    writes, _ = good_history()
    assert not checks.none_refused([*writes, write("update", "a", 9, 3, REFUSED)]).ok
    assert not checks.none_refused([]).ok


def sample(status: int = 200, error: str = "") -> Sample:
    return Sample(at_s=1.0, late_ms=0.1, latency_ms=2.0, status=status, upstream="v1", error=error)


def test_all_good_answers_are_green() -> None:
    assert checks.no_request_failed(TrafficReport(3, 1.0, [sample()] * 3), at_least=3).ok


@pytest.mark.parametrize(
    "report",
    [
        TrafficReport(3, 1.0, [sample(), sample(503), sample()]),
        TrafficReport(3, 1.0, [sample(), sample(0, "ConnectionRefusedError"), sample()]),
        TrafficReport(3, 1.0, [sample(200, "IncompleteReadError"), sample(), sample()]),
        TrafficReport(3, 1.0, [sample(), sample()]),
        TrafficReport(2, 1.0, [sample(), sample()]),
        TrafficReport(0, 1.0, []),
    ],
    ids=["status 503", "no connection", "cut body", "request without outcome", "too few", "none"],
)
def test_a_failed_or_missing_request_is_red(report: TrafficReport) -> None:
    assert not checks.no_request_failed(report, at_least=3).ok


def replica(role: str, zone: str, state_hash: str = "aa", position: int = 7) -> dict[str, Any]:
    return {"role": role, "zone": zone, "state_hash": state_hash, "epoch": 1, "position": position}


def replicas() -> list[dict[str, Any]]:
    return [replica(role, zone) for role in ("api", "projector") for zone in ("z1", "z2", "z3")]


def test_equal_replicas_are_green_and_other_roles_do_not_matter() -> None:
    assert checks.hashes_equal([*replicas(), {"role": "etcd", "zone": "z1"}], "1.7").ok


@pytest.mark.parametrize(
    "mutant",
    [
        replica("projector", "z3", state_hash="bb"),
        replica("api", "z3", state_hash=""),
        replica("api", "z3", position=6),
    ],
    ids=["other hash", "no hash", "behind"],
)
def test_an_unequal_replica_is_red(mutant: dict[str, Any]) -> None:
    assert not checks.hashes_equal([*replicas()[:-1], mutant], "1.7").ok


def test_a_single_replica_proves_nothing() -> None:
    assert not checks.hashes_equal(replicas()[:1], "1.7").ok


def test_fsck_is_judged_by_its_exit_code() -> None:
    assert checks.fsck_clean(0, "7 records, clean").ok
    assert not checks.fsck_clean(1, "position 4: hash differs").ok


def test_recovery_has_a_bound_and_needs_a_fault() -> None:
    assert checks.recovered_in_time({"0:api": 2.0}, 10.0).ok
    assert not checks.recovered_in_time({"0:api": 11.0}, 10.0).ok
    assert not checks.recovered_in_time({}, 10.0).ok


def test_a_rejected_update_or_a_warming_cluster_is_red() -> None:
    good = {"cluster_manager.cds.update_success": 4, "cluster_manager.warming_clusters": 0}
    assert checks.envoy_accepted_all(good).ok
    assert not checks.envoy_accepted_all({**good, "listener_manager.lds.update_rejected": 1}).ok
    assert not checks.envoy_accepted_all({**good, "cluster_manager.warming_clusters": 1}).ok
    assert not checks.envoy_accepted_all({}).ok
