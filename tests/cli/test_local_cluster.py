"""A whole cluster on this machine through the commands alone: up, used, hurt, brought back, down."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from tests.conditions import eventually
from tests.etcd_cluster import etcd_binary

pytestmark = pytest.mark.e2e

MESHLOG = str(Path(sys.executable).with_name("meshlog"))
ROLES = ["etcd", "api", "projector", "frontend"]
ACCOUNT = "210987654321"


class Commands:
    """`meshlog … --data-dir D` from somewhere else than the repository."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MESHLOG_"))}
        self.environ["MESHLOG_ETCD"] = str(etcd_binary())
        self.restarted: list[subprocess.Popen[bytes]] = []

    def run(self, *arguments: str, code: int = 0, timeout_s: float = 180) -> subprocess.CompletedProcess[str]:
        argv = [MESHLOG, *arguments, "--data-dir", str(self.data_dir)]
        ran = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            cwd="/",
            env=self.environ,
            stdin=subprocess.DEVNULL,
        )
        assert ran.returncode == code, f"{shlex.join(argv)} gave {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        return ran

    def data(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "-o", "json").stdout)

    def processes(self) -> dict[str, dict[str, Any]]:
        return {row["role"]: row for row in self.data("status")["processes"]}

    def serve(self, row: dict[str, Any]) -> None:
        """As anybody may: the argv of the status, another directory, another environment."""
        environ = {"PATH": "/usr/bin:/bin", "MESHLOG_DATA_DIR": "/nonexistent"}
        self.restarted.append(
            subprocess.Popen(row["serve"], cwd="/", env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )

    def appmesh(self) -> Any:
        values = self.data("env")
        return boto3.client(
            "appmesh",
            endpoint_url=values["AWS_ENDPOINT_URL_APP_MESH"],
            region_name=values["AWS_REGION"],
            aws_access_key_id=values["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=values["AWS_SECRET_ACCESS_KEY"],
        )

    def close(self) -> None:
        for row in self.data("status")["processes"] if (self.data_dir / "cluster.json").exists() else []:
            if row["pid"]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(row["pid"], signal.SIGKILL)
        for child in self.restarted:
            child.kill()
            child.wait()


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


Rows = dict[str, dict[str, Any]]


def wait_until(cluster: Commands, holds: Callable[[Rows], bool], timeout_s: float, what: str) -> Rows:
    """The status' rows by role, once `holds` is true of them."""
    rows: Rows = {}

    def look() -> bool:
        rows.update(cluster.processes())
        return holds(rows)

    eventually(look, timeout_s, what)
    return rows


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    commands = Commands(tmp_path_factory.mktemp("cluster") / "state")
    try:
        commands.run("up", "--detach", "--zones", "1", "--account-id", ACCOUNT, "--region", "eu-west-3")
        yield commands
    finally:
        commands.close()


@pytest.fixture(scope="module")
def mesh(cluster: Commands) -> str:
    client = cluster.appmesh()
    client.create_mesh(meshName="shop")
    listener = {"portMapping": {"port": 8080, "protocol": "http"}}
    client.create_virtual_gateway(meshName="shop", virtualGatewayName="edge", spec={"listeners": [listener]})
    client.create_virtual_router(meshName="shop", virtualRouterName="r", spec={"listeners": [listener]})
    return "shop"


def test_status_lists_every_process_and_how_to_start_it(cluster: Commands) -> None:
    document = cluster.data("status")
    assert document["ready"] is True
    rows = document["processes"]
    assert [row["role"] for row in rows] == ROLES
    for row in rows:
        assert {"role", "zone", "pid", "address", "ready", "position", "serve"} <= set(row)
        assert row["zone"] == "z1"
        assert Path(f"/proc/{row['pid']}").is_dir()
        assert row["serve"][1:3] == ["serve", row["role"]]
    assert rows[1]["address"].startswith("http://127.0.0.1:")
    assert "etcd" in Path(f"/proc/{rows[0]['pid']}/exe").resolve().name, "the pid is etcd's own"
    assert cluster.run("status", "-o", "name").stdout.split() == [f"{role}-z1" for role in ROLES]


def test_env_is_what_a_shell_and_boto3_need(cluster: Commands, mesh: str) -> None:
    lines = cluster.run("env").stdout.splitlines()
    names = [line.removeprefix("export ").partition("=")[0] for line in lines]
    assert all(line.startswith("export ") for line in lines)
    assert names == [
        "AWS_ENDPOINT_URL_APP_MESH",
        "AWS_ENDPOINT_URL_STS",
        "AWS_ENDPOINT_URL_SERVICEDISCOVERY",
        "AWS_DISABLE_HOST_PREFIX_INJECTION",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "MESHLOG_DATA_DIR",
    ]
    script = f'eval "$({shlex.quote(MESHLOG)} env --data-dir {shlex.quote(str(cluster.data_dir))})" && ' + shlex.join(
        [sys.executable, "-c", "import boto3; print(boto3.client('appmesh').list_meshes()['meshes'][0]['arn'])"]
    )
    script += f" && {shlex.quote(MESHLOG)} get mesh shop -o name"
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=cluster.environ)
    assert ran.stdout.split() == [f"arn:aws:appmesh:eu-west-3:{ACCOUNT}:mesh/shop", "mesh/shop"]
    assert oct((cluster.data_dir / "credentials.json").stat().st_mode)[-3:] == "600"


def test_get_reads_what_boto3_wrote(cluster: Commands, mesh: str) -> None:
    assert "shop" in cluster.run("get", "mesh").stdout
    assert cluster.run("get", "vg", "-m", mesh, "-o", "name").stdout.split() == ["mesh/shop/virtualGateway/edge"]
    document = yaml.safe_load(cluster.run("get", "vr", "r", "-m", mesh, "-o", "yaml").stdout)
    assert document["spec"]["listeners"][0]["portMapping"]["port"] == 8080
    assert "not present" in cluster.run("get", "vn", "ghost", "-m", mesh, code=4).stderr


def test_history_is_shown_and_taken_back(cluster: Commands, mesh: str) -> None:
    client = cluster.appmesh()
    client.create_virtual_router(
        meshName=mesh,
        virtualRouterName="late",
        spec={"listeners": [{"portMapping": {"port": 1, "protocol": "tcp"}}]},
    )
    events = cluster.data("log", "--mesh", mesh)
    assert [event["position"] for event in events] == sorted(event["position"] for event in events)
    assert {"position", "epoch", "time", "type", "actor", "account", "mesh", "resource"} <= set(events[0])
    assert events[-1]["resource"] == "mesh/shop/virtualRouter/late"
    assert cluster.data("history")[0]["type"] == "AccessKeyCreated"

    before = str(events[-2]["position"])
    rollback = ("rollback", "--mesh", mesh, "--to", before)
    planned = cluster.data(*rollback, "--dry-run")
    assert [(one["resource"], one["change"]) for one in planned["changes"]] == [
        ("mesh/shop/virtualRouter/late", "deleted")
    ]
    assert planned["position"] is None
    assert "--yes" in cluster.run(*rollback, code=2).stderr
    assert len(cluster.data("log", "--mesh", mesh)) == len(events), "neither has changed anything"
    done = cluster.data(*rollback, "--yes")
    assert done["position"] == events[-1]["position"] + 1
    assert cluster.run("get", "vr", "-m", mesh, "-o", "name").stdout.split() == ["mesh/shop/virtualRouter/r"]
    assert "has no position" in cluster.run("rollback", "--mesh", mesh, "--to", "99999", "--yes", code=1).stderr


def test_a_bootstrap_is_complete_and_says_when_it_expires(cluster: Commands, mesh: str, tmp_path: Path) -> None:
    node = "mesh/shop/virtualGateway/edge"
    printed = cluster.run("proxy", "bootstrap", "--node", node, "--admin-port", "19901", "--mode", "sotw")
    assert "expires 20" in printed.stderr
    assert "expires 20" in printed.stdout.partition("node:")[0]
    document = yaml.safe_load(printed.stdout)
    assert document["node"]["id"] == node
    assert "PRIVATE KEY" in printed.stdout

    out = tmp_path / "identity"
    first = cluster.run("proxy", "bootstrap", "--node", node, "--out", str(out))
    assert first.stdout == ""
    identity = (out / "identity.pem").read_text()
    assert oct((out / "identity.pem").stat().st_mode)[-3:] == "600"
    cluster.run("proxy", "bootstrap", "--node", node, "--out", str(out))
    assert (out / "identity.pem").read_text() != identity
    missing = cluster.run("proxy", "bootstrap", "--node", "mesh/shop/virtualGateway/ghost", code=4)
    assert "ghost" in missing.stderr


def test_a_killed_process_shows_as_dead_and_its_serve_line_brings_it_back(cluster: Commands, mesh: str) -> None:
    before = cluster.processes()
    for role in ROLES:
        os.kill(before[role]["pid"], signal.SIGKILL)
    dead = wait_until(cluster, lambda rows: not any(row["pid"] for row in rows.values()), 10, "all dead")
    assert not any(row["ready"] for row in dead.values())
    assert cluster.data("status")["ready"] is False
    told = cluster.run("status", "--exit-code", code=7).stderr
    for role in ROLES:
        assert f"{before[role]['id']} is not running; start it again: {shlex.join(before[role]['serve'])} &" in told
    assert f"meshlog up --detach --data-dir {cluster.data_dir}" in told

    for role in ROLES:
        cluster.serve(before[role])
    after = wait_until(cluster, lambda rows: all(row["ready"] for row in rows.values()), 90, "all ready")
    for role in ROLES:
        assert after[role]["address"] == before[role]["address"]
        assert after[role]["pid"] != before[role]["pid"]
    assert cluster.appmesh().list_meshes()["meshes"][0]["meshName"] == mesh


def test_fsck_finds_the_log_whole(cluster: Commands, mesh: str) -> None:
    report = cluster.data("fsck")
    assert report["clean"] is True
    assert report["position"] == report["records"] == cluster.processes()["api"]["position"]
    assert "clean" in cluster.run("fsck").stdout
    assert cluster.data("fsck", "--without-keys")["clean"] is True


def test_up_again_changes_nothing_and_refuses_another_shape(cluster: Commands, mesh: str) -> None:
    before = cluster.processes()
    position = before["api"]["position"]
    cluster.run("up", "--detach")
    after = cluster.processes()
    assert {role: row["pid"] for role, row in after.items()} == {role: row["pid"] for role, row in before.items()}
    assert after["api"]["position"] == position
    assert "--zones 1" in cluster.run("up", "--detach", "--zones", "3", code=5).stderr


def test_down_keeps_the_data(cluster: Commands, mesh: str) -> None:
    pids = [row["pid"] for row in cluster.processes().values()]
    cluster.run("down")
    assert not any(alive(pid) for pid in pids)
    assert not any(row["pid"] for row in cluster.processes().values())
    assert "meshlog status" in cluster.run("log", code=7).stderr


def test_a_port_that_was_taken_meanwhile_is_named(cluster: Commands, mesh: str) -> None:
    """Follows `down`. What this start has started is stopped again."""
    address = cluster.processes()["api"]["address"].removeprefix("http://")
    with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))):
        failed = cluster.run("up", "--detach", code=7)
    assert "api-z1" in failed.stderr
    assert "in use" in failed.stderr
    assert not any(row["pid"] for row in cluster.processes().values())


def test_in_the_foreground_a_signal_stops_the_whole_cluster(cluster: Commands, mesh: str, tmp_path: Path) -> None:
    """Follows `down`. The data of before is there."""
    said = tmp_path / "said"
    with said.open("wb") as file:
        foreground = subprocess.Popen(
            [MESHLOG, "up", "--data-dir", str(cluster.data_dir)], stderr=file, env=cluster.environ, cwd="/"
        )
    try:
        eventually(lambda: "Ctrl-C stops" in said.read_text(), 150, "the cluster is up")
        assert cluster.run("get", "vg", "-m", mesh, "-o", "name").stdout.split() == ["mesh/shop/virtualGateway/edge"]
        pids = [row["pid"] for row in cluster.processes().values()]
        assert all(pids)
        foreground.send_signal(signal.SIGINT)
        assert foreground.wait(timeout=60) == 0
        assert not any(alive(pid) for pid in pids)
    finally:
        foreground.kill()
        foreground.wait()


def test_nothing_of_it_is_left_after_down_with_its_data(cluster: Commands, mesh: str) -> None:
    keepsake = cluster.data_dir / "mine.txt"
    keepsake.write_text("not Meshlog's")
    cluster.run("down", "--delete-data")
    assert list(cluster.data_dir.iterdir()) == [keepsake]
    assert "there is no cluster" in cluster.run("status", code=2).stderr


def test_the_files_for_several_hosts_make_a_cluster(tmp_path: Path) -> None:
    """One host of it, an address of its own on this machine: its etcd member, what `provision` adds, and the check."""
    commands = Commands(tmp_path / "state")
    commands.run("init", "--zone", "eu-a=127.0.0.97", "--account-id", ACCOUNT)
    config = commands.data_dir / "zones/eu-a/etcd.toml"
    member = subprocess.Popen([MESHLOG, "serve", "etcd", "--config", str(config)], env=commands.environ, cwd="/")
    try:
        commands.run("provision", "--timeout", "60")
        commands.run("provision")
        assert commands.data("fsck")["position"] == 1
        row = commands.processes()["etcd"]
        assert (row["pid"], row["address"], row["ready"]) == (member.pid, "127.0.0.97:2379", True)
        second = subprocess.run(
            [MESHLOG, "serve", "etcd", "--config", str(config)], stderr=subprocess.PIPE, check=False
        )
        assert b"already running as pid" in second.stderr
    finally:
        member.terminate()
        member.wait(timeout=30)


def test_a_start_that_fails_says_what_failed_and_leaves_nothing_running(tmp_path: Path) -> None:
    commands = Commands(tmp_path / "state")
    broken = tmp_path / "etcd"
    broken.write_text(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 'etcd Version: 3.6.14' && exit\necho no disk left >&2; exit 3\n"
    )
    broken.chmod(0o755)
    commands.environ["MESHLOG_ETCD"] = str(broken)
    failed = commands.run("up", "--detach", "--zones", "1", code=7)
    assert "etcd-z1 ended with code 3" in failed.stderr
    assert "no disk left" in failed.stderr
    assert "meshlog up" in failed.stderr
    assert not any(row["pid"] for row in commands.processes().values())


def test_a_start_that_takes_too_long_ends_with_the_role_that_is_late(tmp_path: Path) -> None:
    commands = Commands(tmp_path / "state")
    stuck = tmp_path / "etcd"
    stuck.write_text("#!/bin/sh\n[ \"$1\" = --version ] && echo 'etcd Version: 3.6.14' && exit\nexec sleep 600\n")
    stuck.chmod(0o755)
    commands.environ["MESHLOG_ETCD"] = str(stuck)
    late = commands.run("up", "--detach", "--zones", "1", "--timeout", "3", code=6)
    assert "etcd-z1 is not ready in time" in late.stderr
    left = subprocess.run(["pgrep", "-f", str(commands.data_dir)], capture_output=True, text=True, check=False)
    assert left.stdout == ""
