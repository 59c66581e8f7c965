"""What a gateway route makes of a request on its way: host names, prefixes and paths."""

from __future__ import annotations

from typing import Any

from tests.traffic.fields import proves
from tests.traffic.proofs.routes import ALL, HTTP, two_nodes
from tests.traffic.specs import gateway, gateway_route, listener, service
from tests.traffic.world import World


def through_the_gateway(
    world: World, kind: str, path: str, match: dict[str, Any] | None = None, rewrite: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What the application saw of a request for shop.example."""
    world.mesh(
        *two_nodes(world, kind),
        service("orders", node="red"),
        gateway(listener(8088, kind)),
        gateway_route("orders", match, kind=kind, rewrite=rewrite),
    )
    where: dict[str, Any] = {"pod": "outside", "port": 8088, "to": world.pods["edge"].v4}
    if kind == "grpc":
        return world.call("shop.example", path, **where).saw
    if kind == "http2":
        return world.ask2("shop.example", path, **where).saw
    return world.ask("shop.example", path, **where).saw


@proves("gatewayRoute.{kind}Route.action.rewrite.hostname.defaultTargetHostname", kind=ALL)
def the_host_name_is_kept_or_becomes_the_services(world: World, kind: str) -> None:
    keep = {"hostname": {"defaultTargetHostname": "DISABLED"}}
    assert through_the_gateway(world, kind, "/a.B/C")["authority"] == "orders"
    saw = through_the_gateway(world, kind, "/a.B/C", rewrite=keep)
    assert saw["authority"] == "shop.example"


@proves("gatewayRoute.{kind}Route.action.rewrite.prefix.defaultPrefix", kind=HTTP)
def the_prefix_is_kept_or_becomes_a_slash(world: World, kind: str) -> None:
    match = {"prefix": "/cart"}
    assert through_the_gateway(world, kind, "/cart/a?b=1", match)["path"] == "/a?b=1"
    assert through_the_gateway(world, kind, "/cart", match)["path"] == "/"
    keep = {"prefix": {"defaultPrefix": "DISABLED"}}
    assert through_the_gateway(world, kind, "/cart/a", match, keep)["path"] == "/cart/a"


@proves("gatewayRoute.{kind}Route.action.rewrite.prefix.value", kind=HTTP)
def the_prefix_becomes_another(world: World, kind: str) -> None:
    value = {"prefix": {"value": "/v1/"}}
    assert through_the_gateway(world, kind, "/cart/a", {"prefix": "/cart/"}, value)["path"] == "/v1/a"


@proves("gatewayRoute.{kind}Route.action.rewrite.path.exact", kind=HTTP)
def the_path_becomes_another(world: World, kind: str) -> None:
    exact = {"path": {"exact": "/v1/all"}}
    assert through_the_gateway(world, kind, "/cart?a=1", {"path": {"exact": "/cart"}}, exact)["path"] == "/v1/all?a=1"
    saw = through_the_gateway(world, kind, "/cart/77", {"path": {"regex": "/cart/[0-9]+"}}, exact)
    assert saw["path"] == "/v1/all"
