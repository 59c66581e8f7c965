"""Retry policies: which answers are asked for again, how often, and how long one attempt may take."""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.traffic.fields import prove, proves
from tests.traffic.namespaces import EXTERNAL_V4
from tests.traffic.proofs.routes import ALL, HTTP, shop
from tests.traffic.specs import listener, millis, node, route, seconds
from tests.traffic.world import World

HTTP_EVENTS = {"server-error": (500, 507, 511), "gateway-error": (502, 503, 504), "client-error": (409,)}
GRPC_EVENTS = {"cancelled": 1, "deadline-exceeded": 4, "internal": 13, "resource-exhausted": 8, "unavailable": 14}


def retrying(world: World, kind: str, *, label: str = "red", **policy: Any) -> None:
    """The service `orders` is the server at `label`, and asked again as the policy says."""
    given = {"maxRetries": 2, "perRetryTimeout": seconds(15), **policy}
    world.mesh(
        *shop(world, route("orders", "red", kind=kind, retryPolicy=given), kind=kind),
        node("red", listener(8080, kind), host=world.host(label)),
    )


def asked(world: World, kind: str, do: dict[str, Any], app: str = "red") -> tuple[int, int]:
    """The answer's status (of gRPC: its own), and how often the application was asked."""
    key = world.fresh("retry")
    do = {"key": key, **do}
    if kind == "grpc":
        status = world.call("orders", do=do).grpc_status
    else:
        status = (world.ask2 if kind == "http2" else world.ask)("orders", do=do).status
    return status, world.apps[app].asked[key]


@proves("route.{kind}Route.retryPolicy.httpRetryEvents[]", kind=HTTP)
def each_http_event_has_its_statuses(world: World, kind: str) -> None:
    for event, statuses in HTTP_EVENTS.items():
        retrying(world, kind, httpRetryEvents=[event])
        for status in statuses:
            assert asked(world, kind, {"status": status, "times": 1}) == (200, 2), (event, status)
        assert asked(world, kind, {"status": 404, "times": 1}) == (404, 1)
    retrying(world, kind, httpRetryEvents=["gateway-error"])
    assert asked(world, kind, {"status": 500, "times": 1}) == (500, 1)


@proves("route.http2Route.retryPolicy.httpRetryEvents[]")
def a_refused_stream_is_tried_again(world: World) -> None:
    # Without a sidecar: one would answer 503 for a stream that its application refuses.
    refused = {"reset": "refuse", "times": 1}
    retrying(world, "http2", label="ext1", httpRetryEvents=["stream-error"])
    assert asked(world, "http2", refused, "outside") == (200, 2)
    retrying(world, "http2", label="ext1", httpRetryEvents=["client-error"])
    assert asked(world, "http2", refused, "outside") == (503, 1)


@proves("route.grpcRoute.retryPolicy.grpcRetryEvents[]")
def each_grpc_event_is_its_status(world: World) -> None:
    for event, status in GRPC_EVENTS.items():
        retrying(world, "grpc", grpcRetryEvents=[event])
        assert asked(world, "grpc", {"grpc_status": status, "times": 1}) == (0, 2), event
        assert asked(world, "grpc", {"grpc_status": 5, "times": 1}) == (5, 1)


@proves("route.grpcRoute.retryPolicy.httpRetryEvents[]")
def a_grpc_route_has_http_events_too(world: World) -> None:
    retrying(world, "grpc", httpRetryEvents=["gateway-error"])
    assert asked(world, "grpc", {"status": 502, "times": 1}) == (0, 2)


@proves("route.{kind}Route.retryPolicy.maxRetries", kind=ALL)
def as_often_as_the_policy_says(world: World, kind: str) -> None:
    retrying(world, kind, httpRetryEvents=["server-error"], maxRetries=3)
    assert asked(world, kind, {"status": 500, "times": 3}) == (0 if kind == "grpc" else 200, 4)
    assert asked(world, kind, {"status": 500})[1] == 4


@proves("route.{kind}Route.retryPolicy.perRetryTimeout.value", kind=ALL)
def an_attempt_that_takes_too_long_is_left(world: World, kind: str) -> None:
    retrying(world, kind, httpRetryEvents=["gateway-error"], perRetryTimeout=millis(300))
    assert asked(world, kind, {"delay_s": 3.0, "times": 1}) == (0 if kind == "grpc" else 200, 2)


@proves("route.{kind}Route.retryPolicy.perRetryTimeout.unit", kind=ALL)
def an_attempts_time_is_in_its_unit(world: World, kind: str) -> None:
    retrying(world, kind, httpRetryEvents=["gateway-error"], perRetryTimeout=seconds(20))
    assert asked(world, kind, {"delay_s": 0.3, "times": 1}) == (0 if kind == "grpc" else 200, 1)


def _connection_error(world: World, kind: str) -> None:
    """Of a target's two hosts one listens."""
    world.dns.set("half", world.pods["edge"].v4, EXTERNAL_V4[0])
    policy = {"maxRetries": 2, "perRetryTimeout": seconds(15), "tcpRetryEvents": ["connection-error"]}
    world.mesh(
        *shop(world, route("orders", "red", kind=kind, retryPolicy=policy), kind=kind),
        node("red", listener(8080, kind), host=world.host("half"), dns={"responseType": "ENDPOINTS"}),
    )
    found = set()
    for _ in range(10):
        if kind == "grpc":
            found.add(world.call("orders").grpc_status)
        else:
            found.add((world.ask2 if kind == "http2" else world.ask)("orders").status)
    assert found == {0 if kind == "grpc" else 200}


for _kind in ALL:
    prove(
        f"a_connection_that_fails_is_tried_elsewhere[{_kind}]",
        [f"route.{_kind}Route.retryPolicy.tcpRetryEvents[]"],
        partial(_connection_error, kind=_kind),
    )


@proves()
def without_a_policy_503_is_tried_twice_more(world: World) -> None:
    world.mesh(*shop(world, route("orders", "red")))
    assert asked(world, "http", {"status": 503, "times": 2}) == (200, 3)
    assert asked(world, "http", {"status": 503})[1] == 3
    assert asked(world, "http", {"status": 500, "times": 1}) == (500, 1)
