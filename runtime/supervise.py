"""Background tasks of a role: started in one place, watched, ended together. A task that dies ends the role."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

import structlog

log = structlog.get_logger(__name__)


class Supervisor:
    """Runs tasks until one fails or `stop` is called. An async context manager; `wait()` re-raises the failure."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopped = asyncio.Event()
        self._failure: BaseException | None = None

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run `work` beside the others. Its failure stops the supervisor; its normal end does not."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        failure = task.exception()
        if failure is not None and self._failure is None and not self._stopped.is_set():
            self._failure = failure
            self._stopped.set()  # before the log line: a full disk must not keep a broken role alive
            log.error("task failed", task=task.get_name(), error=str(failure), kind=type(failure).__name__)

    def stop(self) -> None:
        """Ask `wait` to return."""
        self._stopped.set()

    def stop_on_signals(self) -> None:
        """SIGTERM and SIGINT end the role in order."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)

    async def wait(self) -> None:
        """Return after `stop`; raise what the first failed task raised."""
        await self._stopped.wait()
        if self._failure is not None:
            raise self._failure

    async def finish(self, task: asyncio.Task[Any]) -> bool:
        """Wait for `task`; False if `stop` came first. Raises what it, or another task before it, raised."""
        stopped = asyncio.ensure_future(self._stopped.wait())
        try:
            await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        if self._failure is not None:
            raise self._failure
        return task.done() and not task.cancelled() and task.exception() is None

    async def close(self) -> None:
        """Cancel what still runs and wait for it to end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def __aenter__(self) -> Supervisor:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.stop()
        await self.close()
