"""App Mesh's own JSON, as the aws CLI, SDKs and `meshlog get` print and take it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from manifests.appmesh_json import read, recognised
from manifests.document import Manifest, Reading
from manifests.text import Document, documents

ACCOUNT, OTHER = "123456789012", "210987654321"
READING = Reading(ACCOUNT, "eu-west-1")
NODE: dict[str, Any] = {"meshName": "shop", "virtualNodeName": "front", "spec": {"logging": {}}}


def read_value(value: object, reading: Reading = READING) -> Manifest:
    return read([Document(value, "f", 1)], reading)


@pytest.mark.parametrize(
    ("names", "path"),
    [
        ({}, "mesh/shop"),
        ({"virtualNodeName": "a"}, "mesh/shop/virtualNode/a"),
        ({"virtualServiceName": "a.b"}, "mesh/shop/virtualService/a.b"),
        ({"virtualRouterName": "a"}, "mesh/shop/virtualRouter/a"),
        ({"virtualRouterName": "a", "routeName": "b"}, "mesh/shop/virtualRouter/a/route/b"),
        ({"virtualGatewayName": "a"}, "mesh/shop/virtualGateway/a"),
        ({"virtualGatewayName": "a", "gatewayRouteName": "b"}, "mesh/shop/virtualGateway/a/gatewayRoute/b"),
    ],
)
def test_the_names_tell_the_kind(names: dict[str, str], path: str) -> None:
    (found,) = read_value({"meshName": "shop", **names, "spec": {"x": 1}}).resources
    assert (found.key(ACCOUNT).path, found.spec, found.tags) == (path, {"x": 1}, None)


@pytest.mark.parametrize("wrap", [lambda node: node, lambda node: {"virtualNode": node}, lambda node: [node]])
def test_bare_wrapped_and_in_lists(wrap: Any) -> None:
    value = wrap(NODE)
    assert recognised(value)
    assert [item.name for item in read_value(value).resources] == ["front"]


def test_what_describe_prints_belongs_to_whoever_applies_it() -> None:
    metadata = {"meshOwner": OTHER, "resourceOwner": OTHER, "uid": "u", "version": 3, "arn": "arn", "createdAt": 1.5}
    found = read_value({"virtualNode": NODE | {"metadata": metadata, "status": {"status": "ACTIVE"}}})
    assert [item.account for item in found.resources] == [None]


def test_what_stood_in_somebody_else_s_mesh_still_does() -> None:
    metadata = {"meshOwner": OTHER, "resourceOwner": ACCOUNT}
    assert [item.account for item in read_value(NODE | {"metadata": metadata}).resources] == [OTHER]
    assert [item.account for item in read_value(NODE | {"meshOwner": OTHER}).resources] == [OTHER]


def test_tags_are_those_of_the_document_where_it_has_some() -> None:
    tags = [{"key": "team", "value": "a"}, {"key": "bare"}]
    assert [item.tags for item in read_value(NODE | {"tags": tags}).resources] == [{"team": "a", "bare": ""}]
    assert [item.tags for item in read_value(NODE | {"tags": []}).resources] == [{}]


def test_a_mesh_may_have_no_spec() -> None:
    assert [item.spec for item in read_value({"meshName": "shop", "clientToken": "t"}).resources] == [{}]


def test_the_mesh_may_come_from_outside() -> None:
    value = {"routeName": "r", "virtualRouterName": "v", "spec": {}}
    assert [str(problem) for problem in read_value(value).problems] == ["f:1: meshName: is required; say --mesh"]
    (found,) = read_value(value, Reading(ACCOUNT, "r", mesh="shop")).resources
    assert found.key(ACCOUNT).path == "mesh/shop/virtualRouter/v/route/r"


def test_what_was_deleted_is_skipped() -> None:
    found = read_value(NODE | {"status": {"status": "DELETED"}})
    assert not found.resources
    assert [skipped.what for skipped in found.skipped] == ["virtualNode front"]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"meshName": "m", "virtualNodeName": "n"}, "spec: is required"),
        ({"meshName": "m", "virtualNodeName": "n", "spec": []}, "spec: must be an object"),
        ({"meshName": "m", "virtualNodeName": 5, "spec": {}}, "virtualNodeName: must be a string"),
        ({"meshName": "m", "routeName": "n", "spec": {}}, "virtualRouterName: is required"),
        (NODE | {"tags": {"a": "b"}}, "tags: must be a list of {key, value}, both strings"),
        (NODE | {"tags": [{"key": "a"}, {"key": "a"}]}, 'tags[1].key: "a" is there twice'),
        ({"virtualNodes": [{"meshName": "m", "virtualNodeName": "n", "arn": "a"}]}, "virtualNodes: is what a list"),
    ],
)
def test_what_is_wrong_is_told(value: dict[str, Any], says: str) -> None:
    assert recognised(value)
    (problem,) = read_value(value).problems
    assert says in str(problem)


@pytest.mark.parametrize("value", [None, [], {}, "text", {"name": "package"}, [{"a": 1}], 5])
def test_other_json_is_not_recognised(value: object) -> None:
    assert not recognised(value)


def test_each_resource_of_a_list_knows_its_line() -> None:
    (document,) = documents(json.dumps([NODE, NODE | {"virtualNodeName": "b"}], indent=1), "nodes.json")
    first, second = read([document], READING).resources
    assert (first.source, second.source) == ("nodes.json:2", "nodes.json:9")


def test_a_mesh_from_outside_may_be_somebody_else_s() -> None:
    shared = Reading(ACCOUNT, "r", mesh="shop", mesh_owner=OTHER)
    without = {"virtualNodeName": "front", "spec": {}}
    assert [item.account for item in read_value(without, shared).resources] == [OTHER]
    assert [item.account for item in read_value(NODE, shared).resources] == [None]
