"""Input with exactly one constraint broken: every way to do that to what `tests.api.generated` has drawn.

`violations` walks an input with its shape and yields, place by place, the same input with one constraint of the model
broken, and the path that the refusal must name; then likewise the rules beyond the model.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mesh.kinds import GATEWAY_ROUTE, ROUTE, VIRTUAL_GATEWAY, VIRTUAL_NODE, VIRTUAL_ROUTER
from mesh.model.operations import SHAPES, Operation
from tests.api.generated import INTEGERS, NODES, ROUTES, WRITES


class Broken(NamedTuple):
    """Input with one constraint broken, and where."""

    members: dict[str, Any]
    path: str


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
    elif shape["type"] in INTEGERS:
        lowest, highest = INTEGERS[shape["type"]]
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
