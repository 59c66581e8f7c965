"""How data is printed."""

from __future__ import annotations

import json

import pytest
import yaml

from cli.output import columns, print_data

DOCUMENT: list[dict[str, object]] = [
    {"name": "β", "pid": None, "ready": True},
    {"name": "longer", "pid": 12, "ready": False},
]


def printed(output: str, capsys: pytest.CaptureFixture[str]) -> str:
    print_data(DOCUMENT, output, lambda: "a table", lambda: ["one", "two"])
    return capsys.readouterr().out


def test_each_format_prints_the_same_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(printed("json", capsys)) == DOCUMENT
    assert yaml.safe_load(printed("yaml", capsys)) == DOCUMENT
    assert printed("name", capsys) == "one\ntwo\n"
    assert printed("table", capsys) == "a table\n"


def test_columns_line_up_and_absent_values_are_dashes() -> None:
    assert columns(DOCUMENT, {"name": "NAME", "pid": "PID", "ready": "READY"}).splitlines() == [
        "NAME    PID  READY",
        "β       -    yes",
        "longer  12   no",
    ]
    assert columns([], {"name": "NAME"}) == "NAME"
