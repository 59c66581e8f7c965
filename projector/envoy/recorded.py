"""Specifications that remember which of their fields were read: what an explanation is told by. For reading alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, SupportsIndex

_ROOT = "spec"
_STEP = re.compile(r"[.\[]")
_NAME_OR_INDEX = re.compile(r"(?:^|\.)([^.\[]+)|\[([0-9]+)\]")


class RecordedSpec(Mapping[str, Any]):
    """A frozen specification, or an object in one. Paths (`spec.listeners[0]`) of what is there and was read go into
    `seen`.
    """

    __slots__ = ("_path", "_seen", "_spec")

    def __init__(self, spec: Mapping[str, Any], seen: set[str], path: str = _ROOT) -> None:
        self._spec, self._path, self._seen = spec, path, seen

    def __getitem__(self, name: str) -> Any:
        return _recorded(self._spec[name], f"{self._path}.{name}", self._seen)

    def __contains__(self, name: object) -> bool:
        if name in self._spec:
            self._seen.add(f"{self._path}.{name}")
            return True
        return False

    def __iter__(self) -> Iterator[str]:
        return iter(self._spec)

    def __len__(self) -> int:
        return len(self._spec)


class RecordedList(tuple[Any, ...]):
    """A list in a specification: its items as they were, each known to have been read when it is taken."""

    def __new__(cls, items: tuple[Any, ...], path: str, seen: set[str]) -> RecordedList:
        made = super().__new__(cls, items)
        made._path, made._seen = path, seen
        return made

    _path: str
    _seen: set[str]

    def __iter__(self) -> Iterator[Any]:
        for index in range(len(self)):
            yield self[index]

    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        found = super().__getitem__(index)
        return found if isinstance(index, slice) else _recorded(found, f"{self._path}[{index}]", self._seen)


def _recorded(value: Any, path: str, seen: set[str]) -> Any:
    seen.add(path)
    if isinstance(value, Mapping):
        return RecordedSpec(value, seen, path)
    return RecordedList(value, path, seen) if isinstance(value, tuple) else value


def innermost(seen: Iterable[str]) -> tuple[str, ...]:
    """Of paths that were read, those in which nothing else was, sorted."""
    paths = set(seen)
    around = {path[: step.start()] for path in paths for step in _STEP.finditer(path)}
    return tuple(sorted(paths - around))


def value_at(spec: Mapping[str, Any], path: str) -> Any:
    """What stands at a path that was read, of the same specification."""
    value: Any = {_ROOT: spec}
    for name, index in _NAME_OR_INDEX.findall(path):
        value = value[int(index)] if index else value[name]
    return value
