"""Writes of a duty: sent until their fate is known, and never again once the duty was lost.

Only for writes that may be repeated: the same bytes under the same names, compared with the fence alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from cluster.duties import FenceFell
from eventlog.driver import AppendResult, Committed, Fence, HeadMoved, LogDriver
from mesh.errors import NoQuorum
from runtime.clock import Clock
from runtime.limits import APPEND_PAUSE_S, FENCED_WRITE_DEADLINE_S


async def write_fenced(driver: LogDriver, puts: Mapping[str, bytes | None], fence: Fence, clock: Clock) -> int:
    """Set entries (None: delete) under the fence; gives the store's revision.

    FenceFell if the fence fell; NoQuorum if no certain answer came in FENCED_WRITE_DEADLINE_S.
    """
    result = await settled(lambda: driver.write_entries(puts, fence=fence), clock)
    if isinstance(result, HeadMoved):
        raise FenceFell
    return result.mod_revision


async def settled(send: Callable[[], Awaitable[AppendResult]], clock: Clock) -> Committed | HeadMoved:
    """Send a repeatable write until there is an answer that can be trusted; NoQuorum after FENCED_WRITE_DEADLINE_S."""
    give_up_s = clock.monotonic_s() + FENCED_WRITE_DEADLINE_S
    pause_s = APPEND_PAUSE_S
    while True:
        result = await send()
        if isinstance(result, Committed | HeadMoved):
            return result
        if clock.monotonic_s() + pause_s >= give_up_s:
            raise NoQuorum(f"etcd gave no certain answer to a duty's write ({result.reason}): it will be tried again")
        await clock.sleep(pause_s)
        pause_s = min(2 * pause_s, 1.0)
