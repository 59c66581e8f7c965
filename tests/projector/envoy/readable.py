"""Compiled resources as people read them: JSON with every extension spelled out."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from projector.envoy.protos import cluster, endpoint, listener, route
from projector.snapshot import TYPE_CLUSTER, TYPE_ENDPOINT, TYPE_LISTENER, TYPE_ROUTE, NodeSnapshot, XdsResource

_MESSAGES: dict[str, Any] = {
    TYPE_CLUSTER: cluster.Cluster,
    TYPE_ENDPOINT: endpoint.ClusterLoadAssignment,
    TYPE_LISTENER: listener.Listener,
    TYPE_ROUTE: route.RouteConfiguration,
}


def message(resource: XdsResource) -> Any:
    """The resource as its message class."""
    return _MESSAGES[resource.type_url].parse(resource.body)


@lru_cache(maxsize=4096)
def as_json(resource: XdsResource) -> dict[str, Any]:
    """The resource as Envoy's JSON. Not to be changed: parsing is slow, so it is remembered."""
    # betterproto2 makes `consecutive5Xx` of what Envoy's JSON calls `consecutive5xx`.
    found: dict[str, Any] = json.loads(json.dumps(message(resource).to_dict()).replace('5Xx": ', '5xx": '))
    return found


def document(snapshot: NodeSnapshot) -> str:
    """A whole snapshot, one resource after the other, alarms first."""
    resources = {
        f"{url.rsplit('.', 1)[-1]} {name}": as_json(found) for (url, name), found in snapshot.resources.items()
    }
    whole = {"node": str(snapshot.node), "alarms": list(snapshot.alarms), "resources": resources}
    return json.dumps(whole, indent=2) + "\n"


def vhosts(snapshot: NodeSnapshot, name: str) -> dict[str, dict[str, Any]]:
    """The virtual hosts of a route configuration by name."""
    found = as_json(snapshot.resources[TYPE_ROUTE, name])
    return {vhost["name"]: vhost for vhost in found.get("virtualHosts", [])}


def of_type(snapshot: NodeSnapshot, type_url: str) -> dict[str, dict[str, Any]]:
    return {name: as_json(found) for name, found in snapshot.of_type(type_url).items()}


def cluster_references(snapshot: NodeSnapshot) -> set[str]:
    """Every cluster that a route or a TCP chain of the snapshot names."""
    found: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("cluster"), str):
                found.add(value["cluster"])
            found.update(entry["name"] for entry in value.get("weightedClusters", {}).get("clusters", ()))
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    for kind in (TYPE_ROUTE, TYPE_LISTENER):
        walk(list(of_type(snapshot, kind).values()))
    return found


def route_references(snapshot: NodeSnapshot) -> set[str]:
    """Every route configuration that a listener of the snapshot names."""
    text = json.dumps(list(of_type(snapshot, TYPE_LISTENER).values()))
    return {part.split('"', 1)[0] for part in text.split('"routeConfigName": "')[1:]}
