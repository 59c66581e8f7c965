"""One request's input: every problem at once, whatever part of it has them, and nothing said twice."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.errors import BadRequest
from mesh.input import check_input
from mesh.model.operations import OPERATIONS
from tests.mesh.worlds import node_spec


def refusal(operation: str, **members: Any) -> str:
    with pytest.raises(BadRequest) as caught:
        check_input(OPERATIONS[operation], members)
    return caught.value.message


def test_all_problems_of_a_request_are_told_at_once() -> None:
    spec = {"listeners": node_spec()["listeners"]}
    message = refusal(
        "CreateVirtualNode",
        meshName="a/b",
        virtualNodeName="x" * 256,
        meshOwner="12345678901x",
        clientToken="no spaces",
        tags=[{"key": "aws:x", "value": ""}, {"key": "a", "value": ""}, {"key": "a", "value": ""}],
        spec=spec,
        colour="red",
    )
    assert message.startswith("8 validation errors: ")
    for path in ("meshName: ", "virtualNodeName: ", "meshOwner: ", "clientToken: ", "tags[0].key: ", "tags[2].key: ",
                 "spec.serviceDiscovery: ", "colour: "):  # fmt: skip
        assert message.count(path) == 1, path


def test_rules_do_not_speak_where_the_model_has_spoken() -> None:
    message = refusal(
        "CreateVirtualNode", meshName="m", virtualNodeName="n", spec={"listeners": [{"portMapping": {"port": 0}}]}
    )
    assert message == (
        "2 validation errors: spec.listeners[0].portMapping.protocol: is required; "
        "spec.listeners[0].portMapping.port: 0 must be at least 1"
    )


def test_a_name_with_a_slash_is_refused_by_every_operation() -> None:
    for operation in OPERATIONS.values():
        if "meshName" in operation.path_members:
            names = dict.fromkeys(operation.path_members, "x") | {"meshName": "arn:aws:appmesh:r:1:mesh/x"}
            with pytest.raises(BadRequest, match=r"meshName: .* must not contain '/'"):
                check_input(operation, names)


@pytest.mark.parametrize(("limit", "said"), [(0, "at least 1"), (101, "at most 100")])
def test_a_limit_has_its_bounds(limit: int, said: str) -> None:
    assert f"limit: {limit} must be {said}" in refusal("ListMeshes", limit=limit)
