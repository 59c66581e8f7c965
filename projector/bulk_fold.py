"""Folding much at once: records in, one state out at the end. While it goes on, nothing of it is seen.

Used where a replica catches up: after its start, after a long partition, after a quarantine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Generic

from eventlog.records import Record
from mesh.errors import TimelineMoved
from mesh.events import Event, Token
from mesh.fold import Drafted, Fold, S
from mesh.position import Position
from runtime.collector import CollectionPause
from runtime.limits import FOLD_EVENTS_TOLD, FREEZE_FROM_ITEMS


def event_of(record: Record) -> Event:
    """The record as the fold's listeners take it."""
    return Event(
        position=record.position,
        time_us=record.time_us,
        wall_us=record.wall_us,
        type=record.type,
        schema=record.schema,
        account=record.account,
        actor=record.actor,
        source_ip=record.source_ip,
        request_id=record.request_id,
        token=Token(record.token.digest, record.token.body) if record.token is not None else None,
        data=record.data,
    )


class BulkFold(Generic[S]):
    """One draft at a time. `going` from `begin` to `end`."""

    def __init__(self, fold: Fold[S]) -> None:
        self._fold = fold
        self._draft: Drafted[S] | None = None
        self._last: deque[Record] = deque(maxlen=FOLD_EVENTS_TOLD)
        self._pause = CollectionPause()

    @property
    def going(self) -> bool:
        return self._draft is not None

    def begin(self, base: S) -> None:
        """Fold onto `base`, whatever went on before."""
        self._draft = self._fold.draft(base)
        self._last.clear()
        self._pause.begin()

    def fold(self, record: Record) -> None:
        """Fold a record, if it is not folded already. Poison leaves what was before it; TimelineMoved at a gap."""
        draft = self._draft
        assert draft is not None  # noqa: S101 - begun
        number = draft.position.position
        if record.position.position == number + 1:
            draft.fold(record)
            self._last.append(record)
        elif record.position > draft.position:
            raise TimelineMoved(f"the log goes from {draft.position} to {record.position}: run `meshlog fsck`")

    @property
    def position(self) -> Position:
        """How far it is folded."""
        assert self._draft is not None  # noqa: S101 - begun
        return self._draft.position

    def end(self) -> tuple[S, Sequence[Event]]:
        """The state, and the last of the events that led to it."""
        assert self._draft is not None  # noqa: S101 - begun
        state, events = self._draft.state(), [event_of(record) for record in self._last]
        self._draft = None
        self._last.clear()
        self._pause.end(much=self._fold.items(state) >= FREEZE_FROM_ITEMS)
        return state, events

    def stop(self) -> None:
        """Give up what is going on."""
        self._draft = None
        self._last.clear()
        self._pause.end(much=False)
