"""docs/app-mesh-compatibility.md says what is there, and every test that it names is."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from mesh.kinds import KINDS
from mesh.model.operations import OPERATIONS, SHAPES
from mesh.quotas import QUOTAS

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "app-mesh-compatibility.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in PAGE.splitlines() if line.startswith("| ")]


@cache
def functions(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_every_test_that_the_page_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) > 80
    absent = [f"{path}::{name}" for path, name in named if name not in functions(ROOT / path)]
    assert absent == []


def test_every_operation_is_on_the_page() -> None:
    listed = [row[0].strip("`") for row in ROWS if row[0].strip("`") in OPERATIONS]
    assert sorted(listed) == sorted(OPERATIONS)


def test_every_field_of_every_specification_is_on_the_page_once() -> None:
    listed = [
        (row[0].strip("`"), field)
        for row in ROWS
        if row[0].strip("`") in SHAPES
        for field in re.findall(r"`(\w+)`", row[1])
    ]
    assert sorted(listed) == sorted(fields_of_specifications())


def test_every_quota_is_on_the_page() -> None:
    listed = {row[0]: (row[1], int(row[2])) for row in ROWS if row[0] in QUOTAS}
    assert listed == {code: (quota.name, quota.default) for code, quota in QUOTAS.items()}


def fields_of_specifications() -> list[tuple[str, str]]:
    found: dict[str, list[str]] = {}
    todo = [f"{kind.title}Spec" for kind in KINDS.values()]
    while todo:
        name = todo.pop()
        shape = SHAPES[name]
        if shape["type"] == "list":
            todo.append(shape["member"])
        elif shape["type"] == "structure" and name not in found:
            found[name] = list(shape["members"])
            todo += [fact["shape"] for fact in shape["members"].values()]
    return [(name, field) for name, fields in found.items() for field in fields]
