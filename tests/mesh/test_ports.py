"""Several listeners: who must say which port is meant, when it is written and when the second listener comes."""

from __future__ import annotations

import pytest

from mesh.commands import Command, Create, Update
from mesh.errors import BadRequest
from tests.mesh.worlds import (
    World,
    gateway_route_spec,
    gateway_spec,
    key,
    node_provider,
    node_spec,
    route_spec,
    router_provider,
    router_spec,
    shop,
)

ROUTE = key("route", "all", parent="cart")
GATEWAY_ROUTE = key("gatewayRoute", "cart", parent="edge")
SERVICE = "cart.shop.local"


def refusal(world: World, command: Command) -> str:
    with pytest.raises(BadRequest) as caught:
        world.do(command)
    return caught.value.message


def two_listeners() -> dict[str, object]:
    second = {"portMapping": {"port": 8081, "protocol": "http"}}
    return {**node_spec(), "listeners": [*node_spec()["listeners"], second]}


def test_routes_must_match_a_port_under_several_listeners() -> None:
    world = shop()
    world.update(GATEWAY_ROUTE, gateway_route_spec(SERVICE, target_port=80))
    message = refusal(world, Update(key("virtualRouter", "cart"), router_spec(80, 81)))
    assert message == (
        "All Routes for this Virtual Router must define a port match before adding multiple listeners to this "
        "Virtual Router. 1 Route(s) are missing port. Listing up to 5 route names: [all]"
    )
    world.update(ROUTE, route_spec({"cart-v1": 1}, port=80))
    world.update(key("virtualRouter", "cart"), router_spec(80, 81))
    message = refusal(world, Create(key("route", "new", parent="cart"), route_spec({"cart-v1": 1})))
    assert message == "Route must define a port match criteria if the Virtual Router has multiple listeners"
    world.create(key("route", "new", parent="cart"), route_spec({"cart-v1": 1}, port=81))


def test_gateway_routes_must_match_a_port_under_several_listeners() -> None:
    world = shop()
    message = refusal(world, Update(key("virtualGateway", "edge"), gateway_spec(80, 81)))
    assert "1 GatewayRoute(s) are missing port" in message
    world.update(GATEWAY_ROUTE, gateway_route_spec(SERVICE, port=80))
    world.update(key("virtualGateway", "edge"), gateway_spec(80, 81))
    message = refusal(world, Update(GATEWAY_ROUTE, gateway_route_spec(SERVICE)))
    assert message == "GatewayRoute must define a port match criteria if the Virtual Gateway has multiple listeners"


def test_routes_must_name_the_port_of_a_node_with_several_listeners() -> None:
    world = shop()
    node = key("virtualNode", "cart-v2")
    message = refusal(world, Update(node, two_listeners()))
    assert message == (
        "All Routes targeting this Virtual Node must define a target port before adding multiple listeners to this "
        "Virtual Node. 1 Route(s) are missing port. Listing up to 5 route names: [all]"
    )
    world.update(ROUTE, route_spec({"cart-v1": 1, "cart-v2": 1}, target_port=8080))
    world.update(node, two_listeners())
    message = refusal(world, Update(ROUTE, route_spec({"cart-v1": 1, "cart-v2": 1})))
    assert message == (
        "Route must define a target port if its target has multiple listeners: "
        "spec.httpRoute.action.weightedTargets[1].port: is required, since Virtual Node cart-v2 has several"
    )


def test_gateway_routes_must_name_the_port_of_a_provider_with_several_listeners() -> None:
    world = shop()
    world.update(ROUTE, route_spec({"cart-v2": 1}, port=80))
    router = key("virtualRouter", "cart")
    assert "All GatewayRoutes targeting this Virtual Router must define a target port" in refusal(
        world, Update(router, router_spec(80, 81))
    )
    world.update(GATEWAY_ROUTE, gateway_route_spec(SERVICE, target_port=80))
    world.update(router, router_spec(80, 81))
    message = refusal(world, Update(GATEWAY_ROUTE, gateway_route_spec(SERVICE)))
    assert message.endswith("spec.httpRoute.action.target.port: is required, since Virtual Router cart has several")


def test_a_service_does_not_move_to_several_listeners_under_a_gateway_route_without_a_port() -> None:
    world = shop()
    world.update(key("virtualNode", "cart-v2"), {})
    world.update(ROUTE, route_spec({"cart-v2": 1}))
    world.update(key("virtualService", "v1.shop.local"), router_provider("cart"))
    world.update(key("virtualNode", "cart-v1"), two_listeners())
    service = key("virtualService", SERVICE)
    message = refusal(world, Update(service, node_provider("cart-v1")))
    assert message.startswith(
        "All GatewayRoutes targeting this Virtual Service must define a target port before its provider has multiple "
        "listeners. 1 GatewayRoute(s)"
    )
    world.update(GATEWAY_ROUTE, gateway_route_spec(SERVICE, target_port=8081))
    world.update(service, node_provider("cart-v1"))


def test_an_update_that_keeps_several_listeners_asks_for_nothing_new() -> None:
    world = shop()
    world.update(ROUTE, route_spec({"cart-v2": 1}, target_port=8080))
    world.update(key("virtualService", "v1.shop.local"), {})
    world.update(key("virtualNode", "cart-v1"), two_listeners())
    world.update(key("virtualNode", "cart-v1"), {**two_listeners(), "backends": []})
