"""App Mesh's own JSON into desired resources: what `describe-…` prints, and what `--cli-input-json` takes. Pure.

    {meshName, virtualNodeName, spec, [tags], [meshOwner]}     a create's or update's input
    {meshName, virtualNodeName, spec, metadata, status}        the API's own answer
    {virtualNode: {…}}                                         the same as the aws CLI and SDKs print it
    [ …, … ]                                                   any number of them

A document that names no mesh, since its caller said `--mesh-name`, means the one that the reader is told. Which kind a
document is follows from the names in it. What a list operation prints has no specs and is told so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from manifests.document import Desired, Manifest, Problem, Reading, Skipped
from manifests.text import Document, line_of
from mesh.errors import CallerError
from mesh.kinds import KINDS, MESH, Kind
from mesh.rules import tags_from_list

_OUTERMOST_LAST = tuple(sorted(KINDS.values(), key=lambda kind: (kind.parent is None, kind is MESH)))
"""A route's document names its router too, and every document its mesh: the innermost name tells the kind."""
_WRAPPERS = frozenset(KINDS)
_LISTS = frozenset(kind.plural for kind in KINDS.values())


def recognised(value: object) -> bool:
    """Whether a document is App Mesh's own JSON, be it right or wrong."""
    if isinstance(value, list):
        return bool(value) and all(recognised(item) for item in value)
    if not isinstance(value, Mapping):
        return False
    if value.keys() & (_WRAPPERS | _LISTS):
        return True
    return any(kind.name_member in value for kind in KINDS.values())


def read(documents: Iterable[Document], reading: Reading) -> Manifest:
    """Every resource of documents that `recognised` knows."""
    return Manifest.joined(part for document in documents for part in _read_value(document.value, document, reading))


def _read_value(value: Any, document: Document, reading: Reading) -> Iterator[Manifest]:
    source = f"{document.file}:{line_of(value, document.line)}"
    if isinstance(value, list):
        for item in value:
            yield from _read_value(item, document, reading)
        return
    wrapper = next((name for name in value if name in _WRAPPERS and isinstance(value[name], Mapping)), None)
    if wrapper is not None and "spec" not in value:
        yield from _read_value(value[wrapper], document, reading)
    elif value.keys() & _LISTS:
        for name in sorted(value.keys() & _LISTS):
            yield from _read_list(name, value[name], document, reading, source)
    else:
        yield _read_one(value, reading, source)


def _read_list(name: str, items: Any, document: Document, reading: Reading, source: str) -> Iterator[Manifest]:
    if isinstance(items, list) and all(isinstance(item, Mapping) and "spec" in item for item in items):
        yield from _read_value(items, document, reading)
        return
    text = f"{name}: is what a list operation prints, and has no specs in it: describe each resource instead"
    yield Manifest(problems=(Problem(text, source),))


def _read_one(value: Mapping[str, Any], reading: Reading, source: str) -> Manifest:
    found: list[str] = []
    kind = next(kind for kind in _OUTERMOST_LAST if kind.name_member in value)
    names = _names(kind, value, reading, found)
    spec: Any = value.get("spec", {} if kind is MESH else None)
    if not isinstance(spec, Mapping):
        found.append("spec: is required" if spec is None else "spec: must be an object")
    tags = _tags(value.get("tags"), found)
    if found:
        return Manifest(problems=tuple(Problem(text, source) for text in found))
    what = f"{kind.name} {names[kind.name_member]}"
    status = value.get("status")
    if isinstance(status, Mapping) and status.get("status") == "DELETED":
        return Manifest(skipped=(Skipped(what, "was DELETED when it was described", source),))
    parent = names[KINDS[kind.parent].name_member] if kind.parent else ""
    mesh = names[MESH.name_member]
    account = _account(value) if MESH.name_member in value else reading.mesh_owner
    return Manifest((Desired(kind.name, account, mesh, parent, names[kind.name_member], spec, tags, source),))


def _names(kind: Kind, value: Mapping[str, Any], reading: Reading, found: list[str]) -> dict[str, str]:
    given = {MESH.name_member: reading.mesh, **value} if reading.mesh else dict(value)
    wanted = [MESH.name_member, *([KINDS[kind.parent].name_member] if kind.parent else []), kind.name_member]
    for member in dict.fromkeys(wanted):
        if not isinstance(given.get(member), str):
            hint = "; say --mesh" if member == MESH.name_member else ""
            found.append(f"{member}: is required{hint}" if member not in given else f"{member}: must be a string")
    return {member: str(given.get(member)) for member in wanted}


def _account(value: Mapping[str, Any]) -> str | None:
    """The owner of the mesh where it is somebody else's than the resource's; what was described at home stays at home.

    An account is a fact of where a document was described, and may be another here.
    """
    owner = value.get("meshOwner")
    if isinstance(owner, str) and "metadata" not in value:
        return owner
    metadata = value.get("metadata")
    if isinstance(metadata, Mapping) and metadata.get("meshOwner") != metadata.get("resourceOwner"):
        return str(metadata["meshOwner"]) if "meshOwner" in metadata else None
    return None


def _tags(tags: Any, found: list[str]) -> dict[str, str] | None:
    if tags is None:
        return None
    texts = all(
        isinstance(tag, Mapping) and isinstance(tag.get("key"), str) and isinstance(tag.get("value", ""), str)
        for tag in (tags if isinstance(tags, list) else [None])
    )
    if not texts:
        found.append("tags: must be a list of {key, value}, both strings")
        return None
    try:
        return tags_from_list([{"key": tag["key"], "value": tag.get("value", "")} for tag in tags])
    except CallerError as error:
        found.append(error.message)
        return None
