"""The command line as such: what it lists, what it loads, and how it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from cli.main import ALIASES, COMMANDS, main

HEAVY = ("grpc", "botocore", "etcd3", "envoy_data_plane", "starlette", "cryptography")


def test_help_lists_every_command_and_loads_none() -> None:
    code = "import sys, cli.main; cli.main.main(['--help']); sys.stderr.write(' '.join(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in COMMANDS:
        assert f" {name} " in ran.stdout
    loaded = set(ran.stderr.split())
    assert not loaded & set(HEAVY)
    assert not [found.module for found in COMMANDS.values() if found.module in loaded]


@pytest.mark.parametrize("name", [*COMMANDS, *ALIASES])
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    printed = capsys.readouterr()
    assert "Usage:" in printed.out
    assert printed.err == ""


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nonsense"], 2, "No such command"),
        (["status", "--nonsense"], 2, "No such option"),
        (["serve", "api"], 2, "Missing option '--config'"),
        (["status"], 2, "there is no cluster in"),
        (["get", "cat"], 2, "'cat' is no kind of resource"),
        (["get", "vn"], 2, "name it with --mesh"),
        (["rollback", "--mesh", "m", "--to", "1"], 2, "say --yes"),
        (["rollback", "--mesh", "m", "--to", "1.x", "--yes"], 2, "is no moment"),
        (["rollback", "--mesh", "m", "--before", "10:42", "--yes"], 2, "is not a log position"),
        (["rollback", "--mesh", "m", "--yes"], 2, "--to WHEN, or --before POSITION"),
        (["diff", "1", "2", "--xds"], 2, "--xds and --node go together"),
        (["diff", "soon"], 2, "'soon' is no moment"),
        (["diff", "1", "--xds", "--node", "what"], 2, "does not name a proxy's resource"),
        (["log", "--follow", "--order", "newest"], 2, "--follow goes on for ever"),
        (["log", "--since", "9", "--until", "8"], 2, "--until 8 is before --since 9"),
        (["audit", "--since", "1h ago", "--until", "2h ago"], 2, "--until 2h ago is before --since 1h ago"),
        (["get", "vn", "-m", "m", "--at", "25:00"], 2, "'25:00' is no moment"),
        (["iam", "key", "disable", "AK"], 2, "say --yes"),
        (["audit", "--since", "42"], 2, "is a position; write a time"),
        (["audit", "--status", "maybe"], 2, "is not one of"),
        (["fsck", "--position", "3"], 2, "name the file with --prove"),
        (["fsck", "--prove", "p", "--position", "3", "--hashes-only"], 2, "leave one out"),
        (["fsck", "--prove", "p", "--without-keys"], 2, "signing key"),
        (["verify", "/nowhere/at/all"], 2, "does not exist"),
        (["verify", __file__, "--trusted-key", "me"], 2, "NAME:HEX"),
        (["verify", __file__], 1, "is not verified"),
        (["proxy", "bootstrap", "--node", "what"], 2, "does not name a proxy's resource"),
        (["init", "--zone", "z1", "--account-id", "1" * 12], 2, "is not NAME=HOST"),
        (["init", "--zone", "z1=h", "--account-id", "12"], 2, "not twelve digits"),
        (["init", "--zone", "Z_1=h", "--account-id", "1" * 12], 2, "not a DNS label"),
    ],
)
def test_a_mistake_is_one_sentence_on_stderr_and_an_exit_code(
    arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if arguments[0] in ("status", "rollback", "init"):
        arguments = [*arguments, "--data-dir", str(tmp_path / "none")]
    assert main(arguments) == code
    printed = capsys.readouterr()
    assert says in printed.err
    assert printed.out == ""
    assert "Traceback" not in printed.err


def test_a_reader_that_leaves_early_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        ran = subprocess.run(
            [sys.executable, "-m", "cli.main", "--help"], stdout=pipe, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ran.stderr == ""


def test_the_version_is_the_packages() -> None:
    ran = subprocess.run([sys.executable, "-m", "cli.main", "--version"], capture_output=True, text=True, check=True)
    assert version("meshlog") in ran.stdout
