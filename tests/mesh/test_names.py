"""Resources by name on the wire: ARNs, documents, positions, references."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from mesh.arn import Arn, arn, parse_arn
from mesh.documents import DELETED, resource_document, resource_ref, tag_list
from mesh.errors import BadRequest
from mesh.frozen import freeze, thaw
from mesh.kinds import KINDS, ResourceKey, mesh_key
from mesh.model.validator import validate
from mesh.position import Position, parse_position
from mesh.references import hard_references, soft_references
from mesh.rules import check_key
from tests.mesh.worlds import ACCOUNT, MESH, OTHER_ACCOUNT, SHOP, START_US, STEP_US, World, key, node_spec, shop

NAMES = st.text(min_size=1, max_size=40)


@st.composite
def keys(draw: st.DrawFn) -> ResourceKey:
    mesh, name, parent = draw(NAMES), draw(NAMES), draw(NAMES)
    kind = draw(st.sampled_from(sorted(KINDS)))
    if kind == "mesh":
        return mesh_key(ACCOUNT, mesh)
    return ResourceKey(ACCOUNT, mesh, kind, parent if KINDS[kind].parent else "", name)


@given(drawn=keys(), region=st.from_regex(r"\A[a-z]{2}-[a-z]+-[1-9]\Z"))
def test_an_allowed_name_survives_its_arn(drawn: ResourceKey, region: str) -> None:
    try:
        check_key(drawn)
    except BadRequest:
        return
    assert parse_arn(arn(region, drawn)) == Arn(region, drawn)


def test_arns_are_those_of_app_mesh() -> None:
    written = [arn("eu-west-1", each).split(":", 5)[5] for each, _ in SHOP]
    assert written == [
        "mesh/shop",
        "mesh/shop/virtualNode/cart-v1",
        "mesh/shop/virtualNode/cart-v2",
        "mesh/shop/virtualRouter/cart",
        "mesh/shop/virtualRouter/cart/route/all",
        "mesh/shop/virtualService/cart.shop.local",
        "mesh/shop/virtualService/v1.shop.local",
        "mesh/shop/virtualGateway/edge",
        "mesh/shop/virtualGateway/edge/gatewayRoute/cart",
    ]
    assert arn("eu-west-1", MESH) == f"arn:aws:appmesh:eu-west-1:{ACCOUNT}:mesh/shop"
    assert parse_arn(f"arn:aws-cn:appmesh:cn-north-1:{ACCOUNT}:mesh/shop").key == MESH


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mesh/shop",
        "arn:aws:s3:::bucket",
        f"arn:aws:appmesh:r:{ACCOUNT}:mesh",
        f"arn:aws:appmesh:r:{ACCOUNT}:mesh/",
        f"arn:aws:appmesh:r:{ACCOUNT}:mesh/m/virtualNode",
        f"arn:aws:appmesh:r:{ACCOUNT}:mesh/m/noKind/n",
        f"arn:aws:appmesh:r:{ACCOUNT}:mesh/m/route/x",
        f"arn:aws:appmesh:r:{ACCOUNT}:mesh/m/virtualNode/n/route/x",
        f"arn:aws:appmesh:r:{ACCOUNT}:mesh/m/virtualGateway/g/route/x",
        "arn:aws:appmesh:r:123:mesh/m",
        f"arn:aws:appmesh:r:{ACCOUNT}:mesh/m/mesh/m",
        f"arn:aws:appmesh:r:{ACCOUNT}:mesh/m/virtualNode/a/b",
    ],
)
def test_what_is_no_arn_of_ours_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="resourceArn"):
        parse_arn(text)


@pytest.mark.parametrize("each", [each for each, _ in SHOP])
def test_documents_have_the_model_s_shape(each: ResourceKey) -> None:
    resource = shop().at(each)
    title = KINDS[each.kind].title
    document, ref = resource_document(resource, "eu-west-1"), resource_ref(resource, "eu-west-1")
    validate(f"{title}Data", document)
    validate(f"{title}Ref", ref)
    assert json.loads(json.dumps(document)) == document
    assert document["spec"] == dict(SHOP)[each], "specs make the round trip verbatim"
    assert document["metadata"].items() >= {"arn": arn("eu-west-1", each), "uid": resource.uid, "version": 1}.items()
    assert {**ref}.items() >= {name: document[name] for name in document if name.endswith("Name")}.items()


def test_times_are_epoch_seconds_as_numbers() -> None:
    metadata = resource_document(shop().at(key("virtualNode", "cart-v1")), "r")["metadata"]
    assert metadata["createdAt"] == (START_US + 2 * STEP_US) / 1_000_000
    assert isinstance(metadata["lastUpdatedAt"], float)


def test_a_deleted_resource_says_so() -> None:
    assert resource_document(shop().at(MESH), "r", DELETED)["status"] == {"status": "DELETED"}


def test_owners_are_those_of_the_mesh_and_of_the_resource() -> None:
    resource = shop().at(MESH)
    shared = type(resource)(resource.key, {}, {"b": "2", "a": "1"}, "u", 1, OTHER_ACCOUNT, 1, 1, Position(1, 1))
    metadata = resource_document(shared, "r")["metadata"]
    assert (metadata["meshOwner"], metadata["resourceOwner"]) == (ACCOUNT, OTHER_ACCOUNT)
    assert tag_list(shared) == [{"key": "a", "value": "1"}, {"key": "b", "value": "2"}]


REFERENCES = {
    MESH: [],
    key("virtualNode", "cart-v2"): [MESH],
    key("virtualRouter", "cart"): [MESH],
    key("route", "all", parent="cart"): [
        MESH,
        key("virtualRouter", "cart"),
        key("virtualNode", "cart-v1"),
        key("virtualNode", "cart-v2"),
    ],
    key("virtualService", "cart.shop.local"): [MESH, key("virtualRouter", "cart")],
    key("virtualService", "v1.shop.local"): [MESH, key("virtualNode", "cart-v1")],
    key("virtualGateway", "edge"): [MESH],
    key("gatewayRoute", "cart", parent="edge"): [
        MESH,
        key("virtualGateway", "edge"),
        key("virtualService", "cart.shop.local"),
    ],
}


@pytest.mark.parametrize(("each", "targets"), REFERENCES.items())
def test_hard_references_are_those_of_the_table(each: ResourceKey, targets: list[ResourceKey]) -> None:
    assert [reference.target for reference in hard_references(each, dict(SHOP)[each])] == targets


@pytest.mark.parametrize("member", ["httpRoute", "http2Route", "grpcRoute", "tcpRoute"])
def test_every_type_of_route_refers_to_its_nodes(member: str) -> None:
    spec: dict[str, Any] = {member: {"action": {"weightedTargets": [{"virtualNode": "n", "weight": 1}]}}}
    reference = hard_references(key("route", "x", parent="r"), spec)[-1]
    assert reference.target == key("virtualNode", "n")
    assert reference.path == f"spec.{member}.action.weightedTargets[0].virtualNode"


def test_only_backends_are_soft() -> None:
    node = key("virtualNode", "n")
    (reference,) = soft_references(node, node_spec(backends=("s",)))
    assert reference.target == key("virtualService", "s")
    assert reference.path == "spec.backends[0].virtualService.virtualServiceName"
    assert soft_references(node, {"backends": []}) == ()
    assert all(not soft_references(each, spec) for each, spec in SHOP if each.kind != "virtualNode")


def test_positions_are_read_with_and_without_an_epoch() -> None:
    assert parse_position("42", 3) == Position(3, 42)
    assert parse_position("1.42", 3) == Position(1, 42)
    assert str(Position(1, 42)) == "1.42"
    assert Position(1, 99) < Position(2, 1)
    for text in ("", ".", "1.", "a", "-1", "1.2.3", "²"):
        with pytest.raises(BadRequest):
            parse_position(text, 1)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_freezing_and_thawing_gives_the_same(value: Any) -> None:
    assert thaw(freeze(value)) == value


def test_a_frozen_value_is_a_copy() -> None:
    value = {"a": [1]}
    frozen = freeze(value)
    value["a"].append(2)
    assert frozen["a"] == (1,)


def test_a_world_begins_empty() -> None:
    assert not World().state.resources
