"""What keeps etcd small: compaction of its history, rewriting of files that are mostly free, the way out of NOSPACE.

Needs etcd's user `maintenance`, which has root's rights: etcd grants these calls to nobody else. One member is
rewritten at a time, the leader last, and the next only when all are in step again. Nothing here touches a key: what is
current stays, whatever is compacted.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import structlog

from cluster.etcd import protos
from cluster.etcd.connection import EtcdConnection
from cluster.etcd.space import in_step, space_of, worth_rewriting
from cluster.etcd.values import RangeRead, TxnRefused, TxnUnknown
from mesh.errors import NoQuorum
from runtime.clock import Clock
from runtime.limits import (
    COMPACT_LOOK_S,
    COMPACT_S,
    DEFRAGMENT_S,
    ETCD_RETRY_PAUSE_MAX_S,
    HEALTHY_AGAIN_S,
    SPACE_LOOK_S,
)

log = structlog.get_logger(__name__)


class _Moment(NamedTuple):
    at_s: float
    revision: int


class Horizon:
    """Which revision is old enough to be compacted: the newest seen at least `keep_s` ago. Times are monotonic."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._moments: deque[_Moment] = deque()
        self._passed = 0

    def note(self, at_s: float, revision: int) -> int:
        """The store is at `revision` now; gives what may be compacted, 0 for nothing new."""
        self._moments.append(_Moment(at_s, revision))
        found = 0
        while self._moments and at_s - self._moments[0].at_s >= self._keep_s:
            found = self._moments.popleft().revision
        if found <= self._passed:
            return 0
        self._passed = found
        return found


class Maintenance:
    """Keeps one etcd cluster small. `run` is a duty's work; a round may also be done without the duty (see `round`)."""

    def __init__(self, connection: EtcdConnection, keep_s: float, default_quota_bytes: int, clock: Clock) -> None:
        self._connection, self._clock = connection, clock
        self._default_quota_bytes = default_quota_bytes
        self._horizon = Horizon(keep_s)
        self._compacted_s: float | None = None
        self._rewritten_at = 0

    async def run(self) -> None:
        """Round after round, until cancelled. NoQuorum, SettingsError."""
        while True:
            await self.round()
            await self._clock.sleep(SPACE_LOOK_S)

    async def round(self) -> None:
        """Compact what is old, rewrite what is worth it, and lift NOSPACE if there is room again.

        Two processes that do this at once do no harm, so it also goes without the duty when no lease can be had.
        """
        statuses = await self._connection.statuses()
        space = space_of(statuses, self._default_quota_bytes)
        if space is None:
            return
        now_s = self._clock.monotonic_s()
        due = self._compacted_s is None or now_s - self._compacted_s >= COMPACT_LOOK_S
        if not (space.full or due):
            return
        self._compacted_s = now_s
        revision = (await self._connection.range(RangeRead(b"\0"))).revision
        old = self._horizon.note(now_s, revision)
        await self.compact(revision if space.full else old)
        urgent = space.full and self._rewritten_at != revision
        for index in worth_rewriting(await self._connection.statuses(), urgent=urgent):
            await self.rewrite(index)
        if space.full:
            self._rewritten_at = revision
            await self._lift()

    async def compact(self, revision: int) -> None:
        """Forget what was overwritten or deleted before `revision` (0: nothing), and wait until it is gone."""
        if not revision:
            return
        request = protos.rpc.CompactionRequest(revision=revision, physical=True)
        for index in range(len(self._connection.members)):
            try:
                await self._connection.on_member(index, "KV", "Compact", request, COMPACT_S)
            except NoQuorum as failure:
                if "has been compacted" in failure.message:
                    return
                log.info("a member did not compact, asking the next", reason=failure.message)
            else:
                log.debug("etcd compacted", revision=revision)
                return
        raise NoQuorum("No etcd member compacted its history: check that etcd has a quorum")

    async def rewrite(self, index: int) -> None:
        """Rewrite one member's file, and wait until all that answered are in step; NoQuorum if they are not in time."""
        address = self._connection.members[index].address
        needed = [n for n, status in enumerate(await self._connection.statuses()) if not status.error]
        await self._connection.on_member(
            index, "Maintenance", "Defragment", protos.rpc.DefragmentRequest(), DEFRAGMENT_S
        )
        give_up_s = self._clock.monotonic_s() + HEALTHY_AGAIN_S
        while not in_step(statuses := await self._connection.statuses(), needed):
            if self._clock.monotonic_s() > give_up_s:
                raise NoQuorum(f"etcd's members are not in step after {address} was rewritten: the others are left")
            await self._clock.sleep(ETCD_RETRY_PAUSE_MAX_S)
        log.info("etcd member rewritten", member=address, size_bytes=statuses[index].db_size_bytes)

    async def _lift(self) -> None:
        """Lift NOSPACE if every member is below its quota; else it would be raised again by the next write."""
        space = space_of(await self._connection.statuses(), self._default_quota_bytes)
        if space is None or space.share >= _ROOM_SHARE:
            log.error("etcd stays out of space", share=None if space is None else round(space.share, 2))
            return
        alarms = await self._connection.read("Maintenance", "Alarm", protos.rpc.AlarmRequest())
        for alarm in alarms.alarms:
            if alarm.alarm != protos.rpc.NOSPACE:
                continue
            lift = protos.rpc.AlarmRequest(
                action=protos.rpc.AlarmRequest.DEACTIVATE, memberID=alarm.memberID, alarm=alarm.alarm
            )
            outcome = await self._connection.write("Maintenance", "Alarm", lift)
            if isinstance(outcome, TxnUnknown | TxnRefused):
                raise NoQuorum(f"etcd did not lift its alarm ({outcome.reason}): it will be tried again")
        log.warning("etcd has space again", share=round(space.share, 2))


_ROOM_SHARE = 0.95
"""Below this share of the quota, lifting the alarm lets at least some writes through."""
