"""`meshlog quotas`: shown as a table, set by code, refused in a sentence."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.api.conftest import running
from tests.cli.shell import Shell, use


@pytest.fixture
async def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shell]:
    async with running(tmp_path) as cloud:
        yield use(cloud, monkeypatch)


async def test_quotas_are_listed_set_and_put_back(shell: Shell) -> None:
    await shell.cloud.server.call("create_mesh", meshName="m")
    table = (await shell.run("quotas", "list")).out
    (row,) = [line.split() for line in table.splitlines() if "L-AC861A39" in line]
    assert row == ["L-AC861A39", "Meshes", "per", "account", "15", "15", "1", "-"]
    assert (await shell.run("quotas", "list", "-o", "name")).out.split()[0] == "L-AC861A39"
    changed = (await shell.run("quotas", "set", "L-AC861A39", "40", "-o", "json")).data
    assert (changed["value"], changed["default"]) == (40, 15)
    assert "quota L-AC861A39 40" in (await shell.run("log")).out
    assert (await shell.run("quotas", "set", "L-AC861A39", "default", "-o", "json")).data["value"] == 15
    assert "quota L-AC861A39 back at its default" in (await shell.run("log")).out


async def test_what_is_no_quota_is_refused_in_a_sentence(shell: Shell) -> None:
    assert "no quota's code" in (await shell.run("quotas", "set", "L-0", "1", code=1)).err
    assert (
        "neither a whole number nor 'default'" in (await shell.run("quotas", "set", "L-AC861A39", "many", code=2)).err
    )
