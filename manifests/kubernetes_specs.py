"""Specs of the App Mesh controller's custom resources into App Mesh's own. Pure.

The custom resources are the API's shapes with three differences, so this walks the API's model:

- references to other custom resources (`virtualServiceRef`, `virtualNodeARN`, …) stand where the API has names;
- initialisms are written in capitals (`certificateARN` is `certificateArn`);
- what Go decodes into nothing is nothing: null and empty lists are left out, and so are fields that nobody knows.

Source: pkg/conversions and pkg/references of aws-app-mesh-controller-for-k8s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mesh.model.operations import SHAPES

Resolve = Callable[[str, Mapping[str, Any]], str]
"""The App Mesh name of a referenced object: a kind's name (`virtualNode`) and {name, namespace}."""

_REFERENCE = re.compile(r"(virtualNode|virtualRouter|virtualService)(Ref|ARN)")
_ARN = re.compile(r"arn:[^:]*:[^:]*:[^:]*:[^:]*:mesh/[^/]+/([^/]+)/([^/]+)")
_RENAMED = {"MeshSpec": {"meshServiceDiscovery": "serviceDiscovery"}}


@dataclass(slots=True)
class Converted:
    """A spec in the API's form. `ignored`: paths of fields that App Mesh does not have. `problems`: what is wrong."""

    spec: dict[str, Any] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def convert(shape: str, spec: Mapping[str, Any], resolve: Resolve, path: str = "spec") -> Converted:
    """A custom resource's spec, less what is Kubernetes' own, as the model's `shape`."""
    walk = _Walk(resolve, Converted())
    walk.outcome.spec = walk.structure(shape, spec, path)
    return walk.outcome


@dataclass(slots=True)
class _Walk:
    resolve: Resolve
    outcome: Converted

    def structure(self, shape: str, value: Mapping[str, Any], path: str) -> dict[str, Any]:
        members: Mapping[str, Mapping[str, str]] = SHAPES[shape]["members"]
        found: dict[str, Any] = {}
        for name, item in value.items():
            if item is None or item == []:
                continue
            member = _member(shape, name)
            if member in members:
                found[member] = self.value(members[member]["shape"], item, f"{path}.{name}")
            elif reference := _REFERENCE.fullmatch(name):
                self.reference(found, members, reference, item, f"{path}.{name}")
            else:
                self.outcome.ignored.append(f"{path}.{name}")
        return found

    def value(self, shape: str, item: Any, path: str) -> Any:
        kind = SHAPES[shape]["type"]
        if kind == "structure" and isinstance(item, Mapping):
            return self.structure(shape, item, path)
        if kind == "list" and isinstance(item, list):
            return [self.value(SHAPES[shape]["member"], each, f"{path}[{index}]") for index, each in enumerate(item)]
        return item  # of the wrong type or not: the API's own rules say so, with the path

    def reference(
        self, found: dict[str, Any], members: Mapping[str, Any], reference: re.Match[str], item: Any, path: str
    ) -> None:
        kind, form = reference.groups()
        member = next((name for name in (kind, f"{kind}Name") if name in members), None)
        if member is None:
            self.outcome.ignored.append(path)
        elif form == "ARN":
            named = _ARN.fullmatch(item) if isinstance(item, str) else None
            if named is None or named[1] != kind:
                self.outcome.problems.append(f"{path}: is not the ARN of a {kind}")
            else:
                found[member] = named[2]
        elif not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
            self.outcome.problems.append(f"{path}.name: is required")
        elif member not in found:  # an ARN beside it counts
            found[member] = self.resolve(kind, item)


def _member(shape: str, name: str) -> str:
    renamed = _RENAMED.get(shape, {}).get(name)
    return renamed or re.sub(r"ARN(s?)$", r"Arn\1", name)
