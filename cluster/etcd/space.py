"""How full etcd is: the members' own accounts become one view, a sentence to raise an alarm with, and what to rewrite.

At its quota a member raises the alarm NOSPACE, and from then on the whole cluster takes deletions and reads only:
every write fails, leases can be renewed and none be granted. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cluster.etcd.values import MemberStatus
from runtime.limits import APPLIED_BEHIND_MAX, DEFRAGMENT_FREE_BYTES, SPACE_ALARM_SHARE


class Space(NamedTuple):
    """The fullest member's database file, what of it is used, and its quota, in bytes. `full`: NOSPACE is raised."""

    size_bytes: int
    used_bytes: int
    quota_bytes: int
    full: bool

    @property
    def share(self) -> float:
        """Of the quota."""
        return self.size_bytes / self.quota_bytes if self.quota_bytes else 0.0

    @property
    def alarm(self) -> str | None:
        """What an operator has to know, in a sentence; None while there is room."""
        numbers = f"{_mebibytes(self.size_bytes)} of {_mebibytes(self.quota_bytes)} ({self.share:.0%})"
        if self.full:
            return (
                f"etcd is out of space: its database takes {numbers}, so nothing can be written; reads and proxies are "
                "not affected. The maintenance duty makes room by itself; if this stays, see that the archive is "
                "reachable (nothing is trimmed that it does not have), or raise `quota_bytes` of every etcd member and "
                "restart them one by one"
            )
        if self.share >= SPACE_ALARM_SHARE:
            return (
                f"etcd's database takes {numbers}, and at its quota nothing can be written: see that the archive is "
                "reachable (nothing is trimmed that it does not have), or raise `quota_bytes` of every etcd member"
            )
        return None


def space_of(statuses: Sequence[MemberStatus], default_quota_bytes: int) -> Space | None:
    """One view of the members that answered; None if none did."""
    told = [status for status in statuses if not status.error]
    if not told:
        return None
    quotas = [status.quota_bytes or default_quota_bytes for status in told]
    fullest = max(range(len(told)), key=lambda index: told[index].db_size_bytes / max(quotas[index], 1))
    full = any("NOSPACE" in alarm for status in told for alarm in status.alarms)
    return Space(told[fullest].db_size_bytes, told[fullest].db_in_use_bytes, quotas[fullest], full)


def worth_rewriting(statuses: Sequence[MemberStatus], *, urgent: bool) -> list[int]:
    """Indexes of the members whose files hold much that is free, the leader last.

    None while a member does not answer, since one at a time is to be away at most. `urgent`, when nothing can be
    written: all that answer, since a member that takes no writes does not even count what is free.
    """
    if not urgent and any(status.error for status in statuses):
        return []

    def is_worth_it(status: MemberStatus) -> bool:
        free_bytes = status.db_size_bytes - status.db_in_use_bytes
        return urgent or (free_bytes > DEFRAGMENT_FREE_BYTES and free_bytes > status.db_in_use_bytes)

    found = (index for index, status in enumerate(statuses) if not status.error and is_worth_it(status))
    return sorted(found, key=lambda index: statuses[index].leads)


def in_step(statuses: Sequence[MemberStatus], needed: Sequence[int]) -> bool:
    """Whether the members of these indexes answer, follow one leader, and have applied about the same."""
    asked = [statuses[index] for index in needed]
    leaders = {status.leader_id for status in asked}
    applied = [status.applied_index for status in asked]
    sound = not any(status.error for status in asked) and len(leaders) == 1 and 0 not in leaders
    return sound and max(applied) - min(applied) <= APPLIED_BEHIND_MAX


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.0f} MiB"
