"""Meshes in few words: each function gives a resource's key and spec, to be handed to `World.mesh`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.traffic.world import GATEWAY, Declared, Spec, key

PORT = 8080


def listener(port: int = PORT, protocol: str = "http", **members: Any) -> dict[str, Any]:
    return {"portMapping": {"port": port, "protocol": protocol}, **members}


def node(
    name: str,
    *listeners: Spec,
    host: str | None = None,
    backends: Sequence[str | Spec] = (),
    dns: Spec | None = None,
    **members: Any,
) -> Declared:
    """A virtual node; `backends` are names of virtual services, or whole backends."""
    spec: dict[str, Any] = {"listeners": list(listeners), **members}
    if host is not None:
        spec["serviceDiscovery"] = {"dns": {"hostname": host, **(dns or {})}}
    if backends:
        spec["backends"] = [
            {"virtualService": {"virtualServiceName": each}} if isinstance(each, str) else each for each in backends
        ]
    return key("virtualNode", name), spec


def backend(service: str, policy: Spec | None = None) -> dict[str, Any]:
    return {"virtualService": {"virtualServiceName": service, **({"clientPolicy": policy} if policy else {})}}


def router(name: str, *listeners: Spec) -> Declared:
    return key("virtualRouter", name), {"listeners": list(listeners or (listener(),))}


def service(name: str, *, node: str | None = None, router: str | None = None) -> Declared:
    if node is not None:
        return key("virtualService", name), {"provider": {"virtualNode": {"virtualNodeName": node}}}
    if router is not None:
        return key("virtualService", name), {"provider": {"virtualRouter": {"virtualRouterName": router}}}
    return key("virtualService", name), {}


def route(
    router: str,
    to: str | Mapping[str, int] | Sequence[Spec],
    match: Spec | None = None,
    *,
    name: str = "all",
    kind: str = "http",
    priority: int | None = None,
    **members: Any,
) -> Declared:
    """A route of `router`; `to` is one target, weights by target, or whole weighted targets."""
    if isinstance(to, str):
        to = {to: 1}
    if isinstance(to, Mapping):
        to = [{"virtualNode": target, "weight": weight} for target, weight in to.items()]
    body: dict[str, Any] = {"action": {"weightedTargets": list(to)}, **members}
    if match is None:
        match = {"http": {"prefix": "/"}, "http2": {"prefix": "/"}}.get(kind, {})
    if match or kind != "tcp":
        body["match"] = match
    spec: dict[str, Any] = {f"{kind}Route": body}
    if priority is not None:
        spec["priority"] = priority
    return key("route", name, router), spec


def gateway(*listeners: Spec, **members: Any) -> Declared:
    return key("virtualGateway", GATEWAY), {"listeners": list(listeners or (listener(8088),)), **members}


def gateway_route(
    to: str,
    match: Spec | None = None,
    *,
    name: str = "all",
    kind: str = "http",
    rewrite: Spec | None = None,
    port: int | None = None,
    priority: int | None = None,
) -> Declared:
    """A gateway route of the world's gateway to virtual service `to`."""
    target: dict[str, Any] = {"virtualService": {"virtualServiceName": to}}
    if port is not None:
        target["port"] = port
    action: dict[str, Any] = {"target": target, **({"rewrite": rewrite} if rewrite else {})}
    if match is None:
        match = {} if kind == "grpc" else {"prefix": "/"}
    spec: dict[str, Any] = {f"{kind}Route": {"match": match, "action": action}}
    if priority is not None:
        spec["priority"] = priority
    return key("gatewayRoute", name, GATEWAY), spec


def seconds(value: int) -> dict[str, Any]:
    return {"unit": "s", "value": value}


def millis(value: int) -> dict[str, Any]:
    return {"unit": "ms", "value": value}
