"""What a node's Envoys are given in two states, side by side: resources by name, as documents, secrets left out.

Both states are compiled here and now by one compiler, from the states alone: what a projector holds back because of an
alarm is not in it. Equal versions are equal bytes. Must never show a secret's content (I6).
"""

from __future__ import annotations

from typing import Any

import betterproto2

from identity.node_id import NodeId
from mesh.state import State
from projector.envoy import protos
from projector.envoy.compiler import Compiler
from projector.snapshot import (
    TYPE_CLUSTER,
    TYPE_ENDPOINT,
    TYPE_LISTENER,
    TYPE_ROUTE,
    TYPES,
    ResourceSet,
    XdsResource,
)

_MESSAGES: dict[str, type[betterproto2.Message]] = {
    TYPE_CLUSTER: protos.cluster.Cluster,
    TYPE_ENDPOINT: protos.endpoint.ClusterLoadAssignment,
    TYPE_LISTENER: protos.listener.Listener,
    TYPE_ROUTE: protos.route.RouteConfiguration,
}
"""A secret is in no such table: of it only name and version are told."""

_SECRET = "(secret)"  # noqa: S105 - what stands in its place
_SECRET_MEMBERS = ("privateKey", "password", "sessionTicketKeys")


def compare(before: State, after: State, node: NodeId) -> list[dict[str, Any]]:
    """[{resource: `Cluster/<name>`, change: created|updated|deleted, before, after}], in make-before-break order.

    Each of the two is {version, spec} or null. A node that a state does not have has no resources in it.
    """
    old, new = _compiled(before, node), _compiled(after, node)
    changes = []
    for key in sorted({*old, *new}, key=lambda key: (TYPES.index(key[0]), key[1])):
        was, now = old.get(key), new.get(key)
        if was is not None and now is not None and was.version == now.version:
            continue
        changes.append(
            {
                "resource": f"{key[0].rpartition('.')[2]}/{key[1]}",
                "change": "created" if was is None else "deleted" if now is None else "updated",
                "before": _side(was),
                "after": _side(now),
            }
        )
    return changes


def _compiled(state: State, node: NodeId) -> ResourceSet:
    snapshot = Compiler().compile(state, node)
    return snapshot.resources if snapshot is not None else {}


def _side(resource: XdsResource | None) -> dict[str, Any] | None:
    if resource is None:
        return None
    message = _MESSAGES.get(resource.type_url)
    document = _SECRET if message is None else _redacted(message.parse(resource.body).to_dict())
    return {"version": resource.version, "spec": document}


def _redacted(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _SECRET if name in _SECRET_MEMBERS and _inline(part) else _redacted(part)
            for name, part in value.items()
        }
    return [_redacted(part) for part in value] if isinstance(value, list) else value


def _inline(source: Any) -> bool:
    """Whether a data source holds the secret itself, and not the name of the file that has it."""
    return not (isinstance(source, dict) and source.keys() == {"filename"})
