"""I6: nothing of a mesh is readable in any etcd member's files, and fsck finds the log whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from chaos import checks
from chaos.cluster import Cluster
from chaos.example import node_spec
from tests.e2e.conftest import Connect

MESH = "at-rest-quillfeather"
HOST = "inventory-zanzibar.internal.example"
NODE = "warehouse-obsidian"
SERVICE = "orders-marzipan.example.internal"
PREFIX = "/velociraptor-checkout"


@pytest.fixture(scope="module")
def written(connect: Connect) -> None:
    client = connect()
    client.create_mesh(meshName=MESH, tags=[{"key": "owner", "value": "team-saffron"}])
    client.create_virtual_node(meshName=MESH, virtualNodeName=NODE, spec=node_spec(HOST, 8123))
    client.create_virtual_router(
        meshName=MESH,
        virtualRouterName="router-tangerine",
        spec={"listeners": [{"portMapping": {"port": 8123, "protocol": "http"}}]},
    )
    client.create_route(
        meshName=MESH,
        virtualRouterName="router-tangerine",
        routeName="route-periwinkle",
        spec={
            "httpRoute": {
                "match": {"prefix": PREFIX},
                "action": {"weightedTargets": [{"virtualNode": NODE, "weight": 7}]},
            }
        },
    )
    client.create_virtual_service(
        meshName=MESH,
        virtualServiceName=SERVICE,
        spec={"provider": {"virtualRouter": {"virtualRouterName": "router-tangerine"}}},
    )


WORDS = [
    MESH,
    HOST,
    NODE,
    SERVICE,
    PREFIX,
    "quillfeather",
    "zanzibar",
    "obsidian",
    "marzipan",
    "velociraptor",
    "tangerine",
    "periwinkle",
    "saffron",
    "weightedTargets",
    "virtualNode",
    "serviceDiscovery",
    "hostname",
]


def etcd_files(cluster: Cluster) -> list[Path]:
    return [path for path in cluster.data_dir.rglob("*") if path.is_file() and "member" in path.parts]


def containing(paths: Iterable[Path], word: str) -> list[Path]:
    """Files with the word in them, as UTF-8, UTF-16 or hex."""
    spelled = (word.encode(), word.encode("utf-16-le"), word.encode().hex().encode())
    return [path for path in paths if any(form in contents(path) for form in spelled)]


@cache
def contents(path: Path) -> bytes:
    """All bytes but the zeros that etcd has set aside at the end of a segment."""
    return path.read_bytes().rstrip(b"\0")


@pytest.fixture(scope="module")
def members_files(cluster: Cluster, written: None) -> Iterator[list[Path]]:
    """Every file of every member, as it is once the module's mesh was written."""
    yield etcd_files(cluster)
    contents.cache_clear()


def test_the_search_reads_the_members_data(members_files: list[Path]) -> None:
    """The control: key names are in plain, so a search that finds nothing at all would be reading the wrong files."""
    assert {"snap", "wal"} <= {path.parent.name for path in members_files}
    assert len({path.parents[2] for path in containing(members_files, "log/1/")}) == 3


@pytest.mark.parametrize("word", WORDS)
def test_no_name_host_or_spec_is_in_any_members_files(members_files: list[Path], word: str) -> None:
    assert containing(members_files, word) == []


def test_no_secret_and_no_host_is_in_any_log(cluster: Cluster, connect: Connect, written: None) -> None:
    logs = [path for path in (cluster.data_dir / "logs").rglob("*") if path.is_file()]
    assert logs
    for word in (HOST, PREFIX, connect.environment["AWS_SECRET_ACCESS_KEY"], "PRIVATE KEY"):
        assert containing(logs, word) == []


def test_fsck_is_clean(cluster: Cluster, written: None) -> None:
    verdict = checks.fsck_clean(*cluster.fsck())
    assert verdict.ok, verdict.detail
