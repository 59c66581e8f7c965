"""etcd's membership: who is in it, and a lost member replaced by an empty one, which joins as a learner first.

A learner has no vote, so the quorum is never larger than the members that can form one. Each step is looked up before
it is done, so a replacement that was interrupted is gone on with.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, NamedTuple

from cluster.etcd import protos
from cluster.etcd.connection import EtcdConnection
from mesh.errors import NoQuorum
from runtime.limits import ETCD_ADMIN_TIMEOUT_S


class EtcdMemberInfo(NamedTuple):
    """A member as etcd lists it. `name` is empty until it was started for the first time."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    learner: bool


class Step(Enum):
    """What is to be done next for the member of some peer URL."""

    REMOVE = "remove it: it has a vote, and cannot use it"
    ADD = "add it as a learner"
    PROMOTE = "let it catch up, and promote it"


def next_step(members: Sequence[EtcdMemberInfo], peer_url: str, *, joining: bool) -> Step:
    """Where the replacement of that member is. `joining`: its new process runs."""
    found = member_at(members, peer_url)
    if found is None:
        return Step.ADD
    return Step.PROMOTE if found.learner and joining else Step.REMOVE


def member_at(members: Sequence[EtcdMemberInfo], peer_url: str) -> EtcdMemberInfo | None:
    """The member of that peer URL."""
    return next((member for member in members if peer_url in member.peer_urls), None)


class Membership:
    """The calls, over a connection as etcd's root to the members that live."""

    def __init__(self, connection: EtcdConnection) -> None:
        self._connection = connection

    async def members(self) -> Sequence[EtcdMemberInfo]:
        """As a quorum knows them. NoQuorum."""
        listed = await self._call("MemberList", protos.rpc.MemberListRequest())
        return [EtcdMemberInfo(each.ID, each.name, tuple(each.peerURLs), each.isLearner) for each in listed.members]

    async def remove(self, member_id: int) -> None:
        """Take a member out. NoQuorum if etcd does not let it go now: try again."""
        await self._call("MemberRemove", protos.rpc.MemberRemoveRequest(ID=member_id))

    async def add_learner(self, peer_url: str) -> None:
        """Let a member join without a vote."""
        await self._call("MemberAdd", protos.rpc.MemberAddRequest(peerURLs=[peer_url], isLearner=True))

    async def promote(self, member_id: int) -> None:
        """Give a learner its vote; NoQuorum while it is too far behind for that."""
        # A MemberPromoteRequest, which the etcd3 package does not have, is on the wire what this is.
        await self._call("MemberPromote", protos.rpc.MemberRemoveRequest(ID=member_id))

    async def _call(self, method: str, request: Any) -> Any:
        """On the first member that takes it. Not certain to be done only once: look it up before."""
        failure: NoQuorum | None = None
        for index in range(len(self._connection.members)):
            try:
                return await self._connection.on_member(index, "Cluster", method, request, ETCD_ADMIN_TIMEOUT_S)
            except NoQuorum as error:
                failure = error
        assert failure is not None  # noqa: S101 - a connection has a member
        raise failure
