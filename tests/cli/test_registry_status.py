"""What `meshlog status` says of the registry's log, and where that log is kept."""

from __future__ import annotations

from typing import Any

import pytest

from cli.local import _registry, _remarks
from cluster.etcd.access import rights
from eventlog.archive.places import within
from mesh.registry.fold import REGISTRY_FOLDER


def row(process: str, position: int, *, ready: bool = True, archived: str | None = None, **more: Any) -> dict[str, Any]:
    told: dict[str, Any] = {"epoch": 1, "position": position, "ready": ready}
    if archived:
        told["archive"] = {"position": archived, "behind_s": 0.0, "place": "file:///a/registry"}
    return {"id": process, "registry": told, **more}


def test_the_newest_position_is_told_and_who_is_behind_it() -> None:
    rows = [row("api-z1", 10, archived="1.10"), row("api-z2", 10, archived="1.9"), row("projector-z1", 9)]
    assert _registry(rows) == "registry: 1.10, archived to 1.10; behind or stopped: projector-z1"
    assert _registry([row("api-z1", 10), row("projector-z1", 10, ready=False)]).endswith("stopped: projector-z1")
    assert _registry([{"id": "frontend-z1"}]) == ""


def test_a_registry_that_stopped_is_said_once_with_all_who_say_it() -> None:
    said = "registry: the fold stopped after 1.9: no such instance"
    rows = [row(process, 9, ready=False, warnings=[said]) for process in ("api-z1", "projector-z1")]
    assert list(_remarks(rows)) == [f"api-z1, projector-z1: {said}"]


def test_an_alarm_of_its_archive_and_a_failed_drill_are_told_apart_from_the_meshes() -> None:
    told = row("api-z1", 9, archived="1.2")
    told["registry"]["archive"]["alarm"] = "behind for 1000 s"
    told["registry"]["drill"] = {"ok": False, "time": "10:42", "time_us": 1, "reason": "a hash differs"}
    assert list(_remarks([told])) == [
        "the registry's archive: behind for 1000 s",
        "the restore drill of the registry of 10:42 failed: a hash differs",
    ]


@pytest.mark.parametrize(
    ("archive", "folder"),
    [
        ("file:///a/b", "file:///a/b/registry"),
        ("file:///a/b/", "file:///a/b/registry"),
        ("s3://bucket/prefix?endpoint=https://host", "s3://bucket/prefix/registry?endpoint=https://host"),
        ("s3://bucket", "s3://bucket/registry"),
    ],
)
def test_its_archive_is_a_folder_beside_that_of_the_meshes(archive: str, folder: str) -> None:
    assert within(archive, REGISTRY_FOLDER) == folder


def test_the_api_writes_it_and_projectors_read_it() -> None:
    key = f"/meshlog/{REGISTRY_FOLDER}log/1/00000000000000000001"
    for user, writes in (("api", True), ("projector", False)):
        granted = [right for right in rights("/meshlog/")[user] if key.startswith(right.prefix)]
        assert [right.write for right in granted] == [writes]
