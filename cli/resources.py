"""`meshlog get` and `describe`: App Mesh resources, as they are or as they were at any moment.

What is now comes over the App Mesh API itself, what was from `/meshlog/v1/resources`, in the same shapes.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import rich_click as click

from cli.client import APPMESH, ApiClient, find_target, pages, segment
from cli.differences import last_change_text
from cli.layout import Layout
from cli.moments import Moment
from cli.options import data_dir_option, endpoint_options, read_moment, split_mesh
from cli.output import columns, note, output_option, print_data
from mesh.errors import NotFound, SettingsError

_ROOT = "/v20190125/meshes"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of resource as the API has it. `parent`: the kind whose name stands before it in the path."""

    name: str
    plural: str
    name_member: str
    parent: str | None = None


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("mesh", "meshes", "meshName"),
        Kind("virtualNode", "virtualNodes", "virtualNodeName"),
        Kind("virtualService", "virtualServices", "virtualServiceName"),
        Kind("virtualRouter", "virtualRouters", "virtualRouterName"),
        Kind("virtualGateway", "virtualGateways", "virtualGatewayName"),
        Kind("route", "routes", "routeName", parent="virtualRouter"),
        Kind("gatewayRoute", "gatewayRoutes", "gatewayRouteName", parent="virtualGateway"),
    )
}
_SHORT = {"vn": "virtualNode", "vs": "virtualService", "vr": "virtualRouter", "vg": "virtualGateway"}
_SHORT |= {"gr": "gatewayRoute", "r": "route", "m": "mesh"}


def find_kind(text: str) -> Kind:
    """A kind by its name, plural or short name, in any case; SettingsError otherwise."""
    wanted = text.lower().replace("-", "").replace("_", "")
    for kind in KINDS.values():
        if wanted in (kind.name.lower(), kind.plural.lower()):
            return kind
    if wanted in _SHORT:
        return KINDS[_SHORT[wanted]]
    raise SettingsError(f"'{text}' is no kind of resource: write mesh, vn, vs, vr, vg, route or gr")


_RESOURCES = "/meshlog/v1/resources"
_TOLD_BESIDE = ("tags", "last_change")
"""What the API tells of a past resource beyond App Mesh's own shape."""


@click.command()
@click.argument("kind")
@click.argument("name", required=False)
@data_dir_option
@endpoint_options
@click.option("--mesh", "-m", help="The mesh that it belongs to; NAME@ACCOUNT for another account's.")
@click.option("--router", help="The virtual router of a route.  [default: all of them]")
@click.option("--gateway", help="The virtual gateway of a gateway route.  [default: all of them]")
@click.option("--at", metavar="WHEN", help="As it was at this time, or right after this position.")
@output_option()
def get(
    layout: Layout,
    *,
    kind: str,
    name: str | None,
    endpoint: str | None,
    mesh: str | None,
    router: str | None,
    gateway: str | None,
    at: str | None,
    output: str,
) -> None:
    """List the resources of a KIND (mesh, vn, vs, vr, vg, route, gr), or show the one with a NAME.

    WHEN is a time (2026-11-22T10:42, 10:42, 'yesterday 10:42', '2h ago') or a position of the log (42, 1.42).
    """
    found_kind = find_kind(kind)
    _need_mesh(found_kind, mesh)
    moment = read_moment(at) if at is not None else None
    parent = router if found_kind.parent == "virtualRouter" else gateway
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        if moment is not None:
            found = read_past(client, found_kind, (mesh, parent, name), moment)
            documents = [{key: value for key, value in one.items() if key not in _TOLD_BESIDE} for one in found]
        elif name is not None:
            documents = [ResourceReader(client, mesh).describe(found_kind, parent, name)]
        else:
            documents = list(ResourceReader(client, mesh).all(found_kind, parent, whole=output in ("json", "yaml")))
    document: Any = documents[0] if name is not None else documents
    rows = [_row(found_kind, one) for one in documents]
    titles = {"name": "NAME", "version": "VERSION", "updated": "UPDATED"}
    if found_kind.name == "mesh":
        titles = {"name": "NAME", "owner": "OWNER", **titles}
    elif found_kind.parent is not None:
        titles = {"name": "NAME", "parent": found_kind.parent.upper(), **titles}
    print_data(document, output, lambda: columns(rows, titles), lambda: [_path(found_kind, one) for one in documents])


@click.command()
@click.argument("kind")
@click.argument("name")
@data_dir_option
@endpoint_options
@click.option("--mesh", "-m", help="The mesh that it belongs to; NAME@ACCOUNT for another account's.")
@click.option("--router", help="The virtual router of a route.")
@click.option("--gateway", help="The virtual gateway of a gateway route.")
@click.option("--at", metavar="WHEN", default="now", help="As it was at this time, or right after this position.")
@output_option("text", "json", "yaml")
def describe(
    layout: Layout,
    *,
    kind: str,
    name: str,
    endpoint: str | None,
    mesh: str | None,
    router: str | None,
    gateway: str | None,
    at: str,
    output: str,
) -> None:
    """Show all of one resource: its spec, its tags, and who changed it last."""
    found_kind = find_kind(kind)
    _need_mesh(found_kind, mesh)
    parent = router if found_kind.parent == "virtualRouter" else gateway
    moment = read_moment(at)
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        (document,) = read_past(client, found_kind, (mesh, parent, name), moment)
    print_data(document, output, lambda: _described(found_kind, document), list)


def read_past(
    client: ApiClient, kind: Kind, wanted: tuple[str | None, str | None, str | None], moment: Moment
) -> list[dict[str, Any]]:
    """Resources as they were at a moment: `wanted` is mesh, parent and name. With a name it is one, or an error."""
    members = dict(zip(("mesh", "parent", "name"), wanted, strict=True))
    query = {member: value for member, value in members.items() if value is not None} | {"kind": kind.name}
    for member in ("mesh", "name") if kind.name == "mesh" else ("mesh",):
        if member in query:
            query[member], owner = split_mesh(query[member])
            query |= {"mesh": query[member], **owner}
    if not moment.is_now:
        query["at"] = moment.wire
    found: list[dict[str, Any]] = []
    after: str | None = ""
    while after is not None:
        answer = client.get(_RESOURCES, query | ({"after": after} if after else {}))
        found += answer["resources"]
        after, at = answer["next"], answer["at"]
        query["at"] = f"{at['epoch']}.{at['position']}"
    if not moment.is_now:
        note(f"as of position {query['at']}" + (f", {at['time']}" if at["time"] else ""))
    if wanted[2] is not None and len(found) != 1 and kind.parent is not None:
        _ambiguous(kind, wanted[2], [one[KINDS[kind.parent].name_member] for one in found])
    if wanted[2] is not None and not found:
        raise NotFound(f"{kind.name} {wanted[2]} was not there at {query['at']}")
    return found


def _need_mesh(kind: Kind, mesh: str | None) -> None:
    if kind.name != "mesh" and mesh is None:
        raise SettingsError(f"a {kind.name} belongs to a mesh: name it with --mesh")


def _ambiguous(kind: Kind, name: str, parents: list[str]) -> None:
    if len(parents) > 1:
        flag = "--router" if kind.parent == "virtualRouter" else "--gateway"
        raise SettingsError(f"{', '.join(parents)} all have a {kind.name} '{name}': choose with {flag}")


class ResourceReader:
    """Reads of one mesh."""

    def __init__(self, client: ApiClient, mesh: str | None) -> None:
        """`mesh`: as `split_mesh` reads it."""
        self._client = client
        self._mesh, owner = split_mesh(mesh or "")
        self._owner = {"meshOwner": owner["account"]} if owner else {}

    def describe(self, kind: Kind, parent: str | None, name: str) -> dict[str, Any]:
        """One resource. A route's parent may be left out where only one has a route of that name."""
        if kind.name == "mesh":
            name, owner = split_mesh(name)
            query = {"meshOwner": owner["account"]} if owner else {}
            return self._client.get(f"{_ROOT}/{segment(name)}", query, service=APPMESH)
        if kind.parent is None or parent is not None:
            return self._client.get(f"{self._base(kind, parent)}/{segment(name)}", self._owner, service=APPMESH)
        matches = [ref for ref in self.all(kind, None, whole=False) if ref[kind.name_member] == name]
        parents = [ref[KINDS[kind.parent].name_member] for ref in matches]
        _ambiguous(kind, name, parents)
        # With none, the API's own answer for a parent that is not there would name the wrong thing.
        where = parents[0] if parents else name
        return self._client.get(f"{self._base(kind, where)}/{segment(name)}", self._owner, service=APPMESH)

    def all(self, kind: Kind, parent: str | None, *, whole: bool) -> Iterator[dict[str, Any]]:
        """References, or whole resources, by name."""
        parents: list[str | None] = [parent]
        if kind.parent is not None and parent is None:
            above = KINDS[kind.parent]
            parents = [ref[above.name_member] for ref in self._refs(above, None)]
        for each in parents:
            for ref in self._refs(kind, each):
                name = ref[kind.name_member] + (f"@{ref['meshOwner']}" if kind.name == "mesh" else "")
                yield self.describe(kind, each, name) if whole else ref

    def _refs(self, kind: Kind, parent: str | None) -> list[dict[str, Any]]:
        def page(token: str | None) -> tuple[list[Any], str | None]:
            query = {"limit": "100"} | self._owner | ({"nextToken": token} if token else {})
            answer = self._client.get(self._base(kind, parent), query, service=APPMESH)
            return answer[kind.plural], answer.get("nextToken")

        return pages(page)

    def _base(self, kind: Kind, parent: str | None) -> str:
        if kind.name == "mesh":
            return _ROOT
        path = f"{_ROOT}/{segment(self._mesh)}"
        if kind.parent is not None:
            path += f"/{kind.parent}/{segment(parent or '')}"
        return f"{path}/{kind.plural}"


def _described(kind: Kind, document: Mapping[str, Any]) -> str:
    import yaml  # noqa: PLC0415

    metadata, tags = document["metadata"], {tag["key"]: tag["value"] for tag in document["tags"]}
    facts = {
        "arn": metadata["arn"],
        "uid": metadata["uid"],
        "version": metadata["version"],
        "created": _when(metadata["createdAt"]),
        "changed": last_change_text(document["last_change"]),
        "tags": " ".join(f"{name}={value}" for name, value in tags.items()) or "-",
    }
    lines = [_path(kind, document), *(f"{name:<9}{value}" for name, value in facts.items())]
    spec = yaml.safe_dump({"spec": document["spec"]}, sort_keys=False, allow_unicode=True)
    return "\n".join([*lines, spec.rstrip()])


def _row(kind: Kind, document: Mapping[str, Any]) -> dict[str, object]:
    above = KINDS[kind.parent].name_member if kind.parent else ""
    metadata = document.get("metadata", document)
    return {
        "name": document[kind.name_member],
        "parent": document.get(above),
        "owner": metadata.get("meshOwner"),
        "version": metadata.get("version"),
        "updated": _when(metadata.get("lastUpdatedAt")),
    }


def _path(kind: Kind, document: Mapping[str, Any]) -> str:
    if kind.name == "mesh":
        return f"mesh/{document['meshName']}"
    above = f"{kind.parent}/{document[KINDS[kind.parent].name_member]}/" if kind.parent else ""
    return f"mesh/{document['meshName']}/{above}{kind.name}/{document[kind.name_member]}"


def _when(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
