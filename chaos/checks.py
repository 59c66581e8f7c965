"""The verdicts: pure functions from what was observed to `Check`s, each naming the invariant that it guards.

Stage: the last of a fault run. Turns writes, log, traffic, status and fsck into red or green. It must never be green
for lack of evidence: a run without writes, requests or replicas is red. `tests/chaos/test_checks.py` proves each with
mutants.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chaos.traffic import TrafficReport
from chaos.writers import ACKED, REFUSED, UNKNOWN, Write

SHOWN = 5
CREATED = "create"
UPDATED = "update"


@dataclass(frozen=True)
class Check:
    """One verdict. `detail` says what was counted, and when red, which observation broke it."""

    name: str
    invariant: str
    ok: bool
    detail: str


def _verdict(name: str, invariant: str, problems: Sequence[str], evidence: str) -> Check:
    if not problems:
        return Check(name, invariant, True, evidence)
    more = f" (and {len(problems) - SHOWN} more)" if len(problems) > SHOWN else ""
    return Check(name, invariant, False, "; ".join(problems[:SHOWN]) + more)


def event_verb(event: Mapping[str, Any]) -> str:
    """create, update or delete, from the event's type such as `ResourceCreated`; the type itself when it is none of
    them.
    """
    kind = str(event["type"]).lower()
    for verb in (CREATED, UPDATED, "delete"):
        if verb in kind:
            return verb
    return kind


def event_name(event: Mapping[str, Any]) -> str:
    """The last segment of the event's resource: `mesh/m/virtualRouter/r/route/web-1` -> `web-1`."""
    return str(event.get("resource") or "").rpartition("/")[2]


def position_of(event: Mapping[str, Any]) -> str:
    """`<epoch>.<position>` of an event or a replica, as the answers' position header has it."""
    return f"{event.get('epoch')}.{event.get('position')}"


def acked_exactly_once(writes: Sequence[Write], log: Sequence[Mapping[str, Any]]) -> Check:
    """I1. Every acknowledged write is the event at the position that its answer named; per resource and verb there
    are as many events as acknowledged writes, and at most the unknown ones more; refused writes left nothing.
    """
    acked = [write for write in writes if write.outcome == ACKED]
    problems: list[str] = []
    if not acked:
        problems.append("no write was acknowledged: nothing is proven")
    at = {position_of(event): event for event in log}
    if len(at) != len(log):
        problems.append(f"{len(log) - len(at)} positions occur twice in the log")
    claims = Counter(write.position for write in acked)
    for write in acked:
        event = at.get(write.position)
        if event is None:
            problems.append(f"{write.verb} {write.resource}: acknowledged at {write.position!r}, not in the log")
        elif (event_verb(event), event_name(event)) != (write.verb, write.resource):
            problems.append(
                f"{write.verb} {write.resource}: {write.position} is {event['type']} {event.get('resource')} in the log"
            )
        elif claims[write.position] > 1:
            problems.append(f"{write.verb} {write.resource}: {claims[write.position]} answers name {write.position}")
    problems.extend(_count_problems(writes, log))
    unknown = sum(write.outcome == UNKNOWN for write in writes)
    return _verdict("acknowledged writes are in the log once", "I1", problems, f"{len(acked)} acked, {unknown} unknown")


def _count_problems(writes: Sequence[Write], log: Sequence[Mapping[str, Any]]) -> list[str]:
    outcomes: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for write in writes:
        outcomes[write.verb, write.resource][write.outcome] += 1
    events = Counter((event_verb(event), event_name(event)) for event in log)
    problems: list[str] = []
    for (verb, resource), counted in outcomes.items():
        found = events[verb, resource]
        if found < counted[ACKED]:
            problems.append(f"{verb} {resource}: {counted[ACKED]} acknowledged, {found} in the log")
        if found > counted[ACKED] + counted[UNKNOWN]:
            problems.append(
                f"{verb} {resource}: {found} in the log, {counted[ACKED]} acknowledged, {counted[UNKNOWN]} unknown"
            )
    return problems


def versions_never_repeat(writes: Sequence[Write]) -> Check:
    """I1. No two acknowledged writes of one resource have one version, and versions follow the order of the log."""
    acked = [write for write in writes if write.outcome == ACKED]
    problems = [] if acked else ["no write was acknowledged: nothing is proven"]
    by_uid: dict[str, list[Write]] = defaultdict(list)
    for write in acked:
        by_uid[write.uid].append(write)
    for same in by_uid.values():
        ordered = sorted(same, key=lambda write: tuple(int(part) for part in write.position.split(".")))
        versions = [write.version for write in ordered]
        if versions != sorted(set(versions)):
            problems.append(f"{ordered[0].resource}: versions {versions} in log order")
    return _verdict("versions rise and never repeat", "I1", problems, f"{len(by_uid)} resources")


def none_refused(writes: Sequence[Write]) -> Check:
    """I7. The writers only send legal calls: a refusal means that a retry of an own token was taken for another's
    call.
    """
    problems = [f"{write.verb} {write.resource}: {write.problem}" for write in writes if write.outcome == REFUSED]
    if not writes:
        problems.append("no write at all: nothing is proven")
    return _verdict("no legal write is refused", "I7", problems, f"{len(writes)} writes")


def positions_contiguous(log: Sequence[Mapping[str, Any]]) -> Check:
    """I1. The log lists positions without gap or repetition, oldest first."""
    problems = [] if log else ["the log is empty: nothing is proven"]
    for before, after in itertools.pairwise(log):
        if before["epoch"] == after["epoch"] and int(after["position"]) != int(before["position"]) + 1:
            problems.append(f"{position_of(after)} follows {position_of(before)}")
    return _verdict("positions are contiguous", "I1", problems, f"{len(log)} events")


def no_request_failed(report: TrafficReport, at_least: int) -> Check:
    """I3. Every scheduled request has an answer and every answer is good; fewer than `at_least` prove nothing."""
    problems = [f"request {line}" for line in report.failures()]
    if len(report.samples) != report.scheduled:
        problems.append(f"{report.scheduled} requests were scheduled, {len(report.samples)} have an outcome")
    if report.scheduled < at_least:
        problems.append(f"only {report.scheduled} requests were made, {at_least} are needed to prove anything")
    return _verdict("no request failed", "I3", problems, f"{len(report.samples)} requests, 0 failed")


def hashes_equal(processes: Sequence[Mapping[str, Any]], log_end: str) -> Check:
    """I4. Every API server and every projector is at `log_end` and has the one state hash."""
    replicas = [process for process in processes if process["role"] in ("api", "projector")]
    problems: list[str] = []
    if len(replicas) < 2:
        problems.append(f"only {len(replicas)} replicas: nothing to compare")
    for replica in replicas:
        where = f"{replica['role']}@{replica['zone']}"
        if not replica.get("state_hash"):
            problems.append(f"{where} tells no state hash")
        if position_of(replica) != log_end:
            problems.append(f"{where} is at {position_of(replica)}, the log ends at {log_end}")
    hashes = {str(replica.get("state_hash")) for replica in replicas}
    if len(hashes) > 1:
        told = {f"{one['role']}@{one['zone']}": str(one.get("state_hash"))[:16] for one in replicas}
        problems.append(f"state hashes differ: {told}")
    return _verdict("replicas have equal state", "I4", problems, f"{len(replicas)} replicas at {log_end}")


def fsck_clean(code: int, output: str) -> Check:
    """I1, I7. `meshlog fsck` ended with 0."""
    problems = [] if code == 0 else [f"fsck exited with {code}: {output.strip()[-500:]}"]
    return _verdict("fsck is clean", "I1", problems, output.strip().splitlines()[-1] if output.strip() else "exit 0")


def recovered_in_time(recoveries_s: Mapping[str, float], bound_s: float) -> Check:
    """Every killed process was ready again within `bound_s` of its restart."""
    problems = [f"{name}: {seconds:.1f} s" for name, seconds in recoveries_s.items() if seconds > bound_s]
    if not recoveries_s:
        problems.append("nothing was killed: nothing is proven")
    slowest = max(recoveries_s.values(), default=0.0)
    return _verdict("what was killed comes back", "I3", problems, f"slowest {slowest:.1f} s of {len(recoveries_s)}")


def envoy_accepted_all(stats: Mapping[str, int]) -> Check:
    """I3. The second witness: Envoy rejected no update and has no cluster or listener that waits."""
    problems = [f"{name} = {value}" for name, value in stats.items() if value and _is_bad(name)]
    if not any(name.endswith(".update_success") for name in stats):
        problems.append("Envoy tells no update statistics: nothing is proven")
    return _verdict("Envoy took every update", "I3", problems, f"{len(stats)} statistics")


def _is_bad(name: str) -> bool:
    return name.endswith((".update_rejected", ".warming_clusters", ".total_listeners_warming"))
