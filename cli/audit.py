"""`meshlog audit`: every call as a line of JSON in CloudTrail's shape, accepted ones and refused ones."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import rich_click as click

from cli.client import ApiClient, find_target
from cli.layout import Layout
from cli.moments import parse_moment
from cli.options import check_stretch, data_dir_option, endpoint_options
from cli.output import columns, note, output_option
from mesh.errors import SettingsError
from runtime.clock import SystemClock
from runtime.limits import CLI_EVENTS_PAGE

_PATH = "/meshlog/v1/audit"
_TITLES = {
    "eventTime": "TIME",
    "status": "STATUS",
    "eventName": "CALL",
    "resource": "ON",
    "actor": "ACTOR",
    "sourceIPAddress": "FROM",
    "errorCode": "ERROR",
}


@click.command()
@data_dir_option
@endpoint_options
@click.option("--since", metavar="TIME", help="From this time on: ISO 8601, 10:42, '2h ago'.")
@click.option("--until", metavar="TIME", help="Up to and with this time.")
@click.option("--actor", help="Only calls of this principal: its ARN, user name or access key id.")
@click.option("--source-ip", metavar="ADDRESS", help="Only calls from this address.")
@click.option("--status", type=click.Choice(["accepted", "refused"]), help="Only these.  [default: both]")
@click.option("--mesh", "-m", help="Only calls that name this mesh.")
@output_option("jsonl", "json", "table")
def audit(layout: Layout, *, endpoint: str | None, output: str, **asked: str | None) -> None:
    """Show every call, accepted or refused, oldest first.

    Accepted calls are the log itself; refused ones are kept in the archive. Specifications, tags and secrets are never
    shown; of what one address sends in a flood, only so much is kept and the rest is counted.
    """
    now_us = SystemClock().now_us()
    query = {name: value for name, value in asked.items() if value is not None}
    stretch = {name: parse_moment(query[name], now_us) for name in ("since", "until") if name in query}
    check_stretch(stretch.get("since"), stretch.get("until"))
    for name, moment in stretch.items():
        if moment.time_us is None:
            raise SettingsError(f"--{name} '{query[name]}' is a position; write a time, such as 10:42 or '2h ago'")
        if moment.echo:
            note(moment.echo)
        query[name] = moment.wire
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        events = _events(client, query)
        if output == "jsonl":
            for event in events:
                click.echo(json.dumps(event, ensure_ascii=False))
        elif output == "json":
            click.echo(json.dumps({"Records": list(events)}, indent=2, ensure_ascii=False))
        else:
            click.echo(columns([_row(event) for event in events], _TITLES))


def _events(client: ApiClient, query: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Page by page: a trail can be longer than memory."""
    after: str | None = None
    told = False
    while True:
        page = client.get(_PATH, query | {"limit": str(CLI_EVENTS_PAGE)} | ({"after": after} if after else {}))
        if "notice" in page and not told:
            told = True
            note(page["notice"])
        yield from page["events"]
        after = page["next"]
        if after is None:
            return


def _row(event: dict[str, Any]) -> dict[str, Any]:
    identity, parameters = event["userIdentity"], event["requestParameters"] or {}
    names = [str(value) for name, value in parameters.items() if name.endswith("Name") or name in ("mesh", "path")]
    return event | {
        "status": "refused" if event["errorCode"] else "accepted",
        "resource": "/".join(names),
        "actor": identity.get("arn") or identity.get("accessKeyId"),
    }
