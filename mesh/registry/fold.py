"""What the registry's log adds up to, for all that keeps and restores a log. See `mesh.fold`."""

from __future__ import annotations

from functools import partial

from mesh.fold import Fold, Stepwise
from mesh.registry.checkpoint import from_documents, to_documents
from mesh.registry.evolve import evolve
from mesh.registry.state import RegistryState, state_hash

REGISTRY_FOLDER = "registry/"
"""Where the registry's log is, beside that of the meshes: under etcd's key prefix, and in the archive."""


def _same(one: RegistryState, other: RegistryState) -> bool:
    return state_hash(one) == state_hash(other)


REGISTRY_FOLD: Fold[RegistryState] = Fold(
    name="registry",
    initial=RegistryState,
    evolve=evolve,
    draft=partial(Stepwise, evolve),
    state_hash=state_hash,
    to_documents=to_documents,
    from_documents=from_documents,
    same=_same,
    items=lambda folded: len(folded.tokens) + sum(map(len, folded.instances.values())),
)
