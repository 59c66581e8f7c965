"""The reference driver: a store in memory that behaves as etcd does, and can lose answers on purpose.

What it shares with etcd: one revision for every write, a head compared by value and revision, listings at a fixed
revision, watches that replay, compaction. Tests and the simulation inject faults and tampering through `MemoryStore`.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right, insort
from collections.abc import AsyncGenerator, Callable, Mapping
from enum import Enum

from eventlog.driver import (
    AppendResult,
    AppendTxn,
    Committed,
    Compacted,
    Entry,
    Fence,
    FramePage,
    HeadMoved,
    RawEntry,
    RawPage,
    Refused,
    StoredFrame,
    Unknown,
    WatchBatch,
)
from eventlog.frames import frame_name, parse_frame_name
from eventlog.records import Head, HeadRef, decode_head, encode_head
from mesh.errors import NoQuorum
from mesh.position import Position


class Fault(Enum):
    """What becomes of one sending of an append."""

    NONE = "answered"
    LOST = "never lands, no answer"
    LANDED = "lands, no answer"
    LATE = "no answer, lands when `deliver` is called, if it still can"
    REFUSED = "certainly refused"


def _no_fault(_: AppendTxn) -> Fault:
    return Fault.NONE


class MemoryStore:
    """The cluster's memory, shared by any number of drivers. Only for one event loop."""

    def __init__(self) -> None:
        self.revision = 1
        self.compacted = 0
        self.head: Entry | None = None
        self.frames: dict[str, Entry] = {}
        self.names: list[str] = []
        self.entries: dict[str, Entry] = {}
        self.fences: dict[str, int] = {}
        self.history: list[WatchBatch] = []
        self.reachable = True
        self.fault_of: Callable[[AppendTxn], Fault] = _no_fault
        self.in_flight: list[AppendTxn] = []
        self._changed = asyncio.Event()

    def head_ref(self) -> HeadRef | None:
        return None if self.head is None else HeadRef(decode_head(self.head.value), self.head.mod_revision)

    def commit(self, txn: AppendTxn) -> AppendResult:
        """The Txn itself: compare, and put both."""
        expected, head = txn.expected, self.head
        if head is None or head != Entry(encode_head(expected.head), expected.mod_revision):
            return HeadMoved(self.head_ref())
        self.revision += 1
        self.put_frame(frame_name(txn.head.at), txn.frame)
        self.head = Entry(encode_head(txn.head), self.revision)
        frame = StoredFrame(txn.head.at, txn.frame, self.revision)
        self.note(WatchBatch(self.revision, (frame,), HeadRef(txn.head, self.revision)))
        return Committed(self.revision)

    def put_frame(self, name: str, value: bytes) -> None:
        """Set a frame as of the current revision, telling no watcher."""
        if name not in self.frames:
            insort(self.names, name)
        self.frames[name] = Entry(value, self.revision)

    def write_if(self, puts: Mapping[str, bytes | None], expected: Mapping[str, int], fence: Fence | None) -> bool:
        """The Txn of entries: compare, and put or delete them all. False: something compared was not as expected."""
        present = self.entries
        if any((present[name].mod_revision if name in present else 0) != at for name, at in expected.items()):
            return False
        if fence is not None and self.fences.get(fence.name) != fence.token:
            return False
        self.revision += 1
        for name, value in puts.items():
            present.pop(name, None)
            if value is not None:
                present[name] = Entry(value, self.revision)
        return True

    def trim(self, upto: Position) -> None:
        """Delete an epoch's frames keyed up to and including `upto`, in the present revision."""
        first, last = frame_name(Position(upto.epoch, 0)), frame_name(upto)
        kept = [name for name in self.names if not first <= name <= last]
        for name in set(self.names) - set(kept):
            del self.frames[name]
        self.names = kept
        self.note(WatchBatch(self.revision))

    def grant(self, duty: str) -> Fence:
        """Let somebody hold a duty; whoever held it before is fenced off."""
        self.revision += 1
        self.fences[duty] = self.revision
        return Fence(duty, self.revision)

    def deliver(self) -> None:
        """Land what was sent and is still on its way."""
        waiting, self.in_flight = self.in_flight, []
        for txn in waiting:
            self.commit(txn)

    def note(self, batch: WatchBatch) -> None:
        """Tell the watchers."""
        self.history.append(batch)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def compact(self) -> None:
        """Forget what was changed up to now; the present stays."""
        self.compacted = self.revision
        self.history.clear()

    async def wait_changed(self) -> None:
        await self._changed.wait()


class MemoryDriver:
    """A LogDriver over a MemoryStore."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def read_head(self) -> HeadRef | None:
        await self._turn()
        return self._store.head_ref()

    async def create(self, head: Head, data_keys: Mapping[str, bytes]) -> AppendResult:
        await self._turn()
        store = self._store
        if store.head is not None:
            return HeadMoved(store.head_ref())
        store.revision += 1
        store.head = Entry(encode_head(head), store.revision)
        store.entries |= {f"datakey/{key_id}": Entry(value, store.revision) for key_id, value in data_keys.items()}
        store.note(WatchBatch(store.revision, (), HeadRef(head, store.revision)))
        return Committed(store.revision)

    async def append(self, txn: AppendTxn) -> AppendResult:
        await asyncio.sleep(0)
        store = self._store
        if not store.reachable:
            return Unknown("the store does not answer")
        fault = store.fault_of(txn)
        if fault is Fault.REFUSED:
            return Refused("too many requests")
        if fault is Fault.LATE:
            store.in_flight.append(txn)
        if fault in (Fault.LATE, Fault.LOST):
            return Unknown(fault.value)
        result = store.commit(txn)
        await asyncio.sleep(0)
        return Unknown(fault.value) if fault is Fault.LANDED else result

    async def read_frames(self, after: Position, limit: int, revision: int | None = None) -> FramePage:
        await self._turn()
        prefix = f"{after.epoch}/"
        page = self._page(frame_name(after), limit, revision, lambda name: name.startswith(prefix))
        frames = tuple(
            StoredFrame(position, entry.value, entry.mod_revision)
            for entry in page.entries
            if (position := parse_frame_name(entry.name)) is not None
        )
        return FramePage(frames, page.revision, page.more, page.head)

    async def scan(self, after: str, limit: int, revision: int | None = None) -> RawPage:
        await self._turn()
        return self._page(after, limit, revision, bool)

    def _page(self, after: str, limit: int, revision: int | None, wanted: Callable[[str], bool]) -> RawPage:
        store = self._store
        at = store.revision if revision is None else revision
        head = store.head_ref() if revision is None else None
        if revision is not None and revision < store.compacted:
            raise Compacted
        entries: list[RawEntry] = []
        for index in range(bisect_right(store.names, after), len(store.names)):
            name = store.names[index]
            entry = store.frames[name]
            if entry.mod_revision > at or not wanted(name):
                continue
            if len(entries) == limit:
                return RawPage(tuple(entries), at, True, head)
            entries.append(RawEntry(name, entry.value, entry.mod_revision))
        return RawPage(tuple(entries), at, False, head)

    async def watch(self, from_revision: int) -> AsyncGenerator[WatchBatch, None]:
        store = self._store
        while True:
            if from_revision <= store.compacted:
                raise Compacted
            for batch in [batch for batch in store.history if batch.revision >= from_revision]:
                yield batch
                from_revision = batch.revision + 1
            if not store.history or store.history[-1].revision < from_revision:
                await store.wait_changed()

    async def read_entry(self, name: str) -> Entry | None:
        await self._turn()
        return self._store.entries.get(name)

    async def list_entries(self, prefix: str, *, keys_only: bool = False) -> Mapping[str, Entry]:
        await self._turn()
        found = sorted((name, entry) for name, entry in self._store.entries.items() if name.startswith(prefix))
        return {name: entry._replace(value=b"") if keys_only else entry for name, entry in found}

    async def write_entries(
        self, puts: Mapping[str, bytes | None], *, expected: Mapping[str, int] = {}, fence: Fence | None = None
    ) -> AppendResult:
        await self._turn()
        done = self._store.write_if(puts, expected, fence)
        return Committed(self._store.revision) if done else HeadMoved(None)

    async def trim(self, upto: Position, *, expected: Mapping[str, int], fence: Fence | None = None) -> AppendResult:
        await self._turn()
        if not self._store.write_if({}, expected, fence):
            return HeadMoved(None)
        self._store.trim(upto)
        return Committed(self._store.revision)

    async def list_data_keys(self) -> Mapping[str, Entry]:
        found = await self.list_entries("datakey/")
        return {name.removeprefix("datakey/"): entry for name, entry in found.items()}

    async def put_data_key(self, key_id: str, value: bytes, expected_mod_revision: int) -> AppendResult:
        name = f"datakey/{key_id}"
        return await self.write_entries({name: value}, expected={name: expected_mod_revision})

    async def _turn(self) -> None:
        """Let others run, as any call over a network does; NoQuorum while the store is cut off."""
        await asyncio.sleep(0)
        if not self._store.reachable:
            raise NoQuorum("The store does not answer: check that etcd has a quorum")
