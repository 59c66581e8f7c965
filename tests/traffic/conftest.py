"""The world, started once for all traffic tests, and the figure of how much of the model they prove."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.traffic.world import World


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    with World() as started:
        yield started
