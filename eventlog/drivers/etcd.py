"""The log in etcd: frames, head and data keys as keys under a prefix.

    <prefix>log/<epoch>/<position:020d>   a frame
    <prefix>head                          the head
    <prefix><name>                        an entry: datakey/<id>, blob/…, checkpoint/…, archive
    <prefix>duties/<name>                 a duty's leased key, compared as its fence

An append is two compares and two puts, whatever the batch. Nothing here retries a write.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from itertools import groupby

from cluster.etcd.connection import EtcdConnection
from cluster.etcd.together import ReadsTogether
from cluster.etcd.values import (
    Comparison,
    CreateRevisionIs,
    Delete,
    KeyEvent,
    KeyValue,
    ModRevisionIs,
    Operation,
    Put,
    RangeRead,
    RangeResult,
    RevisionCompacted,
    TxnRefused,
    TxnUnknown,
    ValueIs,
    prefix_end,
)
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
from mesh.errors import Damaged, NoQuorum
from mesh.position import Position
from runtime.limits import ENTRIES_PAGE, LISTING_TRIES

DEFAULT_PREFIX = "/meshlog/"


class EtcdDriver:
    """A LogDriver over one etcd cluster and prefix. `duties_prefix`: where the duties are whose tokens fence writes,
    if they are not under the same. `heads`: shared by drivers whose heads are asked for together."""

    def __init__(
        self,
        connection: EtcdConnection,
        prefix: str = DEFAULT_PREFIX,
        duties_prefix: str | None = None,
        *,
        heads: ReadsTogether | None = None,
    ) -> None:
        self._connection = connection
        self.heads = heads or ReadsTogether(connection)
        self._duties = f"{prefix if duties_prefix is None else duties_prefix}duties/".encode()
        root = prefix.encode()
        self._root = root
        self._head_key = root + b"head"
        self._log = root + b"log/"

    async def read_head(self) -> HeadRef | None:
        return _head_of(await self.heads.read(self._head_key))

    async def create(self, head: Head, data_keys: Mapping[str, bytes]) -> AppendResult:
        puts = [Put(self._head_key, encode_head(head))]
        puts += [Put(self._key(f"datakey/{key_id}"), value) for key_id, value in data_keys.items()]
        return await self._write([CreateRevisionIs(self._head_key, 0)], puts)

    async def append(self, txn: AppendTxn) -> AppendResult:
        compare: list[Comparison] = [
            ValueIs(self._head_key, encode_head(txn.expected.head)),
            ModRevisionIs(self._head_key, txn.expected.mod_revision),
        ]
        puts: list[Operation] = [
            Put(self._log + frame_name(txn.head.at).encode(), txn.frame),
            Put(self._head_key, encode_head(txn.head)),
        ]
        return await self._write(compare, puts)

    async def _write(self, compare: Iterable[Comparison], success: Iterable[Operation]) -> AppendResult:
        outcome = await self._connection.txn([*compare], [*success], [RangeRead(self._head_key)])
        if isinstance(outcome, TxnUnknown):
            return Unknown(outcome.reason)
        if isinstance(outcome, TxnRefused):
            return Refused(outcome.reason)
        if outcome.succeeded:
            return Committed(outcome.revision)
        return HeadMoved(_head_of(outcome.reads[0].items))

    async def read_frames(self, after: Position, limit: int, revision: int | None = None) -> FramePage:
        first = self._log + frame_name(after).encode() + b"\0"
        end = prefix_end(self._log + f"{after.epoch}/".encode())
        head, page = await self._page(RangeRead(first, end, limit, revision or 0))
        return FramePage(self._frames(page.items), page.revision, page.more, head)

    async def scan(self, after: str, limit: int, revision: int | None = None) -> RawPage:
        first = self._log + (after.encode() + b"\0" if after else b"")
        head, page = await self._page(RangeRead(first, prefix_end(self._log), limit, revision or 0))
        entries = tuple(
            RawEntry(item.key[len(self._log) :].decode("utf-8", "backslashreplace"), item.value, item.mod_revision)
            for item in page.items
        )
        return RawPage(entries, page.revision, page.more, head)

    async def _page(self, read: RangeRead) -> tuple[HeadRef | None, RangeResult]:
        """A page, with the head of the same moment if it is of the present."""
        if not read.revision:
            head, page = await self._connection.read_together([RangeRead(self._head_key), read])
            return _head_of(head.items), page
        # No range at a revision inside a Txn: etcd before 3.7 can get inconsistent over it (etcd#18667).
        try:
            page = await self._connection.range(read)
        except RevisionCompacted as gone:
            raise Compacted from gone
        return None, page._replace(revision=read.revision)

    async def watch(self, from_revision: int) -> AsyncGenerator[WatchBatch, None]:
        # One range that covers `head` and `log/`, so that both come over one watch and a revision stays whole.
        changes = self._connection.watch(self._head_key, prefix_end(self._log), from_revision)
        async with aclosing(changes):
            try:
                async for update in changes:
                    if not update.events:
                        yield WatchBatch(update.revision)
                    for revision, events in groupby(update.events, key=lambda event: event.item.mod_revision):
                        yield self._batch(revision, events)
            except RevisionCompacted as gone:
                raise Compacted from gone

    async def read_entry(self, name: str) -> Entry | None:
        found = (await self._connection.range(RangeRead(self._key(name)))).items
        return Entry(found[0].value, found[0].mod_revision) if found else None

    async def list_entries(self, prefix: str, *, keys_only: bool = False) -> Mapping[str, Entry]:
        for _ in range(LISTING_TRIES):
            try:
                return await self._list_entries(self._key(prefix), keys_only)
            except RevisionCompacted:
                continue  # begin anew, at a revision that etcd still has
        raise NoQuorum(f"etcd compacted its history while {prefix} was listed, again and again: try once more")

    async def _list_entries(self, first: bytes, keys_only: bool) -> Mapping[str, Entry]:
        found: dict[str, Entry] = {}
        end, revision, more = prefix_end(first), 0, True
        while more:
            page = await self._connection.range(RangeRead(first, end, ENTRIES_PAGE, revision, keys_only))
            for item in page.items:
                name = item.key[len(self._root) :].decode("utf-8", "backslashreplace")
                found[name] = Entry(item.value, item.mod_revision)
            revision, more = revision or page.revision, page.more
            first = page.items[-1].key + b"\0" if page.items else end
        return found

    async def write_entries(
        self, puts: Mapping[str, bytes | None], *, expected: Mapping[str, int] = {}, fence: Fence | None = None
    ) -> AppendResult:
        writes: list[Operation] = [
            Delete(self._key(name)) if value is None else Put(self._key(name), value) for name, value in puts.items()
        ]
        return await self._write_if(expected, fence, writes)

    async def trim(self, upto: Position, *, expected: Mapping[str, int], fence: Fence | None = None) -> AppendResult:
        first = self._log + f"{upto.epoch}/".encode()
        end = self._log + frame_name(upto).encode() + b"\0"
        return await self._write_if(expected, fence, [Delete(first, end)])

    async def _write_if(
        self, expected: Mapping[str, int], fence: Fence | None, writes: Iterable[Operation]
    ) -> AppendResult:
        compare: list[Comparison] = [ModRevisionIs(self._key(name), revision) for name, revision in expected.items()]
        if fence is not None:
            compare.append(CreateRevisionIs(self._duties + fence.name.encode(), fence.token))
        result = await self._write(compare, writes)
        return HeadMoved(None) if isinstance(result, HeadMoved) else result

    async def list_data_keys(self) -> Mapping[str, Entry]:
        found = await self.list_entries("datakey/")
        return {name.removeprefix("datakey/"): entry for name, entry in found.items()}

    async def put_data_key(self, key_id: str, value: bytes, expected_mod_revision: int) -> AppendResult:
        name = f"datakey/{key_id}"
        return await self.write_entries({name: value}, expected={name: expected_mod_revision})

    def _key(self, name: str) -> bytes:
        return self._root + name.encode()

    def _batch(self, revision: int, events: Iterable[KeyEvent]) -> WatchBatch:
        frames: list[KeyValue] = []
        head: HeadRef | None = None
        head_deleted = False
        for event in events:
            if event.item.key == self._head_key:
                head_deleted = event.deleted
                head = None if event.deleted else _head_of([event.item])
            elif event.item.key.startswith(self._log) and not event.deleted:
                frames.append(event.item)
        return WatchBatch(revision, self._frames(frames), head, head_deleted)

    def _frames(self, items: Iterable[KeyValue]) -> tuple[StoredFrame, ...]:
        return tuple(StoredFrame(self._position(item.key), item.value, item.mod_revision) for item in items)

    def _position(self, key: bytes) -> Position:
        name = key[len(self._log) :].decode("utf-8", "backslashreplace")
        position = parse_frame_name(name)
        if position is None:
            raise Damaged(f"The log holds a key that is no frame's, log/{name}: run `meshlog fsck`")
        return position


def _head_of(items: Iterable[KeyValue]) -> HeadRef | None:
    for item in items:
        return HeadRef(decode_head(item.value), item.mod_revision)
    return None
