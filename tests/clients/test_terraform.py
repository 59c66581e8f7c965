"""The real Terraform with its real AWS provider: apply, plan without a difference, change, import, destroy."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from tests.api.conftest import ACCOUNT, ADMIN, REGION
from tests.clients.conftest import TERRAFORM
from tests.clients.servers import api_server
from tests.clients.terraform_process import Found, Terraform, find

CONFIGURATION = Path(__file__).parent / "terraform"
NO_DIFFERENCE, DIFFERENCE = 0, 2
RESOURCES = {
    "aws_appmesh_mesh.shop": "shop",
    'aws_appmesh_virtual_node.web["v1"]': "shop/web-v1",
    "aws_appmesh_virtual_router.web": "shop/web",
    "aws_appmesh_route.web": "shop/web/web",
    "aws_appmesh_virtual_service.web": "shop/web.shop.local",
    "aws_appmesh_virtual_gateway.front": "shop/front",
    "aws_appmesh_gateway_route.web": "shop/front/web",
}
"""An address of each kind, and the id that it is imported by."""


@pytest.fixture
def found(request: pytest.FixtureRequest) -> Iterator[Found]:
    lines = request.config.stash[TERRAFORM]
    found = find()
    if isinstance(found, str):
        lines.append(f"did not run: {found}")
        pytest.skip(f"real Terraform: {found}; its wire is in test_go_sdks.py")
    began_s = time.monotonic()
    yield found
    lines.append(f"{found.program} ran, with provider aws {found.version}, for {time.monotonic() - began_s:.0f} s")


@pytest.mark.timeout(1500)  # ten commands, each of which loads a provider of 700 MB
def test_terraform_manages_a_mesh_of_every_kind(found: Found, tmp_path: Path) -> None:
    shutil.copytree(CONFIGURATION, tmp_path, dirs_exist_ok=True)
    with api_server(tmp_path) as cloud:
        url = cloud.server.url
        keys = {"AWS_ACCESS_KEY_ID": ADMIN.access_key_id, "AWS_SECRET_ACCESS_KEY": ADMIN.secret}
        first = {"TF_VAR_endpoint": url, "TF_VAR_canary_weight": "0", "TF_VAR_team": "blue"}
        terraform = Terraform(found, tmp_path, {**keys, **first})
        terraform.run("init")
        terraform.run("apply", "-auto-approve")
        terraform.run("plan", "-detailed-exitcode", expected=(NO_DIFFERENCE,))
        outputs = json.loads(terraform.run("output", "-json")[1])
        assert {outputs["account"]["value"], outputs["mesh_owner"]["value"]} == {ACCOUNT}

        changed = Terraform(found, tmp_path, {**keys, **first, "TF_VAR_canary_weight": "5", "TF_VAR_team": "green"})
        changed.run("plan", "-detailed-exitcode", expected=(DIFFERENCE,))
        changed.run("apply", "-auto-approve")
        appmesh = boto3.client(
            "appmesh",
            endpoint_url=url,
            region_name=REGION,
            aws_access_key_id=ADMIN.access_key_id,
            aws_secret_access_key=ADMIN.secret,
        )
        route = appmesh.describe_route(meshName="shop", virtualRouterName="web", routeName="web")["route"]
        targets = route["spec"]["httpRoute"]["action"]["weightedTargets"]
        assert {target["virtualNode"]: target["weight"] for target in targets} == {"web-v1": 95, "web-v2": 5}
        mesh = appmesh.describe_mesh(meshName="shop")["mesh"]["metadata"]["arn"]
        tags = appmesh.list_tags_for_resource(resourceArn=mesh)["tags"]
        assert tags == [{"key": "managed-by", "value": "terraform"}, {"key": "team", "value": "green"}]

        changed.run("state", "rm", *RESOURCES)
        blocks = [f'import {{\n  to = {address}\n  id = "{name}"\n}}\n' for address, name in RESOURCES.items()]
        (tmp_path / "imports.tf").write_text("".join(blocks))
        applied = changed.run("apply", "-auto-approve")[1]
        assert f"{len(RESOURCES)} imported, 0 added, 0 changed, 0 destroyed" in applied
        changed.run("plan", "-detailed-exitcode", expected=(NO_DIFFERENCE,))
        changed.run("destroy", "-auto-approve")
        assert appmesh.list_meshes()["meshes"] == []
