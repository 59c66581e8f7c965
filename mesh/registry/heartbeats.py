"""Who fell silent, and who is heard again: a look at the heartbeats that are kept, judged. Pure.

What this must never do: take our own trouble for that of the instances. So nobody is silent before he was watched for
as long as he may be silent, without a gap of ours; and when much of a service would go at once, or its last healthy
instance, it stays as it is, and an operator is told. A heartbeat that came back always counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import NamedTuple

from mesh.limits import HEARTBEAT_BRAKE_SHARE, HEARTBEAT_BRAKE_WINDOW_US, NAMES_SHOWN
from mesh.registry.rules import heartbeat_s
from mesh.registry.state import HERE, Health, Instance, RegistryState, ServiceKey

Beat = tuple[ServiceKey, str]
"""An instance whose heartbeat is kept: its service and its id."""


class Judged(NamedTuple):
    """What a look came to: by service, whom to mark; and what was `held` back, as an operator is told it."""

    missed: dict[ServiceKey, tuple[str, ...]]
    heard: dict[ServiceKey, tuple[str, ...]]
    held: tuple[str, ...]


def judge(state: RegistryState, kept: Set[Beat], *, now_us: int, watched_s: float) -> Judged:
    """`kept`: the heartbeats that have not run out. `watched_s`: for how long there was no gap in our watching."""
    missed: dict[ServiceKey, tuple[str, ...]] = {}
    heard: dict[ServiceKey, tuple[str, ...]] = {}
    held: list[str] = []
    for key, owing in _owing(state):
        back = tuple(each.id for each in owing if each.silent and (key, each.id) in kept)
        if back:
            heard[key] = back
        gone = [each for each in owing if _is_missed(key, each, kept, now_us, watched_s)]
        if not gone:
            continue
        why = _brake(state, key, owing, gone, now_us)
        if why is None:
            missed[key] = tuple(each.id for each in gone)
        else:
            held.append(why)
    return Judged(missed, heard, tuple(held))


def _owing(state: RegistryState) -> Iterator[tuple[ServiceKey, list[Instance]]]:
    """The instances that owe heartbeats, by service."""
    for key in sorted(state.instances):
        if state.services[key].source != HERE:
            continue
        found = [each for each in state.discovered(key) if heartbeat_s(each) is not None]
        if found:
            yield key, found


def _is_missed(key: ServiceKey, each: Instance, kept: Set[Beat], now_us: int, watched_s: float) -> bool:
    may_be_s = heartbeat_s(each) or 0
    young = each.registered_us + may_be_s * 1_000_000 > now_us  # a registration is a heartbeat
    return not each.silent and (key, each.id) not in kept and not young and watched_s > may_be_s


def _brake(
    state: RegistryState, key: ServiceKey, owing: list[Instance], gone: list[Instance], now_us: int
) -> str | None:
    """What is told in place of marking them; None if they may go."""
    before_us = now_us - HEARTBEAT_BRAKE_WINDOW_US
    lately = [each for each in owing if each.silent and each.health_us > before_us]
    there = len(lately) + sum(not each.silent for each in owing)
    going = {each.id for each in gone}
    left = [each for each in state.discovered(key) if each.health is Health.HEALTHY and each.id not in going]
    many = len(lately) + len(gone) > there * HEARTBEAT_BRAKE_SHARE
    if left and not many:
        return None
    named = f"service {key.service} of namespace {key.namespace} (account {key.account})"
    why = f"{len(lately) + len(gone)} of {there} at once" if many else "the last that are healthy"
    ids = ", ".join(sorted(going)[:NAMES_SHOWN]) + ("…" if len(going) > NAMES_SHOWN else "")
    return (
        f"registry: {named}: no heartbeats from {ids}: "
        f"{why}, so they stay endpoints. If they are gone, deregister them: `meshlog registry deregister`"
    )
