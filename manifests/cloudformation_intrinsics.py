"""CloudFormation's intrinsic functions: a template's value into the plain value that it stands for. Pure.

What a template knows of itself (parameters, resources, mappings, conditions) comes as a `Scope`. Only what is asked for
is computed, so that a parameter of the ECS half of a template need not be given. What only AWS could tell (a load
balancer's name, an SSM parameter) is an error that says what it is and how to give it; it is never guessed (I7).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final, Protocol, TypeVar

from manifests.text import Located

_T = TypeVar("_T")
_PLACEHOLDER = re.compile(r"\$\{(!?)([^{}]*)\}")


class NoValue(Enum):
    """`AWS::NoValue`: the property, or the list's item, that holds it is not there."""

    NO_VALUE = "AWS::NoValue"


NO_VALUE: Final = NoValue.NO_VALUE


class CannotResolveError(ValueError):
    """Values that cannot be computed. `problems` are sentences, each beginning with the path of its property."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Scope(Protocol):
    """What a template's functions can ask for. Each raises CannotResolveError, without a path, for what it has not."""

    def ref(self, name: str) -> Any: ...

    def attribute(self, name: str, attribute: str) -> Any: ...

    def mapped(self, table: str, first: str, second: str) -> Any: ...

    def condition(self, name: str) -> bool: ...

    def imported(self, name: str) -> Any: ...


def resolve(node: Any, scope: Scope, path: str) -> Any:
    """The plain value of a node: no functions are left in it, and nothing that is `AWS::NoValue`.

    CannotResolveError lists all that could not be computed within it. The answer is NO_VALUE when the node itself is.
    """
    if isinstance(node, Mapping):
        if isinstance(node, Located) and node.twice is not None:  # CloudFormation takes the last and says nothing
            raise CannotResolveError(f"{path + ': ' if path else ''}the key {node.twice} is there twice")
        name = _function_name(node, path)
        if name is not None:
            return _call(name, node[name], scope, path)
        return _each([(key, item, f"{path}.{key}" if path else key) for key, item in node.items()], scope, dict)
    if isinstance(node, list):
        items = [(None, item, f"{path}[{index}]") for index, item in enumerate(node)]
        return _each(items, scope, lambda pairs: [item for _key, item in pairs])
    return node


def truth(node: Any, scope: Scope, path: str) -> bool:
    """The value of a condition: `Fn::Equals`, `Fn::And`, `Fn::Or`, `Fn::Not`, or `Condition` with another's name."""
    if isinstance(node, Mapping) and len(node) == 1:
        ((name, argument),) = node.items()
        if name == "Condition":
            return _located(path, scope.condition, str(argument))
        if name == "Fn::Equals":
            left, right = (text(resolve(item, scope, path), path) for item in _arguments(name, argument, 2, 2, path))
            return left == right
        if name == "Fn::Not":
            (only,) = _arguments(name, argument, 1, 1, path)
            return not truth(only, scope, path)
        if name in ("Fn::And", "Fn::Or"):
            every = [truth(item, scope, path) for item in _arguments(name, argument, 2, 10, path)]
            return all(every) if name == "Fn::And" else any(every)
    raise CannotResolveError(f"{path}: is no condition: write Fn::Equals, Fn::And, Fn::Or, Fn::Not or Condition")


def text(value: Any, path: str) -> str:
    """A scalar as CloudFormation writes it where text is wanted: `true`, not `True`."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    raise CannotResolveError(f"{path}: must be text here, and is {_kind_of(value)}")


def _each(items: list[tuple[Any, Any, str]], scope: Scope, build: Callable[[list[tuple[Any, Any]]], Any]) -> Any:
    found: list[tuple[Any, Any]] = []
    problems: list[str] = []
    for key, item, path in items:
        try:
            value = resolve(item, scope, path)
        except CannotResolveError as error:
            problems += error.problems
        else:
            if value is not NO_VALUE:
                found.append((key, value))
    if problems:
        raise CannotResolveError(*problems)
    return build(found)


def _function_name(node: Mapping[str, Any], path: str) -> str | None:
    names = [name for name in node if name == "Ref" or name.startswith("Fn::")]
    if not names:
        return None
    if len(node) > 1:
        raise CannotResolveError(f"{path}: {names[0]} must stand alone in its object")
    return names[0]


def _call(name: str, argument: Any, scope: Scope, path: str) -> Any:
    function = _FUNCTIONS.get(name)
    if function is None:
        why = "asks AWS" if name in _AT_AWS else "is not known here"
        raise CannotResolveError(f"{path}: {name} {why}: write the value that it gives")
    return function(argument, scope, path)


def _ref(argument: Any, scope: Scope, path: str) -> Any:
    return _located(path, scope.ref, text(argument, path))


def _get_attribute(argument: Any, scope: Scope, path: str) -> Any:
    if isinstance(argument, str):
        argument = argument.split(".", 1)
    resource, attribute = _arguments("Fn::GetAtt", argument, 2, 2, path)
    return _located(path, scope.attribute, text(resource, path), text(resolve(attribute, scope, path), path))


def _sub(argument: Any, scope: Scope, path: str) -> str:
    own: Mapping[str, Any] = {}
    if isinstance(argument, list):
        argument, own = _arguments("Fn::Sub", argument, 2, 2, path)
        if not isinstance(own, Mapping):
            raise CannotResolveError(f"{path}: Fn::Sub: the second argument must be an object of names and values")
    template = text(argument, path)
    problems: list[str] = []

    def value(match: re.Match[str]) -> str:
        literal, name = match.groups()
        if literal:
            return f"${{{name}}}"
        try:
            if name in own:
                return text(resolve(own[name], scope, path), path)
            if "." in name:
                return text(_located(path, scope.attribute, *name.split(".", 1)), path)
            return text(_located(path, scope.ref, name), path)
        except CannotResolveError as error:
            problems.extend(error.problems)
            return ""

    found = _PLACEHOLDER.sub(value, template)
    if problems:
        raise CannotResolveError(*dict.fromkeys(problems))
    return found


def _join(argument: Any, scope: Scope, path: str) -> str:
    delimiter, items = _arguments("Fn::Join", argument, 2, 2, path)
    return text(delimiter, path).join(text(item, path) for item in _items("Fn::Join", items, scope, path))


def _split(argument: Any, scope: Scope, path: str) -> list[str]:
    delimiter, whole = _arguments("Fn::Split", argument, 2, 2, path)
    cut_at = text(resolve(delimiter, scope, path), path)
    if not cut_at:
        raise CannotResolveError(f"{path}: Fn::Split: the delimiter is empty")
    return text(resolve(whole, scope, path), path).split(cut_at)


def _select(argument: Any, scope: Scope, path: str) -> Any:
    index, items = _arguments("Fn::Select", argument, 2, 2, path)
    wanted = text(resolve(index, scope, path), path)
    found = _items("Fn::Select", items, scope, path)
    if not wanted.isdecimal() or int(wanted) >= len(found):
        raise CannotResolveError(f"{path}: Fn::Select: there is no item {wanted} in a list of {len(found)}")
    return found[int(wanted)]


def _find_in_map(argument: Any, scope: Scope, path: str) -> Any:
    table, first, second, *options = _arguments("Fn::FindInMap", argument, 3, 4, path)
    keys = [text(resolve(item, scope, path), path) for item in (table, first, second)]
    try:
        return _located(path, scope.mapped, *keys)
    except CannotResolveError:
        if options and isinstance(options[0], Mapping) and "DefaultValue" in options[0]:
            return resolve(options[0]["DefaultValue"], scope, path)
        raise


def _if(argument: Any, scope: Scope, path: str) -> Any:
    condition, yes, no = _arguments("Fn::If", argument, 3, 3, path)
    return resolve(yes if _located(path, scope.condition, text(condition, path)) else no, scope, path)


def _condition(name: str) -> Callable[[Any, Scope, str], bool]:
    return lambda argument, scope, path: truth({name: argument}, scope, path)


def _import_value(argument: Any, scope: Scope, path: str) -> Any:
    return _located(path, scope.imported, text(resolve(argument, scope, path), path))


def _base64(argument: Any, scope: Scope, path: str) -> str:
    return base64.b64encode(text(resolve(argument, scope, path), path).encode()).decode()


def _length(argument: Any, scope: Scope, path: str) -> int:
    return len(_items("Fn::Length", argument, scope, path))


def _to_json(argument: Any, scope: Scope, path: str) -> str:
    return json.dumps(resolve(argument, scope, path), separators=(",", ":"))


_AT_AWS = frozenset({"Fn::GetAZs", "Fn::Transform", "Fn::GetStackOutput"})
_FUNCTIONS: Final[Mapping[str, Callable[[Any, Scope, str], Any]]] = {
    "Ref": _ref,
    "Fn::GetAtt": _get_attribute,
    "Fn::Sub": _sub,
    "Fn::Join": _join,
    "Fn::Split": _split,
    "Fn::Select": _select,
    "Fn::FindInMap": _find_in_map,
    "Fn::If": _if,
    "Fn::ImportValue": _import_value,
    "Fn::Base64": _base64,
    "Fn::Length": _length,
    "Fn::ToJsonString": _to_json,
    **{name: _condition(name) for name in ("Fn::Equals", "Fn::And", "Fn::Or", "Fn::Not")},
}


def _located(path: str, ask: Callable[..., _T], *names: str) -> _T:
    """Ask the scope, and put the path before its answer if it has none."""
    try:
        return ask(*names)
    except CannotResolveError as error:
        raise CannotResolveError(*(f"{path}: {problem}" for problem in error.problems)) from None


def _arguments(name: str, argument: Any, fewest: int, most: int, path: str) -> list[Any]:
    if not isinstance(argument, list) or not fewest <= len(argument) <= most:
        count = str(fewest) if fewest == most else f"{fewest} to {most}"
        raise CannotResolveError(f"{path}: {name} takes a list of {count}, and is given {_kind_of(argument)}")
    return argument


def _items(name: str, node: Any, scope: Scope, path: str) -> list[Any]:
    """A list that is written out, or that a function gives; what is wrong in it is wrong with the whole at `path`."""
    found = [resolve(item, scope, path) for item in node] if isinstance(node, list) else resolve(node, scope, path)
    if not isinstance(found, list):
        raise CannotResolveError(f"{path}: {name} needs a list, and is given {_kind_of(found)}")
    return [item for item in found if item is not NO_VALUE]


def _kind_of(value: Any) -> str:
    if value is NO_VALUE:
        return "AWS::NoValue"
    if isinstance(value, Mapping):
        return f"an object of {len(value)}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "nothing" if value is None else f"{type(value).__name__}" if not isinstance(value, str) else "text"
