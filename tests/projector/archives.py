"""Logs in memory with archives in memory, shipped by the real archiver."""

from __future__ import annotations

from eventlog.archive.archiver import Archiver
from eventlog.archive.memory import MemoryObjectStore
from eventlog.archive.store import ObjectStore
from eventlog.drivers.memory import MemoryDriver, MemoryStore
from eventlog.keys.keyring import Keyring
from runtime.supervise import Supervisor
from tests.conditions import await_until
from tests.projector.logs import BOTH, CLOCK, ENTROPY, MemoryLog

FOREVER_US = 10**18


async def ship(store: MemoryStore, keyring: Keyring, archive: ObjectStore) -> None:
    """Archive the log in `store` up to its head."""
    archiver = Archiver(
        archive, MemoryDriver(store), keyring, CLOCK, ENTROPY, holder_id="api-z1", retention_us=FOREVER_US
    )
    head = store.head_ref()
    assert head is not None
    async with Supervisor() as tasks:
        tasks.start(archiver.run(store.grant("archive")), "archive")
        await await_until(
            lambda: archiver.status.position >= head.head.at and archiver.status.whole_s is not None,
            what=f"the archive has {head.head.at} ({archiver.status})",
        )


async def archived(log: MemoryLog) -> MemoryObjectStore:
    """An archive of all that is in `log`."""
    archive = MemoryObjectStore()
    await ship(log.store, log.keyring(BOTH), archive)
    return archive
