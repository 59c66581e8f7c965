"""Did another process come to the same state? A replica remembers the hashes of its recent states and compares them.

A checkpoint's manifest says what the state at a position hashes to. A process that folded past that position by itself,
and remembers the same hash, says so in its members record; only under a checkpoint that somebody else than its maker
has reproduced may the log be trimmed. One that hashes otherwise is told loudly: two folds of one log differ (I4).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, NamedTuple

import structlog

from eventlog.checkpoints import list_checkpoints, manifest_name, parse_manifest
from eventlog.driver import LogDriver
from mesh.errors import Damaged, Unavailable
from mesh.events import Event
from mesh.fold import Fold, S
from mesh.position import Position
from runtime.clock import Clock
from runtime.limits import CHECKPOINTS_KEPT, REPRODUCE_LOOK_S, STATE_HASHES_KEPT

log = structlog.get_logger(__name__)

Signers = Callable[[], Mapping[str, bytes] | None]


class Reproduced(NamedTuple):
    """A checkpoint that a member has come to by its own fold, as its record says: `<epoch>.<position>:<hash>`."""

    at: Position
    state_hash: str

    def __str__(self) -> str:
        return f"{self.at}:{self.state_hash}"


class Reproduction(Generic[S]):
    """A fold listener (`replica.subscribe(reproduction.folded)`), and a task that looks for new checkpoints.

    `newest` goes into the members record, as `str(reproduction)`; `disagreement` says what differs, None while nothing
    does.
    """

    def __init__(
        self, fold: Fold[S], driver: LogDriver, signers: Signers, clock: Clock, kept: int = STATE_HASHES_KEPT
    ) -> None:
        self._fold = fold
        self._driver, self._signers, self._clock, self._kept = driver, signers, clock, kept
        self._hashes: OrderedDict[Position, str] = OrderedDict()
        self._looked_at = Position(0, 0)
        self.newest: deque[Reproduced] = deque(maxlen=CHECKPOINTS_KEPT)
        self.disagreement: str | None = None

    def __str__(self) -> str:
        return " ".join(map(str, self.newest))

    def folded(self, before: S, after: S, events: Sequence[Event]) -> None:  # noqa: ARG002 - a listener's shape
        """Remember what the log's frames lead to: live, each fold is one frame."""
        self._hashes[after.position] = self._fold.state_hash(after)
        while len(self._hashes) > self._kept:
            self._hashes.popitem(last=False)

    async def run(self, every_s: float = REPRODUCE_LOOK_S) -> None:
        """Look now and then, for ever."""
        while True:
            try:
                await self.look()
            except Unavailable as failure:
                log.info("checkpoints not listed", reason=failure.message)
            await self._clock.sleep(every_s)

    async def look(self) -> None:
        """Compare the checkpoints that are new since the last look. NoQuorum."""
        for at in await list_checkpoints(self._driver):
            if at > self._looked_at:
                await self._compare(at)
                self._looked_at = at

    async def _compare(self, at: Position) -> None:
        entry = await self._driver.read_entry(manifest_name(at))
        if entry is None:
            return
        try:
            manifest = parse_manifest(entry.value, self._signers())
        except Damaged as damage:
            log.error("a checkpoint's manifest is damaged", at=str(at), error=damage.message)  # noqa: TRY400
            return
        own = self._hashes.get(manifest.state_at)
        if own == manifest.state_hash:
            self.newest.append(Reproduced(at, own))
        elif own is not None:
            self.disagreement = (
                f"the checkpoint at {at}, made by {manifest.made_by}, has another state than this process folded from "
                "the same log: run `meshlog fsck`, compare the builds of all roles, and report it"
            )
            log.error("a checkpoint does not agree with this fold", at=str(at), made_by=manifest.made_by)
