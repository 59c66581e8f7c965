"""Two accounts on a real cluster: one's proxies in the other's mesh, before, during and after the share."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest

from chaos.cluster import Cluster, appmesh_client
from mesh.errors import MeshlogError
from tests.conditions import PATIENCE_S
from tests.e2e.conftest import Connect
from xds.server import METHOD_SOTW
from xds.wire.discovery_pb2 import DiscoveryRequest, DiscoveryResponse

ACCOUNT = "222233334444"
MESH, NODE = "two-accounts", "theirs"
CLUSTERS = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
SPEC = {
    "listeners": [{"portMapping": {"port": 8080, "protocol": "http"}}],
    "serviceDiscovery": {"dns": {"hostname": "theirs.example"}},
}


class Tenant:
    """The second account, as its scripts are: an endpoint and a key, no files of the cluster."""

    def __init__(self, cluster: Cluster, connect: Connect, made: Mapping[str, str]) -> None:
        self.environment = {
            **os.environ,
            "MESHLOG_ENDPOINT": connect.urls[0],
            "AWS_ACCESS_KEY_ID": made["access_key_id"],
            "AWS_SECRET_ACCESS_KEY": made["secret_access_key"],
            "AWS_REGION": connect.environment["AWS_REGION"],
        }
        self._elsewhere = Cluster(cluster.data_dir / "nowhere", environment=self.environment)

    def run(self, *arguments: str) -> str:
        return self._elsewhere.run(*arguments)


@pytest.fixture(scope="module")
def tenant(cluster: Cluster, connect: Connect) -> Tenant:
    made = json.loads(cluster.run("account", "create", ACCOUNT, "--name", "team two", "-o", "json"))
    return Tenant(cluster, connect, made)


async def stream(directory: Path, address: str, node: str) -> tuple[Any, grpc.aio.Channel]:
    """An ADS stream with the certificate of a bootstrap directory."""
    pem = (directory / "identity.pem").read_bytes()
    credentials = grpc.ssl_channel_credentials((directory / "authority.pem").read_bytes(), pem, pem)
    options = [("grpc.ssl_target_name_override", "frontend.meshlog")]
    channel = grpc.aio.secure_channel(address, credentials, options=options)
    call: Any = channel.stream_stream(
        METHOD_SOTW,
        request_serializer=DiscoveryRequest.SerializeToString,
        response_deserializer=DiscoveryResponse.FromString,
    )()
    request = DiscoveryRequest(type_url=CLUSTERS)
    request.node.id = node
    await call.write(request)
    return call, channel


async def refusal(call: Any) -> str:
    """What an ended stream says; its status is App Mesh's for an unknown mesh or resource."""
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await call.read()
    assert ended.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return str(ended.value.details())


async def test_a_consumers_proxy_is_served_until_the_share_ends(
    cluster: Cluster, connect: Connect, tenant: Tenant, tmp_path: Path
) -> None:
    owner = connect()
    account = owner.create_mesh(meshName=MESH)["mesh"]["metadata"]["meshOwner"]
    node = f"mesh/{MESH}@{account}/virtualNode/{NODE}"
    theirs = appmesh_client(connect.urls[0], tenant.environment)
    bootstrap = ("proxy", "bootstrap", "--node", node, "--out", str(tmp_path))
    with pytest.raises(MeshlogError, match="is not shared with account"):
        tenant.run(*bootstrap)
    cluster.run("mesh", "share", MESH, "--with", ACCOUNT)
    assert [mesh["meshOwner"] for mesh in theirs.list_meshes()["meshes"]] == [account]
    theirs.create_virtual_node(meshName=MESH, meshOwner=account, virtualNodeName=NODE, spec=SPEC)
    with pytest.raises(MeshlogError, match=f"was made by account {ACCOUNT}"):
        cluster.run("proxy", "bootstrap", "--node", node, "--out", str(tmp_path / "owners"))
    tenant.run(*bootstrap)
    frontend = cluster.processes("frontend")[0].address
    call, channel = await stream(tmp_path, frontend, node)
    async with channel, asyncio.timeout(PATIENCE_S):
        answer = await call.read()
        assert answer is not grpc.aio.EOF
        assert len(answer.resources) >= 1
        cluster.run("mesh", "unshare", MESH, "--all", "--yes")
        assert "no longer shared" in await refusal(call)
    call, channel = await stream(tmp_path, frontend, node)
    async with channel, asyncio.timeout(PATIENCE_S):  # its certificate is good, and gives it nothing
        assert "no longer shared" in await refusal(call)
    owner.delete_virtual_node(meshName=MESH, virtualNodeName=NODE)
    owner.delete_mesh(meshName=MESH)
