"""The systemd units: systemd itself takes them, and each gives its role no more than it needs."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.compose import DEPLOY

UNITS = DEPLOY / "systemd"
ROLES = ("etcd", "api", "projector", "frontend")
PROGRAM = "/opt/meshlog/bin/meshlog"


class Unit(configparser.RawConfigParser):
    """A unit file: keys keep their case and may repeat (the last one is kept)."""

    def __init__(self, role: str) -> None:
        super().__init__(strict=False, interpolation=None)
        self.read(UNITS / f"meshlog-{role}@.service")

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def installed(directory: Path, mutate: tuple[str, str] = ("", "")) -> list[str]:
    """The units as instances of zone z1, with the path of this checkout's `meshlog`."""
    program = Path(sys.executable).with_name("meshlog")
    paths = []
    for role in ROLES:
        text = (UNITS / f"meshlog-{role}@.service").read_text().replace(PROGRAM, str(program)).replace(*mutate)
        for name in (f"meshlog-{role}@.service", f"meshlog-{role}@z1.service"):
            (directory / name).write_text(text)
        paths.append(str(directory / f"meshlog-{role}@z1.service"))
    return paths


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
class TestSystemdAnalyze:
    def verify(self, paths: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["systemd-analyze", "verify", "--recursive-errors=yes", "--man=no", *paths],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def test_it_has_nothing_to_say(self, tmp_path: Path) -> None:
        answer = self.verify(installed(tmp_path))
        assert (answer.returncode, answer.stderr.strip()) == (0, "")

    def test_it_would_say_something_about_a_wrong_key(self, tmp_path: Path) -> None:
        assert self.verify(installed(tmp_path, ("RestartSec=", "RestartSecs="))).stderr.strip()


def test_there_is_one_unit_for_each_role() -> None:
    assert {path.name for path in UNITS.iterdir()} == {f"meshlog-{role}@.service" for role in ROLES}


@pytest.mark.parametrize("role", ROLES)
def test_a_unit_runs_its_role_as_nobody_special(role: str) -> None:
    service = Unit(role)["Service"]
    assert service["ExecStart"] == f"{PROGRAM} serve {role} --config /var/lib/meshlog/%i/{role}.toml"
    assert service["User"] == service["Group"] == "meshlog"
    assert service["EnvironmentFile"] == "-/etc/meshlog/%i.env"
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""
    assert service["Restart"] == "always"


@pytest.mark.parametrize("role", ROLES)
def test_a_unit_writes_its_own_directory_and_cannot_open_the_others(role: str) -> None:
    service = Unit(role)["Service"]
    assert service["ReadWritePaths"] == f"/var/lib/meshlog/%i/{role}"
    hidden = {path.removeprefix("-/var/lib/meshlog/%i/") for path in service["InaccessiblePaths"].split()}
    assert hidden == set(ROLES) - {role}
