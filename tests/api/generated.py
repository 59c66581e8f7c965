"""Requests made out of the model: valid input for any shape, and every way to break exactly one of its constraints.

`inputs` draws what App Mesh must take: sound by the model, then mended where a rule beyond it would object, with
references to the `WORLD` only. `violations` walks such an input with its shape and yields, place by place, the same
input with one constraint broken, and the path that the refusal must name.
"""

from __future__ import annotations

import copy
import string
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple
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
_INTEGERS = {"integer": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
_SHORT = 12


class Broken(NamedTuple):
    """Input with one constraint broken, and where."""

    members: dict[str, Any]
    path: str


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
            lowest, highest = _INTEGERS[kind]
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


# --- one constraint broken


def violations(operation: Operation, members: dict[str, Any]) -> Iterator[Broken]:
    """`members` with each constraint of the model broken in turn, and each rule beyond it that there is one for."""
    for path, change in _breaks(operation.input_shape, members, ""):
        yield _broken(members, path, change)
    if operation in WRITES and operation.kind is not None and operation.kind.name in _RULE_BREAKS:
        for path, change in _RULE_BREAKS[operation.kind.name](members["spec"]):
            yield _broken(members, path, change)
    if operation.body_members:
        yield _broken(members, "colour", lambda top: top.update(colour="red"))
    if "clientToken" in operation.body_members:
        yield _broken(members, "clientToken", lambda top: top.update(clientToken="no spaces, please"))
    if "meshName" in members:
        yield _broken(members, "meshName", lambda top: top.update(meshName="a/b"))
    if "limit" in operation.query_members:
        for limit in (0, 101, "all", ""):
            yield _broken(members, "limit", _put(("limit",), limit))
        yield _broken(members, "nextToken", lambda top: top.update(nextToken="nonsense"))
    if "meshOwner" in operation.query_members:
        yield _broken(members, "meshOwner", lambda top: top.update(meshOwner="12345678901x"))


def _broken(members: dict[str, Any], path: str, change: Any) -> Broken:
    spoilt = copy.deepcopy(members)
    change(spoilt)
    return Broken(spoilt, path)


def _breaks(name: str, value: Any, path: str, steps: tuple[Any, ...] = ()) -> Iterator[tuple[str, Any]]:
    """(path that must be named, what does it) for the value and all within."""
    shape = SHAPES[name]
    kind = shape["type"]
    for wrong in _wrong_types(kind) if path else ():
        yield path, _put(steps, wrong)
    if kind == "structure":
        yield from _structure_breaks(shape, value, path, steps)
    elif kind == "list":
        yield from _list_breaks(shape, value, path, steps)
    else:
        for wrong in _wrong_values(shape):
            yield path, _put(steps, wrong)


def _structure_breaks(
    shape: Mapping[str, Any], value: Any, path: str, steps: tuple[Any, ...]
) -> Iterator[tuple[str, Any]]:
    for member, fact in shape["members"].items():
        below = f"{path}.{member}" if path else member
        if member not in value:
            continue
        if "location" in fact:  # a name in the URI: text whatever it is, and another URI without it
            yield below, _put((member,), "x" * 256)
            continue
        if member in shape.get("required", ()):
            yield below, _drop((*steps, member))
        yield from _breaks(fact["shape"], value[member], below, (*steps, member))
    if path:
        yield f"{path}.colour", _put((*steps, "colour"), "red")
    if shape.get("union"):
        yield path, _put(steps, {})
        other = next((member for member in shape["members"] if member not in value), None)
        if other is not None:
            yield path, _put((*steps, other), {})


def _list_breaks(shape: Mapping[str, Any], value: Any, path: str, steps: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    if shape.get("min", 0) > 0:
        yield path, _put(steps, [])
    if "max" in shape and value:
        yield path, _put(steps, (value * (shape["max"] + 1))[: shape["max"] + 1])
    for index, item in enumerate(value[:2]):
        yield from _breaks(shape["member"], item, f"{path}[{index}]", (*steps, index))


def _wrong_types(kind: str) -> tuple[Any, ...]:
    text, number = "eighty", 7
    return {
        "structure": (text, []),
        "list": (text, {}),
        "string": (number, {}, None),
        "boolean": ("yes", 1),
    }.get(kind, (text, 1.5, True))


def _wrong_values(shape: Mapping[str, Any]) -> Iterator[Any]:
    if shape["type"] == "string":
        if "enum" in shape:
            yield "smtp"
            return
        if shape.get("min", 0) > 0:
            yield ""
        if "max" in shape:
            yield "x" * (shape["max"] + 1)
        if "pattern" in shape:
            yield "ü"
    elif shape["type"] in _INTEGERS:
        lowest, highest = _INTEGERS[shape["type"]]
        yield shape.get("min", lowest) - 1
        yield shape.get("max", highest) + 1


def _put(steps: tuple[Any, ...], wrong: Any) -> Any:
    def change(top: dict[str, Any]) -> None:
        *above, last = steps
        _within(top, above)[last] = wrong

    return change


def _drop(steps: tuple[Any, ...]) -> Any:
    def change(top: dict[str, Any]) -> None:
        *above, last = steps
        del _within(top, above)[last]

    return change


def _within(top: Any, steps: list[Any]) -> Any:
    for step in steps:
        top = top[step]
    return top


def _listener_breaks(spec: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for index, listener in enumerate(spec.get("listeners") or ()):
        at, path = ("spec", "listeners", index), f"spec.listeners[{index}]"
        port = listener["portMapping"]["port"]
        if "healthCheck" in listener:
            yield f"{path}.healthCheck.port", _put((*at, "healthCheck", "port"), port % 65535 + 1)
        if listener["portMapping"]["protocol"] == "http" and "healthCheck" in listener:
            yield f"{path}.healthCheck.protocol", _put((*at, "healthCheck", "protocol"), "grpc")
        if index:
            first = spec["listeners"][0]["portMapping"]["port"]
            changed = {**listener["portMapping"], "port": first}
            yield f"{path}.portMapping.port", _put((*at, "portMapping"), changed)


def _proxied_breaks(spec: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from _listener_breaks(spec)
    if "text" in (((spec.get("logging") or {}).get("accessLog") or {}).get("file") or {}).get("format", {}):
        steps = ("spec", "logging", "accessLog", "file", "format", "text")
        yield ".".join(steps), _put(steps, "%NO_SUCH_COMMAND%")


def _node_breaks(spec: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from _proxied_breaks(spec)
    if spec.get("listeners"):
        yield "spec.serviceDiscovery", _drop(("spec", "serviceDiscovery"))
    if spec.get("backends"):
        twice = [spec["backends"][0], *spec["backends"]]
        yield "spec.backends[1]", _put(("spec", "backends"), twice)


def _route_breaks(spec: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    name = next(each for each in ROUTES if each in spec)
    route, at, path = spec[name], ("spec", name), f"spec.{name}"
    yield "spec", _drop(at)
    heavy = [{"virtualNode": NODES[0], "weight": 100}, {"virtualNode": NODES[1], "weight": 1}]
    yield f"{path}.action.weightedTargets", _put((*at, "action", "weightedTargets"), heavy)
    yield from _match_breaks(name, route, at, path)
    if name in ROUTES[:2] and "retryPolicy" in route:
        events = (*at, "retryPolicy", "httpRetryEvents")
        yield f"{path}.retryPolicy.httpRetryEvents[0]", _put(events, ["5xx"])


def _gateway_route_breaks(spec: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    name = next(each for each in ROUTES if each in spec)
    at, path = ("spec", name), f"spec.{name}"
    yield "spec", _drop(at)
    yield from _match_breaks(name, spec[name], at, path)
    if name == "grpcRoute":
        yield f"{path}.match.serviceName", _put((*at, "match", "serviceName"), "aws.app-mesh.x")
    elif "prefix" in spec[name]["match"]:
        yield f"{path}.match.prefix", _put((*at, "match", "prefix"), "/aws-appmesh/x")


def _match_breaks(name: str, route: dict[str, Any], at: tuple[Any, ...], path: str) -> Iterator[tuple[str, Any]]:
    match = route.get("match") or {}
    if name in ROUTES[:2] and "path" not in match:
        yield f"{path}.match.prefix", _put((*at, "match"), {**match, "prefix": "x"})
        yield f"{path}.match", _put((*at, "match"), {**match, "prefix": "/", "path": {"exact": "/"}})
    if "regex" in match.get("path", {}):
        yield f"{path}.match.path.regex", _put((*at, "match", "path", "regex"), "(?=x)")
    if name == "grpcRoute" and "methodName" in match:
        yield f"{path}.match.methodName", _drop((*at, "match", "serviceName"))


_RULE_BREAKS = {
    VIRTUAL_NODE.name: _node_breaks,
    VIRTUAL_ROUTER.name: _listener_breaks,
    VIRTUAL_GATEWAY.name: _proxied_breaks,
    ROUTE.name: _route_breaks,
    GATEWAY_ROUTE.name: _gateway_route_breaks,
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
