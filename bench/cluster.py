"""A cluster to measure: one that runs already, or one made for the run and removed after it.

Stage: the ground of a benchmark, driven through the `meshlog` command as an operator drives it.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mesh.errors import MeshlogError

COMMAND_TIMEOUT_S = 180.0


class MeasuredCluster:
    """The cluster in `data_dir`."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.description: dict[str, Any] = json.loads((data_dir / "cluster.json").read_text())

    def run(self, *arguments: str) -> str:
        return run_meshlog(self.data_dir, arguments)

    def environment(self) -> dict[str, str]:
        """What `meshlog env` exports."""
        exported = (shlex.split(line) for line in self.run("env").splitlines())
        pairs = (words[1].partition("=") for words in exported if len(words) == 2 and words[0] == "export")
        return {name: value for name, _, value in pairs}

    def addresses(self, role: str) -> list[tuple[str, str]]:
        """(zone, host:port) of all processes of a role."""
        return [
            (process["zone"], process["address"])
            for process in self.description["processes"]
            if process["role"] == role
        ]


def run_meshlog(data_dir: Path, arguments: Sequence[str]) -> str:
    """Standard output of a `meshlog` command; MeshlogError with its stderr if it fails."""
    program = Path(sys.executable).with_name("meshlog")
    argv = [str(program), *arguments, "--data-dir", str(data_dir)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    if done.returncode:
        raise MeshlogError(f"{shlex.join(argv)} exited with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


@contextmanager
def measured_cluster(data_dir: Path | None, zones: int) -> Iterator[MeasuredCluster]:
    """The running cluster of `data_dir`, or without one a new one of `zones` zones, gone at the end."""
    if data_dir is not None:
        yield MeasuredCluster(data_dir)
        return
    with tempfile.TemporaryDirectory(prefix="meshlog-bench-") as scratch:
        own = Path(scratch) / "cluster"
        try:
            run_meshlog(own, ("up", "--detach", "--zones", str(zones)))
            yield MeasuredCluster(own)
        finally:
            run_meshlog(own, ("down",))
