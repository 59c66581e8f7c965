"""etcd's space: what is told of it, what is rewritten, and the way back from NOSPACE, on real members."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.etcd.choice import EtcdMember
from cluster.etcd.connection import EtcdConnection
from cluster.etcd.maintenance import Horizon, Maintenance
from cluster.etcd.space import Space, in_step, space_of, worth_rewriting
from cluster.etcd.values import Delete, MemberStatus, Put, RangeRead, TxnDone, TxnUnknown
from mesh.errors import OutcomeUnknown
from runtime.clock import SystemClock, SystemEntropy
from tests.etcd_cluster import EtcdCluster

MIB = 2**20


def status(size_mib: int, used_mib: int, *, leads: bool = False, applied: int = 5, **fields: object) -> MemberStatus:
    made = MemberStatus("z", "a:1", member_id=7, leader_id=7 if leads else 9, applied_index=applied)
    sized = made._replace(db_size_bytes=size_mib * MIB, db_in_use_bytes=used_mib * MIB, quota_bytes=100 * MIB)
    return sized._replace(**fields)  # type: ignore[arg-type]


# --- decisions


def test_the_fullest_member_is_what_counts() -> None:
    members = [status(10, 5), status(75, 70), status(20, 5, error="away"), status(11, 6)]
    space = space_of(members, 1)
    assert space == Space(75 * MIB, 70 * MIB, 100 * MIB, False)
    assert space.share == 0.75
    assert space_of([status(1, 1, error="away")], 1) is None
    old_release = space_of([status(1, 1, quota_bytes=0)], 4 * MIB)
    assert old_release is not None
    assert old_release.share == 0.25


@pytest.mark.parametrize(("size_mib", "raised"), [(0, False), (69, False), (70, True), (99, True)])
def test_the_alarm_is_raised_at_seventy_percent_with_what_to_do(size_mib: int, raised: bool) -> None:
    alarm = Space(size_mib * MIB, MIB, 100 * MIB, False).alarm
    assert (alarm is not None) is raised
    assert alarm is None or f"{size_mib} MiB of 100 MiB" in alarm
    assert alarm is None or "archive" in alarm


def test_out_of_space_is_said_in_so_many_words() -> None:
    members = [status(99, 90), status(99, 90, alarms=("memberID:7  alarm:NOSPACE",))]
    space = space_of(members, 1)
    assert space is not None
    assert space.full
    assert space.alarm is not None
    assert space.alarm.startswith("etcd is out of space")
    assert "nothing can be written" in space.alarm


def test_files_are_rewritten_when_it_is_worth_it_the_leader_last() -> None:
    members = [status(200, 50, leads=True), status(300, 10), status(300, 290), status(60, 1)]
    assert worth_rewriting(members, urgent=False) == [1, 0]
    assert worth_rewriting([*members, status(1, 1, error="away")], urgent=False) == [], "one away at a time"
    urgent = worth_rewriting([*members, status(1, 1, error="away")], urgent=True)
    assert urgent == [1, 2, 3, 0]


def test_the_next_is_rewritten_only_when_all_are_in_step() -> None:
    every = range(3)
    assert in_step([status(1, 1), status(1, 1), status(1, 1)], every)
    assert not in_step([status(1, 1), status(1, 1, error="away"), status(1, 1)], every)
    assert in_step([status(1, 1), status(1, 1, error="away"), status(1, 1)], [0, 2])
    assert not in_step([status(1, 1), status(1, 1, leader_id=0), status(1, 1)], every)
    assert not in_step([status(1, 1), status(1, 1, leader_id=8), status(1, 1)], every)
    assert not in_step([status(1, 1, applied=5000), status(1, 1), status(1, 1)], every)


@given(steps=st.lists(st.tuples(st.floats(0, 100), st.integers(0, 50)), max_size=40), keep_s=st.floats(0, 300))
def test_nothing_younger_than_asked_is_compacted(steps: list[tuple[float, int]], keep_s: float) -> None:
    horizon, now_s, revision, seen, compacted = Horizon(keep_s), 0.0, 1, [], 0
    for waited_s, written in steps:
        now_s, revision = now_s + waited_s, revision + written
        seen.append((now_s, revision))
        found = horizon.note(now_s, revision)
        allowed = max((rev for at_s, rev in seen if now_s - at_s >= keep_s), default=0)
        assert found in (0, allowed)
        assert found == 0 or found > compacted
        compacted = max(compacted, found)


# --- real members


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[tuple[EtcdCluster, EtcdConnection]]:
    with EtcdCluster(tmp_path, size=3, extra=(f"--quota-backend-bytes={16 * MIB}",)) as cluster:
        members = [EtcdMember(*endpoint) for endpoint in cluster.endpoints]
        connection = EtcdConnection(members, "z1", None, SystemClock(), SystemEntropy())
        yield cluster, connection
        connection.close()


async def fill(connection: EtcdConnection, keys: int, first: int = 0) -> None:
    """Write so many keys from `first` on, again and again, until nothing more is taken for want of space."""
    for number in range(200):
        put = Put(b"%d" % (first + number % keys), b"x" * 200_000)
        if not isinstance(await connection.txn([], [put]), TxnDone) and looked(await connection.statuses()).full:
            return
    raise AssertionError("etcd took everything")


async def rounds(connection: EtcdConnection, count: int = 600) -> Space:
    """The duty's rounds until the alarm is lifted, `count` at most: members compact at their own pace."""
    maintenance = Maintenance(connection, keep_s=300, default_quota_bytes=1, clock=SystemClock())
    for _ in range(count):
        await maintenance.round()
        space = looked(await connection.statuses())
        if not space.full:
            return space
        await asyncio.sleep(0.1)
    return space


def looked(statuses: list[MemberStatus]) -> Space:
    space = space_of(statuses, 1)
    assert space is not None
    return space


async def test_history_that_fills_etcd_is_compacted_and_the_alarm_lifted(
    small: tuple[EtcdCluster, EtcdConnection],
) -> None:
    _, connection = small
    lease = await connection.lease_grant(60)
    await connection.put(b"held", b"by a lease", lease)
    await fill(connection, keys=5)
    full = looked(await connection.statuses())
    assert (full.full, full.quota_bytes) == (True, 16 * MIB)
    with pytest.raises(OutcomeUnknown, match="space"):
        await connection.put(b"more", b"")
    with pytest.raises(OutcomeUnknown, match="space"):
        await connection.lease_grant(10)
    assert await connection.lease_keepalive(lease) > 0
    assert isinstance(await connection.txn([], [Delete(b"4")]), TxnDone), "deletions go on"
    assert (await connection.range(RangeRead(b"held"))).items, "reads go on"
    freed = await rounds(connection)
    assert not freed.full
    assert freed.size_bytes < 3 * MIB
    await connection.put(b"more", b"")
    found = await connection.range(RangeRead(b"0"))
    assert found.items[0].value == b"x" * 200_000, "what is current is untouched"


async def test_what_is_current_and_too_much_keeps_the_alarm(small: tuple[EtcdCluster, EtcdConnection]) -> None:
    _, connection = small
    first = 0
    # A file grows ahead of what is in it: rewriting may free enough for a few writes more.
    while not (await rounds(connection, 3)).full:
        assert first < 1_000, "the alarm is lifted although nothing can be freed"
        await fill(connection, keys=200, first=first)
        first += 200
    outcome = await connection.txn([], [Put(b"more", b"")])
    assert isinstance(outcome, TxnUnknown)
    for number in range(60):
        await connection.delete(b"%d" % number)
    assert not (await rounds(connection)).full
    await connection.put(b"more", b"")


async def test_a_dead_member_does_not_keep_the_others_out_of_space(small: tuple[EtcdCluster, EtcdConnection]) -> None:
    cluster, connection = small
    await fill(connection, keys=5)
    cluster.kill((cluster.leader() + 1) % 3)
    assert not (await rounds(connection)).full
