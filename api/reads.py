"""What a read under `/meshlog/v1/` is answered from, as its caller asks: confirmed by a quorum, or as it is at hand.

    ?consistency=strong   (the default) everything that was written before the read began is in the answer; needs etcd
    ?consistency=stale    what this server has folded, marked with its age; needs nothing and nobody
    ?min_position=1.42    not before that position: the read waits for it. `x-meshlog-position` of a write, given to a
                          stale read, makes the caller see its own write, at the cost of no quorum

A stale answer has `position` and `age_s`: how many seconds ago the newest quorum read began whose head it holds; null
if there was none yet. What this must never do: answer from before `min_position`, or give stale data that was not
asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from api.appmesh import confirmed_state
from api.calls import Answer, Call
from api.ports import ApiPorts
from api.requests import one_of, position_of
from mesh.errors import BadRequest, NotReady
from mesh.position import Position, parse_position
from mesh.registry.state import RegistryState
from mesh.state import State

CONSISTENCY, MIN_POSITION = "consistency", "min_position"
STRONG, STALE = "strong", "stale"
READING = (CONSISTENCY, MIN_POSITION)
"""The query members of every read that can be answered from what is at hand; others take MIN_POSITION alone."""


class Reading(NamedTuple):
    """A state to answer from. `age`: what marks the answer as stale; empty for one that a quorum has confirmed."""

    state: State
    age: Mapping[str, Any]

    def answer(self, document: Mapping[str, Any]) -> Answer:
        """The success that this reading led to."""
        return Answer({**document, **self.age}, self.state.position)


def is_stale(call: Call) -> bool:
    """Whether a caller asks for what is at hand; BadRequest for a word that is neither."""
    return one_of(call.members.get(CONSISTENCY, STRONG), CONSISTENCY, (STRONG, STALE)) == STALE


async def reading(ports: ApiPorts, call: Call) -> Reading:
    """The state that the call asked for; NotReady when `min_position` is not folded in time."""
    stale = is_stale(call)
    if not stale:
        await confirmed_state(ports)
    await reached(ports, call)
    state = ports.replica.state
    return Reading(state, _age(ports, state) if stale else {})


def registry_at_hand(ports: ApiPorts) -> RegistryState:
    """The registry as this server has folded it; empty where it has none."""
    return ports.registry.replica.state if ports.registry is not None else RegistryState()


async def reached(ports: ApiPorts, call: Call) -> None:
    """Return when this server has folded the call's `min_position`, if it names one; NotReady when not in time."""
    wanted = call.members.get(MIN_POSITION)
    if wanted is None:
        return
    state = ports.replica.state
    try:
        position = parse_position(wanted, state.position.epoch)
    except (BadRequest, ValueError) as error:
        raise BadRequest(f"{MIN_POSITION}: '{wanted[:80]}' is not a log position: write 42, or 1.42") from error
    if position > state.position:
        await _wait(ports, position)
    position_of(wanted, ports.replica.state, MIN_POSITION)  # one that a restore left behind was never reached


async def _wait(ports: ApiPorts, position: Position) -> None:
    try:
        await ports.replica.wait_for(position, ports.read_deadline_s)
    except NotReady as late:
        raise NotReady(
            f"{MIN_POSITION}: this server is at {ports.replica.state.position} and did not reach {position} within "
            f"{ports.read_deadline_s:g} s ({late.message}) Try again, or another server."
        ) from None


def _age(ports: ApiPorts, state: State) -> dict[str, Any]:
    age_s = ports.replica.confirmed_age_s
    return {"position": str(state.position), "age_s": round(age_s, 3) if math.isfinite(age_s) else None}
