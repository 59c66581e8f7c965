"""The very commands of the Compose file and of the units, as plain processes, become a cluster that keeps a mesh.

Paths of containers and machines are replaced by those of a scratch directory, and hosts by loopback addresses, one
for each zone, since every zone has the same ports. Nothing else of a command is changed.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from chaos.cluster import SETUP_ATTEMPTS, appmesh_client, parse_process, says_ready
from tests.conditions import eventually
from tests.deploy.compose import REPOSITORY, services
from tests.deploy.test_units import PROGRAM, ROLES, Unit

MESHLOG = str(Path(sys.executable).with_name("meshlog"))
ETCD = REPOSITORY / ".cache" / "bin" / "etcd"
ZONES = ("z1", "z2", "z3")
READY_S = 180.0
STOP_S = 60.0

pytestmark = pytest.mark.e2e


@dataclass(frozen=True)
class Host:
    """Where a zone's processes are bound: the ports are fixed, so a network of loopback addresses keeps runs apart."""

    network: str

    def of(self, zone: str) -> str:
        return f"{self.network}.{ZONES.index(zone) + 1}"


def free_host() -> Host:
    """A 127.x.y nobody listens in, another one for each process that looks."""
    for number in range(os.getpid(), os.getpid() + 1000):
        network = f"127.{1 + number // 250 % 250}.{1 + number % 250}"
        if all(is_free(f"{network}.{zone}", port) for zone in (1, 2, 3) for port in (2379, 7411)):
            return Host(network)
    raise AssertionError("no free network of loopback addresses")


def is_free(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=0.5).close()
    except OSError:
        return True
    return False


class Machines:
    """Plain processes with their own log, ended together."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._running: list[subprocess.Popen[bytes]] = []
        self.environment = {**os.environ, "MESHLOG_ETCD": os.environ.get("MESHLOG_ETCD", str(ETCD))}

    def run(self, argv: Sequence[str]) -> str:
        done = subprocess.run(
            argv, capture_output=True, text=True, env=self.environment, check=False, timeout=READY_S, cwd=self._scratch
        )
        assert done.returncode == 0, f"{shlex.join(argv)}\n{done.stderr}"
        return done.stdout

    def start(self, name: str, argv: Sequence[str]) -> None:
        with (self._scratch / f"{name}.log").open("wb") as log:
            self._running.append(
                subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, cwd=self._scratch
                )
            )

    def stop(self) -> list[int]:
        """SIGTERM to the roles, then to etcd, as both systemd and Compose do; returns exit codes."""
        for process in reversed(self._running):
            process.send_signal(signal.SIGTERM)
        codes = []
        for process in reversed(self._running):
            try:
                codes.append(process.wait(STOP_S))
            except subprocess.TimeoutExpired:
                process.kill()
                codes.append(process.wait())
        return codes

    def logs(self) -> str:
        return "\n".join(f"{path.name}: {path.read_text()[-600:]}" for path in sorted(self._scratch.glob("*.log")))


@contextmanager
def machines(scratch: Path) -> Iterator[Machines]:
    running = Machines(scratch)
    try:
        yield running
    finally:
        running.stop()


def init_command(cluster: Path, host: Host) -> list[str]:
    """Compose's `init`, with loopback addresses for service names and for 0.0.0.0."""
    words = []
    for word in services()["init"].command:
        if word.startswith("--zone="):
            zone = word.removeprefix("--zone=").partition("=")[0]
            words.append(f"--zone={zone}={host.of(zone)}")
        elif not word.startswith("--listen-host="):
            words.append(services()["init"].on_host(word.removeprefix("--data-dir="), cluster))
            words[-1] = f"--data-dir={words[-1]}" if word.startswith("--data-dir=") else word
    return [MESHLOG, *words]


def as_compose_does(running: Machines, cluster: Path, host: Host) -> None:
    found = services()
    running.run(init_command(cluster, host))
    in_order = [service for role in ROLES for service in found.values() if service.role == role]
    for service in in_order:
        if service.role == "etcd":
            running.start(service.name, argv_of(service.name, cluster))
    running.run(argv_of("provision", cluster))
    for service in in_order:
        if service.role != "etcd":
            running.start(service.name, argv_of(service.name, cluster))


def argv_of(name: str, cluster: Path) -> list[str]:
    service = services()[name]
    words = []
    for word in service.command:
        flag, equals, path = word.partition("=")
        words.append(f"{flag}={service.on_host(path, cluster)}" if equals else service.on_host(word, cluster))
    return [MESHLOG, *words]


def as_the_units_do(running: Machines, cluster: Path, host: Host) -> None:
    running.run(init_command(cluster, host))

    def start(role: str, zone: str) -> None:
        command = Unit(role)["Service"]["ExecStart"].replace("%i", zone).replace(PROGRAM, MESHLOG)
        running.start(f"{role}-{zone}", shlex.split(command.replace("/var/lib/meshlog/", f"{cluster}/zones/")))

    for zone in ZONES:
        start("etcd", zone)
    running.run([MESHLOG, "provision", "--data-dir", str(cluster)])
    for role in ROLES[1:]:
        for zone in ZONES:
            start(role, zone)


@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(as_compose_does, id="compose"),
        pytest.param(as_the_units_do, id="systemd", marks=pytest.mark.long),
    ],
)
def test_its_commands_become_a_cluster_that_keeps_a_mesh(
    begin: Callable[[Machines, Path, Host], None], tmp_path: Path
) -> None:
    cluster, host = tmp_path / "cluster", free_host()
    with machines(tmp_path) as running:
        begin(running, cluster, host)

        status = json.loads(running.run([MESHLOG, "status", "--data-dir", str(cluster), "-o", "json"]))
        processes = [parse_process(entry) for entry in status["processes"]]
        assert len(processes) == len(ROLES) * len(ZONES)
        try:
            eventually(lambda: all(says_ready(process) for process in processes), READY_S, "a ready cluster")
        except AssertionError as late:
            raise AssertionError(f"{late}\n{running.logs()}") from late

        exported = json.loads(running.run([MESHLOG, "env", "--data-dir", str(cluster), "-o", "json"]))
        appmesh_client(f"http://{host.of('z1')}:7411", exported, SETUP_ATTEMPTS).create_mesh(meshName="deployed")
        seen = appmesh_client(f"http://{host.of('z3')}:7411", exported, SETUP_ATTEMPTS).describe_mesh(
            meshName="deployed"
        )
        assert seen["mesh"]["meshName"] == "deployed"
        codes = running.stop()
        assert codes[: len(ROLES[1:]) * len(ZONES)] == [0] * 9, f"roles must end in order on SIGTERM\n{running.logs()}"
