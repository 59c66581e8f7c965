"""`meshlog keys` where it touches files: a cluster's directory, and one host's copy of a zone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cli.layout import Layout
from cli.main import main
from eventlog.keys.file import read_key_file
from eventlog.records import KeyClass

NOBODY = 65534


@pytest.fixture
def made(tmp_path: Path) -> Layout:
    """The files of a cluster on two hosts."""
    layout = Layout(tmp_path / "cluster")
    zones = ["--zone", "a=10.0.0.1", "--zone", "b=10.0.0.2"]
    assert main(["init", "--account-id", "123456789012", "--data-dir", str(layout.root), *zones]) == 0
    return layout


def held(path: Path) -> list[str]:
    return list(read_key_file(path, KeyClass.CONFIG))


def test_on_several_hosts_a_new_key_goes_to_every_file_first_and_wraps_nothing(
    made: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    before = held(made.key_file("config"))
    capsys.readouterr()
    assert main(["keys", "rotate", "--kek", "--class", "config", "--data-dir", str(made.root), "-o", "json"]) == 0
    said = capsys.readouterr()
    (new,) = set(held(made.key_file("config"))) - set(before)
    copies = [made.role(zone, role) / "config.kek" for zone in ("a", "b") for role in ("api", "projector")]
    assert all(held(path) == [*before, new] for path in (made.key_file("config"), *copies))
    assert f"meshlog keys rewrap --class config --to {new}" in said.err
    assert "meshlog keys import config.kek --class config --config" in said.err
    assert new in said.out
    for path in (made.key_file("config"), *copies):
        for material in read_key_file(path, KeyClass.CONFIG).values():
            assert material.hex() not in said.out + said.err


def test_a_host_takes_a_key_from_a_copy_without_making_it_current(made: Layout, tmp_path: Path) -> None:
    host = tmp_path / "host" / "b"
    shutil.copytree(made.zone("b"), host)
    old = held(host / "api/config.kek")
    assert main(["keys", "rotate", "--kek", "--class", "config", "--data-dir", str(made.root)]) == 0
    copy = made.key_file("config")
    configs = ["--config", str(host / "api.toml"), "--config", str(host / "projector.toml")]
    assert main(["keys", "import", str(copy), "--class", "config", *configs]) == 0
    for role in ("api", "projector"):
        assert held(host / role / "config.kek") == held(copy)
        assert held(host / role / "config.kek")[:1] == old
    assert "config" in (host / "api/config.kek").read_text(), "its comment is kept"


def test_a_host_that_lost_its_file_gets_it_back_and_keeps_its_owner(made: Layout, tmp_path: Path) -> None:
    host = tmp_path / "host"
    shutil.copytree(made.zone("a"), host)
    lost = host / "api" / "secrets.kek"
    lost.unlink()
    if os.geteuid() == 0:
        os.chown(lost.parent, NOBODY, NOBODY)
    copy = ["keys", "import", str(made.key_file("secrets")), "--class", "secrets"]
    assert main([*copy, "--config", str(host / "api.toml")]) == 0
    assert read_key_file(lost, KeyClass.SECRETS) == read_key_file(made.key_file("secrets"), KeyClass.SECRETS)
    assert lost.stat().st_uid == lost.parent.stat().st_uid, "the role that reads it still owns it"
    assert lost.stat().st_mode & 0o777 == 0o600
    assert main([*copy, "--config", str(host / "projector.toml")]) == 2, "a projector has no keys of secrets"


@pytest.mark.parametrize(
    "arguments",
    [
        ["import"],
        ["import", "FILE"],
        ["import", "FILE", "--from-archive"],
        ["rotate", "--kek", "--class", "signing"],
    ],
)
def test_what_is_not_said_is_asked_for(made: Layout, arguments: list[str]) -> None:
    named = [str(made.key_file("config")) if word == "FILE" else word for word in arguments]
    assert main(["keys", *named, "--data-dir", str(made.root)]) == 2


def test_a_class_that_is_kept_elsewhere_is_rotated_there(made: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    for zone in ("a", "b"):
        for role in ("api", "projector"):
            path = made.config(zone, role)
            path.write_text(
                path.read_text().replace(f'"{role}/config.kek"', '"aws-kms:alias/meshlog?region=eu-west-1"')
            )
    assert main(["keys", "rotate", "--kek", "--class", "config", "--data-dir", str(made.root)]) == 2
    assert "point the alias" in capsys.readouterr().err


def test_another_clusters_file_is_refused_where_an_id_is_taken_and_changes_nothing(
    made: Layout, tmp_path: Path
) -> None:
    (key_id,) = held(made.key_file("config"))
    other = tmp_path / "other.kek"
    other.write_text(f"{key_id} {bytes(32).hex()}\n")
    other.chmod(0o600)
    before = {path: path.read_bytes() for path in made.root.rglob("*.kek")}
    assert main(["keys", "import", str(other), "--class", "config", "--data-dir", str(made.root)]) == 2
    assert {path: path.read_bytes() for path in made.root.rglob("*.kek")} == before


def test_a_file_of_one_class_is_not_taken_for_the_other(made: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in made.root.rglob("*.kek")}
    for mine, theirs in (("config", "secrets"), ("secrets", "config")):
        file = str(made.key_file(theirs))
        assert main(["keys", "import", file, "--class", mine, "--data-dir", str(made.root)]) == 2
        assert f"which is a key of class '{theirs}' here" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in made.root.rglob("*.kek")} == before
