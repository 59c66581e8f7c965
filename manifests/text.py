"""The text of a file (YAML or JSON) into documents that remember their lines. Pure.

YAML as its users' own tools read it: no dates, no base-60 numbers. CloudFormation's short tags come out in their long
form (`!Sub x` as {"Fn::Sub": "x"}), so that nobody after this knows which form was written. A key that is there twice
is noted: whether it matters depends on whose object it is.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterator
from json.decoder import JSONObject  # type: ignore[attr-defined]
from json.scanner import py_make_scanner  # type: ignore[attr-defined]
from typing import Any, NamedTuple, cast

import yaml

from runtime.limits import MANIFEST_NESTING_MAX

_NOT_BLANK = re.compile(r"\S")
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"^(?:[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+)$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)"
    r"|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)


class Located(dict[str, Any]):
    """An object that knows the line (from 1) on which it begins, and a key that it has twice (the last one counts)."""

    line: int = 1
    twice: str | None = None


class Document(NamedTuple):
    """One document of a file. `source` is `file:line`."""

    value: Any
    file: str
    line: int

    @property
    def source(self) -> str:
        return f"{self.file}:{self.line}"


class UnreadableError(ValueError):
    """The text is neither YAML nor JSON; the message says where and why."""

    def __init__(self, message: str, source: str) -> None:
        super().__init__(message)
        self.source = source


def documents(text: str, file: str) -> list[Document]:
    """Every document of a file, empty ones left out; UnreadableError when there is no way to read it."""
    text = text.removeprefix("\ufeff")
    if text.lstrip()[:1] in ("{", "["):
        try:
            return [Document(value, file, line) for value, line in _JsonReader(text).values()]
        except json.JSONDecodeError:
            pass  # YAML's flow style begins in the same way
        except RecursionError:
            raise UnreadableError("is neither YAML nor JSON: it nests too deep", file) from None
    return _yaml_documents(text, file)


def line_of(value: object, otherwise: int) -> int:
    return value.line if isinstance(value, Located) else otherwise


def repeated_key(value: object) -> tuple[str, int] | None:
    """The first key in a document that an object has twice, and that object's line; None when there is none."""
    seen: set[int] = set()  # YAML's aliases make one object stand in many places
    left = [value]
    while left:
        node = left.pop()
        if id(node) in seen or not isinstance(node, (dict, list)):
            continue
        seen.add(id(node))
        if isinstance(node, Located) and node.twice is not None:
            return node.twice, node.line
        left += reversed(list(node.values()) if isinstance(node, dict) else node)
    return None


def _yaml_documents(text: str, file: str) -> list[Document]:
    found = []
    loader = _Loader("")
    try:
        _check_nesting(text)
        loader = _ManifestLoader(text)
        while loader.check_node():
            node = loader.get_node()
            value = loader.construct_document(node)
            if value is not None:
                found.append(Document(value, file, node.start_mark.line + 1))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UnreadableError(
            f"is neither YAML nor JSON: {error.problem or error.context}", f"{file}:{mark.line + 1}" if mark else file
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UnreadableError(f"is neither YAML nor JSON: {' '.join(str(error).split())[:200]}", file) from None
    finally:
        loader.dispose()
    return found


def _check_nesting(text: str) -> None:
    """Before the composer, which recurses in C, sees the text."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            depth += 1
            if depth > MANIFEST_NESTING_MAX:
                raise yaml.MarkedYAMLError(
                    problem="it nests too deep", problem_mark=cast("yaml.Mark", event.start_mark)
                )
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            depth -= 1


class _ManifestLoader(_Loader):  # type: ignore[misc]
    """Safe YAML, located objects, short tags in their long form."""


# Of YAML 1.1's implicit types only those that Kubernetes and CloudFormation know too.
_ManifestLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in ("bool", "null", "merge")]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
_ManifestLoader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_ManifestLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def _construct_object(loader: Any, node: yaml.MappingNode) -> Located:
    merges = [key for key, _value in node.value if key.tag == "tag:yaml.org,2002:merge"]
    seen: set[object] = set()
    twice: str | None = None
    for key, _value in node.value:
        if key not in merges:
            name = loader.construct_object(key, deep=True)
            if not isinstance(name, str | int | float | bool | None):
                raise yaml.constructor.ConstructorError(None, None, "a key that is no text", key.start_mark)
            twice = str(name) if name in seen else twice
            seen.add(name)
    loader.flatten_mapping(node)
    found = Located()
    for key, value in node.value:
        found[_key_text(loader, key)] = loader.construct_object(value, deep=True)
    found.line, found.twice = node.start_mark.line + 1, twice
    return found


def _key_text(loader: Any, key: yaml.Node) -> str:
    """Keys are text, as in JSON: `on:` and `8080:` are 'on' and '8080', not true and a number."""
    return str(key.value) if isinstance(key, yaml.ScalarNode) else str(loader.construct_object(key, deep=True))


def _construct_short_tag(loader: Any, suffix: str, node: Any) -> Located:
    if isinstance(node, yaml.ScalarNode):
        value: Any = node.value
        if suffix == "GetAtt":
            value = value.split(".", 1)
    elif isinstance(node, yaml.SequenceNode):
        value = [loader.construct_object(item, deep=True) for item in node.value]
    else:
        value = _construct_object(loader, node)
    found = Located({suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value})
    found.line = node.start_mark.line + 1
    return found


_ManifestLoader.add_constructor("tag:yaml.org,2002:map", _construct_object)
_ManifestLoader.add_multi_constructor("!", _construct_short_tag)


class _JsonReader(json.JSONDecoder):
    """json's own decoder, in its Python form, which tells where an object begins."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.memo: dict[str, str] = {}
        self.parse_object = self._object
        self.scan_once = py_make_scanner(self)
        self._text = text
        self._breaks = [found.start() for found in re.finditer("\n", text)]

    def values(self) -> Iterator[tuple[Any, int]]:
        """One value after the other, as a script that appends answers to a file leaves them, with their lines."""
        end = 0
        while begins := _NOT_BLANK.search(self._text, end):
            value, end = self.raw_decode(self._text, begins.start())
            yield value, self._line(begins.start())

    def _line(self, at: int) -> int:
        return bisect_left(self._breaks, at) + 1

    def _object(
        self, text_and_end: tuple[str, int], strict: bool, scan_once: Any, _hook: Any, _pairs_hook: Any, memo: Any
    ) -> tuple[Located, int]:
        pairs, end = JSONObject(text_and_end, strict, scan_once, None, list, memo)
        found = Located(pairs)
        found.line = self._line(text_and_end[1])
        if len(found) != len(pairs):
            names = [name for name, _value in pairs]
            found.twice = next(name for name in names if names.count(name) > 1)
        return found, end
