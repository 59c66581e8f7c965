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
        {"prefix": "/a\r\nb"},
        {"path": {"regex": "(?<=a)b"}},
        {"path": {"regex": "a{1000}"}},
        {"prefix": "/", "headers": [{"name": "x-canary", "match": {"regex": "("}}]},
        {"prefix": "/", "headers": [{"name": "x-canary\r\n"}]},
        {"prefix": "/", "queryParameters": [{"name": "\n"}]},
    ],
)
def test_a_route_that_would_match_too_much_is_held_back_and_named(match: dict[str, Any]) -> None:
    held = route(TO_V1, {"prefix": "/"})
    held["httpRoute"]["match"] = match
    log = with_routes(route({"cart-v2": 1}, {"prefix": "/kept"}), held)
    assert [each["match"] for each in routes(log)] == [{"prefix": "/kept"}]
    (alarm,) = compiled(log, gateway_id()).alarms
    assert alarm.startswith("mesh/shop/virtualRouter/cart/route/r1: match")


def test_a_tcp_route_is_no_way_for_requests_and_named() -> None:
    targets = [{"virtualNode": "cart-v1", "weight": 1}]
    log = with_routes(route({"cart-v2": 1}), {"tcpRoute": {"match": {}, "action": {"weightedTargets": targets}}})
    assert len(routes(log)) == 1
    (alarm,) = compiled(log, gateway_id()).alarms
    assert "route/r1: spec.tcpRoute" in alarm


@pytest.mark.parametrize(
    ("match", "compiled_to"),
    [
        ({}, {"prefix": "/"}),
        ({"path": {"regex": "/v[0-9]+/.*"}}, {"safeRegex": {"regex": "/v[0-9]+/.*"}}),
        (
            {"prefix": "/", "scheme": "https", "method": "PUT"},
            {
                "prefix": "/",
                "headers": [
                    {"name": ":method", "stringMatch": {"exact": "PUT"}},
                    {"name": ":scheme", "stringMatch": {"exact": "https"}},
                ],
            },
        ),
        (
            {
                "prefix": "/",
                "headers": [
                    {"name": "a", "match": {"exact": "x"}},
                    {"name": "b", "match": {"prefix": "x"}, "invert": True},
                    {"name": "c", "match": {"suffix": "x"}},
                    {"name": "d", "match": {"regex": "x+"}},
                    {"name": "e", "match": {"range": {"start": -5, "end": 10}}},
                    {"name": "f"},
                    {"name": "g", "invert": True},
                ],
            },
            {
                "prefix": "/",
                "headers": [
                    {"name": "a", "stringMatch": {"exact": "x"}},
                    {"name": "b", "stringMatch": {"prefix": "x"}, "invertMatch": True},
                    {"name": "c", "stringMatch": {"suffix": "x"}},
                    {"name": "d", "stringMatch": {"safeRegex": {"regex": "x+"}}},
                    {"name": "e", "rangeMatch": {"start": "-5", "end": "10"}},
                    {"name": "f", "presentMatch": True},
                    {"name": "g", "presentMatch": True, "invertMatch": True},
                ],
            },
        ),
        (
            {"prefix": "/", "queryParameters": [{"name": "v", "match": {"exact": "2"}}, {"name": "debug"}]},
            {
                "prefix": "/",
                "queryParameters": [
                    {"name": "v", "stringMatch": {"exact": "2"}},
                    {"name": "debug", "presentMatch": True},
                ],
            },
        ),
    ],
)
def test_every_condition_of_an_http_match_is_compiled(match: dict[str, Any], compiled_to: dict[str, Any]) -> None:
    spec = route(TO_V1)
    spec["httpRoute"]["match"] = match
    (only,) = routes(with_routes(spec))
    assert only["match"] == compiled_to


@pytest.mark.parametrize(
    ("match", "compiled_to"),
    [
        ({}, {"prefix": "/", "grpc": {}}),
        ({"serviceName": "shop.Cart"}, {"prefix": "/shop.Cart/", "grpc": {}}),
        ({"serviceName": "shop.Cart", "methodName": "Add"}, {"path": "/shop.Cart/Add", "grpc": {}}),
        (
            {"metadata": [{"name": "tenant", "invert": True, "match": {"exact": "a"}}]},
            {
                "prefix": "/",
                "grpc": {},
                "headers": [{"name": "tenant", "stringMatch": {"exact": "a"}, "invertMatch": True}],
            },
        ),
    ],
)
def test_every_condition_of_a_grpc_match_is_compiled(match: dict[str, Any], compiled_to: dict[str, Any]) -> None:
    body = {
        **route(TO_V1)["httpRoute"],
        "match": match,
        "retryPolicy": {"maxRetries": 3, "grpcRetryEvents": ["internal"]},
    }
    (only,) = routes(with_routes({"grpcRoute": body}))
    assert only["match"] == compiled_to
    assert only["route"]["retryPolicy"]["retryOn"] == "internal"


def test_of_equal_paths_the_one_with_more_conditions_comes_first_and_a_prefix_last() -> None:
    two = [{"name": "a"}, {"name": "b"}]
    log = with_routes(
        route(TO_V1, {"prefix": "/aaa"}),
        route(TO_V1, {"path": {"regex": "/a.+"}}),
        route(TO_V1, {"prefix": "/aaa", "headers": two[:1]}),
        route(TO_V1, {"prefix": "/aaa", "headers": two}),
    )
    found = [(*each["match"].keys(), len(each["match"].get("headers", ()))) for each in routes(log)]
    assert found == [("safeRegex", 0), ("prefix", "headers", 2), ("prefix", "headers", 1), ("prefix", 0)]


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
