"""Waiting for a condition with a deadline, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.01
PATIENCE_S = 60.0
"""How long a test waits for what takes moments on a quiet machine: a suite on a host that stalls must tell of faults,
not of the host. What the product promises within a time is held to that time by itself, see `promised`.
"""
TRIES = 5


def eventually(probe: Callable[[], T], timeout_s: float = PATIENCE_S, what: str = "the condition") -> T:
    """Call `probe` until it returns something true; AssertionError after `timeout_s`. Its exceptions pass through."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not hold within {timeout_s} s; last value: {value!r}")
        time.sleep(POLL_S)


async def await_until(probe: Callable[[], T], timeout_s: float = PATIENCE_S, what: str = "the condition") -> T:
    """`eventually` for tests that share their event loop with what they wait for."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not hold within {timeout_s} s; last value: {value!r}")
        await asyncio.sleep(POLL_S)


def promised(trial: Callable[[], float], within_s: float, tries: int = TRIES) -> float:
    """The first time in seconds that `trial` measured within what the product promises; AssertionError if no try did.

    A stall of the machine makes a trial late, and not five in a row; a product that breaks its promise is late always.
    """
    measured: list[float] = []
    for _ in range(tries):
        measured.append(trial())
        if measured[-1] <= within_s:
            return measured[-1]
    raise AssertionError(f"{within_s} s are promised; measured {[round(seconds, 2) for seconds in measured]}")
