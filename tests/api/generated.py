"""Requests made out of the model: input that App Mesh must take, whatever the operation.

`inputs` draws what is sound by the model, then mended where a rule beyond it would object, with references to the
`WORLD` only. `tests.api.violations` breaks it again, one constraint at a time.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

import hypothesis.strategies as st

from mesh.kinds import GATEWAY_ROUTE, KINDS, ROUTE, VIRTUAL_GATEWAY, VIRTUAL_NODE, VIRTUAL_ROUTER, VIRTUAL_SERVICE
from mesh.model.operations import CREATE, DELETE, DESCRIBE, OPERATIONS, SHAPES, UPDATE, Operation
from tests.api.conftest import ACCOUNT

MESH_NAME = "world"
LISTENER = {"portMapping": {"port": 8080, "protocol": "http"}}
NODES, ROUTER, SERVICE, GATEWAY = ("n0", "n1", "n2", "n3"), "r", "s.local", "g"
WORLD: tuple[tuple[str, dict[str, Any]], ...] = (
    ("CreateMesh", {"meshName": MESH_NAME}),
    *(("CreateVirtualNode", {"meshName": MESH_NAME, "virtualNodeName": node, "spec": {}}) for node in NODES),
    ("CreateVirtualRouter", {"meshName": MESH_NAME, "virtualRouterName": ROUTER, "spec": {"listeners": [LISTENER]}}),
    ("CreateVirtualService", {"meshName": MESH_NAME, "virtualServiceName": SERVICE, "spec": {}}),
    ("CreateVirtualGateway", {"meshName": MESH_NAME, "virtualGatewayName": GATEWAY, "spec": {"listeners": [LISTENER]}}),
)
"""What generated specs may refer to, as calls in order."""

EXISTING = {
    "meshName": MESH_NAME,
    "virtualNodeName": NODES[0],
    "virtualRouterName": ROUTER,
    "virtualServiceName": SERVICE,
    "virtualGatewayName": GATEWAY,
}
_ARN = f"arn:aws:appmesh:eu-north-1:{ACCOUNT}:mesh/{MESH_NAME}"
ARNS = (_ARN, f"{_ARN}/virtualNode/{NODES[0]}", f"{_ARN}/virtualService/{SERVICE}", f"{_ARN}/virtualGateway/{GATEWAY}")

ROUTES = ("httpRoute", "http2Route", "grpcRoute", "tcpRoute")
RETRY_EVENTS = ("server-error", "gateway-error", "client-error", "stream-error")
HEALTH_CHECKS = {"http": "http", "http2": "grpc", "grpc": "http2", "tcp": "tcp"}

_TEXT = st.characters(min_codepoint=0x21, max_codepoint=0x24F, exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp"))
_NAME = string.ascii_letters + string.digits + "-_."
INTEGERS = {"integer": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
_SHORT = 12


# --- valid input


def inputs(operation: Operation) -> st.SearchStrategy[dict[str, Any]]:
    """Input of a create or an update of the resource `x`, that must be taken."""
    assert operation.verb in (CREATE, UPDATE)
    assert operation.kind is not None
    kind = operation.kind.name
    names = {"meshName": MESH_NAME, operation.kind.name_member: "x"}
    if operation.kind.parent:
        names[KINDS[operation.kind.parent].name_member] = ROUTER if operation.kind is ROUTE else GATEWAY
    free: dict[str, st.SearchStrategy[Any]] = {"spec": specs(kind)}
    if operation.verb == CREATE:
        tag = st.text(_NAME, min_size=1, max_size=128).filter(lambda key: not key.lower().startswith("aws:"))
        values = st.dictionaries(tag, st.text(_TEXT, max_size=_SHORT), max_size=3)
        free["tags"] = values.map(lambda tags: [{"key": key, "value": value} for key, value in tags.items()])
    return st.fixed_dictionaries({name: st.just(value) for name, value in names.items()} | free)


def other_inputs(operation: Operation) -> st.SearchStrategy[dict[str, Any]]:
    """Input of a list, a describe or a tag operation on the `WORLD`, that must be taken."""
    kind, shape = operation.kind, SHAPES[operation.input_shape]["members"]
    members: dict[str, st.SearchStrategy[Any]] = {
        name: st.just(value) for name, value in EXISTING.items() if name in shape and kind is not None
    }
    if kind is None:
        members["resourceArn"] = st.sampled_from(ARNS)
    if "tags" in shape:
        keys = st.sampled_from(["k", "team", "Käse", "a/b"])
        tags = st.dictionaries(keys, st.text(_TEXT, max_size=_SHORT))
        members["tags"] = tags.map(lambda found: [{"key": key, "value": value} for key, value in found.items()])
    if "tagKeys" in shape:
        members["tagKeys"] = st.lists(st.text(_NAME, min_size=1, max_size=_SHORT), max_size=3)
    optional = {"limit": st.integers(1, 50)} if "limit" in shape else {}
    return st.fixed_dictionaries(members, optional=optional)


@cache
def specs(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    """Specifications of that kind."""
    mend = _MEND.get(kind, lambda spec: spec)
    return _shape(f"{KINDS[kind].title}Spec").map(mend)


@cache
def _shape(name: str) -> st.SearchStrategy[Any]:
    shape = SHAPES[name]
    match shape["type"]:
        case "structure":
            members = {member: _shape(fact["shape"]) for member, fact in shape["members"].items()}
            if shape.get("union"):
                return st.one_of(*(st.fixed_dictionaries({member: each}) for member, each in members.items()))
            required = {member: members[member] for member in shape.get("required", ())}
            optional = {member: each for member, each in members.items() if member not in required}
            return st.fixed_dictionaries(required, optional=optional)
        case "list":
            most = min(shape.get("max", 3), max(3, shape.get("min", 0)))
            return st.lists(_shape(shape["member"]), min_size=shape.get("min", 0), max_size=most)
        case "string":
            return _string(name, shape)
        case "boolean":
            return st.booleans()
        case kind:
            lowest, highest = INTEGERS[kind]
            return st.integers(shape.get("min", lowest), shape.get("max", highest))


def _string(name: str, shape: Mapping[str, Any]) -> st.SearchStrategy[str]:
    if "enum" in shape:
        return st.sampled_from(shape["enum"])
    if name == "HttpRetryPolicyEvent":
        return st.sampled_from(RETRY_EVENTS)
    least, most = shape.get("min", 0), shape.get("max", 300)
    if "pattern" in shape:
        return st.text(_NAME, min_size=least, max_size=_SHORT)
    short = st.text(_TEXT, min_size=least, max_size=min(most, _SHORT))
    return short | st.sampled_from([least or 1, most]).map(lambda length: "x" * length)


def _virtual_node(spec: dict[str, Any]) -> dict[str, Any]:
    _proxied(spec)
    names: set[str] = set()
    for index, backend in enumerate(spec.get("backends") or ()):
        service = backend["virtualService"]
        if service["virtualServiceName"] in names:
            service["virtualServiceName"] = f"{service['virtualServiceName'][:200]}{index}"
        names.add(service["virtualServiceName"])
    if spec.get("listeners"):
        spec.setdefault("serviceDiscovery", {"dns": {"hostname": "x.local"}})
    return spec


def _proxied(spec: dict[str, Any]) -> dict[str, Any]:
    file = ((spec.get("logging") or {}).get("accessLog") or {}).get("file") or {}
    form = file.get("format") or {}
    if "text" in form:
        form["text"] = form["text"].replace("%", "-")
    for each in form.get("json") or ():
        each["value"] = each["value"].replace("%", "-")
    return _listeners(spec)


def _listeners(spec: dict[str, Any]) -> dict[str, Any]:
    taken: set[int] = set()
    for listener in spec.get("listeners") or ():
        mapping = listener["portMapping"]
        while mapping["port"] in taken:
            mapping["port"] = mapping["port"] % 65535 + 1
        taken.add(mapping["port"])
        protocol = mapping["protocol"]
        check = listener.get("healthCheck")
        if check is not None:
            if "port" in check:
                check["port"] = mapping["port"]
            if check["protocol"] not in (protocol, HEALTH_CHECKS[protocol], "tcp"):
                check["protocol"] = protocol
        for member in ("timeout", "connectionPool"):
            if member in listener and protocol not in listener[member]:
                del listener[member]
    return spec


def _route(spec: dict[str, Any]) -> dict[str, Any]:
    _one_route(spec, ROUTES)
    for name in ROUTES:
        route = spec.get(name)
        if route is None:
            continue
        weights = 0
        for index, target in enumerate(route["action"]["weightedTargets"]):
            target["virtualNode"] = NODES[index % len(NODES)]
            target["weight"] = min(target["weight"], 100 - weights)
            weights += target["weight"]
        _match(route.get("match") or {})
        policy = route.get("retryPolicy")
        if policy is not None and not any(f"{layer}RetryEvents" in policy for layer in ("http", "tcp", "grpc")):
            policy["tcpRetryEvents"] = ["connection-error"]
    return spec


def _gateway_route(spec: dict[str, Any]) -> dict[str, Any]:
    _one_route(spec, ROUTES[:-1])
    for name in ROUTES[:-1]:
        route = spec.get(name)
        if route is not None:
            route["action"]["target"]["virtualService"]["virtualServiceName"] = SERVICE
            _match(route["match"])
            rewrite = route["action"].get("rewrite") or {}
            if "prefix" in rewrite and "path" in rewrite:
                del rewrite["path"]
    return spec


def _one_route(spec: dict[str, Any], names: tuple[str, ...]) -> None:
    given = [name for name in names if name in spec]
    for name in given[1:]:
        del spec[name]
    if not given:
        action = {"weightedTargets": [{"virtualNode": NODES[0], "weight": 1}]}
        target = {"target": {"virtualService": {"virtualServiceName": SERVICE}}}
        spec["httpRoute"] = {"match": {"prefix": "/"}, "action": target if names == ROUTES[:-1] else action}


def _match(match: dict[str, Any]) -> None:
    if "path" in match:
        match.pop("prefix", None)
        _regex(match["path"])
    if "prefix" in match:
        match["prefix"] = "/" + match["prefix"][1:].replace("aws", "x")
    if "methodName" in match:
        match.setdefault("serviceName", "a.B")
    for member in ("headers", "metadata"):
        for header in match.get(member) or ():
            _regex(header.get("match") or {})
            bounds = (header.get("match") or {}).get("range")
            if bounds and bounds["start"] >= bounds["end"]:
                bounds["start"], bounds["end"] = min(bounds["end"], 2**63 - 2), max(bounds["start"], -(2**63) + 1)
                bounds["end"] += bounds["start"] == bounds["end"]


def _regex(condition: dict[str, Any]) -> None:
    if "regex" in condition:
        condition["regex"] = "".join(letter if letter.isalnum() else "." for letter in condition["regex"])


def _virtual_service(spec: dict[str, Any]) -> dict[str, Any]:
    provider = spec.get("provider") or {}
    if "virtualNode" in provider:
        provider["virtualNode"]["virtualNodeName"] = NODES[0]
    if "virtualRouter" in provider:
        provider["virtualRouter"]["virtualRouterName"] = ROUTER
    return spec


_MEND = {
    VIRTUAL_NODE.name: _virtual_node,
    VIRTUAL_ROUTER.name: _listeners,
    VIRTUAL_GATEWAY.name: _proxied,
    ROUTE.name: _route,
    GATEWAY_ROUTE.name: _gateway_route,
    VIRTUAL_SERVICE.name: _virtual_service,
}


# --- on the wire


def target_and_body(operation: Operation, members: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Path with query string, and body, of a call with this input."""
    path = operation.uri
    for member, name in operation.path_members.items():
        path = path.replace(f"{{{name}}}", quote(str(members[member]), safe="-_.~"))
    query = {name: members[member] for member, name in operation.query_members.items() if member in members}
    placed = operation.path_members.keys() | operation.query_members.keys()
    body = {member: value for member, value in members.items() if member not in placed}
    return path + (f"?{urlencode(query)}" if query else ""), body


WRITES = tuple(operation for operation in OPERATIONS.values() if operation.verb in (CREATE, UPDATE))
"""The operations that carry a specification."""
OTHERS = tuple(
    operation
    for operation in OPERATIONS.values()
    if operation.verb not in (CREATE, UPDATE, DELETE)
    and not (operation.verb == DESCRIBE and operation.kind in (ROUTE, GATEWAY_ROUTE))
)
"""Those that can be repeated on the `WORLD`: nothing in it has routes."""
