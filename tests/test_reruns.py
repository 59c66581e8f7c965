"""`scripts/test.sh`: what failed runs once more alone, that run decides, and every such test is named."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
CLUSTERS = ("e2e", "deploy", "runbooks", "cluster", "clients")
FAILS_ONCE = """
from pathlib import Path
import os

def test_it():
    marker = Path(__file__).with_suffix(".ran")
    again = marker.exists()
    marker.touch()
    assert again, "the reason of the first time"
"""
FAILS = "def test_it(): assert False, 'the reason of every time'\n"
PASSES = "def test_it(): pass\n"

Suite = Callable[[dict[str, str]], subprocess.CompletedProcess[str]]


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    """Run the script over a tree of its own, whose tests are those given by path, and one that passes everywhere."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(REPOSITORY / "scripts" / "test.sh", tmp_path / "scripts")
    (tmp_path / ".venv").symlink_to(REPOSITORY / ".venv")
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\ntestpaths = tests\naddopts = --import-mode=importlib\nmarkers = long\n"
    )

    def run(tests: dict[str, str]) -> subprocess.CompletedProcess[str]:
        everywhere = [f"{room}/test_well.py" for room in CLUSTERS] + ["cli/test_local_cluster.py", "mesh/test_well.py"]
        for path, text in {**dict.fromkeys(everywhere, PASSES), **tests}.items():
            (tmp_path / "tests" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "tests" / path).write_text(text)
        return subprocess.run([tmp_path / "scripts" / "test.sh"], capture_output=True, text=True, check=False)

    return run


def test_a_suite_that_passes_runs_once(suite: Suite) -> None:
    done = suite({})
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].strip("=").split(" in ")[0].strip() == "1 passed"
    assert "alone" not in done.stdout


def test_what_passes_alone_passes_and_is_named_with_its_first_failure(suite: Suite) -> None:
    done = suite({"e2e/test_a.py": FAILS_ONCE, "mesh/test_b.py": FAILS_ONCE})
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("the reason of the first time") >= 2
    for test in ("tests/e2e/test_a.py::test_it", "tests/mesh/test_b.py::test_it"):
        assert f"failed beside others, passed alone: {test}\n" in done.stdout
    assert "2 passed" in done.stdout.splitlines()[-1]
    assert "1 failed, 6 passed" in done.stdout, "the closing line of the first run is there too"


def test_what_fails_twice_fails_the_suite(suite: Suite) -> None:
    done = suite({"e2e/test_a.py": FAILS_ONCE, "mesh/test_b.py": FAILS})
    assert done.returncode == 1
    assert "failed beside others, passed alone: tests/e2e/test_a.py::test_it\n" in done.stdout
    assert "failed twice: tests/mesh/test_b.py::test_it\n" in done.stdout
    assert "1 failed, 1 passed" in done.stdout.splitlines()[-1]


def test_each_half_has_ports_of_its_own(suite: Suite) -> None:
    text = "import os\ndef test_it(): assert os.environ['MESHLOG_PORTS'] == '{}'\n"
    done = suite({"e2e/test_a.py": text.format("10000-20999"), "mesh/test_b.py": text.format("21000-31999")})
    assert done.returncode == 0, done.stdout


def test_names_with_spaces_and_brackets_are_run_again(suite: Suite) -> None:
    named = FAILS_ONCE.replace(
        "def test_it():", "import pytest\n@pytest.mark.parametrize('n', ['a b', '$x[1]'])\ndef test_it(n):"
    )
    done = suite({"mesh/test_b.py": named})
    assert done.returncode == 0, done.stdout
    assert "failed beside others, passed alone: tests/mesh/test_b.py::test_it[a b]\n" in done.stdout
    assert "test_it[$x[1]]\n" not in done.stdout, "that one passed the first time"


def test_many_failures_are_not_run_again(suite: Suite) -> None:
    done = suite({f"mesh/test_{number}.py": FAILS_ONCE for number in range(16)})
    assert done.returncode == 1
    assert "16 tests failed: more than the 15 that are run again" in done.stdout


@pytest.mark.parametrize(
    "text",
    ["import nowhere\n", "import os\ndef test_it(): os._exit(1)\n", "import os\ndef test_it(): os._exit(0 + 9)\n"],
)
def test_a_half_that_does_not_come_to_its_end_fails_the_suite(suite: Suite, text: str) -> None:
    done = suite({"mesh/test_b.py": text, "e2e/test_a.py": FAILS_ONCE})
    assert done.returncode == 1
    assert "passed alone" not in done.stdout
