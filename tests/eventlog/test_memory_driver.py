"""The memory driver is the reference; what etcd does is compared with it."""

from __future__ import annotations

import pytest

from eventlog.drivers.memory import MemoryDriver, MemoryStore
from tests.eventlog.conformance import Compact, DriverConformance, Drivers


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
