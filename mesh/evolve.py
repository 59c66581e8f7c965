"""Events to state (signature first; body follows)."""

from __future__ import annotations

from mesh.events import Event
from mesh.state import State


def evolve(state: State, event: Event) -> State:
    raise NotImplementedError
