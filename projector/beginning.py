"""Where a fold begins: the newest checkpoint that opens, or nothing, and then the log's records after it.

A checkpoint that is damaged is passed over for an older one, and named: the log after the older one says the same, as
far as it is still there; if it is not, the fold stops at the gap. It must never give a state that is not what a
checkpoint, verified and opened, says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeAlias

import structlog

from eventlog.checkpoints import OpenCheckpoint, list_checkpoints, read_checkpoint
from eventlog.driver import LogDriver
from eventlog.keys.keyring import Keyring
from eventlog.quarantine import Quarantined
from eventlog.records import Head
from mesh.errors import Damaged, LogTrimmed
from mesh.fold import Fold, S
from mesh.position import Position

log = structlog.get_logger(__name__)


class Beginning(NamedTuple, Generic[S]):
    """A state, the point of the log to follow after (None: from the first record), and the checkpoints passed over."""

    state: S
    after: Head | None
    passed_over: tuple[str, ...] = ()


Usable = Callable[[Position], bool]
"""Whether a checkpoint at that point of the log may be used."""

Begin: TypeAlias = Callable[[Usable], Awaitable[Beginning[S]]]
"""Gives the newest beginning that is usable."""


class TakenOut(Exception):  # noqa: N818 - what a record asks for, not an error
    """A record that is in the fold already was quarantined: begin anew before it, and pass it over."""

    def __init__(self, named: Quarantined) -> None:
        super().__init__(str(named.position))
        self.named = named


def no_way_on(gap: LogTrimmed, folded: Position, passed_over: Sequence[str]) -> Damaged:
    """What to say where neither the log nor a checkpoint leads on from what is folded."""
    tried = "; ".join(passed_over) or "there is none beyond it"
    return Damaged(f"{gap.message} (no checkpoint in the store leads on from {folded}: {tried})")


def from_checkpoints(fold: Fold[S], driver: LogDriver, keyring: Keyring) -> Begin[S]:
    """Begin with the newest sound checkpoint in the store. MissingKey, WrongKey and NoQuorum are raised."""

    async def begin(usable: Usable) -> Beginning[S]:
        passed_over: list[str] = []
        for at in reversed(await list_checkpoints(driver)):
            if not usable(at):
                continue
            try:
                opened = await read_checkpoint(driver, keyring, at)
                state = None if opened is None else await _state_of(fold, opened)
            except Damaged as damage:
                log.error("a checkpoint is damaged, using an older one", at=str(at), reason=damage.message)  # noqa: TRY400
                passed_over.append(damage.message)
                continue
            if opened is not None and state is not None:
                return Beginning(state, opened.manifest.at, tuple(passed_over))
        return Beginning(fold.initial(), None, tuple(passed_over))

    return begin


async def _state_of(fold: Fold[S], opened: OpenCheckpoint) -> S:
    # Sealed and signed, so its items are what was folded. It takes a while: not in the loop.
    state = await asyncio.to_thread(fold.from_documents, opened.config, opened.secrets, verify=False)
    manifest = opened.manifest
    if fold.state_hash(state) != manifest.state_hash or state.position != manifest.state_at:
        raise Damaged(f"The checkpoint at {manifest.at.at} holds another state than its manifest says: delete it")
    return state


def from_nothing(fold: Fold[S]) -> Begin[S]:
    """Begin with the log's first record."""

    async def begin(usable: Usable) -> Beginning[S]:  # noqa: ARG001 - a `Begin`
        return Beginning(fold.initial(), None)

    return begin
