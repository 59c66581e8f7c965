"""Files of any known format into one manifest. Pure: names and texts in, desired resources out.

A document is known by its own marks, whatever its file is called: a template by its Resources, a Kubernetes object by
its apiVersion and kind, App Mesh's JSON by the names in it. One of no known format is listed as skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from manifests import appmesh_json, cloudformation, kubernetes
from manifests.document import Desired, Manifest, Problem, Reading, Skipped
from manifests.text import Document, UnreadableError, documents, repeated_key
from mesh.kinds import ResourceKey

_Format = tuple[Callable[[object], bool], Callable[[Sequence[Document], Reading], Manifest]]
_FORMATS: Sequence[_Format] = (
    (kubernetes.recognised, kubernetes.read),
    (cloudformation.is_template, cloudformation.parse),
    (appmesh_json.recognised, appmesh_json.read),
)
"""What knows a document of a format, and what reads all documents of it together, since they refer to each other."""


class File(NamedTuple):
    """A file's name, as it is told to the user, and its text."""

    name: str
    text: str


def parse(files: Iterable[File], reading: Reading) -> Manifest:
    """All that the files ask for. A resource that two documents describe alike is one; else it is a problem."""
    parts: list[Manifest] = []
    by_format: list[list[Document]] = [[] for _ in _FORMATS]
    for file in files:
        try:
            found = documents(file.text, file.name)
        except UnreadableError as error:
            parts.append(Manifest(problems=(Problem(str(error), error.source),)))
            continue
        for document in found:
            index = next((at for at, (knows, _read) in enumerate(_FORMATS) if knows(document.value)), None)
            twice = repeated_key(document.value)
            if index is None:
                parts.append(Manifest(skipped=(_unknown(document),)))
            elif twice is not None and not cloudformation.is_template(document.value):
                key, line = twice
                parts.append(Manifest(problems=(Problem(f"the key '{key}' is there twice", f"{file.name}:{line}"),)))
            else:
                by_format[index].append(document)
    parts += [read(found, reading) for (_knows, read), found in zip(_FORMATS, by_format, strict=True)]
    return _each_once(Manifest.joined(parts), reading)


def _unknown(document: Document) -> Skipped:
    value = document.value
    what = f"an object with {', '.join(list(value)[:3])}" if isinstance(value, Mapping) and value else "a document"
    why = "is no manifest: neither App Mesh's own JSON, nor an appmesh.k8s.aws object, nor a CloudFormation template"
    return Skipped(what, why, document.source)


def _each_once(manifest: Manifest, reading: Reading) -> Manifest:
    kept: dict[ResourceKey, Desired] = {}
    problems = list(manifest.problems)
    for item in manifest.resources:
        key = item.key(reading.account)
        before = kept.setdefault(key, item)
        if (before.spec, before.tags) != (item.spec, item.tags):
            problems.append(Problem(f"{key.path}: is in {before.source} too, and differs", item.source))
    return Manifest(tuple(kept.values()), manifest.skipped, tuple(problems))
