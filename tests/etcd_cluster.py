"""Real etcd members for tests: each its own process and directory, on free loopback ports, started and killed at will.

    with EtcdCluster(tmp_path, size=3) as cluster:
        cluster.members[0].address          # "127.0.0.1:…"
        cluster.kill(0)                     # SIGKILL
        cluster.start(0)                    # same directory and ports
        cluster.pause(1); cluster.resume(1) # SIGSTOP, SIGCONT

Plain HTTP, or TLS with client certificates if `tls` is given. The binary is the pinned current etcd: MESHLOG_ETCD, or
.cache/bin/etcd in the repository. A missing binary is a failure, never a skip.
"""

from __future__ import annotations

import os
import signal
import subprocess
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from runtime.clock import SystemEntropy
from runtime.ports import LOOPBACK, free_ports
from tests.conditions import PATIENCE_S, eventually

REPOSITORY = Path(__file__).resolve().parent.parent
READY_TIMEOUT_S = PATIENCE_S


@dataclass(frozen=True)
class EtcdTls:
    """Files of one etcd trust root. `server_cert` needs SANs DNS:localhost and IP:127.0.0.1 and both usages."""

    ca: Path
    server_cert: Path
    server_key: Path


@dataclass
class EtcdProcess:
    """One member. `address` is its client host:port, `zone` a name of its own."""

    name: str
    zone: str
    address: str
    peer: str
    metrics: str
    directory: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    log: IO[bytes] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} is not running"
        return self.process.pid


def etcd_binary() -> Path:
    """The pinned etcd; AssertionError with what to do if there is none."""
    path = Path(os.environ.get("MESHLOG_ETCD") or REPOSITORY / ".cache" / "bin" / "etcd")
    assert path.is_file(), f"no etcd at {path}: build it (`make test` does), or set MESHLOG_ETCD"
    return path


class EtcdCluster:
    """A static cluster of `size` members in zones z1, z2, … Use as a context manager, or `start_all` and `close`."""

    def __init__(self, directory: Path, size: int = 3, tls: EtcdTls | None = None, extra: tuple[str, ...] = ()) -> None:
        self._tls = tls
        self._extra = extra
        self._scheme = "https" if tls else "http"
        ports = iter(free_ports(LOOPBACK, 3 * size, SystemEntropy()))
        self.members = [
            EtcdProcess(
                f"m{number}",
                f"z{number}",
                f"127.0.0.1:{next(ports)}",
                f"127.0.0.1:{next(ports)}",
                f"127.0.0.1:{next(ports)}",
                directory / f"m{number}",
            )
            for number in range(1, size + 1)
        ]

    @property
    def endpoints(self) -> list[tuple[str, str]]:
        """(zone, host:port) of every member."""
        return [(member.zone, member.address) for member in self.members]

    def start_all(self) -> None:
        """Start every member and wait until each serves with a leader."""
        for index in range(len(self.members)):
            self.start(index, wait=False)
        for index in range(len(self.members)):
            self.wait_ready(index)

    def start(self, index: int, wait: bool = True) -> None:
        """Start a member that does not run, on its old directory and ports."""
        member = self.members[index]
        assert member.process is None, f"{member.name} runs already"
        member.directory.mkdir(parents=True, exist_ok=True)
        member.log = (member.directory / "etcd.log").open("ab")
        member.process = subprocess.Popen(self.argv(index), stdout=member.log, stderr=member.log)
        if wait:
            self.wait_ready(index)

    def wait_ready(self, index: int) -> None:
        """Wait until the member answers its health check, which takes a quorum."""
        member = self.members[index]

        def healthy() -> bool:
            assert member.process is not None
            assert member.process.poll() is None, f"{member.name} ended: {self._log_tail(member)}"
            try:
                with urllib.request.urlopen(f"http://{member.metrics}/health", timeout=2) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        eventually(healthy, READY_TIMEOUT_S, f"{member.name} being ready")

    def kill(self, index: int) -> None:
        """SIGKILL, and wait until it is gone."""
        member = self.members[index]
        assert member.process is not None
        member.process.kill()
        member.process.wait()
        member.process = None
        if member.log is not None:
            member.log.close()
            member.log = None

    def restart(self, index: int) -> None:
        self.kill(index)
        self.start(index)

    def pause(self, index: int) -> None:
        os.kill(self.members[index].pid, signal.SIGSTOP)

    def resume(self, index: int) -> None:
        os.kill(self.members[index].pid, signal.SIGCONT)

    def leader(self) -> int:
        """The index of the member that leads now, by its metrics."""

        def leading() -> list[int]:
            return [index for index, member in enumerate(self.members) if member.process and self._leads(member)]

        return eventually(leading, READY_TIMEOUT_S, "one member leading")[0]

    def close(self) -> None:
        for index, member in enumerate(self.members):
            if member.process is not None:
                self.kill(index)

    def __enter__(self) -> EtcdCluster:
        try:
            self.start_all()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def argv(self, index: int) -> list[str]:
        """The command line of a member."""
        member, scheme = self.members[index], self._scheme
        peers = ",".join(f"{each.name}=http://{each.peer}" for each in self.members)
        argv = [
            str(etcd_binary()),
            "--name",
            member.name,
            "--data-dir",
            str(member.directory / "data"),
            "--listen-client-urls",
            f"{scheme}://{member.address}",
            "--advertise-client-urls",
            f"{scheme}://{member.address}",
            "--listen-peer-urls",
            f"http://{member.peer}",
            "--initial-advertise-peer-urls",
            f"http://{member.peer}",
            "--listen-metrics-urls",
            f"http://{member.metrics}",
            "--initial-cluster",
            peers,
            "--initial-cluster-token",
            str(member.directory.parent),
            "--log-level",
            "warn",
            "--watch-progress-notify-interval",
            "2s",
        ]
        if self._tls is not None:
            argv += [
                "--client-cert-auth",
                "--trusted-ca-file",
                str(self._tls.ca),
                "--cert-file",
                str(self._tls.server_cert),
                "--key-file",
                str(self._tls.server_key),
            ]
        return argv + list(self._extra)

    def _leads(self, member: EtcdProcess) -> bool:
        try:
            with urllib.request.urlopen(f"http://{member.metrics}/metrics", timeout=2) as answer:
                return b"\netcd_server_is_leader 1\n" in answer.read()
        except OSError:
            return False

    def _log_tail(self, member: EtcdProcess) -> str:
        return (member.directory / "etcd.log").read_text("utf-8", "replace")[-2000:]
