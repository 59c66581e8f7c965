"""`meshlog registry`: an instance registered, looked at, kept alive, marked, taken away; and who did it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.api.conftest import running
from tests.api.test_cloud_map import client_of
from tests.cli.shell import Shell, use


@pytest.fixture
async def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shell]:
    async with running(tmp_path) as cloud:
        yield use(cloud, monkeypatch)


async def test_an_instance_lives(shell: Shell) -> None:
    told = ("--ip", "10.0.0.1", "--port", "8080", "--zone", "eu-a", "--heartbeat", "30", "-a", "version=v1")
    table = (await shell.run("registry", "register", "shop.local/orders", "i-1", *told, "--create")).out
    row = table.splitlines()[1].split()
    assert row[:5] == ["i-1", "10.0.0.1", "8080", "eu-a", "HEALTHY"]
    assert row[-1].startswith("arn:aws:iam::")
    await shell.run("registry", "register", "shop.local/orders", "i-2", "--ip", "fd00::1", "--create")
    listed = (await shell.run("registry", "list")).out.splitlines()
    assert listed[1].split()[:5] == ["shop.local", "orders", "2", "2", "0"]
    assert (await shell.run("registry", "list", "-o", "name")).out.split() == ["shop.local/orders"]
    assert "owed again within 30 s" in (await shell.run("registry", "heartbeat", "shop.local/orders", "i-1")).err
    described = (await shell.run("registry", "describe", "shop.local/orders", "-o", "json")).data
    assert described["instances"][0]["heard_us"] is not None
    assert described["instances"][0]["attributes"]["version"] == "v1"
    assert described["instances"][1]["attributes"] == {"AWS_INSTANCE_IPV6": "fd00::1"}
    await shell.run("registry", "deregister", "shop.local/orders", "i-2")
    log = (await shell.run("registry", "log", "shop.local/orders")).out
    assert [line.split()[2] for line in log.splitlines()[1:]] == [
        "ServiceCreated",
        "InstanceRegistered",
        "InstanceRegistered",
        "InstanceDeregistered",
    ]
    assert "shop.local/orders i-2" in log
    one = (await shell.run("registry", "log", "shop.local", "--instance", "i-1", "-o", "json")).data
    assert [each["type"] for each in one["events"]] == ["InstanceRegistered"]


async def test_health_is_said_where_there_is_a_custom_check(shell: Shell) -> None:
    client = client_of(shell.cloud.server)
    from tests.api.test_cloud_map import Shop

    await Shop(client).stock()
    row = (await shell.run("registry", "health", "shop.local/orders", "i-1", "unhealthy")).out.splitlines()[1]
    assert "UNHEALTHY" in row
    await shell.run("registry", "register", "shop.local/plain", "i", "--ip", "10.0.0.1", "--create")
    assert (
        "HealthCheckCustomConfig"
        in (await shell.run("registry", "health", "shop.local/plain", "i", "healthy", code=4)).err
    )


async def test_what_is_not_there_or_not_so_is_said_in_a_sentence(shell: Shell) -> None:
    assert "write NAMESPACE/SERVICE" in (await shell.run("registry", "describe", "orders", code=2)).err
    assert "meshlog registry list" in (await shell.run("registry", "describe", "a/b", code=4)).err
    await shell.run("registry", "register", "a/b", "i", "--ip", "10.0.0.1", "--create")
    assert "MESHLOG_HEARTBEAT_S" in (await shell.run("registry", "heartbeat", "a/b", "i", code=1)).err
    assert "no instance" in (await shell.run("registry", "deregister", "a/b", "none", code=4)).err
    assert "no IPv4 address" in (await shell.run("registry", "register", "a/b", "i", "--ip", "10.0.0", code=1)).err
    assert "KEY=VALUE" in (await shell.run("registry", "register", "a/b", "i", "-a", "x", code=2)).err
