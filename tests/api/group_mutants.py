"""Group-commit machines that break linearizability: for the tests of whatever has to find them out."""

from __future__ import annotations

from api.batch import Refused
from api.group_commit import Append, GroupCommit, HandOver
from api.outcomes import final
from eventlog.records import HeadRef
from mesh.position import Position
from mesh.state import State


class RejectsFromSpeculativeState(GroupCommit):
    """Answers a refusal that was decided behind events which may never be."""

    def plan(self, state: State, head: HeadRef, wall_us: int, *, peers: bool = False) -> Append | HandOver | None:
        todo = super().plan(state, head, wall_us, peers=peers)
        for member in self._flight.members if self._flight else ():
            if isinstance(member, Refused):
                self._answer(member.ticket, final(member.refusal, member.ticket))
        return todo


class RejectsFromOldState(GroupCommit):
    """Answers a refusal that was decided on whatever this server had folded."""

    def plan(self, state: State, head: HeadRef, wall_us: int, *, peers: bool = False) -> Append | HandOver | None:
        for ticket in self._queue:
            ticket.confirmed = Position(1, 0)
        return super().plan(state, head, wall_us, peers=peers)
