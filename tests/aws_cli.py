"""The real aws CLI, many commands in one process: a line of JSON in (the arguments), a line out (exit code, output).

Its own start takes most of a second of a core; a matrix of hundreds of commands would do little else. What a command
does is the same: `awscli.clidriver` is what `aws` runs.

    python -m tests.aws_cli < arguments > results
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent
TIMEOUT_S = 300


class Ran(NamedTuple):
    """One command's exit code, standard output and standard error."""

    code: int
    out: str
    err: str


def run_all(commands: Sequence[Sequence[str]], environment: Mapping[str, str]) -> list[Ran]:
    """Run `aws ARGUMENTS` for each, one after the other. `environment` is all that it sees beside PATH."""
    own = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "AWS_PAGER": "", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.aws_cli"],
        input="".join(json.dumps(list(arguments)) + "\n" for arguments in commands),
        env={**own, **environment},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    return [Ran(*json.loads(line)) for line in done.stdout.splitlines()]


def main() -> None:
    """Answer each line of standard input."""
    from awscli.clidriver import create_clidriver

    driver = create_clidriver()
    for line in sys.stdin:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = driver.main(json.loads(line))
            except SystemExit as stop:
                code = stop.code
        print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)


if __name__ == "__main__":
    main()
