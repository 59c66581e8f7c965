"""What a log adds up to, whichever log it is: what replicas, checkpoints, archives and restores need of it.

Two logs are folded by the same code: that of the meshes (`MESH_FOLD`), and the registry's. A `Fold`
says how each begins, goes on, is hashed and is written down; nothing above asks which one it has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol

from typing_extensions import TypeVar

from mesh import checkpoint, draft, evolve, state
from mesh.checkpoint import Documents
from mesh.events import Happened
from mesh.position import Position
from mesh.state import State


class Timed(Protocol):
    """What any log's state tells: up to where it is folded, when that was written, and of which level it is."""

    @property
    def position(self) -> Position: ...

    @property
    def time_us(self) -> int: ...

    @property
    def level(self) -> int: ...

    @property
    def lineage(self) -> tuple[Position, ...]: ...


S = TypeVar("S", bound=Timed, default=State)
"""A log's state; where nothing is said, that of the meshes."""

S_co = TypeVar("S_co", bound=Timed, covariant=True, default=State)
"""The same, where it only comes out."""


class Drafted(Protocol[S_co]):
    """A state being folded in bulk: `mesh.draft.Draft`, or `Stepwise`."""

    @property
    def position(self) -> Position: ...

    def fold(self, event: Happened) -> None:
        """Fold one event, which must come after `position`; Poison leaves what was before it."""
        ...

    def state(self) -> S_co:
        """The state after the last event folded. The draft can be folded on."""
        ...


class FromDocuments(Protocol[S_co]):
    """Documents to a state, as `mesh.checkpoint.from_documents`."""

    def __call__(self, config: Any, secrets: Any | None, *, verify: bool = True) -> S_co: ...


@dataclass(frozen=True, slots=True)
class Fold(Generic[S]):
    """One kind of log, by its name. All of it is pure.

    `same` compares to the last field, what only the API role can open included, which the hash leaves out. `items` is
    about how much memory a state holds on to, in entries.
    """

    name: str
    initial: Callable[[], S]
    evolve: Callable[[S, Happened], S]
    draft: Callable[[S], Drafted[S]]
    state_hash: Callable[[S], str]
    to_documents: Callable[[S], Documents]
    from_documents: FromDocuments[S]
    same: Callable[[S, S], bool]
    items: Callable[[S], int]


class Stepwise(Generic[S]):
    """A draft that goes event by event: for a log whose histories are short."""

    def __init__(self, evolve: Callable[[S, Happened], S], base: S) -> None:
        self._evolve, self._state = evolve, base

    @property
    def position(self) -> Position:
        return self._state.position

    def fold(self, event: Happened) -> None:
        self._state = self._evolve(self._state, event)

    def state(self) -> S:
        return self._state


def _same(one: State, other: State) -> bool:
    secrets = one.access_keys == other.access_keys and one.authority_keys == other.authority_keys
    return secrets and state.state_hash(one) == state.state_hash(other)


MESH_FOLD: Fold[State] = Fold(
    name="mesh",
    initial=State,
    evolve=evolve.evolve,
    draft=draft.Draft,
    state_hash=state.state_hash,
    to_documents=checkpoint.to_documents,
    from_documents=checkpoint.from_documents,
    same=_same,
    items=lambda folded: len(folded.tokens) + len(folded.resources),
)
"""The log of the meshes, and of who may change them."""
