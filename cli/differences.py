"""Changes as people read them: a unified diff of specs and tags as YAML, resource by resource, with who and when.

Values in, text out. `# …` lines tell who made the last change; the rest is what `diff -u` would print.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import rich_click as click

from cli.output import columns

_WORDS = {"created": "added", "updated": "changed", "deleted": "removed"}
_COLOURS = {"+": "green", "-": "red", "@": "cyan", "#": "bright_black"}


def changes_text(changes: Sequence[Mapping[str, Any]], before: str, after: str) -> str:
    """The whole diff; `before` and `after` say what the two sides are. Coloured on a terminal that wants it."""
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    lines = (line for change in changes for line in _change_lines(change, before, after))
    return "\n".join(_coloured(line) if colour else line for line in lines)


def changes_table(changes: Sequence[Mapping[str, Any]], tense: str = "") -> str:
    """One line for each change: what happens to what."""
    if not changes:
        return "nothing differs"
    rows = [{"resource": change["resource"], "change": f"{tense}{change['change']}"} for change in changes]
    return columns(rows, {"resource": "RESOURCE", "change": "CHANGE"})


def moment_text(moment: Mapping[str, Any]) -> str:
    """`1.42 (2026-11-22T10:42:00.123456Z)`, of a moment as the API tells it."""
    time = f" ({moment['time']})" if moment["time"] else ""
    return f"{moment['epoch']}.{moment['position']}{time}"


def last_change_text(change: Mapping[str, Any] | None) -> str:
    """Who made a resource what it is, and when, of `last_change` as the API tells it."""
    if change is None:
        return "by somebody longer ago than is remembered"
    return f"{change['time']} by {change['actor']} ({change['epoch']}.{change['position']} {change['type']})"


def _change_lines(change: Mapping[str, Any], before: str, after: str) -> Iterator[str]:
    name, old, new = change["resource"], change["before"], change["after"]
    about = f"# {name} {_WORDS[change['change']]}"
    if "last_change" in change:
        about += f", last touched {last_change_text(change['last_change'])}"
    yield about
    old_lines, new_lines = _yaml(old, new), _yaml(new, old)
    yield from difflib.unified_diff(
        old_lines,
        new_lines,
        f"{name}\t{before}" if old else "/dev/null",
        f"{name}\t{after}" if new else "/dev/null",
        lineterm="",
    )


def _yaml(side: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> list[str]:
    """The lines of one side; tags are shown where either side has some."""
    import yaml  # noqa: PLC0415

    if side is None:
        return []
    document = {"spec": side["spec"]}
    if side.get("tags") or (other or {}).get("tags"):
        document["tags"] = side.get("tags", {})
    return yaml.safe_dump(document, sort_keys=True, allow_unicode=True, width=1000).splitlines()


def _coloured(line: str) -> str:
    return click.style(line, fg=_COLOURS.get(line[:1]))
