"""Request bodies: bytes become JSON within a depth, or a refusal that names what is wrong and where."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from mesh.errors import BadRequest
from runtime.limits import BODY_DEPTH

_INTEGERS = range(-(2**63), 2**63)
"""What msgpack, and every reader of the log, can hold."""
_STEP_CHARS = 40
"""How much of a name, or a text, a message repeats."""


def parse_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object (an empty body is an empty one); BadRequest otherwise."""
    if not body.strip():
        return {}
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant)
    except UnicodeDecodeError as error:
        raise BadRequest(f"The request body is not UTF-8: byte {error.start} is wrong.") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise BadRequest(f"The request body is not JSON: {error.msg} at {where}.") from error
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:  # Python refuses to read numbers of thousands of digits
        raise BadRequest("The request body has a number with too many digits.") from error
    if not isinstance(value, dict):
        raise BadRequest("The request body must be a JSON object.")
    return check_object(value)


def check_object(value: dict[str, Any]) -> dict[str, Any]:
    """The same object, however it was read; BadRequest where it has what no record could carry."""
    _check(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRequest(f"{json.dumps(twice[:80])}: is there twice in one object of the request body; keep one.")
    return value


def _constant(name: str) -> Any:
    raise BadRequest(f"The request body has {name}, which is not JSON.")


class _Place(NamedTuple):
    """A value of a body, and the way to it: what it is in, and the name or number that it has there."""

    value: Any
    within: _Place | None = None
    step: str | int = ""

    def path(self) -> str:
        """Such as `spec.listeners[0].portMapping.port`."""
        above = self.within.path() if self.within else ""
        if isinstance(self.step, int):
            return f"{above}[{self.step}]"
        return f"{above}.{self.step[:_STEP_CHARS]}" if above else self.step[:_STEP_CHARS]


def _check(value: dict[str, Any]) -> None:
    """Refuse what no record could carry, by its path. Without recursion: depth is the caller's."""
    level: list[_Place] = [_Place(value)]
    for _ in range(BODY_DEPTH):
        level = [child for place in level for child in _children(place)]
        if not level:
            return
    raise _too_deep()


def _children(place: _Place) -> Iterator[_Place]:
    """The objects and lists in it; all else in it is checked."""
    item = place.value
    steps: Iterable[tuple[str | int, Any]] = item.items() if isinstance(item, dict) else enumerate(item)
    for step, child in steps:
        if isinstance(step, str):
            problem = _problem(step)
            if problem:
                raise BadRequest(f"{json.dumps(step[:_STEP_CHARS])}: {problem}")
        if isinstance(child, (dict, list)):
            yield _Place(child, place, step)
            continue
        problem = _problem(child)
        if problem:
            raise BadRequest(f"{_Place(child, place, step).path()}: {problem}")


def _problem(value: Any) -> str | None:
    if isinstance(value, str) and not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        return f"{json.dumps(value[:_STEP_CHARS])} is not Unicode; it has half of a surrogate pair"
    if isinstance(value, float) and not math.isfinite(value):
        return "is a number that is too large"
    if isinstance(value, int) and value not in _INTEGERS:
        return f"is a whole number of {value.bit_length()} bits, which is too large for any field"
    return None


def _too_deep() -> BadRequest:
    return BadRequest(f"The request body is nested deeper than {BODY_DEPTH} levels.")
