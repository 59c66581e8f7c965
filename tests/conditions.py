"""Waiting for a condition with a deadline, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.01


def eventually(probe: Callable[[], T], timeout_s: float = 10.0, what: str = "the condition") -> T:
    """Call `probe` until it returns something true; AssertionError after `timeout_s`. Its exceptions pass through."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not hold within {timeout_s} s; last value: {value!r}")
        time.sleep(POLL_S)


async def await_until(probe: Callable[[], T], timeout_s: float = 10.0, what: str = "the condition") -> T:
    """`eventually` for tests that share their event loop with what they wait for."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not hold within {timeout_s} s; last value: {value!r}")
        await asyncio.sleep(POLL_S)
