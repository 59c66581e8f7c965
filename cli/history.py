"""`meshlog log` and `meshlog rollback`: what happened to a mesh, and taking it back."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import rich_click as click

from cli.client import ApiClient, Target, find_target, pages
from cli.layout import Layout
from cli.options import data_dir_option, endpoint_options
from cli.output import columns, interactive, note, output_option, print_data
from mesh.errors import Conflict, SettingsError
from runtime.clock import SystemEntropy
from runtime.limits import CLI_EVENTS_PAGE

_EVENTS, _ROLLBACK = "/meshlog/v1/events", "/meshlog/v1/rollback"


@click.command()
@data_dir_option
@endpoint_options
@click.option("--mesh", "-m", help="Only what happened to this mesh.")
@output_option()
def log(layout: Layout, *, endpoint: str | None, mesh: str | None, output: str) -> None:
    """Show the history, oldest first: who changed what, and when."""
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        events = read_events(client, mesh)
    titles = {
        "position": "POSITION",
        "time": "TIME",
        "actor": "ACTOR",
        "type": "TYPE",
        "resource": "RESOURCE",
        "summary": "SUMMARY",
    }
    print_data(events, output, lambda: columns(events, titles), lambda: [str(event["position"]) for event in events])


@click.command()
@data_dir_option
@endpoint_options
@click.option("--mesh", "-m", required=True, help="The mesh to take back.")
@click.option("--to", required=True, metavar="POSITION", help="The state after this position: 42, or 1.42.")
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@click.option("--allow-mesh-deletion", is_flag=True, help="Go back to before the mesh existed: all of it goes.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@output_option("table", "json", "yaml")
def rollback(
    layout: Layout,
    *,
    endpoint: str | None,
    mesh: str,
    to: str,
    dry_run: bool,
    allow_mesh_deletion: bool,
    yes: bool,
    output: str,
) -> None:
    """Give a mesh the state that it had after a position.

    This is a change like any other: history stays, and a rollback can be rolled back.
    """
    if not _POSITION.fullmatch(to):
        raise SettingsError(f"--to '{to}' is not a log position: write a number such as 42, or <epoch>.<position>")
    if not (dry_run or yes or interactive()):
        raise SettingsError("there is no terminal to ask on: say --yes to go on, or --dry-run to look first")
    target = find_target(layout, os.environ, endpoint=endpoint)
    body = {"mesh": mesh, "to": to, "allow_mesh_deletion": allow_mesh_deletion}
    if dry_run or not yes:
        plan = _post(target, body | {"dry_run": True})
        _refuse(plan)
        if any(change["resource"] == f"mesh/{mesh}" and change["change"] == "deleted" for change in plan["changes"]):
            note(f"this takes the whole mesh {mesh} away; the real thing needs --allow-mesh-deletion")
        if dry_run:
            return _print(plan, output, "would be ")
        note(_table(plan["changes"], "would be "))
        click.confirm(f"Take mesh {mesh} back to the state after {to}?", abort=True, err=True)
    done = _post(target, body | {"clientToken": SystemEntropy().uuid()})
    _refuse(done)
    _print(done, output, "")
    return None


_POSITION = re.compile(r"(\d{1,18}\.)?\d{1,18}")


def read_events(client: ApiClient, mesh: str | None) -> list[dict[str, Any]]:
    """All events (of a mesh), oldest first."""

    def page(after: str | None) -> tuple[list[Any], str | None]:
        query = {"limit": str(CLI_EVENTS_PAGE)} | ({"mesh": mesh} if mesh else {}) | ({"after": after} if after else {})
        answer = client.get(_EVENTS, query)
        return answer["events"], answer.get("next")

    return pages(page)


def _post(target: Target, body: Mapping[str, Any]) -> dict[str, Any]:
    with ApiClient(target) as client:
        return client.post(_ROLLBACK, body, repeatable=True)


def _refuse(answer: Mapping[str, Any]) -> None:
    refused = answer.get("refused") or []
    if refused:
        reasons = "; ".join(one if isinstance(one, str) else str(one.get("reason", one)) for one in refused)
        raise Conflict(f"nothing was changed, since part of it is refused: {reasons}")


def _print(answer: Mapping[str, Any], output: str, tense: str) -> None:
    changes = answer["changes"]
    print_data(dict(answer), output, lambda: _table(changes, tense), list)
    if answer.get("position") is not None:
        note(f"done at position {answer['position']}")


def _table(changes: Sequence[Mapping[str, Any]], tense: str) -> str:
    if not changes:
        return "nothing differs"
    rows = [{"resource": change["resource"], "change": f"{tense}{change['change']}"} for change in changes]
    return columns(rows, {"resource": "RESOURCE", "change": "CHANGE"})
