"""What `meshlog connect` refuses to begin with."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from cli.main import main


@pytest.fixture(autouse=True)
def _an_endpoint_and_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AK")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "10.0.0.1:7410", "[::]:0", "mesh.example:7410"])
def test_other_machines_may_not_use_your_key_unless_you_say_so(listen: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["connect", "--endpoint", "http://127.0.0.1:1", "--listen", listen]) == 2
    assert "--allow-remote" in capsys.readouterr().err


@pytest.mark.parametrize("listen", ["127.0.0.1", "127.0.0.1:http", "7410"])
def test_an_address_is_host_and_port(listen: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["connect", "--endpoint", "http://127.0.0.1:1", "--listen", listen]) == 2
    assert "is not host:port" in capsys.readouterr().err


def test_a_port_that_is_taken_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main(["connect", "--endpoint", "http://127.0.0.1:1", "--listen", address]) == 2
    assert f"cannot listen on {address}" in capsys.readouterr().err


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 5", 5), ("kill -9 $$", 137)])
def test_a_command_is_run_beside_it_and_its_code_is_ours(script: str, code: int, tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = f"echo $AWS_ENDPOINT_URL_APP_MESH > {out}; {script}"
    arguments = ["connect", "--endpoint", "http://127.0.0.1:1", "--listen", "127.0.0.1:0", "--", "sh", "-c", script]
    assert main(arguments) == code
    assert out.read_text().startswith("http://127.0.0.1:")


def test_a_command_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["connect", "--endpoint", "http://127.0.0.1:1", "--listen", "127.0.0.1:0", "--", "nosuchthing"]) == 2
    assert "cannot run nosuchthing: No such file" in capsys.readouterr().err
