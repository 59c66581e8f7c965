"""Commands to events (signatures first; bodies follow)."""

from __future__ import annotations

from dataclasses import dataclass

from mesh.commands import Command, Context
from mesh.events import NewEvent
from mesh.state import State, TokenEntry


@dataclass(frozen=True, slots=True)
class Decision:
    """What a command leads to. `events` empty and `replay` None: nothing to change, nothing to write."""

    events: tuple[NewEvent, ...]
    replay: TokenEntry | None = None


def decide(state: State, command: Command, context: Context) -> Decision:
    raise NotImplementedError
