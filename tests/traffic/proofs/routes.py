"""What routes and gateway routes match. Each condition leads to blue, and what it does not match to red."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from tests.traffic.fields import prove, proves
from tests.traffic.specs import gateway, gateway_route, listener, node, route, router, service
from tests.traffic.world import Declared, World

HTTP = ("http", "http2")
ALL = (*HTTP, "grpc")


@dataclass(frozen=True)
class Ask:
    path: str = "/"
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    host: str = "orders"
    scheme: str = "http"


class Condition(NamedTuple):
    """A match; the model's fields in it (below `match`); requests that it matches, and others."""

    match: Mapping[str, Any]
    fields: tuple[str, ...]
    matching: tuple[Ask, ...]
    others: tuple[Ask, ...]


def having(value: str, name: str = "x-k") -> Ask:
    return Ask(headers={name: value})


def header(match: Mapping[str, Any] | None, *, invert: bool = False) -> list[dict[str, Any]]:
    found: dict[str, Any] = {"name": "x-k"}
    if match is not None:
        found["match"] = match
    if invert:
        found["invert"] = True
    return [found]


NO = Ask()
HEADERS: dict[str, tuple[list[dict[str, Any]], tuple[str, ...], tuple[Ask, ...], tuple[Ask, ...]]] = {
    "exact": (header({"exact": "a b"}), ("match.exact",), (having("a b"),), (having("a"), NO)),
    "prefix": (header({"prefix": "ab"}), ("match.prefix",), (having("abc"),), (having("xab"), NO)),
    "suffix": (header({"suffix": "yz"}), ("match.suffix",), (having("xyz"),), (having("yzx"), NO)),
    "regex": (header({"regex": "[a-c]+"}), ("match.regex",), (having("abc"),), (having("abcd"), NO)),
    "range": (
        header({"range": {"start": -1, "end": 5}}),
        ("match.range.start", "match.range.end"),
        (having("4"), having("-1")),
        (having("5"), having("-2"), NO),
    ),
    "present": (header(None), ("name",), (having("any"),), (having("any", "x-other"), NO)),
    # As Envoy has it, and so App Mesh had: where the header is missing, its value is not another one either.
    "invert": (header({"exact": "no"}, invert=True), ("invert",), (having("yes"),), (having("no"), NO)),
    "absent": (header(None, invert=True), ("invert",), (NO,), (having("any"),)),
}
CONDITIONS: dict[str, Condition] = {
    "prefix": Condition({"prefix": "/v2"}, ("prefix",), (Ask("/v2"), Ask("/v2/x?q=1")), (Ask("/v1"), Ask("/"))),
    "exact": Condition(
        {"path": {"exact": "/only"}}, ("path.exact",), (Ask("/only"), Ask("/only?q=1")), (Ask("/only/"), Ask("/onlyx"))
    ),
    "regex": Condition(
        {"path": {"regex": "/v[0-9]+"}}, ("path.regex",), (Ask("/v12"),), (Ask("/v"), Ask("/vx"), Ask("/v1/more"))
    ),
    "method": Condition(
        {"prefix": "/", "method": "POST"}, ("method",), (Ask(method="POST"),), (Ask(), Ask(method="PUT"))
    ),
    "query": Condition(
        {"prefix": "/", "queryParameters": [{"name": "v", "match": {"exact": "2"}}]},
        ("queryParameters[].name", "queryParameters[].match.exact"),
        (Ask("/?v=2"), Ask("/?a=1&v=2")),
        (Ask("/?v=3"), Ask("/?other=2"), Ask("/")),
    ),
    "scheme-https": Condition({"prefix": "/", "scheme": "https"}, ("scheme",), (Ask(scheme="https"),), (Ask(),)),
    **{
        f"header-{name}": Condition(
            {"prefix": "/", "headers": match}, tuple(f"headers[].{each}" for each in fields), matching, others
        )
        for name, (match, fields, matching, others) in HEADERS.items()
    },
}
METADATA = {
    f"metadata-{name}": Condition({"metadata": match}, tuple(f"metadata[].{each}" for each in fields), matching, others)
    for name, (match, fields, matching, others) in HEADERS.items()
}
GRPC: dict[str, Condition] = {
    "service": Condition(
        {"serviceName": "shop.Cart"}, ("serviceName",), (Ask("/shop.Cart/Get"),),
        (Ask("/shop.Carts/Get"), Ask("/x.Y/Z")),
    ),
    "method": Condition(
        {"serviceName": "shop.Cart", "methodName": "Put"}, ("methodName",), (Ask("/shop.Cart/Put"),),
        (Ask("/shop.Cart/Get"), Ask("/shop.Carts/Put")),
    ),
    **METADATA,
}  # fmt: skip
HOSTS: dict[str, Condition] = {
    "host-exact": Condition(
        {"hostname": {"exact": "a.example"}},
        ("hostname.exact",),
        (Ask(host="a.example"), Ask(host="A.example:8088")),
        (Ask(host="b.a.example"), Ask(host="other")),
    ),
    "host-suffix": Condition(
        {"hostname": {"suffix": ".example"}},
        ("hostname.suffix",),
        (Ask(host="a.example"), Ask(host="b.a.example")),
        (Ask(host="a.example.org"), Ask(host="aexample")),
    ),
}


def two_nodes(world: World, protocol: str) -> list[Declared]:
    """Red and blue, that speak the protocol on 8080."""
    return [
        node("red", listener(8080, protocol), host=world.host("red")),
        node("blue", listener(8080, protocol), host=world.host("blue")),
    ]


def shop(world: World, *more: Declared, kind: str = "http", caller: Mapping[str, Any] | None = None) -> list[Declared]:
    """Front calls the service `orders`, whose router (one listener, 8080) has the routes that `more` brings."""
    return [
        node("front", listener(8080, kind), host=world.host("front"), backends=["orders"], **(caller or {})),
        *two_nodes(world, kind),
        router("orders", listener(8080, kind)),
        service("orders", router="orders"),
        *more,
    ]


def seen_by(world: World, kind: str, ask: Ask, **where: Any) -> str:
    """Which application answers."""
    if kind == "grpc":
        return str(world.call(ask.host, ask.path, ask.headers, **where).saw.get("app", ""))
    if kind == "http2":
        with world.http2(scheme=ask.scheme, **where) as client:
            stream = client.start(ask.host, ask.path, ask.method, list(ask.headers.items()))
            return str(client.read(stream).saw.get("app", ""))
    scheme = {} if ask.scheme == "http" else {"x-forwarded-proto": ask.scheme}
    return world.ask(ask.host, ask.path, method=ask.method, headers={**ask.headers, **scheme}, **where).app


def told_apart(world: World, kind: str, condition: Condition, **where: Any) -> None:
    wanted = dict.fromkeys(range(len(condition.matching)), "blue")
    asks = (*condition.matching, *condition.others)
    found = {number: seen_by(world, kind, ask, **where) for number, ask in enumerate(asks)}
    expected = {number: wanted.get(number, "red") for number in found}
    assert found == expected, [(asks[number], app) for number, app in found.items() if app != expected[number]]


def of_a_route(world: World, kind: str, condition: Condition) -> None:
    # The named one is first but for the catch-all's name: more conditions, or the longer path.
    special = route("orders", "blue", condition.match, name="special", kind=kind, priority=1)
    world.mesh(*shop(world, special, route("orders", "red", name="rest", kind=kind, priority=2), kind=kind))
    told_apart(world, kind, condition)


def of_a_gateway_route(world: World, kind: str, condition: Condition) -> None:
    rewrite = {"hostname": {"defaultTargetHostname": "ENABLED"}}
    match = dict(condition.match)
    if kind != "grpc" and not match.keys() & {"prefix", "path"}:
        match["prefix"] = "/"
    world.mesh(
        *two_nodes(world, kind),
        service("red-service", node="red"),
        service("blue-service", node="blue"),
        gateway(listener(8088, kind)),
        gateway_route("blue-service", match, name="special", kind=kind, rewrite=rewrite, priority=1),
        gateway_route("red-service", name="rest", kind=kind, priority=2),
    )
    told_apart(world, kind, condition, pod="outside", port=8088, to=world.pods["edge"].v4)


for _kind in ALL:
    for _name, _condition in (GRPC if _kind == "grpc" else CONDITIONS).items():
        _fields = [f"route.{_kind}Route.match.{each}" for each in _condition.fields]
        _run = partial(of_a_route, kind=_kind, condition=_condition)
        prove(f"route[{_kind}-{_name}]", _fields, _run)
    for _name, _condition in {**(GRPC if _kind == "grpc" else CONDITIONS), **HOSTS}.items():
        if _condition.match.keys() & {"scheme", "methodName"}:
            continue  # routes alone have these
        _fields = [f"gatewayRoute.{_kind}Route.match.{each}" for each in _condition.fields]
        _run = partial(of_a_gateway_route, kind=_kind, condition=_condition)
        prove(f"gateway_route[{_kind}-{_name}]", _fields, _run)


@proves("route.priority")
def priority_comes_before_names(world: World) -> None:
    world.mesh(
        *shop(world, route("orders", "red", name="a", priority=10), route("orders", "blue", name="b", priority=5))
    )
    assert {world.ask("orders").app for _ in range(3)} == {"blue"}


@proves("route.{kind}Route.match.port", kind=(*HTTP, "grpc"))
def a_route_of_one_port(world: World, kind: str) -> None:
    both = (listener(8080, kind), listener(8081, kind))
    match = {} if kind == "grpc" else {"prefix": "/"}
    world.mesh(
        node("front", backends=["orders"]),
        *two_nodes(world, kind),
        router("orders", *both),
        service("orders", router="orders"),
        route("orders", "red", {**match, "port": 8080}, name="a", kind=kind),
        route("orders", "blue", {**match, "port": 8081}, name="b", kind=kind),
    )
    assert seen_by(world, kind, Ask("/a.B/C"), port=8080) == "red"
    assert seen_by(world, kind, Ask("/a.B/C"), port=8081) == "blue"


@proves(
    "route.{kind}Route.action.weightedTargets[].weight",
    "route.{kind}Route.action.weightedTargets[].virtualNode",
    kind=ALL,
)
def weight_zero_gets_nothing(world: World, kind: str) -> None:
    world.mesh(*shop(world, route("orders", {"red": 0, "blue": 3}, kind=kind), kind=kind))
    assert {seen_by(world, kind, Ask("/a.B/C")) for _ in range(24)} == {"blue"}


@proves("route.{kind}Route.action.weightedTargets[].port", kind=ALL)
def a_target_of_several_ports(world: World, kind: str) -> None:
    world.mesh(
        *shop(world, route("orders", [{"virtualNode": "red", "weight": 1, "port": 8081}], kind=kind), kind=kind),
        node("red", listener(8080, kind), listener(8081, kind), host=world.host("red")),
    )
    reply = world.call("orders") if kind == "grpc" else world.ask2("orders") if kind == "http2" else world.ask("orders")
    assert reply.saw["port"] == 8081


@proves("gatewayRoute.priority")
def a_gateway_routes_priority(world: World) -> None:
    world.mesh(
        *two_nodes(world, "http"),
        service("red-service", node="red"),
        service("blue-service", node="blue"),
        gateway_route("red-service", name="a", priority=10),
        gateway_route("blue-service", name="b", priority=5),
    )
    assert world.ask("any", pod="outside", port=8088, to=world.pods["edge"].v4).app == "blue"
