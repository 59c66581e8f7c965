"""The validator names every problem by path, value and rule, and says nothing of what is right."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from mesh.errors import BadRequest
from mesh.limits import PROBLEMS_SHOWN
from mesh.model.operations import SHAPES
from mesh.model.validator import problems, validate
from tests.mesh.worlds import SHOP, node_spec


def listener(**members: Any) -> dict[str, Any]:
    return {"listeners": [{"portMapping": {"port": 80, "protocol": "http"}, **members}]}


def port_mapping(**members: Any) -> dict[str, Any]:
    return {"listeners": [{"portMapping": {"port": 80, "protocol": "http", **members}}]}


CASES: list[tuple[str, Any, str]] = [
    ("MeshSpec", {"egress": {}}, "spec.egress: is not a known field (known: egressFilter, serviceDiscovery)"),
    ("MeshSpec", {"\ud800": {}}, "spec.\\ud800: is not a known field (known: egressFilter, serviceDiscovery)"),
    ("VirtualNodeSpec", [], "spec: a list of 0 must be an object"),
    ("VirtualNodeSpec", None, "spec: null must be an object"),
    ("VirtualNodeSpec", {"listeners": {}}, "spec.listeners: an object of 0 must be a list"),
    ("VirtualNodeSpec", {"listeners": [{}]}, "spec.listeners[0].portMapping: is required"),
    ("VirtualNodeSpec", port_mapping(port=0), "spec.listeners[0].portMapping.port: 0 must be at least 1"),
    ("VirtualNodeSpec", port_mapping(port=65536), "spec.listeners[0].portMapping.port: 65536 must be at most 65535"),
    ("VirtualNodeSpec", port_mapping(port=True), "spec.listeners[0].portMapping.port: true must be a whole number"),
    ("VirtualNodeSpec", port_mapping(port=80.0), "spec.listeners[0].portMapping.port: 80.0 must be a whole number"),
    ("VirtualNodeSpec", port_mapping(port="80"), 'spec.listeners[0].portMapping.port: "80" must be a whole number'),
    (
        "VirtualNodeSpec",
        port_mapping(port=10**6000),
        "spec.listeners[0].portMapping.port: a number of 19932 bits must be at most 65535",
    ),
    (
        "VirtualNodeSpec",
        port_mapping(protocol="HTTP"),
        'spec.listeners[0].portMapping.protocol: "HTTP" must be one of http, tcp, http2, grpc',
    ),
    (
        "VirtualNodeSpec",
        listener(timeout={}),
        "spec.listeners[0].timeout: must have exactly one of grpc, http, http2, tcp, and has none",
    ),
    (
        "VirtualNodeSpec",
        listener(timeout={"http": {}, "tcp": {}}),
        "spec.listeners[0].timeout: must have exactly one of grpc, http, http2, tcp, and has http, tcp",
    ),
    (
        "VirtualNodeSpec",
        listener(timeout={"http": {"idle": {"unit": "s", "value": 2**63}}}),
        "spec.listeners[0].timeout.http.idle.value: 9223372036854775808 must be at most 9223372036854775807",
    ),
    (
        "VirtualNodeSpec",
        {"serviceDiscovery": {"dns": {"hostname": "\ud800"}}},
        'spec.serviceDiscovery.dns.hostname: "\\ud800" is not valid Unicode (it has half of a surrogate pair)',
    ),
    (
        "AwsCloudMapInstanceAttribute",
        {"key": "a b", "value": "v"},
        'spec.key: "a b" must match the pattern ^[a-zA-Z0-9!-~]+$',
    ),
    (
        "AwsCloudMapInstanceAttribute",
        {"key": "k\n", "value": "v"},
        'spec.key: "k\\n" must match the pattern ^[a-zA-Z0-9!-~]+$',
    ),
    ("HttpRouteMatch", {"headers": []}, "spec.headers: a list of 0 must be at least 1 items"),
    ("HttpRouteMatch", {"headers": [{"name": "x"}] * 11}, "spec.headers: a list of 11 must be at most 10 items"),
    (
        "HttpRouteMatch",
        {"headers": [{"name": ""}]},
        'spec.headers[0].name: "" (0 characters) must be at least 1 characters',
    ),
    ("HttpRouteHeader", {"name": "x", "invert": 1}, "spec.invert: 1 must be true or false"),
    ("RouteSpec", {"priority": 1001}, "spec.priority: 1001 must be at most 1000"),
]


@pytest.mark.parametrize(("shape", "value", "problem"), CASES, ids=[case[2][:60] for case in CASES])
def test_each_rule_names_path_value_and_rule(shape: str, value: Any, problem: str) -> None:
    assert list(problems(shape, value, "spec")) == [problem]


def test_all_problems_come_in_one_message() -> None:
    spec = {**port_mapping(port=0, protocol="x"), "extra": 1}
    with pytest.raises(BadRequest) as caught:
        validate("VirtualNodeSpec", spec, "spec")
    assert caught.value.message == (
        "3 validation errors: spec.listeners[0].portMapping.port: 0 must be at least 1; "
        'spec.listeners[0].portMapping.protocol: "x" must be one of http, tcp, http2, grpc; '
        "spec.extra: is not a known field (known: backendDefaults, backends, listeners, logging, serviceDiscovery)"
    )


def test_a_flood_of_problems_is_cut_short() -> None:
    with pytest.raises(BadRequest) as caught:
        validate("VirtualNodeSpec", {"listeners": [{}] * 100_000}, "spec")
    assert len(caught.value.message) < 5_000
    assert caught.value.message.endswith(f"and {1_000 - PROBLEMS_SHOWN} more")


def test_a_long_value_is_repeated_in_part_only() -> None:
    (problem,) = problems("PortProtocol", "x" * 1_000_000, "spec")
    assert len(problem) < 200


def test_without_a_path_members_stand_alone() -> None:
    assert next(problems("CreateMeshInput", {"x": 1})) == "meshName: is required"
    assert list(problems("CreateMeshInput", 3)) == ["input: 3 must be an object"]


def test_right_input_passes_in_all_kinds() -> None:
    for key, spec in SHOP:
        validate(f"{key.kind[0].upper()}{key.kind[1:]}Spec", spec)
    validate(
        "CreateVirtualNodeInput",
        {
            "meshName": "m",
            "virtualNodeName": "n",
            "spec": node_spec(),
            "clientToken": "t",
            "tags": [{"key": "k", "value": ""}],
            "meshOwner": "123456789012",
        },
    )


def test_empty_lists_and_edges_of_ranges_pass() -> None:
    validate("VirtualNodeSpec", {"backends": [], "listeners": []})
    validate("VirtualNodeSpec", port_mapping(port=1))
    validate("VirtualNodeSpec", port_mapping(port=65535))
    validate("Duration", {"unit": "ms", "value": 0})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.sampled_from(["spec", "listeners"]), inner)
    ),
    max_leaves=20,
)


@given(shape=st.sampled_from(sorted(SHAPES)), value=JSON)
def test_no_json_value_makes_it_fail_in_any_other_way(shape: str, value: Any) -> None:
    try:
        validate(shape, value)
    except BadRequest as error:
        assert error.message.encode()  # noqa: PT017 (passing is fine too)
