"""How data is printed: table, json, yaml or name on stdout; everything that is not data goes to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import rich_click as click

Function = TypeVar("Function", bound=Callable[..., Any])

FORMATS = ("table", "json", "yaml", "name")


def output_option(*formats: str) -> Callable[[Function], Function]:
    """`-o`, with the formats that the command knows; the first is the default."""
    known = formats or FORMATS
    return click.option(
        "-o", "--output", type=click.Choice(known), default=known[0], show_default=True, help="How to print the data."
    )


def note(text: str) -> None:
    """Something for the reader, not for a pipe."""
    click.echo(text, err=True)


def print_data(document: object, output: str, table: Callable[[], str], names: Callable[[], Sequence[str]]) -> None:
    """Print `document` as `output` asks; `table` and `names` are made only if wanted."""
    if output == "json":
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    elif output == "yaml":
        import yaml  # noqa: PLC0415

        click.echo(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), nl=False)
    elif output == "name":
        for name in names():
            click.echo(name)
    else:
        click.echo(table())


def columns(rows: Sequence[Mapping[str, object]], titles: Mapping[str, str]) -> str:
    """Rows as aligned columns under their titles; `titles` maps a row's key to what is above it. None prints as '-'."""
    cells = [[_cell(row.get(key)) for key in titles] for row in rows]
    table = [list(titles.values()), *cells]
    widths = [max(len(line[index]) for line in table) for index in range(len(titles))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in table)
    return "\n".join(line.rstrip() for line in lines)


def interactive() -> bool:
    """Whether somebody is there to answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
