"""Where the audit comes from: events of both logs, and segments of refused calls in the archive. Reads only.

Each source gives a stretch: what it has after a cursor, as far as one page may cost, and how far in time it looked.
What all sources have reached is merged.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from api.ports import EventHistory
from api.trail import event_id, matches, not_recorded, told_to
from eventlog.archive.store import ObjectStore
from eventlog.audit import TIME, SealedSegment, list_chains, open_segment, read_segment
from eventlog.sealing import KeyFinder
from mesh.events import Event
from mesh.position import Position
from runtime.limits import AUDIT_PAGE_EVENTS, AUDIT_PAGE_SEGMENTS

RefusedCursor = tuple[int, str, int, int]
"""After which refused call: its time, server, segment and place in it. Refused calls are read in this order."""

BEGINNING: RefusedCursor = (0, "", 0, 0)


class Question(NamedTuple):
    """What a caller asked for. Times in µs, `until_us` included."""

    account: str
    statuses: frozenset[str]
    since_us: int
    until_us: float
    actor: str | None
    source_ip: str | None
    mesh: str | None
    limit: int
    operator: bool
    """Whether the account looks after the cluster."""

    def wants(self, time_us: int, document: Mapping[str, Any]) -> bool:
        """Whether a document answers it: a call of the account's own, or on what it owns (as CloudTrail tells both).

        A refused caller whose account nobody knows is the operator's business.
        """
        told = {document["recipientAccountId"], document["userIdentity"].get("accountId")}
        return (
            self.since_us <= time_us <= self.until_us
            and (self.account in told or (self.operator and told == {None}))
            and matches(document, actor=self.actor, source_ip=self.source_ip, mesh=self.mesh)
        )


class Item(NamedTuple):
    """One document of a source, and the cursor after it."""

    time_us: int
    cursor: Any
    document: dict[str, Any]


class Stretch(NamedTuple):
    """What one source gave: items in order, and where it goes on once they are all used. Everything up to `reached_us`
    was looked at; infinite when the source has nothing more."""

    items: Sequence[Item]
    cursor: Any
    reached_us: float


class _Next(NamedTuple):
    """A chain's next segment: chains are merged by when their segments begin."""

    first_us: int
    server_id: str
    number: int
    segment: SealedSegment


class RefusedTrail:
    """The segments of every API server, as far as this process can open them."""

    def __init__(self, store: ObjectStore, keys: KeyFinder, region: str) -> None:
        self._store, self._keys, self._region = store, keys, region

    async def stretch(self, after: RefusedCursor, question: Question) -> Stretch:
        """Refused calls after a cursor that the question asks for. Damaged, MissingKey, WrongKey; Unavailable."""
        chains = await list_chains(self._store)
        waiting: list[_Next] = []
        for server_id, names in chains.items():
            first = await self._first(names, max(after[0], question.since_us))
            await self._push(waiting, server_id, names, first)
        found: list[Item] = []
        opened = 0
        while waiting and waiting[0].first_us <= question.until_us:
            begin_us = waiting[0].first_us
            # What is before the next segment's beginning is complete; the rest is read again from there.
            if opened >= AUDIT_PAGE_SEGMENTS or sum(item.time_us < begin_us for item in found) > question.limit:
                complete = [item for item in found if item.time_us < begin_us]
                return Stretch(_in_order(complete), (begin_us, "", 0, 0), begin_us - 1)
            _, server_id, number, segment = heapq.heappop(waiting)
            found += [item for item in self._items(segment) if item.cursor > after and question.wants(*item[::2])]
            opened += 1
            await self._push(waiting, server_id, chains[server_id], number + 1)
        found = _in_order(found)
        return Stretch(found, found[-1].cursor if found else after, math.inf)

    async def _first(self, names: Sequence[str], since_us: int) -> int:
        """The first segment that ends at or after a time; segments of a chain are in order of time."""
        low, high = 0, len(names)
        while low < high:
            middle = (low + high) // 2
            found = await read_segment(self._store, names[middle])
            if found is None or found[0].last_us < since_us:
                low = middle + 1
            else:
                high = middle
        return low

    async def _push(self, waiting: list[_Next], server_id: str, names: Sequence[str], number: int) -> None:
        for at in range(number, len(names)):
            found = await read_segment(self._store, names[at])
            if found is not None:
                heapq.heappush(waiting, _Next(found[0].first_us, server_id, at, found[0]))
                return

    def _items(self, segment: SealedSegment) -> list[Item]:
        refusals, server_id = open_segment(segment, self._keys), segment.server_id
        items: list[Item] = []
        for index, entry in enumerate(refusals.entries):
            document = {key: value for key, value in entry.items() if key != TIME}
            document["eventID"] = event_id("refused", segment.log_id, server_id, str(segment.seq), str(index))
            items.append(Item(entry[TIME], (entry[TIME], server_id, segment.seq, index), document))
        if refusals.dropped:
            document = not_recorded(segment.last_us, refusals.dropped, self._region)
            document["eventID"] = event_id("dropped", segment.log_id, server_id, str(segment.seq))
            items.append(Item(segment.last_us, (segment.last_us, server_id, segment.seq, len(items)), document))
        return items


class Accepted(NamedTuple):
    """A log of accepted calls: its history up to a position, and how one of its events is told."""

    history: EventHistory
    upto: Position
    tell: Callable[[Event], dict[str, Any]]


async def accepted_stretch(log: Accepted, after: Position, question: Question) -> Stretch:
    """Accepted calls after a position that the question asks for."""
    items: list[Item] = []
    looked_at = 0
    history = log.history
    # What is not kept any more is not asked for: the trail begins where the history does.
    begin = max(after, await history.begins())
    if begin >= log.upto:
        return Stretch((), max(after, log.upto), math.inf)
    async for events in history.read(begin, log.upto):
        for event in events:
            if event.time_us > question.until_us:
                return Stretch(items, event.position, math.inf)
            document = told_to(question.account, log.tell(event))
            if question.wants(event.time_us, document):
                items.append(Item(event.time_us, event.position, document))
            looked_at += 1
            if looked_at >= AUDIT_PAGE_EVENTS or len(items) > question.limit:
                return Stretch(items, event.position, event.time_us)
    return Stretch(items, log.upto, math.inf)


def merge(stretches: Sequence[Stretch], cursors: Sequence[Any], limit: int) -> tuple[list[Item], list[Any] | None]:
    """The first `limit` items that no source can still come before, and each source's cursor after them.

    `cursors` are those that the stretches were read from. None: nothing is left.
    """
    horizon_us = min(stretch.reached_us for stretch in stretches)
    ready = sorted(
        ((item.time_us, source, item) for source, stretch in enumerate(stretches) for item in stretch.items),
        key=lambda each: each[:2],
    )
    page = [each for each in ready if each[0] <= horizon_us][:limit]
    used = Counter(source for _, source, _ in page)
    after: list[Any] = []
    for source, stretch in enumerate(stretches):
        if used[source] == len(stretch.items):
            after.append(stretch.cursor)
        else:
            after.append(stretch.items[used[source] - 1].cursor if used[source] else cursors[source])
    over = len(page) == len(ready) and horizon_us == math.inf
    return [item for _, _, item in page], None if over else after


def _in_order(items: Sequence[Item]) -> list[Item]:
    return sorted(items, key=lambda item: item.cursor)
