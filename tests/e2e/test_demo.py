"""`meshlog demo` cleans up after itself, also when Ctrl-C comes in the middle of its worst moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conditions import eventually

MESHLOG = str(Path(sys.executable).with_name("meshlog"))
START_S = 300.0
CLEAN_S = 120.0


def processes_naming(text: str) -> dict[int, str]:
    """Command lines of living processes that have `text` in them, by pid."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if text in line:
                found[int(entry.name)] = line
    return found


@pytest.fixture
def scratch() -> Iterator[Path]:
    # Short, since etcd and sockets have limits on paths; named, so that what is left over can be found.
    with tempfile.TemporaryDirectory(prefix="mld-") as directory:
        yield Path(directory)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_an_interrupted_demo_leaves_nothing_behind(scratch: Path, number: signal.Signals) -> None:
    # Ctrl-C while a zone is dead, SIGTERM while `up` has started etcd and nothing else yet.
    moment = "killed etcd" if number is signal.SIGINT else "1. A cluster"
    output = scratch / "output"
    temporary = scratch / "tmp"
    temporary.mkdir()
    with output.open("wb") as sink:
        demo = subprocess.Popen(
            [MESHLOG, "demo"],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(temporary)},
            start_new_session=True,
            # Started in the background of a script, this process was told to ignore Ctrl-C, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
        )
    try:
        try:
            eventually(lambda: moment in output.read_text() or demo.poll() is not None, START_S, f"'{moment}'")
        except AssertionError as late:
            raise AssertionError(f"{late}\n{output.read_text()}") from late
        assert demo.poll() is None, output.read_text()
        eventually(
            lambda: any("zones/z1/etcd" in line for line in processes_naming(str(temporary)).values()),
            START_S,
            "the demo's etcd",
        )
        # As a terminal does it: to the whole foreground process group.
        os.killpg(demo.pid, number)
        assert demo.wait(CLEAN_S) == 130, output.read_text()
    finally:
        if demo.poll() is None:
            demo.kill()
            demo.wait()
            # What it can no longer end itself: an Envoy left behind would take a part of the next one's requests.
            for pid in processes_naming(str(temporary)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    assert processes_naming(str(temporary)) == {}
    assert list(temporary.iterdir()) == []
