"""The fold as `eventlog` checks may use it: states stay in here, only their hashes come out."""

from __future__ import annotations

from eventlog.checkpoints import OpenCheckpoint
from eventlog.records import Record
from mesh.checkpoint import from_documents
from mesh.draft import Draft
from mesh.state import State, state_hash


class StateFold:
    """A `record_walk.Fold` that folds in bulk: a state is made only where its hash is asked for."""

    def __init__(self) -> None:
        self._draft = Draft(State())

    def begin(self, checkpoint: OpenCheckpoint | None) -> None:
        self._draft = Draft(State() if checkpoint is None else _state(checkpoint))

    def apply(self, record: Record) -> None:
        self._draft.fold(record)

    def state_hash(self) -> str:
        return state_hash(self._draft.state())

    def hash_of(self, checkpoint: OpenCheckpoint) -> str:
        return state_hash(_state(checkpoint))


def _state(checkpoint: OpenCheckpoint) -> State:
    return from_documents(checkpoint.config, checkpoint.secrets)
