"""What etcd itself shows of the log: when a frame was there, how large it is, and how long a bare Txn of its shape
takes.

Stage: the observer beside the write path. It must never write under the log's prefix.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.cluster import MeasuredCluster
from cluster.etcd.choice import EtcdMember
from cluster.etcd.connection import EtcdConnection, TlsFiles
from cluster.etcd.values import Delete, ModRevisionIs, Put, RangeRead, TxnDone, ValueIs, prefix_end
from mesh.errors import Unavailable
from runtime.clock import SystemClock, SystemEntropy

PREFIX = b"/meshlog/"
HEAD = PREFIX + b"head"
FRAMES = PREFIX + b"log/"
YARDSTICK = b"/meshlog-bench/"
SEEN_TIMEOUT_S = 10.0


@asynccontextmanager
async def etcd_connection(cluster: MeasuredCluster) -> AsyncIterator[EtcdConnection]:
    """As the operator's etcd user, which the cluster's directory has."""
    members = [EtcdMember(zone, address) for zone, address in cluster.addresses("etcd")]
    files = cluster.data_dir / "admin"
    tls = TlsFiles(files / "etcd-ca.crt", files / "etcd.crt", files / "etcd.key")
    connection = EtcdConnection(members, members[0].zone, tls, SystemClock(), SystemEntropy())
    try:
        yield connection
    finally:
        connection.close()


class LogObserver:
    """A watch over the frames. Use as an async context."""

    def __init__(self, connection: EtcdConnection) -> None:
        self._connection = connection
        self._seen: dict[int, float] = {}
        self._changed = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self.frame_bytes = 0
        self.head_bytes = 0

    async def __aenter__(self) -> LogObserver:
        head = await self._connection.range(RangeRead(HEAD))
        self.head_bytes = len(head.items[0].value)
        self._watching = asyncio.ensure_future(self._watch(head.revision + 1))
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def at(self, position: int) -> float:
        """When the frame that ends at `position` was seen."""
        async with asyncio.timeout(SEEN_TIMEOUT_S):
            while position not in self._seen:
                self._changed.clear()
                await self._changed.wait()
        return self._seen[position]

    async def _watch(self, revision: int) -> None:
        async for update in self._connection.watch(FRAMES, prefix_end(FRAMES), revision):
            now_s = time.perf_counter()
            for event in update.events:
                self._seen[int(event.item.key.rpartition(b"/")[2])] = now_s
                self.frame_bytes = len(event.item.value)
            self._changed.set()


async def raw_txns(connection: EtcdConnection, count: int, *, frame_bytes: int, head_bytes: int) -> list[float]:
    """Seconds of `count` Txns one after the other: compare a head's value and mod_revision, put a frame and the
    head.
    """
    head_key = YARDSTICK + b"head"
    head = b"h" * head_bytes
    revision = await connection.put(head_key, head)
    took_s: list[float] = []
    for number in range(count):
        frame = Put(YARDSTICK + b"log/1/%020d" % number, b"f" * frame_bytes)
        fresh = (b"%020d" % number + head)[:head_bytes]
        began_s = time.perf_counter()
        done = await connection.txn(
            [ValueIs(head_key, head), ModRevisionIs(head_key, revision)], [frame, Put(head_key, fresh)]
        )
        took_s.append(time.perf_counter() - began_s)
        if not isinstance(done, TxnDone) or not done.succeeded:
            raise Unavailable(f"the yardstick's Txn {number} did not go through: {done}")
        head, revision = fresh, done.revision
    await connection.txn([], [Delete(YARDSTICK, prefix_end(YARDSTICK))])
    return took_s
