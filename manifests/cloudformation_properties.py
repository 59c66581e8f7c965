"""The properties of an AWS::AppMesh resource into the API's input members. Pure.

CloudFormation's names are the model's in another case (`TLS`, `AWSCloudMap`, `HttpRoute`), so they are matched without
case against the shapes and no list of names is kept; AWS's own examples even mix both spellings in one template.
CloudFormation turns text into numbers and booleans, and those into text, where the property wants them; so does this.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from manifests.cloudformation_intrinsics import CannotResolveError, text
from mesh.model.operations import SHAPES
from mesh.model.validator import shown

_WHOLE = re.compile(r"[-+]?[0-9]{1,19}")
_DYNAMIC_REFERENCE = re.compile(r"\{\{resolve:[^{}]*\}\}")


def api_form(shape_name: str, value: Any, path: str = "", without: frozenset[str] = frozenset()) -> Any:
    """A resolved value in the API's own form, by the model's shapes; members `without` are no properties.

    What the shape does not know, or cannot take, is in the CannotResolveError, each with its path. Bounds, patterns and
    required members are not looked at: the API checks them for every caller alike.
    """
    if value is None:
        raise CannotResolveError(f"{path}: is empty (null), which CloudFormation does not allow: take it out")
    shape = SHAPES[shape_name]
    if shape["type"] == "structure":
        return _structure(shape, value, path, without)
    if shape["type"] == "list":
        return _list(shape, value, path)
    return _SCALARS[shape["type"]](value, path)


def _structure(shape: Mapping[str, Any], value: Any, path: str, without: frozenset[str]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise CannotResolveError(f"{path}: {shown(value)} must be an object")
    members = {name.lower(): name for name in shape["members"] if name not in without}
    found: dict[str, Any] = {}
    problems: list[str] = []
    seen: set[str] = set()
    for name, item in value.items():
        where = f"{path}.{name}" if path else name
        member = members.get(name.lower())
        if member is None:
            known = ", ".join(each[0].upper() + each[1:] for each in members.values())
            problems.append(f"{where}: is not a known property (known: {known or 'none'})")
        elif member in seen:
            problems.append(f"{where}: is there twice, in two spellings")
        else:
            seen.add(member)
            try:
                found[member] = api_form(shape["members"][member]["shape"], item, where)
            except CannotResolveError as error:
                problems += error.problems
    if problems:
        raise CannotResolveError(*problems)
    return found


def _list(shape: Mapping[str, Any], value: Any, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise CannotResolveError(f"{path}: {shown(value)} must be a list")
    found: list[Any] = []
    problems: list[str] = []
    for index, item in enumerate(value):
        try:
            found.append(api_form(shape["member"], item, f"{path}[{index}]"))
        except CannotResolveError as error:
            problems += error.problems
    if problems:
        raise CannotResolveError(*problems)
    return found


def _string(value: Any, path: str) -> str:
    found = text(value, path)
    dynamic = _DYNAMIC_REFERENCE.search(found)
    if dynamic:
        raise CannotResolveError(f"{path}: {dynamic[0]} asks AWS: write the value that it gives")
    return found


def _whole_number(value: Any, path: str) -> int:
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise CannotResolveError(f"{path}: {shown(value)} must be a whole number")


def _boolean(value: Any, path: str) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise CannotResolveError(f"{path}: {shown(value)} must be true or false")


_SCALARS: Final[Mapping[str, Callable[[Any, str], Any]]] = {
    "string": _string,
    "integer": _whole_number,
    "long": _whole_number,
    "boolean": _boolean,
}
