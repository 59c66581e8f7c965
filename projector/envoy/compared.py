"""What a node's Envoys are given in two states, side by side: resources by name, as documents, secrets left out.

Both states are compiled here and now by one compiler, from the states alone: what a projector holds back because of an
alarm is not in it. Equal versions are equal bytes. Must never show a secret's content (I6).
"""

from __future__ import annotations

from typing import Any

from identity.node_id import NodeId
from mesh.registry.state import RegistryState
from mesh.state import State
from projector.envoy.compiler import NO_REGISTRY, Compiler
from projector.envoy.documents import side, spelled
from projector.snapshot import TYPES, ResourceSet


def compare(before: State, after: State, node: NodeId, registry: RegistryState = NO_REGISTRY) -> list[dict[str, Any]]:
    """[{resource: `Cluster/<name>`, change: created|updated|deleted, before, after}], in make-before-break order.

    Each of the two is {version, spec} or null. A node that a state does not have has no resources in it.
    """
    old, new = _compiled(before, node, registry), _compiled(after, node, registry)
    changes = []
    for key in sorted({*old, *new}, key=lambda key: (TYPES.index(key[0]), key[1])):
        was, now = old.get(key), new.get(key)
        if was is not None and now is not None and was.version == now.version:
            continue
        changes.append(
            {
                "resource": spelled(*key),
                "change": "created" if was is None else "deleted" if now is None else "updated",
                "before": side(was),
                "after": side(now),
            }
        )
    return changes


def _compiled(state: State, node: NodeId, registry: RegistryState) -> ResourceSet:
    snapshot = Compiler().compile(state, node, registry=registry)
    return snapshot.resources if snapshot is not None else {}
