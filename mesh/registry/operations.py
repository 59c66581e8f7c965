"""The operations of the Cloud Map API, from the model's facts, and one request's input against them. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

from mesh.errors import BadRequest
from mesh.limits import PROBLEMS_COUNTED
from mesh.model.validator import problems, refuse
from mesh.registry.errors import InvalidInput

_MODEL: Final[dict[str, Any]] = json.loads((Path(__file__).parent / "shapes.json").read_text(encoding="utf-8"))
SHAPES: Final[Mapping[str, Mapping[str, Any]]] = _MODEL["shapes"]
OPERATIONS: Final[Mapping[str, Mapping[str, Any]]] = _MODEL["operations"]
"""By name: {input, output, errors}."""

REQUEST_ID_MEMBERS = ("CreatorRequestId", "UpdaterRequestId")
"""What makes a repeated call one call, as App Mesh's clientToken does."""


def check_input(operation: str, members: Mapping[str, Any]) -> None:
    """InvalidInput that lists what is wrong with `members`."""
    try:
        refuse(list(islice(_problems(operation, members), PROBLEMS_COUNTED)))
    except BadRequest as error:
        raise InvalidInput(error.message) from None


def _problems(operation: str, members: Mapping[str, Any]) -> Iterator[str]:
    yield from problems(OPERATIONS[operation]["input"], members, "", SHAPES)
    filters = members.get("Filters")
    for index, each in enumerate(filters if isinstance(filters, list) else ()):
        if isinstance(each, Mapping) and isinstance(each.get("Values"), list):
            yield from _filter_problems(f"Filters[{index}]", each)


def _filter_problems(path: str, told: Mapping[str, Any]) -> Iterator[str]:
    condition, count = told.get("Condition", "EQ"), len(told["Values"])
    if condition == "BETWEEN" and count != 2:
        yield f"{path}.Values: BETWEEN takes two"
    elif condition in ("EQ", "BEGINS_WITH") and count != 1:
        yield f"{path}.Values: {condition} takes one"
    if condition == "BETWEEN" and told.get("Name") != "UPDATE_DATE":
        yield f"{path}.Condition: BETWEEN is for UPDATE_DATE"
    elif condition == "BEGINS_WITH" and told.get("Name") not in ("NAME", "HTTP_NAME"):
        yield f"{path}.Condition: BEGINS_WITH is for names"
