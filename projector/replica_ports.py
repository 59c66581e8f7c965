"""What a replica follows, whom it asks, and whom it tells. Types, and one reading of what is told."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

from eventlog.follower import AtHand, FollowBatch
from eventlog.quarantine import Quarantined
from eventlog.records import Head, HeadRef
from mesh.events import Event
from mesh.fold import S, Timed
from mesh.position import Position

FoldListener: TypeAlias = Callable[[S, S, Sequence[Event]], None]
"""Called in the loop after each fold with the state before, the state after and the events between. Must not block.

Of many events folded at once only the last are told, and of a state made anew maybe none: see `are_all`.
"""


def are_all(before: Timed, events: Sequence[Event]) -> bool:
    """Whether these are all events since `before`. If not, anything may have changed."""
    return bool(events) and events[0].position.position == before.position.position + 1


class LogFollower(Protocol):
    """What a replica needs of `eventlog.follower.Follower`."""

    def follow(
        self, after: Head | None, quarantined: Mapping[Position, Quarantined], at_hand: AtHand
    ) -> AsyncGenerator[FollowBatch, None]: ...

    def quarantines(self, after: Head | None) -> AsyncGenerator[Quarantined | None, None]: ...


class HeadReader(Protocol):
    """What a replica needs of `eventlog.reads.HeadConfirmer`."""

    async def confirm(self) -> HeadRef: ...
