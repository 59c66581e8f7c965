"""`meshlog` in the test's own process, against a real API server over a log in memory."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import pty
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from cli.main import main
from tests.api.conftest import ADMIN, REGION, Cloud


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


class Shell:
    """`meshlog` in this process, in a thread beside the server's loop."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    async def run(self, *arguments: str, code: int = 0) -> Ran:
        ran = await asyncio.to_thread(self._run, arguments)
        assert ran.code == code, ran
        return ran

    def _run(self, arguments: tuple[str, ...]) -> Ran:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(arguments)
        return Ran(code, out.getvalue(), err.getvalue())


def environ_of(cloud: Cloud) -> dict[str, str]:
    """What a shell needs to call the first server as its administrator."""
    return {
        "MESHLOG_ENDPOINT": cloud.server.url,
        "AWS_ACCESS_KEY_ID": ADMIN.access_key_id,
        "AWS_SECRET_ACCESS_KEY": ADMIN.secret,
        "AWS_REGION": REGION,
    }


def use(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell whose environment is that."""
    for name, value in environ_of(cloud).items():
        monkeypatch.setenv(name, value)
    return Shell(cloud)


def on_a_terminal(answer: bytes, *arguments: str) -> tuple[int, str]:
    """`meshlog` with a terminal in front of it, on which somebody answers one question."""
    terminal, screen = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "cli.main", *arguments], stdin=screen, stderr=screen, stdout=subprocess.DEVNULL
    ) as asked:
        os.close(screen)
        shown = b""
        while b"[y/N]" not in shown:
            shown += os.read(terminal, 4096)
        os.write(terminal, answer + b"\n")
        with contextlib.suppress(OSError):  # the other end closes
            while more := os.read(terminal, 4096):
                shown += more
        code = asked.wait()
    os.close(terminal)
    return code, shown.decode()
