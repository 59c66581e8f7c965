"""The port between the archive and where it is kept: named objects that are written once and never changed.

`directory.DirectoryStore` and `s3.S3Store` are the real ones; tests/eventlog/archive/conformance.py holds what every
store must do. A store moves bytes: it never looks inside them, and never tells a put that failed from one that landed
without an answer. Both raise Unavailable, and repeating a put is safe, since a name is written once.

Names are flat words joined by `/`: `objects/<sha256>`, `manifests/<epoch>/<seq>`, `epochs/<epoch>`, `keys/<name>.pub`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from runtime.limits import ARCHIVE_CALLS_TOGETHER

T = TypeVar("T")

_NAME = re.compile(r"[a-z]+(/[A-Za-z0-9][A-Za-z0-9._-]{0,127}){1,3}", re.ASCII)


class StoredObject(NamedTuple):
    """One object of a listing."""

    name: str
    size_bytes: int


class ObjectStore(Protocol):
    """Where an archive is kept. Every method raises Unavailable (try again; it names the place) or SettingsError."""

    place: str
    """Where that is, for messages and for the log's `archive` entry: a URL without credentials."""

    async def put_new(self, name: str, data: bytes) -> bool:
        """Write a new object, whole and durable. False: the name is taken (maybe by an earlier try of the same)."""
        ...

    async def get(self, name: str) -> bytes | None:
        """The object's bytes; None if there is none."""
        ...

    async def list(self, prefix: str, after: str = "") -> Sequence[StoredObject]:
        """Every object whose name begins with `prefix` and sorts after `after`, sorted by name."""
        ...

    async def delete(self, name: str) -> None:
        """Remove an object; one that is not there is no error."""
        ...


async def together(calls: Iterable[Callable[[], Awaitable[T]]]) -> list[T]:
    """The results of calls, some at a time. The first failure is raised when all that were begun have ended."""
    results: list[T] = []
    waiting = list(calls)
    for start in range(0, len(waiting), ARCHIVE_CALLS_TOGETHER):
        begun = [call() for call in waiting[start : start + ARCHIVE_CALLS_TOGETHER]]
        for outcome in await asyncio.gather(*begun, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
            results.append(outcome)
    return results


def check_name(name: str) -> str:
    """The name, if an archive can have an object of it; ValueError otherwise: no name ever leads out of a store."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"no object can be called {name!r}")
    return name
