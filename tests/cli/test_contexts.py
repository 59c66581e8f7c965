"""Clusters by name: which one a command uses, and that keys are kept from others' eyes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.client import find_target
from cli.contexts import contexts_of
from cli.layout import Layout, default_data_dir
from cli.main import main
from mesh.errors import NotFound, SettingsError

KEYS = {"AWS_ACCESS_KEY_ID": "AKFAR", "AWS_SECRET_ACCESS_KEY": "far secret"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A user without a cluster; gives the environment."""
    environ = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_STATE_HOME": str(tmp_path)}
    for name in ("MESHLOG_CONTEXT", "MESHLOG_DATA_DIR", "MESHLOG_ENDPOINT", "MESHLOG_CA_BUNDLE", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (environ | KEYS).items():
        monkeypatch.setenv(name, value)
    return environ


def add(name: str, *endpoints: str) -> None:
    assert main(["context", "add", name, *(f"--endpoint={url}" for url in endpoints), "--region", "eu-west-1"]) == 0


def used(environ: dict[str, str], directory: Path | None = None) -> list[str]:
    return list(find_target(Layout(directory or default_data_dir(environ)), environ).urls)


def test_a_context_is_used_where_it_is_named_or_nothing_else_is(home: dict[str, str], tmp_path: Path) -> None:
    add("far", "https://a.example:7411/", "https://b.example:7411")
    add("other", "http://other:1")
    far = ["https://a.example:7411", "https://b.example:7411"]
    assert used(home) == far, "the first one is the current one"
    assert used(home | {"MESHLOG_CONTEXT": "other"}) == ["http://other:1"]
    assert main(["context", "use", "other"]) == 0
    assert used(home) == ["http://other:1"]
    assert used(home | KEYS | {"MESHLOG_ENDPOINT": "http://x:1, http://y:2"}) == ["http://x:1", "http://y:2"]
    with pytest.raises(SettingsError, match="no cluster in"):
        used(home, tmp_path / "another")
    with pytest.raises(SettingsError, match="no cluster in"):
        used(home | {"MESHLOG_DATA_DIR": str(tmp_path)})


def test_its_key_signs_and_is_for_its_owner_s_eyes(home: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    add("far", "https://a.example:7411")
    target = find_target(Layout(default_data_dir(home)), home)
    assert (target.key.access_key_id, target.key.secret_access_key) == ("AKFAR", "far secret")
    assert target.key.region == "eu-west-1"
    path = contexts_of(home).path
    assert path.stat().st_mode & 0o777 == 0o600
    capsys.readouterr()
    for output in ("table", "json", "yaml"):
        assert main(["context", "list", "-o", output]) == 0
        said = capsys.readouterr().out
        assert "far" in said
        assert "secret" not in said
    path.chmod(0o644)
    assert main(["context", "list"]) == 2
    assert "chmod 600" in capsys.readouterr().err


def test_what_is_not_there_is_named_with_what_is(home: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    add("far", "https://a.example:7411")
    for arguments in (["context", "use", "near"], ["context", "remove", "near"], ["--context", "near", "get", "mesh"]):
        assert main(arguments) == 4
        assert "no context 'near': there are far" in capsys.readouterr().err
    assert main(["context", "remove", "far"]) == 0
    with pytest.raises(NotFound, match="there is none yet"):
        find_target(Layout(Path("/x")), home | {"MESHLOG_CONTEXT": "far"})
    assert json.loads(contexts_of(home).path.read_text()) == {"current": None, "contexts": {}}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--endpoint", "a.example:7411"], "is not a URL"),
        ([], "no cluster in"),
    ],
)
def test_a_context_that_could_not_work_is_not_kept(
    home: dict[str, str], arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["context", "add", "x", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not contexts_of(home).path.exists()


def test_without_a_key_there_is_no_context(home: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert main(["context", "add", "x", "--endpoint", "http://a:1"]) == 2
