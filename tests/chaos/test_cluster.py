"""Driving a cluster through its command: what is read from it, and that a command that is given up on may clean up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from chaos.cluster import Cluster, bootstrap_file, parse_process, says_ready, wait_for
from mesh.errors import MeshlogError, Unavailable

ENTRY = {"role": "api", "zone": "z1", "pid": None, "address": "127.0.0.1:1", "ready": False, "serve": ["a", "b"]}


def program(tmp_path: Path, body: str) -> list[str]:
    """A stand-in for `meshlog`: a Python program with its arguments in `args`."""
    path = tmp_path / "meshlog.py"
    path.write_text(f"import json, signal, sys, time, pathlib\nargs = sys.argv[1:]\n{body}\n")
    return [sys.executable, str(path)]


def test_a_command_gets_the_data_dir_and_gives_its_stdout(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "d", program=program(tmp_path, "print(json.dumps(args))"))
    assert json.loads(cluster.run("log", "-o", "json")) == ["log", "-o", "json", "--data-dir", str(tmp_path / "d")]


def test_a_failed_command_says_what_it_was_and_what_it_said(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, program=program(tmp_path, "sys.exit('no quorum')"))
    with pytest.raises(MeshlogError, match=r"fsck[\s\S]*no quorum"):
        cluster.run("fsck")


def test_a_command_that_takes_too_long_is_asked_to_end_and_may_clean_up(tmp_path: Path) -> None:
    body = """
def end(*_):
    pathlib.Path(args[-1], "cleaned").touch()
    sys.exit(1)
signal.signal(signal.SIGTERM, end)
pathlib.Path(args[-1], "started").touch()
time.sleep(60)
"""
    cluster = Cluster(tmp_path, program=program(tmp_path, body))
    with pytest.raises(subprocess.TimeoutExpired):
        cluster.run("up", timeout_s=3.0)
    assert (tmp_path / "started").exists()
    assert (tmp_path / "cleaned").exists()


def test_the_environment_is_read_as_a_shell_would(tmp_path: Path) -> None:
    body = "print(\"export AWS_REGION=us-east-1\\nexport AWS_SECRET_ACCESS_KEY='a b=c'\\n# a comment\")"
    cluster = Cluster(tmp_path, program=program(tmp_path, body))
    assert cluster.environment() == {"AWS_REGION": "us-east-1", "AWS_SECRET_ACCESS_KEY": "a b=c"}


def test_a_process_without_a_pid_is_dead_and_one_with_ours_is_alive() -> None:
    assert not parse_process(ENTRY).alive
    assert parse_process({**ENTRY, "pid": os.getpid()}).alive
    assert parse_process({**ENTRY, "health": "h"}).extra == {"health": "h"}


@pytest.mark.parametrize(("address", "url"), [("127.0.0.1:1", "http://127.0.0.1:1"), ("https://a:2", "https://a:2")])
def test_the_address_of_an_api_server_may_be_a_url_or_host_and_port(address: str, url: str) -> None:
    assert parse_process({**ENTRY, "address": address}).url == url


def test_a_killed_child_is_gone_and_a_restarted_one_is_ended_by_close(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    sleeper = parse_process({**ENTRY, "serve": [sys.executable, "-c", "import time; time.sleep(60)"]})
    cluster = Cluster(tmp_path, program=["false"])
    cluster.restart([sleeper])
    (restarted,) = cluster._restarted
    running = parse_process({**ENTRY, "pid": restarted.child.pid})
    before = running.alive
    cluster.kill([running])
    assert (before, running.alive) == (True, False)
    cluster.restart([sleeper])
    second = parse_process({**ENTRY, "pid": cluster._restarted[-1].child.pid})
    cluster.close()
    assert not second.alive


def test_readiness_is_what_the_health_port_answers() -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/readyz" else 503)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    health = f"127.0.0.1:{server.server_port}"
    try:
        assert says_ready(parse_process({**ENTRY, "health": health}))
        assert not says_ready(parse_process({**ENTRY, "role": "etcd", "health": health}))
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5.0)
    assert not says_ready(parse_process({**ENTRY, "health": health}))


def test_a_condition_that_never_holds_is_named() -> None:
    with pytest.raises(Unavailable, match="the moon"):
        wait_for(lambda: None, 0.1, "the moon")


def test_the_printed_bootstrap_is_used_where_none_was_written(tmp_path: Path) -> None:
    assert bootstrap_file(tmp_path, "node: {}\n").read_text() == "node: {}\n"
    (tmp_path / "bootstrap.yaml").write_text("written")
    assert bootstrap_file(tmp_path, "printed").read_text() == "written"


def test_a_restarted_process_that_ends_is_told_at_once_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    status = json.dumps({"ready": False, "processes": [{**ENTRY, "health": "127.0.0.1:9"}]})
    cluster = Cluster(tmp_path, program=program(tmp_path, f"print({status!r})"))
    cluster.restart([parse_process({**ENTRY, "serve": [sys.executable, "-c", "import sys; sys.exit('no disk')"]})])
    with pytest.raises(Unavailable, match="no disk"):
        cluster.wait_ready(20.0)
    cluster.close()
