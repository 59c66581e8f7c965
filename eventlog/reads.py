"""Confirming the head: what makes a read linearizable. Many askers, one quorum read that began after each asked.

A read that was already on its way when somebody asked never answers that asker: it may have been served before the
asker's own earlier write.
"""

from __future__ import annotations

import asyncio

from eventlog.append import check_same_timeline
from eventlog.driver import LogDriver
from eventlog.records import HeadRef
from mesh.errors import MeshlogError, NotReady


class HeadConfirmer:
    """Shares quorum reads of one log's head between those that wait together."""

    def __init__(self, driver: LogDriver) -> None:
        self._driver = driver
        self._turn = asyncio.Lock()
        self._begun = 0
        self._finished = 0
        self._outcome: HeadRef | MeshlogError | None = None
        self._highest: HeadRef | None = None

    @property
    def reads_begun(self) -> int:
        """Quorum reads sent so far."""
        return self._begun

    async def confirm(self) -> HeadRef:
        """The head by a quorum read begun after this call.

        NoQuorum if etcd cannot answer, NotReady if there is no log yet, TimelineMoved if the head moved back.
        """
        begun_before = self._begun
        # Whoever holds the turn reads for all that were waiting for it: when they get it, the read is done.
        async with self._turn:
            if self._finished <= begun_before:
                await self._read()
            outcome = self._outcome
        if isinstance(outcome, HeadRef):
            return outcome
        if outcome is None:
            raise NotReady("There is no log in the store yet: start an API server, which makes one")
        # A new instance for every asker: one shared exception would pile up their tracebacks.
        raise type(outcome)(outcome.message) from outcome

    async def _read(self) -> None:
        self._begun += 1
        number = self._begun
        try:
            found = await self._driver.read_head()
            if found is not None:
                if self._highest is not None:
                    check_same_timeline(self._highest.head, found.head)
                self._highest = found
            self._outcome = found
        except MeshlogError as failure:
            self._outcome = failure
        self._finished = number
