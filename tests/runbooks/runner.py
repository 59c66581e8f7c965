"""Runbooks as programs: the ```sh blocks of docs/runbooks/<name>.md, run in order, in one shell, as an operator would.

    ```sh             run; every command must succeed
    ```sh exit=7      run; the block's last command must end with 7
    ```sh no-run      shown only (another host, a choice that the operator makes)

The shell finds the cluster by MESHLOG_DATA_DIR and `meshlog` on PATH, and has no terminal. Variables last from block to
block. What a runbook calls `/path/to/…` has no place in a block that is run: give it a variable.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.etcd_cluster import etcd_binary

REPOSITORY = Path(__file__).resolve().parents[2]
RUNBOOKS = REPOSITORY / "docs" / "runbooks"
_FENCE = re.compile(r"```(?P<language>\w*)(?P<words>[^`]*)")
_EXIT = re.compile(r"exit=(\d{1,3})")


class Block(NamedTuple):
    """One block of shell commands. `line` is that of its fence, from 1."""

    line: int
    text: str
    exit_code: int = 0


class Ran(NamedTuple):
    """What the commands of a runbook wrote."""

    stdout: str
    stderr: str


def blocks(document: str) -> list[Block]:
    """The blocks to run, in order; AssertionError for a tag that means nothing."""
    found: list[Block] = []
    opened: tuple[int, str, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(document.splitlines(), 1):
        fence = _FENCE.fullmatch(line.strip())
        if fence is None:
            lines.append(line)
        elif opened is None:
            opened, lines = (number, fence["language"], fence["words"].strip()), []
        else:
            began, language, words = opened
            opened = None
            if language == "sh" and words != "no-run":
                wanted = _EXIT.fullmatch(words) if words else None
                assert wanted or not words, f"line {began}: a block is ```sh, ```sh exit=N or ```sh no-run, not {words}"
                found.append(Block(began, "\n".join(lines), int(wanted[1]) if wanted else 0))
    assert opened is None, f"line {opened[0] if opened else 0}: this block has no end"
    return found


def script(name: str, to_run: Sequence[Block]) -> str:
    """One bash script of all of them, which says on stderr where it is."""
    parts = ["set -eu -o pipefail"]
    for block in to_run:
        parts.append(f"echo '--- docs/runbooks/{name}.md:{block.line}' >&2")
        if block.exit_code:
            wrong = f'{{ echo "ended with $code, not {block.exit_code}" >&2; exit 1; }}'
            parts += ["set +e", block.text, "code=$?", "set -e", f"[ $code -eq {block.exit_code} ] || {wrong}"]
        else:
            parts.append(block.text)
    return "\n".join(parts) + "\n"


def run(name: str, data_dir: Path, environ: Mapping[str, str] | None = None, timeout_s: float = 120) -> Ran:
    """Run docs/runbooks/<name>.md against the cluster in `data_dir`; AssertionError with all that was said otherwise.

    `environ` is added to the shell's, for what the runbook tells the operator to set.
    """
    path = RUNBOOKS / f"{name}.md"
    to_run = blocks(path.read_text())
    assert to_run, f"{path} has no block to run"
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "MESHLOG_"))}
    kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    kept |= {"MESHLOG_DATA_DIR": str(data_dir), "MESHLOG_ETCD": str(etcd_binary())} | dict(environ or {})
    shell = subprocess.Popen(
        ["bash", "--noprofile", "--norc"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=data_dir.parent,
        env=kept,
        start_new_session=True,
    )
    # As one compound command: bash has read all of it before any command could read from its standard input.
    whole = f"{{\n{script(name, to_run)}}} </dev/null\n"
    try:
        stdout, stderr = shell.communicate(whole, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(shell.pid, signal.SIGKILL)
        stdout, stderr = shell.communicate()
        raise AssertionError(f"{path} took longer than {timeout_s:g} s\n{stdout}\n{stderr}") from None
    assert shell.returncode == 0, f"{path} failed with {shell.returncode}\n{stdout}\n{stderr}"
    return Ran(stdout, stderr)
