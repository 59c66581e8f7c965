"""A script with AWS's own credentials works through `meshlog connect`, while API servers die, hang and end."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from botocore.config import Config

from chaos.cluster import Cluster, Process, meshlog_argv
from tests.conditions import eventually
from tests.e2e.conftest import Connect

MESH = "connect"
RUNS = itertools.count()


@pytest.fixture(scope="module")
def endpoint(cluster: Cluster) -> Iterator[str]:
    """The URL of a running `meshlog connect`, as its command is told."""
    argv = [*meshlog_argv(), "connect", "--data-dir", str(cluster.data_dir), "--listen", "127.0.0.1:0", "--"]
    script = "echo $AWS_ENDPOINT_URL_APP_MESH; exec sleep 600"
    with subprocess.Popen([*argv, "sh", "-c", script], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        yield child.stdout.readline().strip()
        child.terminate()
        assert child.wait(20) == 128 + signal.SIGTERM, "the command's own end"


@pytest.fixture(scope="module")
def client(endpoint: str) -> Any:
    """As a script on EC2 has it: temporary credentials of AWS, for another region; no second tries."""
    client = boto3.client(
        "appmesh",
        endpoint_url=endpoint,
        region_name="ap-southeast-2",
        aws_access_key_id="ASIAIOSFODNN7EXAMPLE",
        aws_secret_access_key="of AWS",
        aws_session_token="of AWS too",
        config=Config(retries={"total_max_attempts": 1}, max_pool_connections=10),
    )
    client.create_mesh(meshName=MESH)
    return client


def test_a_script_with_credentials_of_aws_is_the_user_of_the_key(client: Any, cluster: Cluster) -> None:
    answer = client.create_virtual_node(meshName=MESH, virtualNodeName="a b.ä", spec={})
    assert answer["virtualNode"]["metadata"]["arn"].startswith("arn:aws:appmesh:us-east-1:")
    assert {event["actor"] for event in cluster.log(MESH)} == {cluster.log()[0]["actor"]}


@contextmanager
def load(client: Any) -> Iterator[list[str]]:
    """Updates, reads, creates and deletes; gives what failed.

    Each is done once: versions count each update, and what is deleted twice is not found.
    """
    failed: list[str] = []
    done: list[int] = []
    over = threading.Event()
    run = next(RUNS)

    def work(worker: int) -> None:
        node = {"meshName": MESH, "virtualNodeName": f"{run}-{worker}"}
        brief = node | {"virtualNodeName": f"{run}-{worker}-brief"}
        client.create_virtual_node(**node, spec={})
        for version in range(2, 100_000):
            if over.is_set() or failed:
                return
            try:
                updated = client.update_virtual_node(**node, spec={})["virtualNode"]
                found = client.describe_virtual_node(**node)["virtualNode"]
                assert updated["metadata"]["version"] == found["metadata"]["version"] == version
                client.create_virtual_node(**brief, spec={})
                client.delete_virtual_node(**brief)
            except Exception as error:
                failed.append(f"{worker}: {error!r}")
            done.append(worker)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    eventually(lambda: failed or len(done) > 10, what="some calls")
    try:
        yield failed
        before = len(done)
        eventually(lambda: failed or len(done) > before + 10, what="more calls")
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_a_script_notices_neither_a_killed_nor_a_hanging_server(client: Any, cluster: Cluster) -> None:
    first, second = cluster.processes("api")[:2]
    with load(client) as failed:
        cluster.kill([first])
        cluster.restart([first])
        assert second.pid is not None
        os.kill(second.pid, signal.SIGSTOP)
        try:
            time.sleep(3)  # longer than it takes to be found out
        finally:
            os.kill(second.pid, signal.SIGCONT)
        cluster.wait_ready()
    assert failed == []


def test_a_server_says_first_that_it_ends_and_answers_everybody(
    client: Any, cluster: Cluster, connect: Connect
) -> None:
    """/readyz turns while the port is still served; what is in flight is answered; nobody is cut off."""
    ending: Process = cluster.processes("api")[0]
    direct = connect.at(ending.url, retries={"total_max_attempts": 1})
    seen: list[tuple[int, bool]] = []
    with load(client) as failed:
        cluster.end(ending)
        while ending.alive:
            seen.append((readiness(ending), answers(direct)))
    assert failed == []
    assert (503, True) in seen, "not ready, and yet serving"
    assert seen[-1][1] is False
    cluster.restart([ending])
    cluster.wait_ready()


def readiness(process: Process) -> int:
    try:
        with urllib.request.urlopen(f"http://{process.extra['health']}/readyz", timeout=2) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code
    except OSError:
        return 0


def answers(client: Any) -> bool:
    try:
        client.list_meshes()
    except Exception:
        return False
    return True
