"""`meshlog log`: what happened, to what, by whom; filtered by the server, read to the end or followed."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import rich_click as click

from cli.client import ApiClient, find_target
from cli.layout import Layout
from cli.options import check_stretch, data_dir_option, endpoint_options, read_moment, split_mesh
from cli.output import columns, note, output_option, print_data
from cli.resources import find_kind
from mesh.errors import SettingsError, TimedOut, Unavailable
from runtime.limits import CLI_EVENTS_PAGE, CLI_FOLLOW_RETRY_S, FOLLOW_WAIT_MAX_S

_EVENTS = "/meshlog/v1/events"
_TITLES = {
    "position": "POSITION",
    "time": "TIME",
    "actor": "ACTOR",
    "type": "TYPE",
    "resource": "RESOURCE",
    "summary": "SUMMARY",
}
_WIDTHS = {"position": 8, "time": 27, "actor": 38, "type": 16, "resource": 44, "summary": 0}
"""Columns of a followed history, whose widest cell nobody knows yet."""


@click.command()
@data_dir_option
@endpoint_options
@click.option("--mesh", "-m", help="Only what happened to this mesh; NAME@ACCOUNT for another account's.")
@click.option("--account", help="Only what this account did, or had done to it.")
@click.option("--since", metavar="WHEN", help="From this time or position on.")
@click.option("--until", metavar="WHEN", help="Up to and with this time or position.")
@click.option("--actor", help="Only by this principal: an ARN or its last word; * stands for anything.")
@click.option("--kind", help="Only what changed a resource of this kind (mesh, vn, vs, vr, vg, route, gr).")
@click.option("--name", help="Only what changed the resource of this name.")
@click.option("--type", "event_type", help="Only events of this type, such as ResourceUpdated.")
@click.option("--order", type=click.Choice(("oldest", "newest")), default="oldest", show_default=True, help="First.")
@click.option("--limit", type=click.IntRange(1), help="At most so many, in that order.")
@click.option(
    "--follow", "-f", is_flag=True, help="Go on with what happens from now; with --limit, after the last ones."
)
@output_option()
def log(
    layout: Layout,
    *,
    endpoint: str | None,
    mesh: str | None,
    account: str | None,
    since: str | None,
    until: str | None,
    actor: str | None,
    kind: str | None,
    name: str | None,
    event_type: str | None,
    order: str,
    limit: int | None,
    follow: bool,
    output: str,
) -> None:
    """Show the history: who changed what, and when.

    WHEN is a time (2026-11-22T10:42, 10:42, 'yesterday 10:42', '2h ago') or a position of the log (42, 1.42).
    """
    if follow and (until or order == "newest"):
        raise SettingsError("--follow goes on for ever, the oldest first: leave out --until and --order newest")
    name_of_mesh, owner = split_mesh(mesh or "")
    begins, ends = (read_moment(text) if text else None for text in (since, until))
    check_stretch(begins, ends)
    filters = {
        "mesh": name_of_mesh or None,
        "account": account or owner.get("account"),
        "since": begins.wire if begins else None,
        "until": ends.wire if ends else None,
        "actor": actor,
        "kind": find_kind(kind).name if kind else None,
        "name": name,
        "type": event_type,
    }
    query = {member: value for member, value in filters.items() if value is not None}
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        if follow:
            _follow(client, query, limit, output)
            return
        events = list(read_events(client, query, order=order, limit=limit))
    print_data(events, output, lambda: columns(events, _TITLES), lambda: [str(event["position"]) for event in events])


def read_events(
    client: ApiClient, query: Mapping[str, str], *, order: str = "oldest", limit: int | None = None
) -> Iterator[dict[str, Any]]:
    """The events that `query` asks for, in that order, at most `limit`; page by page, to the last."""
    cursor, left = "after" if order == "oldest" else "before", limit
    place: dict[str, str] = {}
    while left is None or left > 0:
        page = CLI_EVENTS_PAGE if left is None else min(CLI_EVENTS_PAGE, left)
        answer = client.get(_EVENTS, {**query, "order": order, "limit": str(page), **place})
        yield from answer["events"]
        if not answer["next"]:
            return
        left = None if left is None else left - len(answer["events"])
        place = {cursor: answer["next"]}


def _follow(client: ApiClient, query: Mapping[str, str], limit: int | None, output: str) -> None:
    shown = _Shown(output)
    reached = _catch_up(client, query, limit, shown)
    query = {member: value for member, value in query.items() if member != "since"}
    asked = {**query, "limit": str(CLI_EVENTS_PAGE), "wait_s": f"{FOLLOW_WAIT_MAX_S:g}"}
    while True:
        try:
            answer = client.get(_EVENTS, {**asked, "after": reached})
        except (Unavailable, TimedOut) as error:
            note(f"{error.message}; trying again")
            threading.Event().wait(CLI_FOLLOW_RETRY_S)
            continue
        shown.add(answer["events"])
        reached = answer["reached"]


def _catch_up(client: ApiClient, query: Mapping[str, str], limit: int | None, shown: _Shown) -> str:
    """Show what is there already (the last `limit` of it); returns up to where that was."""
    if limit is not None:
        head: str = client.get(_EVENTS, {**query, "order": "oldest", "limit": "1", "after": "0"})["head"]
        shown.add(list(read_events(client, {**query, "until": head}, order="newest", limit=limit))[::-1])
        return head
    after: str = "0"
    while True:
        answer = client.get(_EVENTS, {**query, "limit": str(CLI_EVENTS_PAGE), "after": after})
        shown.add(answer["events"])
        after = answer["reached"]
        if not answer["next"]:
            return after


class _Shown:
    """Events printed as they come: lines of a table, or one JSON or YAML document each."""

    def __init__(self, output: str) -> None:
        self._output = output
        if output == "table":
            click.echo(_line(_TITLES))

    def add(self, events: Sequence[Mapping[str, Any]]) -> None:
        for event in events:
            if self._output == "json":
                click.echo(json.dumps(event, ensure_ascii=False))
            elif self._output == "yaml":
                click.echo("---")
                print_data(event, "yaml", str, list)
            else:
                click.echo(_line(event) if self._output == "table" else str(event["position"]))


def _line(row: Mapping[str, Any]) -> str:
    return "  ".join(str(row.get(name) or "-").ljust(width) for name, width in _WIDTHS.items()).rstrip()
