"""The archive of a real cluster: it keeps up, over the death of who ships it too, and is honest when it is down."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chaos.cluster import Cluster, meshlog_argv, wait_for
from chaos.example import node_spec
from tests.e2e import figures
from tests.e2e.conftest import Connect

MESH = "archived-mesh"


def said(cluster: Cluster) -> list[dict[str, Any]]:
    """What each living API server says of the archive."""
    return [row["archive"] for row in cluster.status()["processes"] if row["role"] == "api" and "archive" in row]


def position(cluster: Cluster) -> str:
    found = [row for row in cluster.status()["processes"] if row["role"] == "api" and row["position"]]
    newest = max(found, key=lambda row: row["position"])
    return f"{newest['epoch']}.{newest['position']}"


def wait_archived(cluster: Cluster, timeout_s: float = 30.0) -> float:
    """Seconds until the archive has what the log has now."""
    at, began_s = position(cluster), time.monotonic()
    wait_for(lambda: at in [each["position"] for each in said(cluster)] or None, timeout_s, f"{at} in the archive")
    return time.monotonic() - began_s


@pytest.fixture
def write(cluster: Cluster, connect: Connect) -> Iterator[Callable[[int], None]]:
    """Makes so many virtual nodes, by an API server that lives."""
    written: list[str] = []
    client = connect()
    client.create_mesh(meshName=MESH)

    def writing(count: int) -> None:
        by = connect.at(next(each.url for each in cluster.processes("api") if each.alive))
        for _ in range(count):
            name = f"node-{len(written)}"
            by.create_virtual_node(meshName=MESH, virtualNodeName=name, spec=node_spec("127.0.0.1", 8080))
            written.append(name)

    yield writing
    for name in written:
        client.delete_virtual_node(meshName=MESH, virtualNodeName=name)
    client.delete_mesh(meshName=MESH)


@pytest.fixture
def taken_away(cluster: Cluster) -> Iterator[Callable[[], None]]:
    """Gives a call that takes the archive's directory away and puts a file there; undone at the end, or when called."""
    archive, aside = cluster.data_dir / "archive", cluster.data_dir / "archive-aside"

    def bring_back() -> None:
        if aside.exists():
            archive.unlink()
            aside.rename(archive)

    archive.rename(aside)
    archive.write_text("not mounted")
    yield bring_back
    bring_back()


def test_the_archive_keeps_up_over_the_death_of_who_ships_it(cluster: Cluster, write: Callable[[int], None]) -> None:
    write(10)
    wait_archived(cluster)
    ships = [row for row in cluster.status()["processes"] if row.get("archive", {}).get("ships")]
    assert len(ships) == 1
    holder = next(each for each in cluster.processes("api") if each.zone == ships[0]["zone"])
    cluster.kill([holder])
    write(5)
    figures.report("archive", caught_up_s_after_its_shipper_was_killed=round(wait_archived(cluster), 1))
    cluster.restart([holder])
    write(5)
    wait_archived(cluster)
    assert cluster.fsck()[0] == 0


def test_while_the_archive_is_down_the_api_goes_on_and_an_alarm_says_so(
    cluster: Cluster, write: Callable[[int], None], taken_away: Callable[[], None]
) -> None:
    write(5)

    def alarmed() -> list[dict[str, Any]] | None:
        found = said(cluster)
        return found if all("alarm" in each for each in found) else None

    found = wait_for(alarmed, 40.0, "an alarm in each API server's status")
    (held,) = {each["position"] for each in found}
    assert held != position(cluster)
    assert all("nothing is lost and nothing is trimmed" in each["alarm"] for each in found)
    shown = subprocess.run(
        [*meshlog_argv(), "status", "--data-dir", str(cluster.data_dir)], capture_output=True, text=True, check=False
    )
    assert "archive: The archive in file://" in shown.stderr
    assert "cannot be" in shown.stderr
    write(5)
    assert {each["position"] for each in said(cluster)} == {held}
    taken_away()
    figures.report("archive", caught_up_s_after_it_was_back=round(wait_archived(cluster), 1))
    wait_for(lambda: not any("alarm" in each for each in said(cluster)) or None, 10.0, "the end of the alarm")
