"""The world, started once for all traffic tests, and the figure of how much of the model they prove."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.traffic import fields
from tests.traffic.world import World


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    with World() as started:
        yield started


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not fields.PROOFS:
        return
    covered = fields.covered()
    terminalreporter.section("fields of App Mesh's specifications, proven by traffic")
    terminalreporter.line(f"{len(covered)} of {len(fields.FIELDS)}, by {len(fields.PROOFS)} proofs")
    for field in fields.FIELDS:
        if field not in covered:
            terminalreporter.line(f"  not {field}: {fields.NO_EFFECT.get(field, 'no proof yet')}")
