"""Commands into calls of the App Mesh API, as its model has them: method, path, query and body. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from mesh.arn import arn
from mesh.commands import Command, Create, Delete, TagResource, UntagResource, Update
from mesh.kinds import KINDS, MESH, Kind, ResourceKey
from mesh.model.operations import OPERATIONS


class ApiCall(NamedTuple):
    """One call. `tokened`: its body takes a clientToken, so that sending it twice is once."""

    method: str
    path: str
    query: Mapping[str, str]
    body: Mapping[str, Any] | None
    tokened: bool


def call_for(command: Command, account: str, region: str) -> ApiCall:
    """The call that carries out `command` for a caller of `account`."""
    match command:
        case Create(key, spec, tags):
            return _call(f"Create{_title(key)}", _named(key, account) | {"spec": spec, **_tags(tags)})
        case Update(key, spec):
            return _call(f"Update{_title(key)}", _named(key, account) | {"spec": spec})
        case Delete(key):
            return _call(f"Delete{_title(key)}", _named(key, account))
        case TagResource(key, tags):
            return _call("TagResource", {"resourceArn": arn(region, key), **_tags(tags)})
        case UntagResource(key, names):
            return _call("UntagResource", {"resourceArn": arn(region, key), "tagKeys": list(names)})
        case _:
            raise TypeError(f"{type(command).__name__} is no command of a manifest")


def describe_call(key: ResourceKey, account: str) -> ApiCall:
    return _call(f"Describe{_title(key)}", _named(key, account))


def tags_call(key: ResourceKey, region: str) -> ApiCall:
    """The first page of a resource's tags, which is all that it may have."""
    return _call("ListTagsForResource", {"resourceArn": arn(region, key), "limit": 50})


def list_call(kind: Kind, above: ResourceKey, account: str, token: str | None) -> ApiCall:
    """One page of the resources of a kind in `above`: their mesh, or the router or gateway of routes."""
    inside = _named(above, account) | {"limit": 100} | ({"nextToken": token} if token else {})
    return _call(f"List{kind.plural[0].upper()}{kind.plural[1:]}", inside)


def _call(operation_name: str, members: Mapping[str, Any]) -> ApiCall:
    operation = OPERATIONS[operation_name]
    wire = {name: str(members[member]) for member, name in operation.path_members.items()}
    path = "/".join(quote(wire[part[1:-1]], safe="") if part.startswith("{") else part for part in operation.segments)
    query = {name: str(members[member]) for member, name in operation.query_members.items() if member in members}
    body = {name: members[member] for member, name in operation.body_members.items() if member in members}
    has_body = operation.method == "PUT"
    return ApiCall(operation.method, path, query, body if has_body else None, "clientToken" in operation.body_members)


def _named(key: ResourceKey, account: str) -> dict[str, Any]:
    kind = KINDS[key.kind]
    names: dict[str, Any] = {MESH.name_member: key.mesh}
    if kind.parent:
        names[KINDS[kind.parent].name_member] = key.parent
    names[kind.name_member] = key.name
    return names if key.account == account else names | {"meshOwner": key.account}


def _title(key: ResourceKey) -> str:
    return KINDS[key.kind].title


def _tags(tags: Mapping[str, str]) -> dict[str, Any]:
    return {"tags": [{"key": name, "value": value} for name, value in tags.items()]} if tags else {}
