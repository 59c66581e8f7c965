"""What the write path has to know of a log's commands: how they are decided, written and answered. Values only.

The same machinery (`api.group_commit`) writes the log of the meshes (`MESH_DOMAIN`) and the registry's
(`REGISTRY_DOMAIN`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol

from typing_extensions import TypeVar

from mesh.commands import Command, Context, Create
from mesh.decide import decide
from mesh.events import SCHEMAS, SECRET_TYPES, NewEvent
from mesh.fold import MESH_FOLD, Fold, S
from mesh.frozen import Frozen
from mesh.position import Position
from mesh.registry import decide as registry_decide
from mesh.registry import events as registry_events
from mesh.registry.commands import RegistryCommand
from mesh.registry.fold import REGISTRY_FOLD
from mesh.registry.state import RegistryState
from mesh.registry.state import TokenEntry as RegistryTokenEntry
from mesh.state import Resource, State, TokenEntry

C = TypeVar("C", default=Command)
"""A log's commands."""
R = TypeVar("R", default=Resource)
"""What a command's answer is of, as the log remembers it for its token."""
_R_co = TypeVar("_R_co", covariant=True)


class Remembered(Protocol[_R_co]):
    """The answer that a log keeps for a token."""

    @property
    def body(self) -> bytes: ...

    @property
    def position(self) -> Position: ...

    @property
    def outcome(self) -> _R_co | None: ...


class Decision(Protocol[_R_co]):
    """See `mesh.decide.Decision`."""

    @property
    def events(self) -> Sequence[NewEvent]: ...

    @property
    def replay(self) -> Remembered[_R_co] | None: ...


@dataclass(frozen=True, slots=True)
class Domain(Generic[S, C, R]):
    """One log's. `unchanged` is what a command that changes nothing is answered with; `draws_uid` says which commands
    need a fresh id. `secret_types` are sealed for the API role alone.
    """

    fold: Fold[S]
    decide: Callable[[S, C, Context], Decision[R]]
    schemas: Mapping[str, int]
    secret_types: frozenset[str]
    remembered: Callable[[S, bytes], Remembered[R] | None]
    unchanged: Callable[[S, C], R | None]
    draws_uid: Callable[[C], bool]


def _remembered(state: State, digest: bytes) -> TokenEntry | None:
    return state.tokens.get(digest)


def _unchanged(state: State, command: Command) -> Resource | None:
    key = getattr(command, "key", None)
    return state.get(key) if key else None


MESH_DOMAIN: Domain[State, Command, Resource] = Domain(
    fold=MESH_FOLD,
    decide=decide,
    schemas=SCHEMAS,
    secret_types=SECRET_TYPES,
    remembered=_remembered,
    unchanged=_unchanged,
    draws_uid=lambda command: isinstance(command, Create),
)


def _registry_remembered(state: RegistryState, digest: bytes) -> RegistryTokenEntry | None:
    return state.tokens.get(digest)


def _no_outcome(state: RegistryState, command: RegistryCommand) -> None:  # noqa: ARG001 - a `Domain.unchanged`
    return None


REGISTRY_DOMAIN: Domain[RegistryState, RegistryCommand, Frozen] = Domain(
    fold=REGISTRY_FOLD,
    decide=registry_decide.decide,
    schemas=registry_events.SCHEMAS,
    secret_types=frozenset(),
    remembered=_registry_remembered,
    unchanged=_no_outcome,
    draws_uid=lambda command: False,  # noqa: ARG005 - ids come of the token and the position
)
