"""A running cluster, driven only through the `meshlog` command and signals to processes.

Stage: between a fault plan and the machine. Turns `meshlog status -o json` into `Process` values and names into kills
and restarts. It must never read the cluster's files or speak to its members: what an operator cannot do, a fault
suite must not.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from botocore.config import Config
from botocore.session import Session

from mesh.errors import MeshlogError, Unavailable

T = TypeVar("T")

COMMAND_TIMEOUT_S = 120.0
UP_TIMEOUT_S = 240.0
GIVE_UP_S = 60.0
POLL_S = 0.05
HEALTH_TIMEOUT_S = 5.0
LEADER_METRIC = "etcd_server_is_leader"
ELECTION_TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 1.0
READ_TIMEOUT_S = 5.0
KILLED_TIMEOUT_S = 60.0
SETUP_ATTEMPTS = 10
"""For calls that only prepare a run: as an SDK's user has it, a 503 while etcd elects is asked again."""


def wait_for(probe: Callable[[], T | None], timeout_s: float, what: str) -> T:
    """Call `probe` until it returns something true; Unavailable after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline_s:
            raise Unavailable(f"{what} did not hold within {timeout_s} s; last value: {value!r}")
        time.sleep(POLL_S)


@dataclass(frozen=True)
class Process:
    """One process of the cluster, as `meshlog status -o json` lists it."""

    role: str
    zone: str
    pid: int | None
    address: str
    ready: bool
    position: str
    serve: tuple[str, ...]
    extra: Mapping[str, Any] = field(repr=False, default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.role}@{self.zone}"

    @property
    def url(self) -> str:
        """The base URL of an API server."""
        return self.address if "://" in self.address else f"http://{self.address}"

    @property
    def alive(self) -> bool:
        return self.pid is not None and _alive(self.pid)


def _alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    # A zombie is dead: only its parent has not looked yet.
    return stat.rpartition(")")[2].split()[0] != "Z"


def leads(metrics: str) -> bool:
    """Whether the member that tells these metrics (Prometheus text) leads."""
    return any(line.split() == [LEADER_METRIC, "1"] for line in metrics.splitlines())


def parse_process(entry: Mapping[str, Any]) -> Process:
    """One element of the status' `processes`; unknown fields stay in `extra`."""
    known = {"role", "zone", "pid", "address", "ready", "position", "serve"}
    return Process(
        role=str(entry["role"]),
        zone=str(entry["zone"]),
        pid=int(entry["pid"]) if entry.get("pid") else None,
        address=str(entry.get("address") or ""),
        ready=bool(entry.get("ready")),
        position=str(entry.get("position") or ""),
        serve=tuple(entry.get("serve") or ()),
        extra={name: value for name, value in entry.items() if name not in known},
    )


def meshlog_argv() -> list[str]:
    """The `meshlog` that belongs to this interpreter."""
    beside = Path(sys.executable).with_name("meshlog")
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "cli.main"]


@dataclass(frozen=True)
class Restarted:
    """A process that was run again by its `serve` argv, and where its output goes."""

    serve: tuple[str, ...]
    child: subprocess.Popen[bytes]
    log: Path


class Cluster:
    """The cluster in `data_dir`. Restarted processes are children of this one and are reaped by `close()`."""

    def __init__(
        self,
        data_dir: Path,
        *,
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] | None = None,
    ) -> None:
        self.data_dir = data_dir
        self._program = list(program) if program is not None else meshlog_argv()
        self._environment = dict(os.environ if environment is None else environment)
        self._restarted: list[Restarted] = []
        self._asked_to_end: set[int] = set()

    def run(self, *arguments: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Run `meshlog ARGUMENTS --data-dir D`; returns its stdout. MeshlogError if the exit code is not in
        `codes`.
        """
        argv, code, stdout, stderr = self._command(arguments, timeout_s)
        if code:
            raise MeshlogError(f"{shlex.join(argv)} exited with {code}\n{stdout[-2000:]}\n{stderr[-2000:]}")
        return stdout

    def lift_quotas(self) -> None:
        """Let the load have more meshes, nodes and routes than App Mesh's defaults allow."""
        for code in ("L-AC861A39", "L-E043DFB4", "L-BB90B7FF"):
            self.run("quotas", "set", code, "100000")

    def _command(self, arguments: Sequence[str], timeout_s: float) -> tuple[list[str], int, str, str]:
        """argv, exit code, stdout, stderr. A command that is given up on, by Ctrl-C too, is asked to clean up first."""
        argv = [*self._program, *arguments, "--data-dir", str(self.data_dir)]
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment,
            start_new_session=True,
        )
        try:
            stdout, stderr = child.communicate(timeout=timeout_s)
        except BaseException:
            child.terminate()
            try:
                child.communicate(timeout=GIVE_UP_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.communicate()
            raise
        return argv, child.returncode, stdout, stderr

    def up(self, *, zones: int = 3, arguments: Sequence[str] = ()) -> None:
        self.run("up", "--detach", "--zones", str(zones), *arguments, timeout_s=UP_TIMEOUT_S)

    def down(self) -> None:
        """Stop every process of the cluster, those that were restarted by this object too. Harmless without one."""
        try:
            if (self.data_dir / "cluster.json").exists():
                self.run("down")
        finally:
            self.close()

    def close(self) -> None:
        for restarted in self._restarted:
            if restarted.child.poll() is None:
                restarted.child.kill()
            restarted.child.wait()
        self._restarted.clear()

    def status(self) -> dict[str, Any]:
        """`meshlog status -o json`."""
        status: dict[str, Any] = json.loads(self.run("status", "-o", "json"))
        return status

    def processes(self, role: str | None = None, zone: str | None = None) -> list[Process]:
        found = [parse_process(entry) for entry in self.status()["processes"]]
        return [one for one in found if role in (None, one.role) and zone in (None, one.zone)]

    def zones(self) -> list[str]:
        return sorted({process.zone for process in self.processes()})

    def etcd_leader_zone(self) -> str:
        """The zone whose etcd member says in its metrics that it leads, once one does."""
        return wait_for(self._leader, ELECTION_TIMEOUT_S, "an etcd leader").zone

    def _leader(self) -> Process | None:
        for process in self.processes("etcd"):
            try:
                with urllib.request.urlopen(
                    f"http://{process.extra['health']}/metrics", timeout=HEALTH_TIMEOUT_S
                ) as answer:
                    if leads(answer.read().decode()):
                        return process
            except OSError:
                continue
        return None

    def environment(self) -> dict[str, str]:
        """What `meshlog env` exports."""
        values: dict[str, str] = {}
        for line in self.run("env").splitlines():
            words = shlex.split(line)
            if len(words) == 2 and words[0] == "export":
                name, _, value = words[1].partition("=")
                values[name] = value
        return values

    def api_urls(self) -> list[str]:
        """Base URLs of all API servers, by zone; also of those that are down."""
        return [process.url for process in sorted(self.processes("api"), key=lambda one: one.zone)]

    def client(self, url: str | None = None) -> Any:
        """A botocore `appmesh` client that never retries by itself, at `url` or where `meshlog env` points."""
        environment = self.environment()
        return appmesh_client(url or environment["AWS_ENDPOINT_URL_APP_MESH"], environment)

    def log(self, mesh: str | None = None) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = json.loads(self.run("log", "-o", "json", *(["--mesh", mesh] if mesh else [])))
        return events

    def fsck(self) -> tuple[int, str]:
        """Exit code and output of `meshlog fsck`."""
        _, code, stdout, stderr = self._command(["fsck"], COMMAND_TIMEOUT_S)
        return code, stdout + stderr

    def bootstrap(self, node: str, *, admin_port: int, out: Path, mode: str = "delta") -> Path:
        """Write an Envoy bootstrap into `out` and return the file Envoy is started with."""
        out.mkdir(parents=True, exist_ok=True)
        text = self.run(
            "proxy", "bootstrap", "--node", node, "--admin-port", str(admin_port), "--mode", mode, "--out", str(out)
        )
        return bootstrap_file(out, text)

    def kill(self, processes: Sequence[Process]) -> None:
        """kill -9 all of them, then wait until the kernel says that they are gone."""
        for process in processes:
            if process.pid is not None and process.alive:
                os.kill(process.pid, signal.SIGKILL)
        wait_for(
            lambda: not any(process.alive for process in processes),
            timeout_s=KILLED_TIMEOUT_S,
            what=f"the end of {', '.join(process.name for process in processes)}",
        )

    def end(self, process: Process) -> None:
        """SIGTERM, as whoever supervises it would; it may take its time."""
        if process.pid is not None:
            self._asked_to_end.add(process.pid)
            os.kill(process.pid, signal.SIGTERM)

    def restart(self, processes: Sequence[Process]) -> None:
        """Run the `serve` argv of each; readiness is for `wait_ready` to see."""
        logs = self.data_dir / "logs"
        logs.mkdir(exist_ok=True)
        for process in processes:
            log_path = logs / f"restarted-{process.role}-{process.zone}.log"
            with log_path.open("ab") as log:
                child = subprocess.Popen(
                    list(process.serve),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._environment,
                    start_new_session=True,
                )
            self._restarted.append(Restarted(process.serve, child, log_path))

    def wait_ready(self, timeout_s: float = 120.0) -> dict[str, Any]:
        """The status once every process is ready. Asks the health ports, so that the waiting costs the cluster
        little.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            status = self.status()
            waiting = [parse_process(entry) for entry in status["processes"] if not entry["ready"]]
            left_s = deadline_s - time.monotonic()
            if status["ready"] and not waiting:
                return status
            names = ", ".join(process.name for process in waiting)
            if left_s <= 0:
                raise Unavailable(f"not ready within {timeout_s} s: {names}")

            def ready(waiting: Sequence[Process] = waiting) -> bool:
                self._fail_on_ended()
                return all(says_ready(process) for process in waiting)

            wait_for(ready, left_s, f"readiness of {names}")

    def _fail_on_ended(self) -> None:
        """A restarted process that ended by itself will not become ready: say so, with the end of its log."""
        for restarted in self._restarted:
            child = restarted.child
            if child.poll() not in (None, -signal.SIGKILL) and child.pid not in self._asked_to_end:
                raise Unavailable(
                    f"{shlex.join(restarted.serve)} ended with {child.returncode}: {restarted.log.read_text()[-500:]}"
                )


def says_ready(process: Process) -> bool:
    """What a process answers on its health port."""
    path = "health" if process.role == "etcd" else "readyz"
    try:
        with urllib.request.urlopen(f"http://{process.extra['health']}/{path}", timeout=HEALTH_TIMEOUT_S) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def appmesh_client(url: str, environment: Mapping[str, str], attempts: int = 1) -> Any:
    """What boto3.client("appmesh") makes, by default without its retries: the suite counts every answer itself."""
    session = Session()
    return session.create_client(
        "appmesh",
        endpoint_url=url,
        region_name=environment["AWS_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        config=Config(
            retries={"total_max_attempts": attempts, "mode": "standard"},
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            parameter_validation=False,
        ),
    )


def bootstrap_file(out: Path, printed: str) -> Path:
    """The bootstrap among what `meshlog proxy bootstrap --out` wrote; the printed text if it wrote certificates
    only.
    """
    for name in ("bootstrap.json", "bootstrap.yaml", "envoy.json", "envoy.yaml"):
        if (out / name).exists():
            return out / name
    path = out / ("bootstrap.json" if printed.lstrip().startswith("{") else "bootstrap.yaml")
    path.write_text(printed)
    return path
