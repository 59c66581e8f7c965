"""Terraform (or OpenTofu) with the AWS provider, where this machine has both; nothing is downloaded."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

COMMAND_TIMEOUT_S = 280.0
_MIRRORS = (
    os.environ.get("MESHLOG_TERRAFORM_PLUGINS", ""),
    "/opt/tf-plugins",
    "~/.terraform.d/plugins",
    "/usr/local/share/terraform/plugins",
    "/usr/share/terraform/plugins",
)
_REGISTRIES = {"terraform": "registry.terraform.io", "tofu": "registry.opentofu.org"}


class Found(NamedTuple):
    """A program and the directory of a provider that it can run. `version` is the provider's."""

    program: str
    mirror: Path
    version: str


def find() -> Found | str:
    """What there is to run, or in a sentence what is missing."""
    program = next((name for name in _REGISTRIES if shutil.which(name)), None)
    if program is None:
        return "neither `terraform` nor `tofu` is on PATH"
    for mirror in (Path(text).expanduser() for text in _MIRRORS if text):
        for binary in sorted(
            mirror.glob(f"{_REGISTRIES[program]}/hashicorp/aws/*/linux_amd64/terraform-provider-aws*")
        ):
            return Found(program, mirror, binary.parent.parent.name)
    return f"{program} is there, but no AWS provider in {', '.join(filter(None, _MIRRORS))}"


class Terraform:
    """Commands in `directory`, which has the configuration. `environment` holds the credentials."""

    def __init__(self, found: Found, directory: Path, environment: dict[str, str]) -> None:
        self._found, self._directory = found, directory
        settings = directory / "cli.tfrc"
        settings.write_text(f'provider_installation {{\n  filesystem_mirror {{ path = "{found.mirror}" }}\n}}\n')
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "TF_CLI_CONFIG_FILE": str(settings),
            "CHECKPOINT_DISABLE": "1",
            "TF_IN_AUTOMATION": "1",
            **environment,
        }

    def run(self, *arguments: str, expected: Iterable[int] = (0,)) -> tuple[int, str]:
        """Exit code and output; AssertionError with all of it where the code is none of `expected`."""
        argv = [self._found.program, *arguments, "-no-color"]
        done = subprocess.run(
            argv,
            cwd=self._directory,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        assert done.returncode in expected, f"{' '.join(argv)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.returncode, done.stdout
