"""A router's routes: order, what is matched, retries, timeouts, and what is held back."""

from __future__ import annotations

from typing import Any

import pytest

from projector.envoy.defaults import MAX_DURATION_MS
from projector.envoy.services import retry_plan
from tests.projector.envoy.meshes import Log, canary, compiled, gateway_id, key, route
from tests.projector.envoy.readable import vhosts

TO_V1 = {"cart-v1": 1}


def with_routes(*specs: dict[str, Any]) -> Log:
    """The canary mesh with these routes instead of its own; the first is called r0."""
    log = canary(*((key("route", f"r{index}", "cart"), spec) for index, spec in enumerate(specs)))
    log.delete(key("route", "all", "cart"))
    return log


def routes(log: Log) -> list[dict[str, Any]]:
    vhost = vhosts(compiled(log, gateway_id()), "rds_egress_http_15001")["cart.shop.local"]
    found: list[dict[str, Any]] = vhost["routes"]
    return found


def test_priority_then_the_longest_prefix_then_exact_paths_and_methods_first() -> None:
    log = with_routes(
        route(TO_V1, {"prefix": "/"}),
        route(TO_V1, {"prefix": "/aa"}),
        route(TO_V1, {"path": {"exact": "/aa"}}),
        route(TO_V1, {"prefix": "/aa", "method": "GET"}),
        route(TO_V1, {"prefix": "/aaaa"}, priority=1000),
        route(TO_V1, {"prefix": "/z"}, priority=0),
    )
    get = [{"name": ":method", "stringMatch": {"exact": "GET"}}]
    assert [each["match"] for each in routes(log)] == [
        {"prefix": "/z"},
        {"prefix": "/aaaa"},
        {"path": "/aa"},
        {"prefix": "/aa", "headers": get},
        {"prefix": "/aa"},
        {"prefix": "/"},
    ]


def test_weights_go_out_as_given_zeros_too() -> None:
    (only,) = routes(with_routes(route({"cart-v1": 0, "cart-v2": 7})))
    assert only["route"]["weightedClusters"]["clusters"] == [
        {"name": "cds_egress_shop_cart-v1_http_8080", "weight": 0},
        {"name": "cds_egress_shop_cart-v2_http_8080", "weight": 7},
    ]


def test_a_route_without_any_weight_answers_503_and_says_so() -> None:
    log = with_routes(route({"cart-v1": 0}))
    (only,) = routes(log)
    assert only["directResponse"] == {"status": 503}
    (alarm,) = compiled(log, gateway_id()).alarms
    assert alarm.startswith("mesh/shop/virtualRouter/cart/route/r0: action.weightedTargets")


@pytest.mark.parametrize(
    "match",
    [
        {"prefix": "/", "headers": [{"name": "x-canary"}]},
        {"prefix": "/", "queryParameters": [{"name": "q"}]},
        {"prefix": "/", "scheme": "https"},
        {"path": {"regex": "/(a+)+$"}},
        {"prefix": "/a\r\nb"},
        {},
    ],
)
def test_a_route_that_would_match_too_much_is_held_back_and_named(match: dict[str, Any]) -> None:
    held = route(TO_V1, {"prefix": "/"})
    held["httpRoute"]["match"] = match
    log = with_routes(route({"cart-v2": 1}, {"prefix": "/kept"}), held)
    assert [each["match"] for each in routes(log)] == [{"prefix": "/kept"}]
    (alarm,) = compiled(log, gateway_id()).alarms
    assert alarm.startswith("mesh/shop/virtualRouter/cart/route/r1: match")


@pytest.mark.parametrize("protocol", ["grpcRoute", "tcpRoute"])
def test_routes_of_other_protocols_are_held_back_and_named(protocol: str) -> None:
    targets = [{"virtualNode": "cart-v1", "weight": 1}]
    log = with_routes(route({"cart-v2": 1}), {protocol: {"match": {}, "action": {"weightedTargets": targets}}})
    assert len(routes(log)) == 1
    (alarm,) = compiled(log, gateway_id()).alarms
    assert f"route/r1: spec.{protocol}" in alarm


def test_an_http2_route_is_compiled_like_an_http_route() -> None:
    spec = route(TO_V1, {"prefix": "/a"})
    assert routes(with_routes({"http2Route": spec["httpRoute"]})) == routes(with_routes(spec))


def test_a_route_for_another_port_of_the_router_never_matches() -> None:
    assert len(routes(with_routes(route(TO_V1), route(TO_V1, {"prefix": "/b", "port": 9999})))) == 1


def test_timeouts_are_15_seconds_or_what_the_route_says_and_a_year_at_most() -> None:
    endless = {"perRequest": {"unit": "s", "value": 10**12}, "idle": {"unit": "s", "value": 0}}
    default, long = routes(with_routes(route(TO_V1, {"prefix": "/longer"}), route(TO_V1, timeout=endless)))
    assert default["route"]["timeout"] == "15s"
    assert "idleTimeout" not in default["route"]
    assert long["route"]["timeout"] == f"{MAX_DURATION_MS // 1000}s"
    assert long["route"]["idleTimeout"] == "0s"


@pytest.mark.parametrize(
    ("policy", "retry_on", "codes"),
    [
        (
            {"httpRetryEvents": ["gateway-error", "client-error", "stream-error"]},
            ("reset", "refused-stream", "retriable-status-codes"),
            (502, 503, 504, 409),
        ),
        (
            {"httpRetryEvents": ["server-error"]},
            ("reset", "retriable-status-codes"),
            (500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511),
        ),
        ({"httpRetryEvents": ["client-error"]}, ("retriable-status-codes",), (409,)),
        ({"tcpRetryEvents": ["connection-error"]}, ("connect-failure",), ()),
        ({"grpcRetryEvents": ["unavailable", "cancelled"]}, ("cancelled", "unavailable"), ()),
        ({}, (), ()),
    ],
)
def test_retry_events_become_conditions_and_status_codes(
    policy: dict[str, Any], retry_on: tuple[str, ...], codes: tuple[int, ...]
) -> None:
    plan = retry_plan({**policy, "maxRetries": 10**12, "perRetryTimeout": {"unit": "ms", "value": 250}})
    assert (plan.retry_on, plan.status_codes) == (retry_on, codes)
    assert (plan.max_retries, plan.per_try_timeout_ms) == (4294967295, 250)
