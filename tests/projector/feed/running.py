"""Feed servers that tests start and kill, and listeners that remember."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from projector.feed.port import NodeUpdate
from projector.feed.server import FeedServer
from projector.feed.source import SnapshotSource
from runtime.clock import SystemClock
from runtime.supervise import Supervisor
from tests.projector.feed import certificates
from tests.projector.feed.worlds import bodies


@dataclass
class Registry:
    """What a projector was told of frontends."""

    connected: dict[str, str] = field(default_factory=dict)

    def frontend_connected(self, frontend_id: str, zone: str, address: str) -> None:
        self.connected[frontend_id] = zone

    def frontend_disconnected(self, frontend_id: str) -> None:
        del self.connected[frontend_id]


class Projector:
    """A feed server over a source that the test moves; killed and started again on the same port."""

    def __init__(self, zone: str, source: SnapshotSource, tasks: Supervisor) -> None:
        self.zone, self.source, self._tasks = zone, source, tasks
        self.registry = Registry()
        self.port = 0
        self.told_projectors: tuple[tuple[str, str], ...] = ()
        self.server: FeedServer | None = None
        self._running: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self.server = FeedServer(
            source=self.source,
            registry=self.registry,
            projectors=lambda: self.told_projectors,
            projector_id=f"projector-{self.zone}",
            zone=self.zone,
            trust_domain=certificates.DOMAIN,
            clock=SystemClock(),
        )
        self.port = await self.server.start(self.address, certificates.role("projector").serving())
        self._running = self._tasks.start(self.server.run(), "projector")

    async def kill(self) -> None:
        """Gone without a word, as far as a process's own death can be played inside one."""
        assert self.server is not None
        assert self._running is not None
        self._running.cancel()
        await self.server.stop()
        self.server = None


class Ear:
    """A listener that remembers, and knows what must never be heard."""

    def __init__(self) -> None:
        self.updates: list[NodeUpdate] = []

    def __call__(self, update: NodeUpdate) -> None:
        if self.updates:
            assert update.position >= self.updates[-1].position
        self.updates.append(update)

    @property
    def latest(self) -> dict[str, str] | None:
        shot = self.updates[-1].snapshot if self.updates else None
        return bodies(shot) if shot is not None else None
