"""Reads that are asked for at once are one call; one that is asked for later is another, begun after it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from cluster.etcd.together import ReadsTogether
from cluster.etcd.values import KeyValue, RangeRead, RangeResult
from mesh.errors import NoQuorum


class Store:
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.calls: list[list[bytes]] = []
        self.go = asyncio.Event()
        self.go.set()
        self.fails = False

    async def range(self, read: RangeRead) -> RangeResult:
        return (await self.read_together([read]))[0]

    async def read_together(self, reads: Sequence[RangeRead]) -> Sequence[RangeResult]:
        self.calls.append([read.key for read in reads])
        await self.go.wait()
        if self.fails:
            raise NoQuorum("nobody is there")
        return [RangeResult((KeyValue(read.key, b"v", 1, 1, 1, 0),), 1, False) for read in reads]


async def test_two_keys_asked_for_at_once_are_one_call() -> None:
    store = Store()
    together = ReadsTogether(store)
    found = await asyncio.gather(*(together.read(key) for key in (b"a", b"b", b"a")))
    assert [items[0].key for items in found] == [b"a", b"b", b"a"]
    assert store.calls == [[b"a", b"b"]]


async def test_who_asks_while_a_call_is_under_way_gets_one_of_its_own() -> None:
    store = Store()
    together = ReadsTogether(store)
    store.go.clear()
    first = asyncio.ensure_future(together.read(b"a"))
    for _ in range(5):
        await asyncio.sleep(0)
    second = asyncio.ensure_future(together.read(b"a"))
    for _ in range(5):
        await asyncio.sleep(0)
    store.go.set()
    await asyncio.gather(first, second)
    assert store.calls == [[b"a"], [b"a"]], "a read on its way may be older than the asker's own write"


async def test_who_gives_up_takes_nobody_elses_answer_along() -> None:
    store = Store()
    together = ReadsTogether(store)
    store.go.clear()
    gone, stays = (asyncio.ensure_future(together.read(b"a")) for _ in range(2))
    for _ in range(5):
        await asyncio.sleep(0)
    gone.cancel()
    store.go.set()
    assert (await stays)[0].key == b"a"


async def test_a_failure_reaches_all_that_asked() -> None:
    store = Store()
    store.fails = True
    together = ReadsTogether(store)
    for failure in await asyncio.gather(together.read(b"a"), together.read(b"b"), return_exceptions=True):
        assert isinstance(failure, NoQuorum)
    with pytest.raises(NoQuorum):
        await together.read(b"a")
