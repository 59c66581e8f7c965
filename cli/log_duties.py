"""What duties do to one log, wired: checkpoints and trimming. The same for the log of the meshes and the registry's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic

from cli.log_access import LogAccess
from cluster.members import Member
from eventlog.driver import Fence
from mesh.fold import S
from projector.checkpointing import CheckpointDuty
from projector.trimming import TrimDuty
from runtime.clock import Clock, Entropy
from runtime.settings import ApiSettings, DutySettings

CHECKPOINT, TRIM = "checkpoint", "trim"


class LogDuties(Generic[S]):
    """One log's. `checkpoint` and `trim` are works of the duties of those names."""

    def __init__(
        self,
        access: LogAccess[S],
        settings: ApiSettings,
        members: Callable[[], Awaitable[Sequence[Member]]],
        pressed: Callable[[], bool],
        *,
        keep_events: int,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._checkpoints = CheckpointDuty(
            access.fold,
            access.replica,
            access.driver,
            access.keyring,
            settings.duties or DutySettings(),
            member_id=settings.id,
            clock=clock,
            entropy=entropy,
        )
        self._trim = TrimDuty(
            access.fold, access.driver, access.keyring, members, pressed, keep_events=keep_events, clock=clock
        )

    async def checkpoint(self, token: int) -> None:
        await self._checkpoints.work(Fence(CHECKPOINT, token))

    async def trim(self, token: int) -> None:
        await self._trim.work(Fence(TRIM, token))

    async def trim_unfenced(self) -> None:
        """Trim what may go, now: see `projector.trimming` on why that may be done without the duty."""
        while await self._trim.step(None):
            pass
