"""A server of an epoch that a restore has ended does not wait for ever for an etcd that does not let it in."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.serve_epoch import end_with_the_epoch
from eventlog.archive.memory import MemoryObjectStore
from eventlog.archive.store import StoredObject
from mesh.errors import TimelineMoved, Unavailable
from mesh.position import Position
from tests.eventlog.logs import ToldClock
from tests.projector.archives import archived
from tests.projector.logs import MemoryLog
from tests.projector.test_restoring import restored

OLD = Position(1, 3)


@dataclass
class Server:
    position: Position = OLD
    ready: bool = True
    confirmed_age_s: float = math.inf


@pytest.fixture
async def objects(tmp_path: Path) -> MemoryObjectStore:
    """An archive in which epoch 2 is claimed."""
    log = await MemoryLog.create(tmp_path)
    await log.create_access_key()
    await log.fill_shop()
    objects = await archived(log)
    await (await restored(log, objects, Position(1, 3))).claim(objects)
    return objects


async def looks(objects: MemoryObjectStore, server: Server, until: Callable[[int], Awaitable[bool]]) -> None:
    """Run it on a clock that takes no time, until `until` says so of the number of sleeps."""

    class Counting(ToldClock):
        slept = 0

        async def sleep(self, delay_s: float) -> None:
            self.slept += 1
            if await until(self.slept):
                raise asyncio.CancelledError
            await super().sleep(delay_s)

    with pytest.raises(asyncio.CancelledError):
        await end_with_the_epoch(objects, server, Counting())


async def three(slept: int) -> bool:
    return slept > 3


async def test_a_server_without_a_quorum_ends_once_a_later_epoch_is_claimed(objects: MemoryObjectStore) -> None:
    with pytest.raises(TimelineMoved, match=r"epoch 2.*epoch 1"):
        await end_with_the_epoch(objects, Server(), ToldClock())


@pytest.mark.parametrize(
    "server",
    [Server(position=Position(2, 4)), Server(confirmed_age_s=1.0), Server(position=Position(1, 0), ready=False)],
    ids=["of the new epoch", "with a quorum", "that has not read the log yet"],
)
async def test_a_server_goes_on(objects: MemoryObjectStore, server: Server) -> None:
    await looks(objects, server, three)


async def test_an_archive_that_does_not_answer_ends_nothing(objects: MemoryObjectStore) -> None:
    class Away(MemoryObjectStore):
        async def list(self, prefix: str, after: str = "") -> list[StoredObject]:
            raise Unavailable("the archive does not answer")

    await looks(Away(), Server(), three)
