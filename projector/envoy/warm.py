"""A first compilation of a mesh that exists nowhere: Envoy's message classes build themselves on first use.

That takes a second or more of one core. A projector pays it before it is ready, so that no proxy waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from identity.node_id import NodeId
from mesh.events import RESOURCE_CREATED, SCHEMAS, Event
from mesh.evolve import evolve
from mesh.kinds import VIRTUAL_GATEWAY, VIRTUAL_NODE, ResourceKey
from mesh.position import Position
from mesh.state import State
from projector.envoy.compiler import Compiler

_ACCOUNT, _MESH = "000000000000", "sample"
_PORT = {"portMapping": {"port": 8080, "protocol": "http"}}
_TARGET = {"weightedTargets": [{"virtualNode": "node", "weight": 1}]}
_SERVICE = {"virtualService": {"virtualServiceName": "service"}}
_TRUST = {"trust": {"file": {"certificateChain": "ca"}}, "subjectAlternativeNames": {"match": {"exact": ["a"]}}}
_TLS = {"mode": "STRICT", "certificate": {"sds": {"secretName": "secret"}}, "validation": _TRUST}
_SAMPLE: tuple[tuple[str, str, str, Mapping[str, Any]], ...] = (
    ("mesh", "", _MESH, {}),
    (
        "virtualNode",
        "",
        "node",
        {"listeners": [_PORT], "serviceDiscovery": {"dns": {"hostname": "a.example"}}, "backends": [_SERVICE]},
    ),
    ("virtualRouter", "", "router", {"listeners": [_PORT]}),
    ("route", "router", "route", {"httpRoute": {"match": {"prefix": "/"}, "action": _TARGET}}),
    ("virtualService", "", "service", {"provider": {"virtualRouter": {"virtualRouterName": "router"}}}),
    (
        "virtualGateway",
        "",
        "gateway",
        {"listeners": [{**_PORT, "tls": _TLS}], "backendDefaults": {"clientPolicy": {"tls": {"validation": _TRUST}}}},
    ),
    ("gatewayRoute", "gateway", "route", {"httpRoute": {"match": {"prefix": "/a"}, "action": {"target": _SERVICE}}}),
)


def warm_up(compiler: Compiler) -> int:
    """Compile the sample's node and gateway with `compiler` and forget them; returns how many resources were made."""
    state = State()
    for position, (kind, parent, name, spec) in enumerate(_SAMPLE, start=1):
        key = ResourceKey(_ACCOUNT, _MESH, kind, parent, name)
        state = evolve(state, _created(Position(1, position), key, spec))
    made = 0
    for kind, name in ((VIRTUAL_NODE.name, "node"), (VIRTUAL_GATEWAY.name, "gateway")):
        node = NodeId(_ACCOUNT, _MESH, kind, name)
        snapshot = compiler.compile(state, node)
        made += len(snapshot.resources) if snapshot else 0
        compiler.forget(node)
    return made


def _created(position: Position, key: ResourceKey, spec: Mapping[str, Any]) -> Event:
    return Event(
        position=position,
        time_us=0,
        wall_us=0,
        type=RESOURCE_CREATED,
        schema=SCHEMAS[RESOURCE_CREATED],
        account=_ACCOUNT,
        actor="",
        source_ip="",
        request_id="",
        token=None,
        data={"key": list(key), "uid": str(position), "owner": _ACCOUNT, "spec": spec, "tags": {}},
    )
