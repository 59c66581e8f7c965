"""Log lines are JSON, and a log that cannot be written stops nobody."""

from __future__ import annotations

import io
import json
import subprocess
import sys

from runtime.logging import LossyStream

PROGRAM = """
import structlog
from runtime.logging import configure_logging
configure_logging("api", "z1", "info")
structlog.get_logger("a").debug("too fine")
structlog.get_logger("a").warning("head not confirmed", position="1.7")
print("alive")
"""


def test_a_line_is_json_with_role_zone_level_and_time() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    entry = json.loads(line)
    assert entry["event"] == "head not confirmed"
    assert (entry["role"], entry["zone"], entry["level"], entry["position"]) == ("api", "z1", "warning", "1.7")
    assert entry["timestamp"].endswith("Z")


def test_a_full_disk_under_the_log_stops_nobody() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=full, text=True, check=False
        )
    assert done.stdout == "alive\n"


def test_a_closed_stream_swallows_what_it_is_given() -> None:
    stream = io.StringIO()
    lossy = LossyStream(stream)
    assert lossy.write("kept") == 4
    assert stream.getvalue() == "kept"
    stream.close()
    assert lossy.write("lost") == 4
    lossy.flush()
