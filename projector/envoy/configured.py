"""What a node's Envoys are given in one state, as documents: every resource, or one of them and why it is as it is.

Compiled here and now from the states alone: what a projector holds back because of an alarm is not in it. Must never
show a secret's content (I6).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from identity.node_id import NodeId
from mesh.registry.state import RegistryState
from mesh.state import State
from projector.envoy.compiler import Compiler
from projector.envoy.documents import side, spelled
from projector.envoy.explained import Explanation, explain


class Configured(NamedTuple):
    """`resources`: [{resource: `Cluster/<name>`, version, spec}] in make-before-break order (`spec` if asked for)."""

    resources: list[dict[str, Any]]
    alarms: tuple[str, ...]


class Explained(NamedTuple):
    """One resource as in `Configured`, and why."""

    resource: dict[str, Any]
    explanation: Explanation


def configured(state: State, registry: RegistryState, node: NodeId, *, specs: bool) -> Configured | None:
    """All that the node is given; None where the state has no such node."""
    snapshot = Compiler().compile(state, node, registry=registry)
    if snapshot is None:
        return None
    found = [
        {"resource": spelled(*name), **((side(each) or {}) if specs else {"version": each.version})}
        for name, each in snapshot.resources.items()
    ]
    return Configured(found, snapshot.alarms)


def explained(state: State, registry: RegistryState, node: NodeId, resource: str) -> Explained | None:
    """One of the node's resources, named as in `Configured`; None where it has none of that name."""
    snapshot = Compiler().compile(state, node, registry=registry)
    by_name = {spelled(*name): name for name in snapshot.resources} if snapshot else {}
    name = by_name.get(resource)
    explanation = explain(state, node, name, registry) if name else None
    if snapshot is None or name is None or explanation is None:
        return None
    return Explained({"resource": resource, **(side(snapshot.resources[name]) or {})}, explanation)
