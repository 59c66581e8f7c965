"""What a node's Envoys are given in two states, side by side; of secrets only that they changed."""

from __future__ import annotations

from typing import Any

from identity.node_id import NodeId
from mesh.state import State
from projector.envoy import compared, documents
from projector.snapshot import TYPE_SECRET, xds_resource
from tests.mesh.worlds import ACCOUNT, gateway_route_spec, key, route_spec, shop

EDGE = NodeId(ACCOUNT, "shop", "virtualGateway", "edge")


def named(changes: list[dict[str, Any]]) -> dict[str, str]:
    return {change["resource"]: change["change"] for change in changes}


def test_only_what_a_change_touches_differs() -> None:
    world = shop()
    before = world.state
    world.update(key("route", "all", parent="cart"), route_spec({"cart-v2": 1}))
    changes = {change["resource"]: change for change in compared.compare(before, world.state, EDGE)}
    assert named(list(changes.values())) == {
        "Cluster/cds_egress_shop_cart-v1_http_8080": "deleted",
        "RouteConfiguration/rds_egress_http_15001": "updated",
    }
    routes = changes["RouteConfiguration/rds_egress_http_15001"]
    assert routes["before"]["version"] != routes["after"]["version"]
    assert "cart-v1" in str(routes["before"]["spec"])
    assert "cart-v1" not in str(routes["after"]["spec"])
    assert compared.compare(world.state, world.state, EDGE) == []


def test_a_node_that_is_not_there_yet_has_nothing() -> None:
    world = shop()
    made = named(compared.compare(State(), world.state, EDGE))
    gone = named(compared.compare(world.state, State(), EDGE))
    assert set(made.values()) == {"created"}
    assert made.keys() == gone.keys()
    assert set(gone.values()) == {"deleted"}
    assert [name.partition("/")[0] for name in made] == sorted(
        (name.partition("/")[0] for name in made), key=["Cluster", "Listener", "RouteConfiguration"].index
    ), "make before break"


def test_routes_follow_what_the_gateway_route_says() -> None:
    world = shop()
    before = world.state
    world.update(key("gatewayRoute", "cart", parent="edge"), gateway_route_spec("cart.shop.local", prefix="/new"))
    assert named(compared.compare(before, world.state, EDGE)).popitem()[1] == "updated"


def test_secrets_are_told_by_version_only() -> None:
    secret = xds_resource(TYPE_SECRET, "tls", b"planted secret")
    assert documents.side(secret) == {"version": secret.version, "spec": "(secret)"}
    document = {"tls": [{"privateKey": {"inlineBytes": "cGxhbnRlZA=="}, "password": {"filename": "/etc/pass"}}]}
    assert documents.redacted(document) == {"tls": [{"privateKey": "(secret)", "password": {"filename": "/etc/pass"}}]}
