"""The Compose file as values: its services with `extends`-free YAML merges resolved, and what each container runs
on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
DEPLOY = REPOSITORY / "deploy"
COMPOSE_FILE = DEPLOY / "compose.yaml"


@dataclass(frozen=True)
class Service:
    """One service. `mounts` are (host path relative to the file, container path, read-only)."""

    name: str
    command: tuple[str, ...]
    mounts: tuple[tuple[str, str, bool], ...]
    document: dict[str, Any]

    @property
    def role(self) -> str:
        """The role that it serves, "" for helpers."""
        return self.command[1] if self.command[:1] == ("serve",) else ""

    @property
    def zone(self) -> str:
        """The zone of a role: `api-z2` is of z2."""
        return self.name.removeprefix(f"{self.role}-") if self.role else ""

    def on_host(self, path: str, cluster: Path) -> str:
        """A path of the container as one of this machine, `cluster` standing for ./cluster. Other words are
        unchanged.
        """
        for source, target, _ in sorted(self.mounts, key=lambda mount: -len(mount[1])):
            if path == target or path.startswith(target + "/"):
                inside = source.removeprefix("./cluster").lstrip("/") + path.removeprefix(target)
                return str(cluster / inside) if inside else str(cluster)
        return path


def load() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text())
    return document


def services() -> dict[str, Service]:
    return {name: _service(name, body) for name, body in load()["services"].items()}


def _service(name: str, body: dict[str, Any]) -> Service:
    mounts = []
    for volume in body.get("volumes", []):
        source, target, *mode = volume.split(":")
        mounts.append((source, target, mode == ["ro"]))
    return Service(name, tuple(body.get("command", ())), tuple(mounts), body)
