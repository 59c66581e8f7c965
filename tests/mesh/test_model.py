"""The committed model is botocore's, and the table made of it serves all 38 operations."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from botocore.session import Session

from mesh.errors import BadRequest
from mesh.kinds import KINDS, ResourceKey
from mesh.model.operations import OPERATIONS, SHAPES, allowed_methods, match
from tests.mesh.worlds import ACCOUNT, OTHER_ACCOUNT

REPOSITORY = Path(__file__).parents[2]


def derive_model() -> ModuleType:
    spec = importlib.util.spec_from_file_location("derive_model", REPOSITORY / "scripts" / "derive_model.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_model_is_what_botocore_gives() -> None:
    script = derive_model()
    for model, target in script.MODELS.items():
        committed = target.read_text(encoding="utf-8")
        assert committed == script.render(script.derive(*model)), "run: python scripts/derive_model.py"


def test_the_models_hold_facts_and_no_prose() -> None:
    for target in derive_model().MODELS.values():
        committed = target.read_text(encoding="utf-8")
        assert "documentation" not in committed
        assert "<p>" not in committed


def test_every_operation_has_a_kind_and_a_verb() -> None:
    assert len(OPERATIONS) == 38
    by_kind = {kind: sorted(op.verb for op in OPERATIONS.values() if op.kind is KINDS[kind]) for kind in KINDS}
    assert by_kind == {kind: ["create", "delete", "describe", "list", "update"] for kind in KINDS}
    assert sorted(op.verb for op in OPERATIONS.values() if op.kind is None) == ["list-tags", "tag", "untag"]


def test_every_member_of_every_input_travels_somewhere() -> None:
    for operation in OPERATIONS.values():
        travelling = {*operation.path_members, *operation.query_members, *operation.body_members}
        assert travelling == set(SHAPES[operation.input_shape]["members"])


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_what_boto3_sends_is_matched_to_the_operation_it_meant(name: str) -> None:
    model = Session().get_service_model("appmesh").operation_model(name)
    path = model.http["requestUri"].split("?")[0]
    values = {}
    for member in OPERATIONS[name].path_members:
        values[member] = f"a b/{member}.é"
        path = path.replace("{" + member + "}", f"a%20b%2F{member}.%C3%A9")
    found = match(model.http["method"], path)
    assert found is not None
    assert (found[0].name, found[1]) == (name, values)


@pytest.mark.parametrize(
    "path", ["/", "/v20190125/mesh", "/v20190125/meshes/m/virtualRouters/r/routes", "/v20190125/meshes//virtualNodes"]
)
def test_an_unknown_path_matches_nothing(path: str) -> None:
    assert match("PUT", path) is None


def test_an_unknown_method_matches_nothing_but_the_allowed_ones_are_known() -> None:
    assert match("POST", "/v20190125/meshes/m") is None
    assert allowed_methods("/v20190125/meshes/m") == ("DELETE", "GET", "PUT")
    assert allowed_methods("/v20190125/meshes") == ("GET", "PUT")
    assert allowed_methods("/nothing") == ()


def test_a_path_that_is_not_utf8_is_refused_by_its_member() -> None:
    with pytest.raises(BadRequest, match="meshName"):
        match("GET", "/v20190125/meshes/%FF")


def test_an_operation_names_its_resource() -> None:
    members = {"meshName": "m", "virtualRouterName": "r", "routeName": "x"}
    update = OPERATIONS["UpdateRoute"]
    assert update.key(ACCOUNT, members) == ResourceKey(ACCOUNT, "m", "route", "r", "x")
    assert update.key(ACCOUNT, {**members, "meshOwner": OTHER_ACCOUNT}).account == OTHER_ACCOUNT
    assert OPERATIONS["ListRoutes"].key(ACCOUNT, members) == ResourceKey(ACCOUNT, "m", "route", "r", "")
    assert OPERATIONS["CreateMesh"].key(ACCOUNT, {"meshName": "m"}) == ResourceKey(ACCOUNT, "m", "mesh", "", "m")
    assert OPERATIONS["ListMeshes"].key(ACCOUNT, {}) == ResourceKey(ACCOUNT, "", "mesh", "", "")


def test_outputs_are_the_bare_resource_but_for_lists_and_tags() -> None:
    for operation in OPERATIONS.values():
        bare = operation.verb in ("create", "describe", "update", "delete")
        assert operation.payload == (operation.kind.name if bare and operation.kind else None)
        assert operation.mutates == (operation.verb in ("create", "update", "delete", "tag", "untag"))


def test_query_members_know_their_type() -> None:
    assert OPERATIONS["ListMeshes"].member_type("limit") == "integer"
    assert OPERATIONS["ListMeshes"].member_type("nextToken") == "string"
