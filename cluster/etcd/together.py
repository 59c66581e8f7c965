"""Quorum reads of single keys, asked for in one turn of the event loop, made as one call.

A process that follows two logs asks for both heads at once, twice a second and more: that costs the cluster one read,
not two. Each read begins after it was asked for, so it is as linearizable as one of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from cluster.etcd.values import KeyValue, RangeRead, RangeResult


class Store(Protocol):
    """What is used of `cluster.etcd.connection.EtcdConnection`."""

    async def range(self, read: RangeRead) -> RangeResult: ...

    async def read_together(self, reads: Sequence[RangeRead]) -> Sequence[RangeResult]: ...


class ReadsTogether:
    """One a connection. Use from one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[bytes, asyncio.Future[Sequence[KeyValue]]] = {}
        self._calls: set[asyncio.Task[None]] = set()

    async def read(self, key: bytes) -> Sequence[KeyValue]:
        """What is at the key, or nothing. Raises what the call raises."""
        waiting = self._waiting.get(key)
        if waiting is None:
            loop = asyncio.get_running_loop()
            waiting = self._waiting[key] = loop.create_future()
            if len(self._waiting) == 1:
                loop.call_soon(self._begin)
        # Whoever gives up takes nobody else's answer along.
        return await asyncio.shield(waiting)

    def _begin(self) -> None:
        asked, self._waiting = self._waiting, {}
        call = asyncio.get_running_loop().create_task(self._call(asked), name="etcd-heads")
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _call(self, asked: dict[bytes, asyncio.Future[Sequence[KeyValue]]]) -> None:
        reads = [RangeRead(key) for key in asked]
        try:
            alone = len(reads) == 1
            found = [await self._store.range(reads[0])] if alone else await self._store.read_together(reads)
        except BaseException as failure:
            for waiting in asked.values():
                if not waiting.done():
                    waiting.set_exception(failure)
                    waiting.exception()  # an asker may be gone
            if not isinstance(failure, Exception):
                raise
            return
        for waiting, result in zip(asked.values(), found, strict=True):
            if not waiting.done():
                waiting.set_result(result.items)
