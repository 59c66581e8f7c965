"""The fold as `eventlog` checks may use it: states stay in here, only their hashes come out."""

from __future__ import annotations

from typing import Generic

from eventlog.checkpoints import OpenCheckpoint
from eventlog.records import Record
from mesh.fold import Fold, S


class StateFold(Generic[S]):
    """A `record_walk.Fold` that folds in bulk: a state is made only where its hash is asked for."""

    def __init__(self, fold: Fold[S]) -> None:
        self._fold = fold
        self._draft = fold.draft(fold.initial())

    def begin(self, checkpoint: OpenCheckpoint | None) -> None:
        self._draft = self._fold.draft(self._fold.initial() if checkpoint is None else self._state(checkpoint))

    def apply(self, record: Record) -> None:
        self._draft.fold(record)

    def state_hash(self) -> str:
        return self._fold.state_hash(self._draft.state())

    def hash_of(self, checkpoint: OpenCheckpoint) -> str:
        return self._fold.state_hash(self._state(checkpoint))

    def _state(self, checkpoint: OpenCheckpoint) -> S:
        return self._fold.from_documents(checkpoint.config, checkpoint.secrets)
