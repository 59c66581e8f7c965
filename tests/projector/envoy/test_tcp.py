"""TCP: listeners, backends and routes of plain connections, and ports that TCP shares with HTTP."""

from __future__ import annotations

from typing import Any

from projector.snapshot import TYPE_CLUSTER, TYPE_LISTENER, TYPE_ROUTE
from tests.projector.envoy.meshes import Log, by_node, by_router, canary, compiled, key, listener, node, node_id, router
from tests.projector.envoy.readable import of_type

INGRESS, EGRESS = "lds_ingress_0.0.0.0_15000", "lds_egress_0.0.0.0_15001"
DATABASE = "db.shop.local"


def tcp_route(weights: dict[str, int], idle_s: int | None = None, **members: Any) -> dict[str, Any]:
    targets = [{"virtualNode": name, "weight": weight} for name, weight in weights.items()]
    timeout = {"timeout": {"idle": {"unit": "s", "value": idle_s}}} if idle_s is not None else {}
    return {"tcpRoute": {"action": {"weightedTargets": targets}, **timeout}, **members}


def shop(*routes: dict[str, Any], port: int = 5432) -> Log:
    """A node `app` with a database behind a router (with these routes), or a node without any."""
    provider = by_router("db") if routes else by_node("db-1")
    return canary(
        (key("virtualNode", "db-1"), node(listener(port, "tcp"), host="db-1.internal")),
        (key("virtualNode", "db-2"), node(listener(port, "tcp"), host="db-2.internal")),
        (key("virtualRouter", "db"), {"listeners": [listener(port, "tcp")]}),
        *((key("route", f"r{index}", "db"), spec) for index, spec in enumerate(routes)),
        (key("virtualService", DATABASE), provider),
        (key("virtualNode", "app"), node(backends=(DATABASE,), host="app.internal")),
    )


def chain(log: Log, of: str, name: str, port: int) -> dict[str, Any]:
    """The chain for a port: its match, and its last filter's configuration."""
    plan = of_type(compiled(log, node_id(of)), TYPE_LISTENER)[name]
    (found,) = [each for each in plan["filterChains"] if each["filterChainMatch"].get("destinationPort") == port]
    (proxy,) = found["filters"]
    return {"match": found["filterChainMatch"], **proxy["typedConfig"]}


def test_a_backend_of_a_node_is_one_cluster() -> None:
    snapshot = compiled(shop(), node_id("app"))
    found = chain(shop(), "app", EGRESS, 5432)
    assert (found["cluster"], found["statPrefix"]) == ("cds_egress_shop_db-1_tcp_5432", "egress")
    assert "idleTimeout" not in found
    assert found["match"] == {"destinationPort": 5432}
    assert "cds_egress_shop_db-1_tcp_5432" in of_type(snapshot, TYPE_CLUSTER)
    assert snapshot.alarms == ()


def test_a_route_weighs_its_targets_and_leaves_out_those_without_weight() -> None:
    log = shop(tcp_route({"db-1": 3, "db-2": 1}, idle_s=90))
    found = chain(log, "app", EGRESS, 5432)
    assert found["weightedClusters"]["clusters"] == [
        {"name": "cds_egress_shop_db-1_tcp_5432", "weight": 3},
        {"name": "cds_egress_shop_db-2_tcp_5432", "weight": 1},
    ]
    assert found["idleTimeout"] == "90s"
    assert (
        chain(shop(tcp_route({"db-1": 0, "db-2": 7})), "app", EGRESS, 5432)["cluster"]
        == "cds_egress_shop_db-2_tcp_5432"
    )


def test_of_several_routes_the_first_by_priority_takes_every_connection_and_the_others_are_named() -> None:
    log = shop(tcp_route({"db-1": 1}, priority=5), tcp_route({"db-2": 1}, priority=2))
    assert chain(log, "app", EGRESS, 5432)["cluster"] == "cds_egress_shop_db-2_tcp_5432"
    (alarm,) = compiled(log, node_id("app")).alarms
    assert "route/r0: spec.tcpRoute comes after r1" in alarm


def test_a_route_for_another_port_takes_nothing() -> None:
    other = tcp_route({"db-1": 1})
    other["tcpRoute"]["match"] = {"port": 9999}
    plan = of_type(compiled(shop(other), node_id("app")), TYPE_LISTENER)[EGRESS]
    assert 5432 not in [each["filterChainMatch"].get("destinationPort") for each in plan["filterChains"]]


def test_a_target_that_is_not_there_is_a_cluster_without_endpoints() -> None:
    log = shop(tcp_route({"nobody": 1}))
    found = chain(log, "app", EGRESS, 5432)
    assert found["cluster"] == "cds_egress_shop_nobody_unavailable"
    assert compiled(log, node_id("app")).alarms


def test_a_tcp_listener_forwards_to_the_application_with_its_limits() -> None:
    log = shop()
    idle = {"tcp": {"idle": {"unit": "s", "value": 30}}}
    pool = {"tcp": {"maxConnections": 7}}
    logging = {"accessLog": {"file": {"path": "/dev/stdout"}}}
    spec = {**node(listener(5432, "tcp", timeout=idle, connectionPool=pool)), "logging": logging}
    log.update(key("virtualNode", "db-1"), spec)
    found = chain(log, "db-1", INGRESS, 5432)
    assert (found["cluster"], found["statPrefix"]) == ("cds_ingress_shop_db-1_tcp_5432", "ingress")
    assert found["idleTimeout"] == "30s"
    assert found["accessLog"][0]["typedConfig"]["path"] == "/dev/stdout"
    snapshot = compiled(log, node_id("db-1"))
    cluster = of_type(snapshot, TYPE_CLUSTER)["cds_ingress_shop_db-1_tcp_5432"]
    assert cluster["circuitBreakers"]["thresholds"][0]["maxConnections"] == 7
    assert not of_type(snapshot, TYPE_ROUTE)


def test_nothing_waits_for_a_hello_where_no_server_name_is_asked_for() -> None:
    plan = of_type(compiled(shop(), node_id("app")), TYPE_LISTENER)[EGRESS]
    inspector = plan["listenerFilters"][1]
    assert inspector["filterDisabled"] == {"notMatch": {"destinationPortRange": {"start": 443, "end": 444}}}
    assert "continueOnListenerFiltersTimeout" not in plan
    inbound = of_type(compiled(shop(), node_id("db-1")), TYPE_LISTENER)[INGRESS]
    assert inbound["listenerFilters"][1]["filterDisabled"] == {"anyMatch": True}


def test_a_port_that_tcp_shares_with_http_is_told_apart_by_what_is_said_first() -> None:
    log = shop(port=8080)
    log.update(key("virtualNode", "app"), node(backends=(DATABASE, "stock.shop.local"), host="app.internal"))
    plan = of_type(compiled(log, node_id("app")), TYPE_LISTENER)[EGRESS]
    matches = [each["filterChainMatch"] for each in plan["filterChains"]]
    assert matches[:2] == [
        {"destinationPort": 8080, "applicationProtocols": ["http/1.0", "http/1.1", "h2c"]},
        {"destinationPort": 8080},
    ]
    sniffer = plan["listenerFilters"][2]
    assert sniffer["name"] == "envoy.filters.listener.http_inspector"
    assert sniffer["filterDisabled"] == {"notMatch": {"destinationPortRange": {"start": 8080, "end": 8081}}}
    assert plan["listenerFiltersTimeout"] == "1s"
    assert plan["continueOnListenerFiltersTimeout"] is True


def test_of_two_tcp_backends_on_one_port_the_older_stays_and_the_other_is_named() -> None:
    log = shop()
    log.create(key("virtualService", "other.shop.local"), by_node("db-2"))
    log.update(key("virtualNode", "app"), node(backends=("other.shop.local", DATABASE), host="app.internal"))
    assert chain(log, "app", EGRESS, 5432)["cluster"] == "cds_egress_shop_db-1_tcp_5432"
    (alarm,) = compiled(log, node_id("app")).alarms
    assert "virtualService/other.shop.local: port 5432" in alarm


def test_http_is_not_spoken_to_a_tcp_listener_nor_tcp_to_an_http_one() -> None:
    log = shop(tcp_route({"cart-v1": 1}))
    log.update(key("virtualNode", "cart-v1"), node(listener(5432), host="cart-v1.internal"))
    assert chain(log, "app", EGRESS, 5432)["cluster"] == "cds_egress_shop_cart-v1_unavailable"
    log.update(key("virtualRouter", "db"), router(5432))
    assert compiled(log, node_id("app")).alarms
