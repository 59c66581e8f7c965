"""Who waits for a position to be folded."""

from __future__ import annotations

import asyncio
import heapq
import itertools

from mesh.errors import NotReady
from mesh.position import Position


class Waiters:
    """Waiting tasks by position, in one event loop."""

    def __init__(self) -> None:
        self._heap: list[tuple[Position, int, asyncio.Future[None]]] = []
        self._keys = itertools.count()

    async def wait(self, position: Position, timeout_s: float | None) -> None:
        """Return when `reached` tells of the position. TimeoutError; NotReady when `give_up` was called."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (position, next(self._keys), waiter)
        heapq.heappush(self._heap, entry)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        finally:
            if waiter.cancelled() and entry in self._heap:
                # Or every reader that gave up would stay here for as long as the watch is stuck.
                self._heap.remove(entry)
                heapq.heapify(self._heap)

    def reached(self, position: Position) -> None:
        """Wake all that wait for this or an earlier position."""
        while self._heap and self._heap[0][0] <= position:
            _position, _key, waiter = heapq.heappop(self._heap)
            if not waiter.done():
                waiter.set_result(None)

    def give_up(self, why: str) -> None:
        """Wake all, with NotReady."""
        for _position, _key, waiter in self._heap:
            if not waiter.done():
                waiter.set_exception(NotReady(why))
        self._heap.clear()
