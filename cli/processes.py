"""A local cluster's processes: how one is started, whether it lives, how it is ended. It restarts nothing by itself.

A process is found by its pid file and believed only if /proc says that it runs what the cluster's files say; signals go
through a pidfd, so that a pid that was used again is never hit.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from cli.layout import Layout, ProcessEntry
from mesh.errors import SettingsError
from runtime.clock import Clock
from runtime.files import PUBLIC, write_atomic
from runtime.limits import LOG_TAIL_LINES


def serve_argv(layout: Layout, process: ProcessEntry) -> list[str]:
    """The command that is this process; run it and a dead one is back."""
    script = Path(sys.executable).with_name("meshlog")
    program = [str(script)] if os.access(script, os.X_OK) else [sys.executable, "-P", "-m", "cli.main"]
    return [*program, "serve", process.role, "--config", str(layout.root / process.config)]


def running_pid(layout: Layout, process: ProcessEntry) -> int | None:
    """The pid of a process that lives, or None."""
    return pid_of(layout.pid_file(process), marks(layout, process))


def marks(layout: Layout, process: ProcessEntry) -> tuple[str, ...]:
    """What the command line of this process has in it: its settings, or once it has become etcd, its data directory."""
    state = layout.role(process.zone, process.role) / "state"
    return (str(layout.root / process.config), f"--data-dir={state}")


def pid_of(pid_file: Path, command_marks: Iterable[str]) -> int | None:
    """The pid in `pid_file` if a process with one of `command_marks` among its arguments has it."""
    try:
        pid = int(pid_file.read_text())
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except (OSError, ValueError):
        return None
    return pid if set(command_marks) & set(arguments) else None


def claim_pid_file(pid_file: Path, command_marks: Iterable[str]) -> None:
    """Write our pid; SettingsError if another process with the same settings lives."""
    other = pid_of(pid_file, command_marks)
    if other is not None and other != os.getpid():
        raise SettingsError(f"already running as pid {other} ({pid_file}); stop that process first")
    write_atomic(pid_file, f"{os.getpid()}\n".encode(), PUBLIC)


def start(layout: Layout, process: ProcessEntry, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, its output appended to its log."""
    log_file = layout.log_file(process.id)
    log_file.parent.mkdir(exist_ok=True, mode=0o700)
    # What `up` was told is in the files already: a variable meant for it must not override every process.
    kept = {name: value for name, value in environ.items() if not name.startswith("MESHLOG_") or name == "MESHLOG_ETCD"}
    with log_file.open("ab") as output:
        return subprocess.Popen(
            serve_argv(layout, process),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=layout.root,
            env=kept,
            start_new_session=True,
        )


def stop(layout: Layout, processes: Iterable[ProcessEntry], clock: Clock, grace_s: float) -> list[str]:
    """SIGTERM to all that live, SIGKILL to what is left after `grace_s`. Returns the ids of those killed."""
    waiting: dict[int, ProcessEntry] = {}
    poll = select.poll()
    for process in processes:
        descriptor = _open_running(layout, process)
        if descriptor is not None:
            waiting[descriptor] = process
            poll.register(descriptor, select.POLLIN)
            _send(descriptor, signal.SIGTERM)
    killed: list[str] = []
    deadline_s = clock.monotonic_s() + grace_s
    while waiting:
        left_s = deadline_s - clock.monotonic_s()
        ended = poll.poll(max(0.0, left_s) * 1000)
        if not ended:
            for descriptor, process in waiting.items():
                if process.id not in killed:
                    killed.append(process.id)
                    _send(descriptor, signal.SIGKILL)
            deadline_s = clock.monotonic_s() + grace_s
        for descriptor, _ in ended:
            poll.unregister(descriptor)
            os.close(descriptor)
            process = waiting.pop(descriptor)
            layout.pid_file(process).unlink(missing_ok=True)
    return killed


def log_tail(layout: Layout, process_id: str) -> str:
    """The last lines of a process's log, indented."""
    try:
        lines = layout.log_file(process_id).read_text(errors="replace").splitlines()
    except OSError:
        return "    (no log)"
    return "\n".join(f"    {line[:400]}" for line in lines[-LOG_TAIL_LINES:]) or "    (nothing logged)"


def _open_running(layout: Layout, process: ProcessEntry) -> int | None:
    pid = running_pid(layout, process)
    if pid is None:
        return None
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if running_pid(layout, process) == pid:  # the descriptor is of the process that we looked at
        return descriptor
    os.close(descriptor)
    return None


def _send(descriptor: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, number)
