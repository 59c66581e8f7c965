"""Shell scripts in the manner of AWS's walkthroughs, with the real aws CLI, unaware of where they are sent."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import boto3
import pytest

from tests.api.conftest import ACCOUNT, ADMIN, REGION, Cloud
from tests.clients.servers import api_server

SCRIPT = Path(__file__).parent / "walkthrough" / "deploy.sh"
MESH = "howto"
CONFIG = """
[default]
region = {region}
services = meshlog

[services meshlog]
app_mesh =
  endpoint_url = {url}
sts =
  endpoint_url = {url}
"""


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with api_server(tmp_path) as cloud:
        yield cloud


def run(action: str, environment: Mapping[str, str]) -> str:
    """Standard output; AssertionError with all of it if the script fails."""
    own = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": "/nonexistent",
        "AWS_ACCESS_KEY_ID": ADMIN.access_key_id,
        "AWS_SECRET_ACCESS_KEY": ADMIN.secret,
        "AWS_PAGER": "",
        "MESH_NAME": MESH,
        "SERVICES_DOMAIN": "howto.local",
        "AWS_ACCOUNT_ID": ACCOUNT,
    }
    argv = ["bash", str(SCRIPT), action]
    done = subprocess.run(argv, env={**own, **environment}, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, f"{action}: {done.stdout}\n{done.stderr}"
    return done.stdout


def test_deploy_twice_shift_and_delete(cloud: Cloud, tmp_path: Path) -> None:
    """By a profile's `services`, and by the scripts' own `--endpoint-url`."""
    url = cloud.server.url
    config = tmp_path / "config"
    config.write_text(CONFIG.format(region=REGION, url=url))
    by_profile = {"AWS_CONFIG_FILE": str(config)}
    by_flag = {"APPMESH_ENDPOINT": url, "AWS_ENDPOINT_URL_STS": url, "AWS_DEFAULT_REGION": REGION}
    keys = {"aws_access_key_id": ADMIN.access_key_id, "aws_secret_access_key": ADMIN.secret}
    appmesh = boto3.client("appmesh", endpoint_url=url, region_name=REGION, **keys)

    run("deploy", by_profile)
    node = appmesh.describe_virtual_node(meshName=MESH, virtualNodeName="color-red")["virtualNode"]
    assert node["spec"]["serviceDiscovery"] == {"dns": {"hostname": "color-red.howto.local"}}
    assert node["metadata"]["version"] == 1, "made, since there was nothing to update"
    arn = appmesh.describe_mesh(meshName=MESH)["mesh"]["metadata"]["arn"]
    assert appmesh.list_tags_for_resource(resourceArn=arn)["tags"] == [
        {"key": "owner", "value": ""},
        {"key": "project", "value": "walkthrough"},
    ]

    before = appmesh.describe_route(meshName=MESH, virtualRouterName="color-router", routeName="color-route")["route"]
    assert run("canary", by_flag).split() == ["color-red", "4", "color-blue", "1"]
    after = appmesh.describe_route(meshName=MESH, virtualRouterName="color-router", routeName="color-route")["route"]
    assert after["metadata"]["version"] == before["metadata"]["version"] + 1
    for part in ("match", "retryPolicy"):
        assert after["spec"]["httpRoute"][part] == before["spec"]["httpRoute"][part]

    assert "DELETED" in run("delete", by_flag)
    assert appmesh.list_meshes()["meshes"] == []
