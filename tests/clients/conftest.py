"""Says at the end whether the real Terraform ran."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.terraform_process import find

TERRAFORM: pytest.StashKey[list[str]] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TERRAFORM] = []


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    found = find()
    there = found if isinstance(found, str) else f"{found.program} and its AWS provider {found.version} are here"
    terminalreporter.section("terraform")
    for line in config.stash[TERRAFORM] or [f"did not run in this suite: `make test-clients` runs it ({there})"]:
        terminalreporter.write_line(line)
