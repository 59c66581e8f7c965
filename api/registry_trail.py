"""Changes of the registry as CloudTrail tells Cloud Map's calls: who registered what, from where. Pure.

Attributes and tags are never told (`api.trail`): they may hold anything. What Meshlog itself writes (heartbeats that
fell silent, what is copied from elsewhere) is told by the event's own name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from api.trail import CLOUD_MAP_SOURCE, accepted_call, event_id
from mesh.events import Event
from mesh.principals import AccessKey
from mesh.registry.events import (
    HEALTH_REPORTED,
    INSTANCE_DEREGISTERED,
    INSTANCE_REGISTERED,
    NAMESPACE_CREATED,
    NAMESPACE_DELETED,
    NAMESPACE_UPDATED,
    SERVICE_ATTRIBUTES_CHANGED,
    SERVICE_CREATED,
    SERVICE_DELETED,
    SERVICE_UPDATED,
    TAGS_CHANGED,
)

_OPERATIONS: Mapping[str, str] = {
    NAMESPACE_UPDATED: "UpdateNamespace",
    NAMESPACE_DELETED: "DeleteNamespace",
    SERVICE_CREATED: "CreateService",
    SERVICE_UPDATED: "UpdateService",
    SERVICE_DELETED: "DeleteService",
    INSTANCE_REGISTERED: "RegisterInstance",
    INSTANCE_DEREGISTERED: "DeregisterInstance",
    HEALTH_REPORTED: "UpdateInstanceCustomHealthStatus",
}
_CREATES: Mapping[str, str] = {
    "HTTP": "CreateHttpNamespace",
    "DNS_PRIVATE": "CreatePrivateDnsNamespace",
    "DNS_PUBLIC": "CreatePublicDnsNamespace",
}


def registry_call(event: Event, region: str, keys: Iterable[AccessKey]) -> dict[str, Any]:
    """The document of a call that is in the registry's log."""
    operation = _operation(event.type, event.data or {})
    told = accepted_call(event, region, keys) | {
        "requestParameters": _names(event.data or {}) or None,
        "responseElements": {"position": str(event.position), "log": "registry"},
        "eventID": event_id("registry", str(event.position), event.request_id),
    }
    return told | ({"eventSource": CLOUD_MAP_SOURCE, "eventName": operation} if operation else {})


def _operation(kind: str, data: Mapping[str, Any]) -> str | None:
    """Cloud Map's name of what was called; None for what no caller asked for."""
    if kind == NAMESPACE_CREATED:
        return _CREATES.get(data["type"], "CreateNamespace")
    if kind == SERVICE_ATTRIBUTES_CHANGED:
        return "UpdateServiceAttributes" if data["set"] else "DeleteServiceAttributes"
    if kind == TAGS_CHANGED:
        return "TagResource" if data["set"] else "UntagResource"
    return _OPERATIONS.get(kind)


def _names(data: Mapping[str, Any]) -> dict[str, Any]:
    """What it is about, by name: [account, namespace] or [account, namespace, service], and the instances."""
    place = data.get("service") or data.get("namespace") or data.get("of") or ()
    names = dict(zip(("namespaceName", "serviceName"), place[1:], strict=False))
    if "instance" in data:
        names["instanceId"] = data["instance"]
    instances = data.get("instances") or [*(each[0] for each in data.get("put", ())), *data.get("removed", ())]
    return names | ({"instanceIds": list(instances)} if instances else {})
