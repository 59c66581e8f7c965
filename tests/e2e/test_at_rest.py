"""I6: nothing of a mesh and no secret is readable in any etcd member's files, in the archive, in logs, metrics or
errors; and fsck finds log and archive whole."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from chaos import checks
from chaos.cluster import Cluster, meshlog_argv, wait_for
from chaos.example import node_spec
from tests.api.test_pki import foreign
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


@dataclass(frozen=True)
class Planted:
    """Secrets that the cluster was given: the key that its admin signs with, one drawn for somebody, and the key of a
    certificate that was brought along (a line of it, and what any key in plain would have)."""

    secrets: tuple[str, ...]
    refused: int


@pytest.fixture(scope="module")
def planted(cluster: Cluster, connect: Connect, written: None, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """A new key, and calls that are refused with the words in them, until their audit is in the archive."""
    drawn = json.loads(cluster.run("iam", "key", "create", "--user", "tamarind", "-o", "json"))
    brought = foreign("clementine.internal.example")[0]
    folder = tmp_path_factory.mktemp("brought")
    for name, text in (("leaf.pem", brought.chain), ("key.pem", brought.secret)):
        (folder / name).write_text(text)
    files = ("--certificate", str(folder / "leaf.pem"), "--private-key", str(folder / "key.pem"))
    cluster.run("pki", "certificate", "import", *files)
    cluster.run("pki", "ca", "create", "kumquat")
    cluster.run("pki", "certificate", "create", "kumquat.internal.example", "--ca", "kumquat")
    client = connect()
    with pytest.raises(ClientError):
        client.create_mesh(meshName=MESH, tags=[{"key": "owner", "value": "team-saffron"}])
    with pytest.raises(ClientError):
        client.describe_virtual_node(meshName=MESH, virtualNodeName=f"{NODE}-2")
    for index in range(3):
        request = urllib.request.Request(f"{connect.urls[index]}/v20190125/meshes/{MESH}")
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(request, timeout=10)
    refusals = wait_for(lambda: _refusals(cluster, 5), 30, "the audit of five refused calls")
    keys = (brought.secret.splitlines()[1], "BEGIN PRIVATE KEY")
    secrets = (connect.environment["AWS_SECRET_ACCESS_KEY"], drawn["secret_access_key"], *keys)
    return Planted(secrets, refusals)


def _refusals(cluster: Cluster, at_least: int) -> int | None:
    lines = cluster.run("audit", "--status", "refused", "--mesh", MESH).splitlines()
    return len(lines) if len(lines) >= at_least else None


@pytest.fixture(scope="module")
def archive_files(cluster: Cluster, planted: Planted) -> list[Path]:
    return [path for path in (cluster.data_dir / "archive").rglob("*") if path.is_file()]


def test_the_search_reads_the_whole_archive(cluster: Cluster, archive_files: list[Path]) -> None:
    """The control again: record ids of keys are in plain, and there is at least one object of each kind."""
    assert {"objects", "manifests", "epochs", "keys", "audit"} <= {
        path.relative_to(cluster.data_dir / "archive").parts[0] for path in archive_files
    }
    assert containing(archive_files, "signing-")


@pytest.mark.parametrize("word", WORDS)
def test_no_name_host_or_spec_is_in_the_archive_or_its_audit(archive_files: list[Path], word: str) -> None:
    assert containing(archive_files, word) == []


def test_no_secret_is_at_rest_anywhere(cluster: Cluster, planted: Planted, archive_files: list[Path]) -> None:
    logs = [path for path in (cluster.data_dir / "logs").rglob("*") if path.is_file()]
    contents.cache_clear()
    for secret in planted.secrets:
        assert containing([*etcd_files(cluster), *archive_files, *logs], secret) == []


def test_nothing_is_in_the_metrics_of_any_process(cluster: Cluster, planted: Planted) -> None:
    told = []
    for process in cluster.processes():
        with urllib.request.urlopen(f"http://{process.extra['health']}/metrics", timeout=10) as answer:
            told.append(answer.read().decode())
    assert any("meshlog_audit_refused_total" in text for text in told)
    for word in (*WORDS[:12], *planted.secrets):
        assert [text for text in told if word in text] == []


def test_nothing_is_in_what_a_failing_command_says(cluster: Cluster, planted: Planted, tmp_path: Path) -> None:
    """Commands that read the log itself, with the wrong keys or none: they name keys and positions, nothing else."""
    archive = f"file://{cluster.data_dir / 'archive'}"
    commands = (
        ("backup", "verify", "--archive", archive, "--keys", str(tmp_path)),
        ("fsck", "--archive", f"file://{tmp_path}"),
        ("fsck", "--prove", str(tmp_path / "proof"), "--position", "999999"),
        ("get", "vn", "nobody", "--mesh", "nowhere"),
        ("rollback", "--mesh", "nowhere", "--to", "1", "--yes"),
    )
    for command in commands:
        ran = subprocess.run(
            [*meshlog_argv(), *command, "--data-dir", str(cluster.data_dir)],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert ran.returncode != 0, command
        assert ran.stderr + ran.stdout
        for word in (*WORDS[:5], *WORDS[7:13], *planted.secrets):
            assert word not in ran.stderr + ran.stdout, command


def test_a_proof_holds_nothing_in_plain(cluster: Cluster, planted: Planted, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    cluster.run("fsck", "--prove", str(proof))
    for word in (*WORDS[:12], *planted.secrets):
        assert containing([proof], word) == []
    subprocess.run([*meshlog_argv(), "verify", str(proof)], check=True, capture_output=True, timeout=60)


def test_no_secret_and_no_host_is_in_any_log(cluster: Cluster, connect: Connect, written: None) -> None:
    logs = [path for path in (cluster.data_dir / "logs").rglob("*") if path.is_file()]
    assert logs
    for word in (HOST, PREFIX, MESH, NODE, connect.environment["AWS_SECRET_ACCESS_KEY"], "PRIVATE KEY"):
        assert containing(logs, word) == []


def test_fsck_is_clean(cluster: Cluster, written: None) -> None:
    verdict = checks.fsck_clean(*cluster.fsck())
    assert verdict.ok, verdict.detail


def test_fsck_finds_the_archive_and_etcd_to_tell_one_history(cluster: Cluster, planted: Planted) -> None:
    report = json.loads(cluster.run("fsck", "--archive", "default", "-o", "json"))
    assert report["clean"]
    assert report["archive"]["clean"]
    assert report["archive"]["audit_segments"] >= 3
    assert report["archive"]["position"] >= 6
