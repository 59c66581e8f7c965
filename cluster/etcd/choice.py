"""Which etcd member to ask, and whose answers to believe. Pure but for a lock, since watches run in threads.

Own zone first, then health; a member that failed is tried last for a while. An answer of another cluster stops the
process; an answer from an older Raft term than one seen before the call comes from a member that was cut off.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

from mesh.errors import TimelineMoved
from runtime.clock import Entropy
from runtime.limits import ETCD_MEMBER_PENALTY_MAX_S, ETCD_MEMBER_PENALTY_S


class EtcdMember(NamedTuple):
    """A member as configured. `address` is host:port; `server_name` overrides the name in its certificate to check."""

    zone: str
    address: str
    server_name: str = ""


class MemberChoice:
    """Orders members by index. Times are monotonic seconds."""

    def __init__(self, members: Sequence[EtcdMember], zone: str, entropy: Entropy) -> None:
        # Members of other zones in an order of this process's own, so that all do not lean on the first one listed.
        rank = {index: (member.zone != zone, entropy.jitter()) for index, member in enumerate(members)}
        self._order = sorted(rank, key=lambda index: rank[index])
        self._failures = [0] * len(members)
        self._penalty_until_s = [0.0] * len(members)
        self._cluster_id = 0
        self._term = 0
        self._lock = threading.Lock()

    @property
    def term(self) -> int:
        """The highest Raft term seen."""
        return self._term

    def order(self, now_s: float) -> list[int]:
        """Members to try, the best first: all of them, always."""
        with self._lock:
            until_s = list(self._penalty_until_s)
        return sorted(self._order, key=lambda index: until_s[index] if until_s[index] > now_s else 0.0)

    def failed(self, index: int, now_s: float) -> None:
        """The member did not answer, or said that it has no leader."""
        with self._lock:
            penalty_s = min(ETCD_MEMBER_PENALTY_S * 2 ** self._failures[index], ETCD_MEMBER_PENALTY_MAX_S)
            self._failures[index] = min(self._failures[index] + 1, 10)
            self._penalty_until_s[index] = now_s + penalty_s

    def answered(self, index: int) -> None:
        """The member is well."""
        with self._lock:
            self._failures[index] = 0
            self._penalty_until_s[index] = 0.0

    def believe(self, cluster_id: int, term: int, term_before: int) -> bool:
        """Whether an answer with this header may be used; `term_before` is `term` as of when the call began.

        TimelineMoved if it comes from another cluster.
        """
        with self._lock:
            if cluster_id:
                self._cluster_id = self._cluster_id or cluster_id
                if cluster_id != self._cluster_id:
                    raise TimelineMoved(
                        f"An etcd member answered for cluster {cluster_id:x}, this process began with cluster "
                        f"{self._cluster_id:x}: stop, and check the member addresses and whether etcd was restored"
                    )
            self._term = max(self._term, term)
        return term >= term_before
