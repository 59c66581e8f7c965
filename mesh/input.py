"""One request's whole input against the model and the rules: every problem that it has, in one BadRequest. Pure.

The rules assume the model's shapes, so of each part (names, owner, token, tags, spec) they speak only where the model
has nothing to say. What depends on other resources is `decide`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from mesh.kinds import KINDS, MESH
from mesh.limits import PROBLEMS_COUNTED
from mesh.model.operations import CREATE, LIST, UPDATE, Operation
from mesh.model.validator import problems, refuse
from mesh.rules import name_problems, owner_problems, rule_problems, tag_problems, token_problems


def check_input(operation: Operation, members: Mapping[str, Any]) -> None:
    """BadRequest that lists what is wrong with `members`: all that travelled in path, query string and body."""
    refuse(list(islice(input_problems(operation, members), PROBLEMS_COUNTED)))


def input_problems(operation: Operation, members: Mapping[str, Any]) -> Iterator[str]:
    """Each problem as `<path>: <value> <rule>`."""
    unsound = set()
    for problem in problems(operation.input_shape, members):
        unsound.add(problem.partition(":")[0].partition(".")[0].partition("[")[0])
        yield problem
    for member, value in members.items():
        if member not in unsound:
            yield from _rules(operation, member, value)


def _rules(operation: Operation, member: str, value: Any) -> Iterator[str]:
    if member == "meshOwner":
        yield from owner_problems(value)
    elif member == "clientToken":
        yield from token_problems(value)
    elif member == "tags":
        yield from tag_problems(value)
    elif member == "spec" and operation.kind is not None and operation.verb in (CREATE, UPDATE):
        yield from rule_problems(operation.kind.name, value)
    elif member in _names(operation):
        yield from name_problems(member, value)


def _names(operation: Operation) -> list[str]:
    kind = operation.kind
    if kind is None:
        return []
    own = [] if operation.verb == LIST else [kind.name_member]
    above = [KINDS[kind.parent].name_member] if kind.parent else []
    return [MESH.name_member, *above, *own]
