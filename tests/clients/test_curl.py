"""The commands in docs/api.md, with the curl of this machine as the signer, against an API server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import boto3
import pytest

from tests.api.conftest import ADMIN, REGION
from tests.clients.servers import api_server

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_commands_of_the_page_work_as_they_stand_there(tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    script = "\n".join(blocks).replace('eval "$(meshlog env)"', "set -eu").replace('signed "$api', 'echo; signed "$api')
    with api_server(tmp_path) as cloud:
        keys = {"AWS_ACCESS_KEY_ID": ADMIN.access_key_id, "AWS_SECRET_ACCESS_KEY": ADMIN.secret}
        client = boto3.client(
            "appmesh",
            endpoint_url=cloud.server.url,
            region_name=REGION,
            aws_access_key_id=ADMIN.access_key_id,
            aws_secret_access_key=ADMIN.secret,
        )
        client.create_mesh(meshName="shop")
        client.create_virtual_node(meshName="shop", virtualNodeName="web", spec={})
        environment = {"AWS_ENDPOINT_URL_APP_MESH": cloud.server.url, "AWS_REGION": REGION, "PATH": "/usr/bin:/bin"}
        done = subprocess.run(
            ["bash", "-c", script], env={**environment, **keys}, capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
    events, then, changes, plan, stale = map(json.loads, filter(None, done.stdout.splitlines()))
    assert events["events"][0]["resource"].endswith("virtualNode/web")
    assert [resource["meshName"] for resource in then["resources"]] == ["shop"]
    assert [change["change"] for change in changes["changes"]] == ["created"]
    assert [change["change"] for change in plan["changes"]] == ["deleted"]
    assert stale["age_s"] is None or stale["age_s"] >= 0
