"""Request bodies: bytes become JSON within a depth, or a refusal that names what is wrong and where."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

from mesh.errors import BadRequest
from runtime.limits import BODY_DEPTH

_INTEGERS = range(-(2**63), 2**63)
"""What msgpack, and every reader of the log, can hold."""


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


def _check(value: dict[str, Any]) -> None:
    """Refuse what no record could carry. Without recursion: depth is the caller's."""
    level: list[Any] = [value]
    for _ in range(BODY_DEPTH):
        level = [child for item in level for child in _children(item)]
        if not level:
            return
    raise _too_deep()


def _children(item: Any) -> Iterator[Any]:
    children: Iterable[Any] = item.values() if isinstance(item, dict) else item
    if isinstance(item, dict):
        for name in item:
            _check_scalar(name)
    for child in children:
        if isinstance(child, (dict, list)):
            yield child
        else:
            _check_scalar(child)


def _check_scalar(value: Any) -> None:
    if isinstance(value, str) and not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise BadRequest(f"{json.dumps(value[:40])}: is not Unicode; it has half of a surrogate pair.")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadRequest("The request body has a number that is too large.")
    if isinstance(value, int) and value not in _INTEGERS:
        raise BadRequest("The request body has a whole number that is too large.")


def _too_deep() -> BadRequest:
    return BadRequest(f"The request body is nested deeper than {BODY_DEPTH} levels.")
