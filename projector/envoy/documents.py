"""Finished Envoy resources as documents for people, secrets left out (I6)."""

from __future__ import annotations

from typing import Any

import betterproto2

from projector.envoy import protos
from projector.snapshot import TYPE_CLUSTER, TYPE_ENDPOINT, TYPE_LISTENER, TYPE_ROUTE, XdsResource

_MESSAGES: dict[str, type[betterproto2.Message]] = {
    TYPE_CLUSTER: protos.cluster.Cluster,
    TYPE_ENDPOINT: protos.endpoint.ClusterLoadAssignment,
    TYPE_LISTENER: protos.listener.Listener,
    TYPE_ROUTE: protos.route.RouteConfiguration,
}
"""A secret is in no such table: of it only name and version are told."""

_SECRET = "(secret)"  # noqa: S105 - what stands in its place
_SECRET_MEMBERS = ("privateKey", "password", "sessionTicketKeys")


def spelled(type_url: str, name: str) -> str:
    """`Cluster/<name>`: how people name an Envoy resource."""
    return f"{type_url.rpartition('.')[2]}/{name}"


def side(resource: XdsResource | None) -> dict[str, Any] | None:
    """{version, spec}; None where there is none."""
    if resource is None:
        return None
    message = _MESSAGES.get(resource.type_url)
    document = _SECRET if message is None else redacted(message.parse(resource.body).to_dict())
    return {"version": resource.version, "spec": document}


def redacted(value: Any) -> Any:
    """The same without what is secret."""
    if isinstance(value, dict):
        return {
            name: _SECRET if name in _SECRET_MEMBERS and _inline(part) else redacted(part)
            for name, part in value.items()
        }
    return [redacted(part) for part in value] if isinstance(value, list) else value


def _inline(source: Any) -> bool:
    """Whether a data source holds the secret itself, and not the name of the file that has it."""
    return not (isinstance(source, dict) and source.keys() == {"filename"})
