"""Frontends as members: a frontend has no etcd, so the projector that serves it keeps its record alive.

A frontend that moves is taken on by its new projector before the old one lets go. The record then hangs on the new
projector's lease, and ending the old lease does not touch it.
"""

from __future__ import annotations

import asyncio

from cluster.members import Member, Registration, Store
from runtime.clock import Clock
from runtime.supervise import Supervisor


class FrontendRegistrations:
    """A leased record for each frontend that is connected here. Calls return at once; the work is the supervisor's."""

    def __init__(
        self, store: Store, key_prefix: str, *, level: int, build: str, clock: Clock, supervisor: Supervisor
    ) -> None:
        self._store, self._prefix, self._clock = store, key_prefix, clock
        self._level, self._build = level, build
        self._supervisor = supervisor
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def frontend_connected(self, frontend_id: str, zone: str, address: str) -> None:
        self.frontend_disconnected(frontend_id)
        member = Member(
            role="frontend", id=frontend_id, zone=zone, address=address, level=self._level, build=self._build
        )
        registration = Registration(self._store, self._prefix, lambda: member, self._clock)
        self._tasks[frontend_id] = self._supervisor.start(registration.run(), f"member-{frontend_id}")

    def frontend_disconnected(self, frontend_id: str) -> None:
        task = self._tasks.pop(frontend_id, None)
        if task is not None:
            task.cancel()
