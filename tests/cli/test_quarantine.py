"""`meshlog quarantine` asks for a position and for a reason before it opens anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.main import main


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["yesterday", "--reason", "x"], "'yesterday' is not a log position"),
        (["0", "--reason", "x"], "'0' is not a log position"),
        (["1.2.3", "--reason", "x"], "'1.2.3' is not a log position"),
        (["42"], "--reason"),
        (["42", "--reason", "  "], "--reason needs some words"),
        (["42", "--reason", "x" * 600], "512 characters at most"),
    ],
)
def test_a_usage_error_says_what_is_wrong(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quarantine", *arguments, "--data-dir", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err
