"""Says at the end whether the real Terraform ran."""

from __future__ import annotations

from typing import Any

import pytest

TERRAFORM: pytest.StashKey[list[str]] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TERRAFORM] = []


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for line in config.stash[TERRAFORM]:
        terminalreporter.section("terraform")
        terminalreporter.write_line(line)
