"""Which processes to kill, and in which order: the plan is a pure function of a seed and of what the status lists.

Stage: between a seed and `Cluster.kill`. Turns (seed, rounds) into a sequence of `Fault`s and a fault with the
processes of the moment into the victims. It must never choose by anything that the seed and the status do not fix, so
that a run can be repeated.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from chaos.cluster import Process
from mesh.errors import NotFound

T = TypeVar("T")


class Target(StrEnum):
    """What is killed with SIGKILL."""

    API = "api"
    PROJECTOR = "projector"
    FRONTEND = "frontend"
    ETCD_FOLLOWER = "etcd-follower"
    ETCD_LEADER = "etcd-leader"
    ZONE = "zone"


@dataclass(frozen=True)
class Fault:
    """One blow. `draw` in [0, 1) picks the victim among the candidates, sorted by zone, when the time comes."""

    target: Target
    draw: float


def plan(seed: int, rounds: int) -> list[Fault]:
    """Every target once per round, in an order drawn from the seed."""
    # Reproducible on purpose.
    draws = random.Random(seed)  # noqa: S311
    faults: list[Fault] = []
    for _ in range(rounds):
        targets = list(Target)
        draws.shuffle(targets)
        faults.extend(Fault(target, draws.random()) for target in targets)
    return faults


def victims(fault: Fault, processes: Sequence[Process], leader_zone: str) -> list[Process]:
    """The living processes that `fault` kills now. `leader_zone` is the zone of the etcd leader."""
    living = sorted((process for process in processes if process.alive), key=lambda one: (one.zone, one.role))
    if fault.target is Target.ZONE:
        zones = sorted({process.zone for process in living})
        if not zones:
            raise NotFound("no living process in any zone")
        zone = _pick(zones, fault.draw)
        return [process for process in living if process.zone == zone]
    candidates = [process for process in living if _matches(fault.target, process, leader_zone)]
    if not candidates:
        raise NotFound(f"no living process for {fault.target}; living: {[process.name for process in living]}")
    return [_pick(candidates, fault.draw)]


def _matches(target: Target, process: Process, leader_zone: str) -> bool:
    if target is Target.ETCD_LEADER:
        return process.role == "etcd" and process.zone == leader_zone
    if target is Target.ETCD_FOLLOWER:
        return process.role == "etcd" and process.zone != leader_zone
    return process.role == str(target)


def _pick(options: Sequence[T], draw: float) -> T:
    return options[min(int(draw * len(options)), len(options) - 1)]
