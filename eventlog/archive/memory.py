"""The reference object store: a dictionary. Tests and the simulation tamper with `objects`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from eventlog.archive.store import StoredObject, check_name


class MemoryObjectStore:
    """An ObjectStore in memory; whoever holds the same instance sees the same archive."""

    place = "memory:"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    async def put_new(self, name: str, data: bytes) -> bool:
        await asyncio.sleep(0)
        if check_name(name) in self.objects:
            return False
        self.objects[name] = data
        return True

    async def get(self, name: str) -> bytes | None:
        await asyncio.sleep(0)
        return self.objects.get(check_name(name))

    async def list(self, prefix: str, after: str = "") -> Sequence[StoredObject]:
        await asyncio.sleep(0)
        found = sorted(self.objects.items())
        return [StoredObject(name, len(data)) for name, data in found if name.startswith(prefix) and name > after]

    async def delete(self, name: str) -> None:
        await asyncio.sleep(0)
        self.objects.pop(check_name(name), None)
