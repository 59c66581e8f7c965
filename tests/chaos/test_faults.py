"""The fault plan is a function of its seed; the victims of a fault are a function of the status."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.cluster import Process, leads, parse_process
from chaos.faults import Fault, Target, plan, victims
from mesh.errors import NotFound

ZONES = ("zone-1", "zone-2", "zone-3")
ROLES = ("etcd", "api", "projector", "frontend")


def process(role: str, zone: str, pid: int | None = None) -> Process:
    entry = {
        "role": role,
        "zone": zone,
        "pid": os.getpid() if pid is None else pid,
        "address": "127.0.0.1:1",
        "ready": True,
        "position": "1.4",
        "serve": ["meshlog", "serve", role],
    }
    return parse_process(entry)


def everything() -> list[Process]:
    return [process(role, zone) for zone in ZONES for role in ROLES]


@given(seed=st.integers(), rounds=st.integers(1, 5))
def test_a_plan_hits_every_target_once_a_round_and_repeats_for_its_seed(seed: int, rounds: int) -> None:
    faults = plan(seed, rounds)
    assert faults == plan(seed, rounds)
    assert Counter(fault.target for fault in faults) == dict.fromkeys(Target, rounds)


@given(draw=st.floats(0, 1, exclude_max=True), target=st.sampled_from(list(Target)))
def test_victims_are_what_the_target_says(draw: float, target: Target) -> None:
    chosen = victims(Fault(target, draw), everything(), leader_zone="zone-2")
    if target is Target.ZONE:
        assert {one.role for one in chosen} == set(ROLES)
        assert len({one.zone for one in chosen}) == 1
    else:
        assert len(chosen) == 1
        assert chosen[0].role == {"etcd-follower": "etcd", "etcd-leader": "etcd"}.get(str(target), str(target))
    if target is Target.ETCD_LEADER:
        assert chosen[0].zone == "zone-2"
    if target is Target.ETCD_FOLLOWER:
        assert chosen[0].zone != "zone-2"


def test_the_dead_are_not_killed_again() -> None:
    gone = process("api", "zone-1", pid=2**22 - 1)
    living = process("api", "zone-2")
    assert victims(Fault(Target.API, 0.0), [gone, living], "zone-2") == [living]
    with pytest.raises(NotFound):
        victims(Fault(Target.API, 0.0), [gone], "zone-2")


def test_the_leader_is_the_member_whose_metrics_say_so() -> None:
    head = "# TYPE etcd_server_is_leader gauge\netcd_server_is_leader"
    assert leads(f"{head} 1\netcd_server_has_leader 1\n")
    assert not leads(f"{head} 0\netcd_server_has_leader 1\n")
    assert not leads("")
