"""`meshlog proxy config`: what a node's Envoys are given, and which events and fields are behind it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import rich_click as click

from cli.client import ApiClient, find_target
from cli.differences import moment_text
from cli.layout import Layout
from cli.options import checked_node, data_dir_option, endpoint_options, read_moment
from cli.output import columns, note, output_option, print_data
from mesh.errors import SettingsError

_CONFIG = "/meshlog/v1/proxies/config"
_TYPES = ("Cluster", "ClusterLoadAssignment", "Listener", "RouteConfiguration", "Secret")
_SHORT = {"endpoints": "ClusterLoadAssignment", "route": "RouteConfiguration"}
_ROLES = {"content": "made it what it is", "presence": "it is there because of them"}


@click.command()
@click.argument("node", metavar="mesh/<mesh>/virtualGateway|virtualNode/<name>")
@click.option("--why", metavar="TYPE/NAME", help="Which events and fields are behind this resource (Cluster/…).")
@click.option("--at", metavar="WHEN", default="now", help="As it was at this time, or right after this position.")
@data_dir_option
@endpoint_options
@output_option("table", "json", "yaml", "name")
def config(layout: Layout, *, node: str, why: str | None, at: str, endpoint: str | None, output: str) -> None:
    """Show what the Envoys of a virtual node or gateway are given: each Envoy resource and its version, and with -o
    json or yaml all that is in it, but for secrets.

    --why names what is behind one of them: for each App Mesh resource the event that made it what it is, who did it and
    when, and the fields that were read. Equal versions are equal bytes.
    """
    query = {"node": checked_node(node, "NODE")}
    moment = read_moment(at)
    query |= {} if moment.is_now else {"at": moment.wire}
    query |= {"why": _resource(why)} if why is not None else {}
    query |= {} if output in ("json", "yaml") else {"specs": "no"}
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        answer = client.get(_CONFIG, query)
    note(f"{answer['node']} as of {moment_text(answer['at'])}")
    for alarm in answer["alarms"]:
        note(f"held back: {alarm}")
    resources = [each["resource"] for each in answer["resources"]]
    told = answer["why"]
    names = [cause["what"] for cause in told["causes"]] if told else resources
    print_data(answer, output, lambda: _why_text(answer) if told else _table(answer["resources"]), lambda: names)


def _resource(text: str) -> str:
    """`TYPE/NAME` as the server names it; types in any case of letters, `route` and `endpoints` for the long ones."""
    kind, slash, name = text.partition("/")
    known = {each.lower(): each for each in _TYPES} | _SHORT
    if not slash or not name or kind.lower() not in known:
        raise SettingsError(
            f"--why '{text}' is no resource: write TYPE/NAME as `meshlog proxy config` lists them; types are "
            f"{', '.join(_TYPES)}"
        )
    return f"{known[kind.lower()]}/{name}"


def _table(resources: list[dict[str, Any]]) -> str:
    return columns(resources, {"resource": "RESOURCE", "version": "VERSION"})


def _why_text(answer: Mapping[str, Any]) -> str:
    (resource,), why = answer["resources"], answer["why"]
    lines = [f"{resource['resource']}  {resource['version']}"]
    lines += [f"  named by {name}" for name in why["named_by"]]
    for role, words in _ROLES.items():
        causes = [cause for cause in why["causes"] if cause["role"] == role]
        lines += [f"{words}:"] if causes else []
        for cause in causes:
            lines += [f"  {cause['what']}", f"    {_event_text(cause)}", *(f"    {field}" for field in cause["fields"])]
    return "\n".join(lines)


def _event_text(cause: Mapping[str, Any]) -> str:
    event = cause["event"]
    if event is None:
        return "by an event that is not kept any more"
    return " ".join(_event_words(event, cause["log"]))


def _event_words(event: Mapping[str, Any], log: str) -> Iterator[str]:
    if "position" in event:
        yield f"{event['epoch']}.{event['position']}" + (" of the registry" if log == "registry" else "")
    if "time" in event:
        yield event["time"]
    if "type" in event:
        yield f"{event['type']} by {event['actor']}"
