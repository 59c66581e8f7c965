"""Writers and followers over real members that are killed: each call once, every follower the same, fsck clean."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest

from cluster.etcd.choice import EtcdMember
from cluster.etcd.connection import EtcdConnection
from eventlog.drivers.etcd import EtcdDriver
from eventlog.follower import Follower
from eventlog.fsck import fsck
from eventlog.genesis import create_log
from eventlog.keys.keyring import Keyring
from eventlog.records import HeadRef, Record
from eventlog.writer import Appended, LogWriter
from mesh.errors import OutcomeUnknown, Unavailable
from runtime.clock import SystemClock, SystemEntropy
from tests.conditions import await_until
from tests.etcd_cluster import EtcdCluster
from tests.eventlog.logs import BOTH, new_record

CALLS = 40


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path_factory.mktemp("etcd-kills"), size=3) as running:
        yield running


class Server:
    """What an API server does with its log: fold, look for the token, append, catch up."""

    def __init__(self, cluster: EtcdCluster, zone: str) -> None:
        members = [EtcdMember(*endpoint) for endpoint in cluster.endpoints]
        self.connection = EtcdConnection(members, zone, None, SystemClock(), SystemEntropy())
        self.driver = EtcdDriver(self.connection)
        self.keyring = Keyring(self.driver, BOTH)
        self.writer = LogWriter(self.driver, self.keyring, SystemClock(), SystemEntropy())
        self.records: list[Record] = []
        self.head: HeadRef | None = None
        self.following = asyncio.ensure_future(self._follow())

    async def _follow(self) -> None:
        follower = Follower(self.driver, self.keyring, SystemClock(), SystemEntropy())
        async for batch in follower.follow():
            self.records.extend(batch.records)
            self.head = batch.head

    async def call(self, name: str) -> int:
        """Append a record of this request id once; gives its position."""
        while True:
            head, records = self.head, list(self.records)
            for record in records:
                if record.request_id == name:
                    return record.position.position
            if head is None:
                await await_until(lambda: self.head is not None, what="a head")
                continue
            try:
                new = new_record()._replace(request_id=name)
                done = await self.writer.append(head, [new], records[-1].time_us if records else 0)
            except (OutcomeUnknown, Unavailable):
                continue
            if isinstance(done, Appended):
                return done.records[0].position.position
            reached = done.head.head.position
            await await_until(lambda at=reached: len(self.records) >= at, what="the fold catching up")  # type: ignore[misc]

    async def close(self) -> None:
        self.following.cancel()
        await asyncio.gather(self.following, return_exceptions=True)
        self.connection.close()


async def test_calls_through_killed_members_are_in_the_log_once(cluster: EtcdCluster) -> None:
    servers = [Server(cluster, zone) for zone in ("z1", "z2", "z3")]
    await create_log(servers[0].driver, BOTH, SystemClock(), SystemEntropy())

    async def callers(server: Server, number: int) -> dict[str, int]:
        # Every second call goes to two servers at once, with one token.
        names = [f"shared-{call}" if call % 2 else f"{number}-{call}" for call in range(CALLS)]
        return {name: await server.call(name) for name in names}

    working = [asyncio.ensure_future(callers(server, number)) for number, server in enumerate(servers)]
    for victim in ("leader", "follower"):
        await await_until(lambda: len(servers[0].records) > 10, what="some calls answered")
        leader = await asyncio.to_thread(cluster.leader)
        index = leader if victim == "leader" else (leader + 1) % 3
        cluster.kill(index)
        await asyncio.to_thread(cluster.start, index)
    answers = await asyncio.gather(*working)
    total = CALLS // 2 * 3 + CALLS // 2
    await await_until(
        lambda: all(len(server.records) == total for server in servers), what="every follower at the head"
    )

    assert not any(server.following.done() for server in servers)
    assert servers[0].records == servers[1].records == servers[2].records
    counts = Counter(record.request_id for record in servers[0].records)
    assert set(counts.values()) == {1}
    for answer in answers:
        for name, position in answer.items():
            assert servers[0].records[position - 1].request_id == name
    report = await fsck(servers[0].driver, servers[0].keyring)
    assert (report.clean, report.records) == (True, total), report.findings
    for server in servers:
        await server.close()
