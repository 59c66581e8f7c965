"""Processes of a cluster: found, told apart from strangers, and ended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.layout import Layout, ProcessEntry
from cli.processes import claim_pid_file, log_tail, marks, pid_of, running_pid, serve_argv, stop
from mesh.errors import SettingsError
from runtime.clock import SystemClock
from tests.conditions import eventually

STUBBORN = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
WILLING = "import signal; print('up', flush=True); signal.pause()"


def entry(role: str = "api") -> ProcessEntry:
    return ProcessEntry(
        role=role,
        zone="z1",
        id=f"{role}-z1",
        config=f"zones/z1/{role}.toml",
        address="127.0.0.1:1",
        health="127.0.0.1:2",
    )


class Stand:
    """Stand-ins for roles: processes with the arguments of the real ones."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.children: list[subprocess.Popen[bytes]] = []

    def start(self, process: ProcessEntry, code: str = WILLING) -> subprocess.Popen[bytes]:
        config = str(self.layout.root / process.config)
        child = subprocess.Popen([sys.executable, "-c", code, "--config", config], stdout=subprocess.PIPE)
        self.children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        pid_file = self.layout.pid_file(process)
        pid_file.parent.mkdir(parents=True, exist_ok=True)
        pid_file.write_text(f"{child.pid}\n")
        return child

    def close(self) -> None:
        for child in self.children:
            child.kill()
            child.communicate()


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    made = Stand(Layout(tmp_path))
    yield made
    made.close()


def test_a_live_process_is_found_and_a_dead_one_is_not(stand: Stand) -> None:
    child = stand.start(entry())
    assert running_pid(stand.layout, entry()) == child.pid
    child.kill()
    # Not waited for: a zombie is dead too.
    eventually(lambda: running_pid(stand.layout, entry()) is None, what="the process is seen as dead")


def test_a_pid_that_somebody_else_has_now_is_not_ours(stand: Stand) -> None:
    pid_file = stand.layout.pid_file(entry())
    pid_file.parent.mkdir(parents=True)
    for text in (str(os.getpid()), "", "no number", "999999999"):
        pid_file.write_text(text)
        assert running_pid(stand.layout, entry()) is None


def test_etcd_is_known_by_its_data_directory_once_it_has_taken_over(stand: Stand) -> None:
    state = stand.layout.role("z1", "etcd") / "state"
    child = subprocess.Popen([sys.executable, "-c", WILLING, f"--data-dir={state}"], stdout=subprocess.PIPE)
    stand.children.append(child)
    assert child.stdout is not None
    child.stdout.readline()
    pid_file = stand.layout.pid_file(entry("etcd"))
    pid_file.parent.mkdir(parents=True, exist_ok=True)
    pid_file.write_text(str(child.pid))
    assert running_pid(stand.layout, entry("etcd")) == child.pid


def test_a_second_process_with_the_same_settings_is_refused(stand: Stand) -> None:
    child = stand.start(entry())
    with pytest.raises(SettingsError, match=f"already running as pid {child.pid}"):
        claim_pid_file(stand.layout.pid_file(entry()), marks(stand.layout, entry()))
    child.kill()
    child.wait()
    claim_pid_file(stand.layout.pid_file(entry()), marks(stand.layout, entry()))
    assert stand.layout.pid_file(entry()).read_text() == f"{os.getpid()}\n"
    assert pid_of(stand.layout.pid_file(entry()), ("something else",)) is None


def test_processes_end_when_asked_and_are_killed_when_they_do_not(stand: Stand) -> None:
    willing, stubborn = stand.start(entry("api")), stand.start(entry("frontend"), STUBBORN)
    processes = [entry("api"), entry("frontend"), entry("projector")]
    assert stop(stand.layout, processes, SystemClock(), grace_s=0.5) == ["frontend-z1"]
    assert (willing.wait(), stubborn.wait()) == (-15, -9)
    assert not stand.layout.pid_file(entry("api")).exists()
    assert stop(stand.layout, processes, SystemClock(), grace_s=0.5) == []


def test_the_serve_line_can_be_run_from_anywhere(stand: Stand) -> None:
    argv = serve_argv(stand.layout, entry())
    assert Path(argv[0]).is_absolute()
    assert argv[-4:] == ["serve", "api", "--config", str(stand.layout.root / "zones/z1/api.toml")]


def test_the_end_of_a_log_is_shown_and_a_missing_one_said(stand: Stand) -> None:
    assert log_tail(stand.layout, "api-z1") == "    (no log)"
    log_file = stand.layout.log_file("api-z1")
    log_file.parent.mkdir()
    log_file.write_text("\n".join(f"line {number}" for number in range(100)))
    assert log_tail(stand.layout, "api-z1").splitlines()[-1] == "    line 99"
    assert len(log_tail(stand.layout, "api-z1").splitlines()) < 20
