"""App Mesh's rules beyond its model, one example each side of every line."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from mesh.errors import BadRequest, TooManyTags
from mesh.kinds import ResourceKey
from mesh.limits import SPEC_MAX_BYTES
from mesh.rules import check_client_token, check_key, check_spec, check_tags, tags_from_list
from tests.mesh.worlds import ACCOUNT, SHOP, gateway_route_spec, key, node_spec, route_spec, router_spec


def refusal(kind: str, spec: dict[str, Any]) -> str:
    with pytest.raises(BadRequest) as caught:
        check_spec(kind, spec)
    return caught.value.message


def http_route(**match: Any) -> dict[str, Any]:
    return {"httpRoute": {"match": match, "action": {"weightedTargets": [{"virtualNode": "n", "weight": 1}]}}}


def grpc_route(**match: Any) -> dict[str, Any]:
    return {"grpcRoute": {"match": match, "action": {"weightedTargets": [{"virtualNode": "n", "weight": 1}]}}}


def with_retry(**policy: Any) -> dict[str, Any]:
    route = http_route(prefix="/")
    route["httpRoute"]["retryPolicy"] = {"maxRetries": 1, "perRetryTimeout": {"unit": "s", "value": 1}, **policy}
    return route


def with_listener(**members: Any) -> dict[str, Any]:
    spec = node_spec()
    spec["listeners"][0].update(members)
    return spec


def health_check(listener: str = "http", **members: Any) -> dict[str, Any]:
    check = {
        "protocol": "http",
        "healthyThreshold": 2,
        "unhealthyThreshold": 2,
        "intervalMillis": 5000,
        "timeoutMillis": 2000,
        **members,
    }
    return with_listener(healthCheck=check, portMapping={"port": 8080, "protocol": listener})


GOOD: list[tuple[str, dict[str, Any]]] = [
    *((each.kind, spec) for each, spec in SHOP),
    ("virtualNode", {}),
    ("virtualNode", health_check(port=8080)),
    ("virtualNode", health_check()),
    ("virtualNode", health_check(protocol="tcp")),
    ("virtualNode", health_check("grpc", protocol="http2", path="/ping")),
    ("virtualNode", health_check("http2", protocol="grpc")),
    ("virtualNode", with_listener(timeout={"http": {}}, connectionPool={"http": {"maxConnections": 1}})),
    ("virtualService", {}),
    ("virtualRouter", {}),
    ("route", route_spec({"a": 50, "b": 50})),
    ("route", route_spec({"a": 0, "b": 1})),
    ("route", route_spec({"a": 0})),
    ("route", http_route(path={"exact": "/x"})),
    ("route", http_route(headers=[{"name": "x", "match": {"range": {"start": 1, "end": 2}}}])),
    ("route", grpc_route(serviceName="s", methodName="m")),
    ("route", with_retry(tcpRetryEvents=["connection-error"])),
    ("route", with_retry(httpRetryEvents=["server-error", "gateway-error", "client-error", "stream-error"])),
    ("gatewayRoute", gateway_route_spec("s", prefix="/aws")),
]


@pytest.mark.parametrize(("kind", "spec"), GOOD)
def test_what_app_mesh_took_is_taken(kind: str, spec: dict[str, Any]) -> None:
    check_spec(kind, spec)


BAD: list[tuple[str, dict[str, Any], str]] = [
    (
        "route",
        route_spec({"a": 90, "b": 11}),
        "spec.httpRoute.action.weightedTargets: the weights add up to 101, which must be at most 100",
    ),
    ("route", {}, "spec: must have exactly one of httpRoute, http2Route, grpcRoute, tcpRoute, and has none"),
    ("route", {**http_route(prefix="/"), **grpc_route()}, "and has httpRoute, grpcRoute"),
    ("route", http_route(prefix="x"), """spec.httpRoute.match.prefix: "x" must begin with '/'"""),
    ("route", http_route(prefix="/", path={"exact": "/"}), "must have one of prefix, path, and has both"),
    ("route", grpc_route(methodName="m"), "spec.grpcRoute.match.methodName: needs serviceName beside it"),
    (
        "route",
        http_route(headers=[{"name": "x", "match": {"range": {"start": 2, "end": 2}}}]),
        "spec.httpRoute.match.headers[0].match.range: 2 to 2 matches nothing",
    ),
    ("route", with_retry(), "spec.httpRoute.retryPolicy: must have at least one of httpRetryEvents, tcpRetryEvents"),
    (
        "route",
        with_retry(httpRetryEvents=["5xx"]),
        'spec.httpRoute.retryPolicy.httpRetryEvents[0]: "5xx" must be one of',
    ),
    (
        "virtualNode",
        health_check(port=81),
        "spec.listeners[0].healthCheck.port: 81 must equal the listener's port 8080",
    ),
    (
        "virtualNode",
        health_check(protocol="grpc"),
        "spec.listeners[0].healthCheck.protocol: GRPC HealthCheck requires listener type of HTTP2 or GRPC.",
    ),
    (
        "virtualNode",
        health_check("tcp"),
        "spec.listeners[0].healthCheck.protocol: http cannot check a listener of protocol tcp, only tcp",
    ),
    ("virtualNode", with_listener(timeout={"tcp": {}}), "spec.listeners[0].timeout.tcp: must be http"),
    (
        "virtualNode",
        with_listener(connectionPool={"grpc": {"maxRequests": 1}}),
        "spec.listeners[0].connectionPool.grpc: must be http",
    ),
    ("virtualNode", {"listeners": node_spec()["listeners"]}, "spec.serviceDiscovery: is required"),
    (
        "virtualNode",
        node_spec(backends=("a", "b", "a")),
        'spec.backends[2].virtualService.virtualServiceName: "a" is there twice',
    ),
    ("virtualRouter", router_spec(80, 80), "spec.listeners[1].portMapping.port: 80 is the port of another listener"),
    ("virtualGateway", router_spec(80, 80), "spec.listeners[1].portMapping.port: 80 is the port of another listener"),
    (
        "gatewayRoute",
        gateway_route_spec("s", prefix="/aws-app-mesh/x"),
        "must not begin with /aws-appmesh or /aws-app-mesh",
    ),
    ("gatewayRoute", gateway_route_spec("s", prefix="x"), "spec.httpRoute.match.prefix"),
    (
        "gatewayRoute",
        {
            "grpcRoute": {
                "match": {"serviceName": "aws.appmesh.x"},
                "action": {"target": {"virtualService": {"virtualServiceName": "s"}}},
            }
        },
        "spec.grpcRoute.match.serviceName",
    ),
    ("gatewayRoute", {}, "spec: must have exactly one of httpRoute, http2Route, grpcRoute, and has none"),
    ("mesh", {"egressFilter": {}}, "spec.egressFilter.type: is required"),
]


@pytest.mark.parametrize(("kind", "spec", "problem"), BAD, ids=[case[2][:50] for case in BAD])
def test_what_app_mesh_refused_is_refused_by_its_path(kind: str, spec: dict[str, Any], problem: str) -> None:
    assert problem in refusal(kind, spec)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for step in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from _places(value[step], (*path, step))


JUNK: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.text() | st.just({}) | st.just([]) | st.just([{}])
)


@given(data=st.data(), case=st.sampled_from(GOOD), junk=JUNK)
def test_one_damaged_place_is_refused_or_harmless(
    data: st.DataObject, case: tuple[str, dict[str, Any]], junk: Any
) -> None:
    kind, spec = case[0], copy.deepcopy(case[1])
    *above, last = data.draw(st.sampled_from([path for path in _places(spec) if path] or [("x",)]))
    target: Any = spec
    for step in above:
        target = target[step]
    target[last] = junk
    try:
        check_spec(kind, spec)
    except BadRequest as error:
        assert "spec" in error.message  # noqa: PT017 (passing is fine too)


def test_a_spec_over_the_size_names_its_largest_part() -> None:
    spec = node_spec(backends=tuple(f"{number:05d}" + "x" * 200 for number in range(700)))
    message = refusal("virtualNode", spec)
    assert message.startswith("1 validation error: spec.backends: ")
    assert message.endswith(f"must be at most {SPEC_MAX_BYTES}")


NAMES_REFUSED = [
    (ResourceKey("12345678901x", "m", "mesh", "", "m"), "meshOwner"),
    (ResourceKey(ACCOUNT, "a/b", "mesh", "", "a/b"), "meshName"),
    (ResourceKey(ACCOUNT, "a@b", "mesh", "", "a@b"), "meshName"),
    (key("virtualNode", ""), "virtualNodeName"),
    (key("virtualNode", "x" * 256), "virtualNodeName"),
    (key("virtualService", "a/b"), "virtualServiceName"),
    (key("virtualNode", ".."), "virtualNodeName"),
    (key("virtualNode", "a\nb"), "virtualNodeName"),
    (key("virtualNode", "\ud800"), "virtualNodeName"),
    (key("route", "x", parent="a/b"), "virtualRouterName"),
]


@pytest.mark.parametrize(("refused", "member"), NAMES_REFUSED)
def test_a_name_that_cannot_be_in_a_path_is_refused(refused: ResourceKey, member: str) -> None:
    with pytest.raises(BadRequest, match=f"1 validation error: {member}: "):
        check_key(refused)


def test_names_are_otherwise_free_text() -> None:
    check_key(key("virtualService", "cart.shop.local"))
    check_key(key("virtualNode", "Käse @ 7: *"))
    check_key(key("virtualNode", "x" * 255))


def test_tags_are_bounded() -> None:
    assert check_tags({"b": "2"}, {"a": "1", "b": "1"}) == {"a": "1", "b": "2"}
    check_tags({str(number): "" for number in range(50)})
    with pytest.raises(TooManyTags, match="51 tags"):
        check_tags({"one more": ""}, {str(number): "" for number in range(50)})
    with pytest.raises(BadRequest, match="must be at least 1 characters"):
        check_tags({"": "v"})
    with pytest.raises(BadRequest, match="at most 256 characters"):
        check_tags({"k": "v" * 257})
    with pytest.raises(BadRequest, match="reserved"):
        check_tags({"AWS:x": "v"})


def test_a_tag_key_must_not_be_there_twice() -> None:
    assert tags_from_list([{"key": "a", "value": "1"}, {"key": "b", "value": "2"}]) == {"a": "1", "b": "2"}
    with pytest.raises(BadRequest, match=r"tags\[1\]\.key"):
        tags_from_list([{"key": "a", "value": "1"}, {"key": "a", "value": "1"}])


@pytest.mark.parametrize("token", ["", "x" * 37, "a b", "é"])
def test_a_client_token_is_bounded(token: str) -> None:
    check_client_token("1c9d5a9e-8a8f-4f0e-9d6b-0f7c0c1a2b3d")
    with pytest.raises(BadRequest, match="clientToken"):
        check_client_token(token)
