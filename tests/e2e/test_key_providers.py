"""A whole cluster whose keys are kept elsewhere: secrets in (a stand-in of) AWS KMS, configuration in (a stand-in of)
Vault. It outlives both being away, waits for them at a start, and moves from one to another while it serves.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from chaos import checks
from chaos.cluster import Cluster, Process, says_ready
from tests.conditions import eventually
from tests.etcd_cluster import etcd_binary
from tests.eventlog.keys.houses import REGION, KmsHouse, VaultHouse, moto_server
from tests.eventlog.keys.transit import Transit, serving


@pytest.fixture(scope="module")
def transit() -> Transit:
    return Transit()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, transit: Transit) -> Iterator[Cluster]:
    """A cluster of one zone, its keys with the two stand-ins."""
    directory = tmp_path_factory.mktemp("keys-elsewhere")
    aws = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "planted-secret-of-aws"}
    with (
        pytest.MonkeyPatch.context() as patch,
        moto_server(directory / "moto.log") as kms_url,
        serving(transit) as vault_url,
    ):
        for name, value in aws.items():
            patch.setenv(name, value)
        kms = KmsHouse(kms_url, "meshlog")
        vault = VaultHouse(vault_url, "meshlog", directory)
        environment = {"PATH": os.environ["PATH"], "MESHLOG_ETCD": str(etcd_binary()), **aws}
        cluster = Cluster(directory / "cluster", environment=environment)
        sources = (
            f"secrets=aws-kms:{kms.alias}?region={REGION}&endpoint={kms_url}",
            f"config=vault:{vault_url}/transit/meshlog?token_file={vault.token}",
        )
        try:
            cluster.up(zones=1, arguments=[word for source in sources for word in ("--key-provider", source)])
            yield cluster
        finally:
            cluster.down()


def keys_status(cluster: Cluster) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(cluster.run("keys", "status", "-o", "json"))
    return status


def restarted(cluster: Cluster, role: str) -> Process:
    (process,) = cluster.processes(role)
    cluster.kill([process])
    cluster.restart([process])
    return process


def reason(cluster: Cluster, role: str) -> str:
    return next(str(row.get("reason") or "") for row in cluster.status()["processes"] if row["role"] == role)


def test_nothing_of_a_key_is_on_this_machine(own: Cluster) -> None:
    own.client().create_mesh(meshName="shop")
    assert not list(own.data_dir.rglob("*.kek"))
    schemes = {key["class"]: (key["scheme"], key["kek"]) for key in keys_status(own)["data_keys"]}
    assert schemes["config"] == ("vault", "transit/meshlog:v1")
    assert schemes["secrets"][1].startswith("arn:aws:kms:")
    assert schemes["signing"] == schemes["secrets"]
    logs = b"".join(path.read_bytes() for path in (own.data_dir / "logs").glob("*.log"))
    assert b"planted-secret-of-aws" not in logs
    assert b"hvs." not in logs


def test_what_runs_goes_on_while_the_keys_are_away_and_what_starts_waits_for_them(
    own: Cluster, transit: Transit
) -> None:
    transit.answer_with = 503
    own.client().create_virtual_node(meshName="shop", virtualNodeName="sealed-meanwhile", spec={})
    process = restarted(own, "api")
    eventually(lambda: "Vault sealed" in reason(own, "api"), what="the API server waits for Vault, and says so")
    assert not says_ready(process)
    transit.answer_with = None
    own.wait_ready()
    assert own.client().describe_virtual_node(meshName="shop", virtualNodeName="sealed-meanwhile")


def test_a_rotation_in_vault_is_followed_by_a_re_wrapping(own: Cluster, transit: Transit) -> None:
    transit.keys["meshlog"][2] = transit.keys["meshlog"][1].__class__(os.urandom(32))
    own.run("keys", "rotate", "--class", "config")
    assert {key["kek"] for key in keys_status(own)["data_keys"] if key["class"] == "config"} == {
        "transit/meshlog:v1",
        "transit/meshlog:v2",
    }
    own.run("keys", "rewrap")
    assert {key["kek"] for key in keys_status(own)["data_keys"] if key["class"] == "config"} == {"transit/meshlog:v2"}
    transit.oldest["meshlog"] = 2


def test_a_running_cluster_moves_from_vault_to_a_file_and_needs_vault_no_more(own: Cluster, transit: Transit) -> None:
    for role in ("api", "projector"):
        config = own.data_dir / "zones" / "z1" / f"{role}.toml"
        present = next(line for line in config.read_text().splitlines() if line.startswith("config = "))
        source = present.partition("= ")[2]
        config.write_text(config.read_text().replace(present, f'config = [{source}, "{role}/config.kek"]'))
    key_file(own)
    for role in ("api", "projector"):
        restarted(own, role)
    own.wait_ready()
    own.run("keys", "rewrap", "--class", "config", "--to", "file")
    for role in ("api", "projector"):
        config = own.data_dir / "zones" / "z1" / f"{role}.toml"
        lines = [
            f'config = "{role}/config.kek"' if line.startswith("config = ") else line
            for line in config.read_text().splitlines()
        ]
        config.write_text("\n".join(lines) + "\n")
    transit.answer_with = 503
    for role in ("api", "projector"):
        restarted(own, role)
    own.wait_ready()
    status = keys_status(own)
    assert {key["scheme"] for key in status["data_keys"] if key["class"] == "config"} == {"file"}
    assert not [key for key in status["data_keys"] if key["problem"]]
    assert own.client().describe_virtual_node(meshName="shop", virtualNodeName="sealed-meanwhile")
    verdict = checks.fsck_clean(*own.fsck())
    assert verdict.ok, verdict.detail


def key_file(cluster: Cluster) -> None:
    """One key, as an operator would bring it: into both roles' files by `meshlog keys import`."""
    new = cluster.data_dir.parent / "new.kek"
    new.write_text(f"kek-of-the-move {os.urandom(32).hex()}\n")
    new.chmod(0o600)
    cluster.run("keys", "import", str(new), "--class", "config")
    assert (cluster.data_dir / "zones/z1/projector/config.kek").read_text().count("kek-of-the-move") == 1
