"""The memory driver is the reference; what etcd does is compared with it."""

from __future__ import annotations

import pytest

from eventlog.driver import Fence
from eventlog.drivers.memory import MemoryDriver, MemoryStore
from tests.eventlog.conformance import Compact, DriverConformance, Drivers, Grant


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


class TestMemoryDriver(DriverConformance):
    @pytest.fixture
    def drivers(self, store: MemoryStore) -> Drivers:
        return lambda: MemoryDriver(store)

    @pytest.fixture
    def compact(self, store: MemoryStore) -> Compact:
        async def forget() -> None:
            store.compact()

        return forget

    @pytest.fixture
    def grant(self, store: MemoryStore) -> Grant:
        async def hold(duty: str) -> Fence:
            return store.grant(duty)

        return hold
