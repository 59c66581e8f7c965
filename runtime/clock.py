"""Time and randomness as injected ports. Nothing else in the tree reads a clock, sleeps or draws random bytes."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from typing import Protocol


class Clock(Protocol):
    """Wall time for records, monotonic time for deadlines."""

    def now_us(self) -> int:
        """Wall time in microseconds since the Unix epoch, UTC."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never go back."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Wait; a virtual clock may make this instant."""
        ...


class Entropy(Protocol):
    """Randomness for salts, ids and jitter."""

    def token_bytes(self, size_bytes: int) -> bytes: ...

    def uuid(self) -> str: ...

    def jitter(self) -> float:
        """Uniform in [0, 1)."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_us(self) -> int:
        return time.time_ns() // 1_000

    def monotonic_s(self) -> float:
        return time.monotonic()

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)


class SystemEntropy:
    """The machine's randomness."""

    def token_bytes(self, size_bytes: int) -> bytes:
        return os.urandom(size_bytes)

    def uuid(self) -> str:
        return str(uuid.uuid4())

    def jitter(self) -> float:
        return int.from_bytes(os.urandom(4), "big") / 2**32
