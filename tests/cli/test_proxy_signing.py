"""`meshlog proxy bootstrap --sign`: from the cluster's directory, or from what it is told elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cli.main import main

NODE = "mesh/shop/virtualNode/cart"


def bootstrap(*arguments: str) -> int:
    return main(["proxy", "bootstrap", "--sign", "--node", NODE, *arguments])


def test_elsewhere_it_is_told_frontends_and_ca(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    authority = tmp_path / "ca.crt"
    authority.write_text("the root's certificate\n")
    frontends = ["--frontend", "z1=xds-a.example:7419", "--frontend", "z2=xds-b.example:7419"]
    assert bootstrap(*frontends, "--ca", str(authority), "--zone", "z2") == 0
    document = yaml.safe_load(capsys.readouterr().out)
    assert document["node"]["id"] == NODE
    (cluster,) = document["static_resources"]["clusters"]
    zones = [group["locality"]["zone"] for group in cluster["load_assignment"]["endpoints"]]
    assert zones == ["z2", "z1"]
    assert "the root's certificate" in str(cluster["transport_socket"])


def test_in_the_clusters_directory_it_knows_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data_dir = tmp_path / "d"
    assert main(["init", "--account-id", "123456789012", "--data-dir", str(data_dir), "--zone", "a=10.0.0.1"]) == 0
    capsys.readouterr()
    assert bootstrap("--data-dir", str(data_dir), "--out", str(tmp_path / "out")) == 0
    document = yaml.safe_load((tmp_path / "out" / "bootstrap.yaml").read_text())
    (cluster,) = document["static_resources"]["clusters"]
    (group,) = cluster["load_assignment"]["endpoints"]
    address = group["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
    assert (address["address"], address["port_value"]) == ("10.0.0.1", 7419)
    assert (data_dir / "pki" / "roles-ca.crt").read_text() in str(cluster["transport_socket"]).replace("\\n", "\n")


@pytest.mark.parametrize(
    "arguments", [("--frontend", "z1=10.0.0.1:7419"), ("--frontend", "10.0.0.1:7419", "--ca", "CA")]
)
def test_half_of_it_is_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "CA").write_text("x")
    given = [str(tmp_path / "CA") if argument == "CA" else argument for argument in arguments]
    assert bootstrap(*given) == 2


def test_frontends_belong_to_signing() -> None:
    assert main(["proxy", "bootstrap", "--node", NODE, "--frontend", "z1=10.0.0.1:7419"]) == 2
