"""Whole nodes, as a reviewer reads them. Change on purpose with `pytest --rewrite`, and read the diff."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.frozen import freeze
from mesh.registry.state import Health, Instance, RegistryState, ServiceKey
from tests.projector.envoy.meshes import (
    ACCOUNT,
    Log,
    by_node,
    by_router,
    canary,
    cloud_map_node,
    compiled,
    gateway,
    gateway_id,
    gateway_route,
    key,
    listener,
    node,
    node_id,
    route,
    router,
)
from tests.projector.envoy.readable import document

GOLDEN = Path(__file__).parents[2] / "golden"


CHECK = {
    "protocol": "http2",
    "path": "/ready",
    "healthyThreshold": 2,
    "unhealthyThreshold": 3,
    "intervalMillis": 5000,
    "timeoutMillis": 2000,
}


def storefront() -> Log:
    """A gateway with rewrites of every kind, priorities, a service without routes, logs, and what is held back."""
    seconds = {"unit": "s", "value": 30}
    retry = {
        "httpRetryEvents": ["gateway-error", "client-error", "stream-error"],
        "maxRetries": 1,
        "perRetryTimeout": {"unit": "s", "value": 5},
    }
    zero = {"cart-v1": 0, "cart-v2": 5}
    service = "stock.shop.local"
    keep_host = {"hostname": {"defaultTargetHostname": "DISABLED"}, "prefix": {"defaultPrefix": "DISABLED"}}
    value = {"prefix": {"value": "/v1/"}}
    ping = {"path": {"exact": "/healthz"}}
    log = {"accessLog": {"file": {"path": "/dev/stdout"}}}
    return canary(
        (key("route", "slow", "cart"), route({"cart-v1": 1}, {"prefix": "/slow"}, timeout={"perRequest": seconds})),
        (key("route", "exact", "cart"), route({"cart-v2": 1}, {"path": {"exact": "/slow"}, "method": "POST"})),
        (key("route", "first", "cart"), route(zero, {"prefix": "/a"}, priority=1, retryPolicy=retry)),
        (key("route", "held", "cart"), route({"cart-v1": 1}, {"prefix": "/", "headers": [{"name": "x-canary"}]})),
        (key("virtualService", "empty.shop.local"), {}),
        (key("gatewayRoute", "hot", "edge"), gateway_route("cart.shop.local", {"prefix": "/hot/"}, keep_host)),
        (key("gatewayRoute", "stock", "edge"), gateway_route(service, {"prefix": "/stock"}, value)),
        (key("gatewayRoute", "last", "edge"), gateway_route("empty.shop.local", {"prefix": "/a/longer/prefix"})),
        (key("gatewayRoute", "ping", "edge"), gateway_route(service, {"path": {"exact": "/ping"}}, ping)),
        (key("gatewayRoute", "host", "edge"), gateway_route(service, {"hostname": {"exact": "a.example"}})),
        (
            key("virtualGateway", "logs"),
            gateway(listener(8088, "http2", healthCheck=CHECK), listener(8089), logging=log),
        ),
        (key("gatewayRoute", "all", "logs"), gateway_route("cart.shop.local")),
    )


def office() -> Log:
    """A sidecar with two listeners, limits, checks, HTTP versions side by side on one port, and open egress."""
    check = {
        "protocol": "http",
        "path": "/ping",
        "healthyThreshold": 2,
        "unhealthyThreshold": 3,
        "intervalMillis": 5000,
        "timeoutMillis": 2000,
    }
    outlier = {
        "maxServerErrors": 5,
        "maxEjectionPercent": 50,
        "interval": {"unit": "s", "value": 10},
        "baseEjectionDuration": {"unit": "s", "value": 30},
    }
    pool = {"http": {"maxConnections": 20, "maxPendingRequests": 30}}
    idle = {"http": {"perRequest": {"unit": "ms", "value": 0}, "idle": {"unit": "s", "value": 600}}}
    desk = node(listener(8080, connectionPool=pool, timeout=idle), listener(9090, "grpc"), host="desk.office.internal")
    printer = listener(25, healthCheck=check, outlierDetection=outlier)
    backends = ("print.office", "mail.office", "mail2.office", "gone.office")
    desk["backends"] = [{"virtualService": {"virtualServiceName": name}} for name in backends]
    mail = node(listener(25, "http2"), host="2001:db8::25", ipPreference="IPv6_ONLY")
    log = Log(
        (key("virtualNode", "desk"), desk),
        (key("virtualNode", "printer"), node(printer, host="printer")),
        (key("virtualNode", "mail"), mail),
        (key("virtualRouter", "mail"), router(25, 26)),
        (key("route", "a", "mail"), {"http2Route": route({"mail": 1}, {"prefix": "/", "port": 25})["httpRoute"]}),
        (key("route", "b", "mail"), route({"mail": 1}, {"prefix": "/b", "port": 26})),
        (key("virtualService", "print.office"), by_node("printer")),
        (key("virtualService", "mail.office"), by_router("mail")),
        (key("virtualService", "mail2.office"), by_node("mail")),
    )
    log.update(
        key("mesh", "shop"),
        {
            "egressFilter": {"type": "ALLOW_ALL"},
            "serviceDiscovery": {"ipPreference": "IPv4_PREFERRED"},
        },
    )
    return log


def vault() -> Log:
    """A sidecar that takes TLS, both and plain text, and speaks TLS by several client policies; a gateway that does."""
    files = {"file": {"certificateChain": "/certs/vault.crt", "privateKey": "/certs/vault.key"}}
    authority = {"trust": {"file": {"certificateChain": "/certs/ca.crt"}}}
    secret = {"sds": {"secretName": "spiffe://shop.local/vault"}}
    spiffe = {
        "trust": {"sds": {"secretName": "spiffe://shop.local"}},
        "subjectAlternativeNames": {"match": {"exact": ["spiffe://shop.local/cart", "10.0.0.1"]}},
    }
    listeners = (
        listener(8443, tls={"mode": "STRICT", "certificate": files}),
        listener(9090, "grpc", tls={"mode": "STRICT", "certificate": secret, "validation": spiffe}),
        listener(5432, "tcp", tls={"mode": "PERMISSIVE", "certificate": files}),
        listener(8080),
    )
    spec = node(*listeners, host="vault.shop.internal", backends=("cart.shop.local", "stock.shop.local"))
    spec["backends"][0]["virtualService"]["clientPolicy"] = {"tls": {"certificate": secret, "validation": spiffe}}
    spec["backendDefaults"] = {"clientPolicy": {"tls": {"validation": authority}}}
    log = canary((key("virtualNode", "vault"), spec))
    edge = listener(443, "http2", tls={"mode": "PERMISSIVE", "certificate": files})
    log.update(key("virtualGateway", "edge"), gateway(edge, backendDefaults=spec["backendDefaults"]))
    return log


def fleet() -> Log:
    """Callers of services that Cloud Map finds: by attributes, by IPv6, over TCP, and where nobody is."""
    services = ("cart.shop.local", "stock.shop.local", "cache.shop.local", "empty.shop.local")
    spec = node(host="ship.fleet.internal", backends=services)
    cart = cloud_map_node(listener(8080), listener(9090, "grpc"), attributes={"version": "v1"})
    stock = cloud_map_node(listener(8443, "http2"), service="stock", ipPreference="IPv6_PREFERRED")
    return Log(
        (key("virtualNode", "ship"), spec),
        (key("virtualNode", "cart-v1"), cart),
        (key("virtualNode", "stock"), stock),
        (key("virtualNode", "cache"), cloud_map_node(listener(6379, "tcp"), service="cache")),
        (key("virtualNode", "empty"), cloud_map_node(service="empty")),
        (key("virtualRouter", "cart"), {"listeners": [listener(8080), listener(9090, "grpc")]}),
        (key("route", "http", "cart"), route({"cart-v1": 1}, {"prefix": "/", "port": 8080})),
        (key("route", "grpc", "cart"), route({"cart-v1": 1}, {"prefix": "/", "port": 9090})),
        (key("virtualService", "cart.shop.local"), by_router("cart")),
        *((key("virtualService", f"{name}.shop.local"), by_node(name)) for name in ("stock", "cache", "empty")),
    )


def instances() -> RegistryState:
    """What `fleet` finds."""
    state = RegistryState()
    v1, v2 = {"version": "v1"}, {"version": "v2"}
    for service, name, health, attributes in (
        ("cart", "a", "HEALTHY", {"AWS_INSTANCE_IPV4": "10.0.1.10", "AVAILABILITY_ZONE": "eu-west-1b", **v1}),
        ("cart", "b", "HEALTHY", {"AWS_INSTANCE_IPV4": "10.0.0.10", "AVAILABILITY_ZONE": "eu-west-1a", **v1}),
        ("cart", "c", "HEALTHY", {"AWS_INSTANCE_IPV4": "10.0.0.11", "AVAILABILITY_ZONE": "eu-west-1a", **v2}),
        ("cart", "d", "UNHEALTHY", {"AWS_INSTANCE_IPV4": "10.0.0.12", **v1}),
        ("stock", "a", "HEALTHY", {"AWS_INSTANCE_IPV4": "10.0.2.1", "AWS_INSTANCE_IPV6": "2001:db8::1"}),
        ("cache", "a", "HEALTHY", {"AWS_INSTANCE_IPV4": "10.0.3.1", "AWS_INSTANCE_PORT": "32768"}),
    ):
        instance = Instance(name, freeze(attributes), Health(health))
        state = state.with_instance(ServiceKey(ACCOUNT, "shop.internal", service), name, instance)
    return state


INSTANCES = instances()
CASES = {
    "gateway": (canary, gateway_id()),
    "gateway-rewrites": (storefront, gateway_id()),
    "gateway-two-listeners": (storefront, gateway_id("logs")),
    "sidecar": (canary, node_id("cart-v2")),
    "sidecar-busy": (office, node_id("desk")),
    "sidecar-cloud-map": (fleet, node_id("ship")),
}


ENCRYPTED = {"gateway-tls": (vault, gateway_id()), "sidecar-tls": (vault, node_id("vault"))}
"""These name files and secrets that Envoy looks for at once."""


@pytest.mark.parametrize("name", [*CASES, *ENCRYPTED])
def test_a_whole_node_compiles_to_what_was_reviewed(name: str, request: pytest.FixtureRequest) -> None:
    mesh, of = (CASES | ENCRYPTED)[name]
    snapshot = compiled(mesh(), of, registry=INSTANCES)
    golden = GOLDEN / f"{name}.json"
    if request.config.getoption("--rewrite"):
        golden.write_text(document(snapshot))
    assert document(snapshot) == golden.read_text()
