"""The 38 operations of the App Mesh API as one table, read from the model's facts.

Pure: method and path in, operation out.

Everything an edge must know to serve an operation stands here, so that it needs one handler: where each input member
travels (path, query string, body), which kind of resource it is about, what it does with it, which shapes bound it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from mesh.errors import BadRequest
from mesh.kinds import KINDS, MESH, Kind, ResourceKey

_MODEL: Final[dict[str, Any]] = json.loads((Path(__file__).parent / "shapes.json").read_text(encoding="utf-8"))
SHAPES: Final[Mapping[str, Mapping[str, Any]]] = _MODEL["shapes"]

CREATE, DESCRIBE, UPDATE, DELETE, LIST = "create", "describe", "update", "delete", "list"
TAG, UNTAG, LIST_TAGS = "tag", "untag", "list-tags"

_TAG_VERBS = {"TagResource": TAG, "UntagResource": UNTAG, "ListTagsForResource": LIST_TAGS}
_VERBS = {"Create": CREATE, "Describe": DESCRIBE, "Update": UPDATE, "Delete": DELETE, "List": LIST}


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation.

    `segments` is the URI cut at '/', a member's name in braces for a variable. `kind` is None for the tag operations,
    which take an ARN. `path_members`, `query_members` and `body_members` map input member to name on the wire.
    `payload` is the output member that is the whole response body, None where the body is the output itself.
    `mutates`: the operation makes a command.
    """

    name: str
    method: str
    uri: str
    segments: tuple[str, ...]
    kind: Kind | None
    verb: str
    input_shape: str
    output_shape: str
    payload: str | None
    path_members: Mapping[str, str]
    query_members: Mapping[str, str]
    body_members: Mapping[str, str]
    errors: tuple[str, ...]

    @property
    def mutates(self) -> bool:
        return self.verb in (CREATE, UPDATE, DELETE, TAG, UNTAG)

    def member_type(self, member: str) -> str:
        """The model's type of an input member: `integer` query members arrive as text."""
        kind: str = SHAPES[SHAPES[self.input_shape]["members"][member]["shape"]]["type"]
        return kind

    def key(self, account: str, members: Mapping[str, Any]) -> ResourceKey:
        """The resource that validated input names. `account` is the caller's; `meshOwner` overrides it.

        For a list operation the name is '' (the collection); not for the tag operations.
        """
        if self.kind is None:
            raise TypeError(f"{self.name} names its resource by an ARN: use mesh.arn.parse_arn")
        mesh: str = members.get(MESH.name_member, "")
        parent: str = members[KINDS[self.kind.parent].name_member] if self.kind.parent else ""
        name = "" if self.verb == LIST else members[self.kind.name_member]
        return ResourceKey(members.get("meshOwner") or account, mesh, self.kind.name, parent, name)


def match(method: str, path: str) -> tuple[Operation, dict[str, str]] | None:
    """The operation that a request is for, and its path members, percent-decoded.

    `path` is the raw path, still encoded (an encoded slash is part of a name, not a separator), without the query.
    None when there is no such operation; BadRequest when a segment is not UTF-8.
    """
    segments = tuple(path.split("/"))
    for operation in _BY_SHAPE.get((method, len(segments)), ()):
        found = _bind(operation.segments, segments)
        if found is not None:
            return operation, found
    return None


def allowed_methods(path: str) -> tuple[str, ...]:
    """The methods that some operation has at `path`; empty when there is no such path (404, not 405)."""
    methods = sorted({operation.method for operation in OPERATIONS.values()})
    return tuple(method for method in methods if match(method, path))


def _bind(pattern: tuple[str, ...], segments: tuple[str, ...]) -> dict[str, str] | None:
    found = {}
    for expected, given in zip(pattern, segments, strict=True):
        if expected.startswith("{"):
            if not given:
                return None
            try:
                found[expected[1:-1]] = unquote(given, errors="strict")
            except UnicodeDecodeError as error:
                raise BadRequest(f"{expected[1:-1]}: '{given[:80]}' in the path is no percent-encoded UTF-8") from error
        elif expected != given:
            return None
    return found


def _operation(name: str, facts: Mapping[str, Any]) -> Operation:
    members: Mapping[str, Mapping[str, str]] = SHAPES[facts["input"]]["members"]
    if name in _TAG_VERBS:
        kind, verb = None, _TAG_VERBS[name]
    else:
        kind, verb = _kind_and_verb(name)

    def at(location: str | None) -> dict[str, str]:
        return {
            member: fact.get("locationName", member)
            for member, fact in members.items()
            if fact.get("location") == location
        }

    return Operation(
        name=name,
        method=facts["method"],
        uri=facts["uri"],
        segments=tuple(facts["uri"].split("/")),
        kind=kind,
        verb=verb,
        input_shape=facts["input"],
        output_shape=facts["output"],
        payload=SHAPES[facts["output"]].get("payload"),
        path_members=at("uri"),
        query_members=at("querystring"),
        body_members=at(None),
        errors=tuple(facts["errors"]),
    )


def _kind_and_verb(name: str) -> tuple[Kind, str]:
    for prefix, verb in _VERBS.items():
        for kind in KINDS.values():
            if name in (prefix + kind.title, f"{prefix}{kind.plural[0].upper()}{kind.plural[1:]}"):
                return kind, verb
    raise LookupError(f"the model has an operation {name} that this build gives no meaning")


OPERATIONS: Final[Mapping[str, Operation]] = {
    name: _operation(name, facts) for name, facts in _MODEL["operations"].items()
}

_BY_SHAPE: Final[dict[tuple[str, int], list[Operation]]] = {}
for _each in OPERATIONS.values():
    _BY_SHAPE.setdefault((_each.method, len(_each.segments)), []).append(_each)
