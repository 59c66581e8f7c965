"""Heartbeats in etcd: a leased key for each instance that was heard, gone when it was not heard for long enough.

Heartbeats are many and say little, so they are no events: the log is told of those alone who fell silent or came back
(`mesh.registry.heartbeats`). Leases are shared by all that beat within a part of their time, since etcd pays for each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from cluster.etcd.values import RangeRead, RangeResult, prefix_end
from runtime.clock import Clock
from runtime.limits import HEARTBEAT_LEASES_S

_SHARED_PART = 0.25
"""Of a lease's time, during which it is given to further heartbeats. They last that much longer than they must."""

Name = tuple[str, ...]
"""Account, namespace, service and instance."""


class Store(Protocol):
    """What is used of `cluster.etcd.connection.EtcdConnection`."""

    async def range(self, read: RangeRead) -> RangeResult: ...

    async def put(self, key: bytes, value: bytes, lease: int = 0) -> int: ...

    async def lease_grant(self, ttl_s: int) -> int: ...


class _Lease(NamedTuple):
    id: int
    granted_s: float


class Heartbeats:
    """Those under one key prefix. Unavailable is raised: a heartbeat that was not kept must be sent again."""

    def __init__(self, store: Store, key_prefix: str, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._prefix = f"{key_prefix}registry/heartbeats/".encode()
        self._leases: dict[int, _Lease] = {}

    async def beat(self, names: Mapping[Name, int]) -> None:
        """Keep a heartbeat of each, for at least as many seconds as it says."""
        for name, lasting_s in names.items():
            value = str(self._clock.now_us()).encode()
            await self._store.put(self._key(name), value, await self._lease(lasting_s))

    async def kept(self) -> Mapping[Name, int]:
        """All that have not run out, and when each was heard, in microseconds."""
        found = await self._store.range(RangeRead(self._prefix, prefix_end(self._prefix)))
        return dict(self._read(found))

    def _read(self, found: RangeResult) -> Iterable[tuple[Name, int]]:
        for item in found.items:
            name: Sequence[str] = json.loads(item.key[len(self._prefix) :])
            yield tuple(name), int(item.value)

    def _key(self, name: Name) -> bytes:
        return self._prefix + json.dumps(name, separators=(",", ":")).encode()

    async def _lease(self, lasting_s: int) -> int:
        length_s = next((each for each in HEARTBEAT_LEASES_S if each >= lasting_s), HEARTBEAT_LEASES_S[-1])
        held, now_s = self._leases.get(length_s), self._clock.monotonic_s()
        if held is None or now_s - held.granted_s >= length_s * _SHARED_PART:
            granted = await self._store.lease_grant(round(length_s * (1 + _SHARED_PART)) + 1)
            held = self._leases[length_s] = _Lease(granted, now_s)
        return held.id
