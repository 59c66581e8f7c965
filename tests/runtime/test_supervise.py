"""A role's tasks live and die together."""

from __future__ import annotations

import asyncio

import pytest

from mesh.errors import Damaged
from runtime.supervise import Supervisor


async def _fails() -> None:
    raise Damaged("the log is damaged at 1.7")


async def test_a_task_that_fails_ends_the_role_with_its_own_error() -> None:
    async with Supervisor() as supervisor:
        supervisor.start(asyncio.sleep(3600), "idle")
        supervisor.start(_fails(), "failing")
        with pytest.raises(Damaged, match=r"1\.7"):
            await supervisor.wait()


async def test_stop_ends_the_wait_and_leaving_cancels_what_still_runs() -> None:
    async with Supervisor() as supervisor:
        idle = supervisor.start(asyncio.sleep(3600), "idle")
        supervisor.stop()
        await supervisor.wait()
    assert idle.cancelled()


async def test_a_task_that_ends_well_does_not_end_the_role() -> None:
    async with Supervisor() as supervisor:
        done = supervisor.start(asyncio.sleep(0), "short")
        await done
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(supervisor.wait(), 0.01)


async def test_an_error_after_stop_is_not_the_reason_of_the_end() -> None:
    async with Supervisor() as supervisor:
        supervisor.stop()
        supervisor.start(_fails(), "late")
        await asyncio.sleep(0)
        await supervisor.wait()
