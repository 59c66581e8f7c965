"""Python's cyclic garbage collector, held back in servers: what they keep is large and has hardly a cycle in it, and a
collection that looks at all of it stops every call for a tenth of a second. Put off altogether while much is loaded.
"""

from __future__ import annotations

import asyncio
import gc

from runtime.limits import COLLECTION_PAUSE_MAX_S, COLLECTION_THRESHOLDS


def collect_as_a_server() -> None:
    """For a role's process, once it is loaded: leave its modules alone, and collect when there is something to find."""
    gc.freeze()
    gc.set_threshold(*COLLECTION_THRESHOLDS)


class CollectionPause:
    """`begin` stops collections, `end` lets them go on; at most for COLLECTION_PAUSE_MAX_S, whatever happens."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Called again, it changes nothing."""
        if self._timer is None and gc.isenabled():
            gc.disable()
            self._timer = asyncio.get_running_loop().call_later(COLLECTION_PAUSE_MAX_S, gc.enable)

    def end(self, *, much: bool) -> None:
        """Called without a `begin`, it changes nothing. `much`: take all that there is now out of their sight."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            if much:
                gc.freeze()
            gc.enable()
