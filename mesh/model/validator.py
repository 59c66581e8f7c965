"""Input against a model: all that is wrong with it, in one message. Pure; never changes what it checks.

The rules are the model's own (required, unknown, type, enum, pattern, min and max, exactly one member of a union);
what App Mesh demands beyond its model stands in mesh/rules.py. The shapes are App Mesh's where none are given.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Any

from mesh.errors import BadRequest
from mesh.limits import PROBLEMS_COUNTED, PROBLEMS_SHOWN, VALUE_SHOWN_CHARS
from mesh.model.operations import SHAPES

_INTEGER_BOUNDS = {"integer": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}


Shapes = Mapping[str, Mapping[str, Any]]


def validate(shape_name: str, value: Any, path: str = "", shapes: Shapes = SHAPES) -> None:
    """Check a JSON value (dicts, lists and scalars) against a shape; BadRequest lists every problem by its path.

    `path` goes before the members' names, e.g. `spec` gives `spec.listeners[0].portMapping.port`.
    """
    refuse(list(islice(problems(shape_name, value, path, shapes), PROBLEMS_COUNTED)))


def problems(shape_name: str, value: Any, path: str = "", shapes: Shapes = SHAPES) -> Iterator[str]:
    """Each problem as `<path>: <value> <rule>`."""
    shape = shapes[shape_name]
    yield from _CHECKS[shape["type"]](shapes, shape, value, path)


def refuse(found: list[str]) -> None:
    """Raise the BadRequest that lists these problems; nothing when there are none."""
    if not found:
        return
    shown = "; ".join(found[:PROBLEMS_SHOWN])
    more = f"; and {len(found) - PROBLEMS_SHOWN} more" if len(found) > PROBLEMS_SHOWN else ""
    count = "1 validation error" if len(found) == 1 else f"{len(found)} validation errors"
    raise BadRequest(f"{count}: {shown}{more}")


def shown(value: Any) -> str:
    """A value as an error message repeats it: JSON, cut short."""
    if isinstance(value, Mapping):
        return f"an object of {len(value)}"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    text = json.dumps(value[: VALUE_SHOWN_CHARS + 1] if isinstance(value, str) else value, default=repr)
    return text if len(text) <= VALUE_SHOWN_CHARS else text[:VALUE_SHOWN_CHARS] + "…"


def _structure(shapes: Shapes, shape: Mapping[str, Any], value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield _wrong_type(path, value, "an object")
        return
    members = shape["members"]
    for name in shape.get("required", ()):
        if name not in value:
            yield f"{_member(path, name)}: is required"
    for name, item in value.items():
        if name in members:
            yield from problems(members[name]["shape"], item, _member(path, name), shapes)
        else:
            unknown = _member(path, shown(str(name)).strip('"'))
            yield f"{unknown}: is not a known field ({_known(members)})"
    if shape.get("union"):
        given = [name for name in value if name in members]
        if len(given) != 1:
            said = f"has {', '.join(given)}" if given else "has none"
            yield f"{path or 'input'}: must have exactly one of {', '.join(members)}, and {said}"


def _list(shapes: Shapes, shape: Mapping[str, Any], value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, (list, tuple)):
        yield _wrong_type(path, value, "a list")
        return
    yield from _bounds(shape, len(value), path, f"a list of {len(value)}", "items")
    for index, item in enumerate(value):
        yield from problems(shape["member"], item, f"{path}[{index}]", shapes)


def _map(shapes: Shapes, shape: Mapping[str, Any], value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield _wrong_type(path, value, "an object")
        return
    yield from _bounds(shape, len(value), path, f"an object of {len(value)}", "members")
    for name, item in value.items():
        yield from problems(shape["key"], name, f"{path} (key)", shapes)
        yield from problems(shape["value"], item, _member(path, str(name)[:VALUE_SHOWN_CHARS]), shapes)


def _string(shapes: Shapes, shape: Mapping[str, Any], value: Any, path: str) -> Iterator[str]:  # noqa: ARG001
    if not isinstance(value, str):
        yield _wrong_type(path, value, "a string")
        return
    if not _is_unicode(value):
        yield f"{path}: {shown(value)} is not valid Unicode (it has half of a surrogate pair)"
        return
    if "enum" in shape and value not in shape["enum"]:
        yield f"{path}: {shown(value)} must be one of {', '.join(shape['enum'])}"
    if "pattern" in shape and not _compiled(shape["pattern"]).fullmatch(value):
        yield f"{path}: {shown(value)} must match the pattern {shape['pattern']}"
    if not shape.get("min", 0) <= len(value) <= shape.get("max", len(value)):
        yield from _bounds(shape, len(value), path, f"{shown(value)} ({len(value)} characters)", "characters")


def _number(shapes: Shapes, shape: Mapping[str, Any], value: Any, path: str) -> Iterator[str]:  # noqa: ARG001
    if not isinstance(value, int) or isinstance(value, bool):
        yield _wrong_type(path, value, "a whole number")
        return
    lowest, highest = _INTEGER_BOUNDS[shape["type"]]
    bounds = {"min": shape.get("min", lowest), "max": shape.get("max", highest)}
    yield from _bounds(bounds, value, path, _digits(value), "")


def _boolean(shapes: Shapes, shape: Mapping[str, Any], value: Any, path: str) -> Iterator[str]:  # noqa: ARG001
    if not isinstance(value, bool):
        yield _wrong_type(path, value, "true or false")


def _timestamp(shapes: Shapes, shape: Mapping[str, Any], value: Any, path: str) -> Iterator[str]:  # noqa: ARG001
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        yield _wrong_type(path, value, "epoch seconds as a number")


def _bounds(shape: Mapping[str, Any], measured: int, path: str, what: str, unit: str) -> Iterator[str]:
    unit = f" {unit}" if unit else ""
    if "min" in shape and measured < shape["min"]:
        yield f"{path}: {what} must be at least {shape['min']}{unit}"
    if "max" in shape and measured > shape["max"]:
        yield f"{path}: {what} must be at most {shape['max']}{unit}"


def _wrong_type(path: str, value: Any, wanted: str) -> str:
    return f"{path or 'input'}: {_digits(value) if isinstance(value, int) else shown(value)} must be {wanted}"


def _digits(value: int) -> str:
    # Turning a number of thousands of digits into text is refused by Python itself.
    return shown(value) if value.bit_length() <= 256 else f"a number of {value.bit_length()} bits"


def _member(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _known(members: Mapping[str, Any]) -> str:
    return f"known: {', '.join(members)}" if members else "it has none"


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern.removeprefix("^").removesuffix("$"))


# One shape of function for the table, whether it looks into other shapes or not.
_CHECKS: dict[str, Callable[[Shapes, Mapping[str, Any], Any, str], Iterator[str]]] = {
    "structure": _structure,
    "list": _list,
    "map": _map,
    "string": _string,
    "integer": _number,
    "long": _number,
    "boolean": _boolean,
    "timestamp": _timestamp,
}
