"""A real Envoy without a certificate: it signs its streams (SigV4, by Envoy's own AWS signer) with an access key."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from chaos.cluster import Cluster, wait_for
from chaos.envoy import Envoy
from runtime.ports import free_port
from tests.e2e.conftest import Connect
from tests.xds.signing import AwsIam, signing_channel
from tests.xds.test_server import first, read, sotw

MESH, NODE = "signed", "front"
REVOKED_WITHIN_S = 30.0


@dataclass
class Proxies:
    """A mesh with one virtual node, a key of its own, and where to connect with it."""

    cluster: Cluster
    key: tuple[str, str]
    addresses: list[str]
    root: Path
    region: str

    @property
    def node(self) -> str:
        return f"mesh/{MESH}/virtualNode/{NODE}"

    def disable_key(self) -> None:
        self.cluster.run("iam", "key", "disable", self.key[0], "--yes")

    def bootstrap(self, admin_port: int) -> str:
        return self.cluster.run("proxy", "bootstrap", "--sign", "--node", self.node, "--admin-port", str(admin_port))


@pytest.fixture
def proxies(cluster: Cluster, connect: Connect, tmp_path: Path) -> Iterator[Proxies]:
    client = connect()
    client.create_mesh(meshName=MESH)
    client.create_virtual_node(meshName=MESH, virtualNodeName=NODE, spec={
        "listeners": [{"portMapping": {"port": free_port(), "protocol": "http"}}],
        "serviceDiscovery": {"dns": {"hostname": "front.internal.example"}},
    })  # fmt: skip
    made = json.loads(cluster.run("iam", "key", "create", "--user", "proxy", "--admin", "-o", "json"))
    document = json.loads((cluster.data_dir / "cluster.json").read_text())
    addresses = [process["signed"] for process in document["processes"] if process["role"] == "frontend"]
    key = (made["access_key_id"], made["secret_access_key"])
    root = cluster.data_dir / "pki" / "roles-ca.crt"
    yield Proxies(cluster, key, addresses, root, connect.environment["AWS_REGION"])
    client.delete_virtual_node(meshName=MESH, virtualNodeName=NODE)
    client.delete_mesh(meshName=MESH)


def test_an_envoy_that_signs_is_served_until_its_key_is_disabled(
    proxies: Proxies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in zip(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), proxies.key, strict=True):
        monkeypatch.setenv(name, value)
    admin_port = free_port()
    bootstrap = tmp_path / "envoy.yaml"
    bootstrap.write_text(proxies.bootstrap(admin_port))
    with Envoy(bootstrap, admin_port=admin_port, log=tmp_path / "envoy.log") as envoy:

        def stat(name: str) -> int:
            try:
                return sum(envoy.stats(f"^{name}$").values())
            except OSError:  # its admin port is not there yet
                return 0

        wait_for(lambda: stat("listener_manager.listener_added") > 0 or None, 60.0, "Envoy has its listeners")
        assert stat("control_plane.connected_state") == 1
        proxies.disable_key()
        wait_for(lambda: stat("control_plane.connected_state") == 0 or None, REVOKED_WITHIN_S, "the stream was ended")
        # What it has, it keeps: traffic goes on.
        assert stat("listener_manager.total_listeners_active") > 0


async def test_the_stock_image_s_way_of_signing_and_app_meshs_statuses(proxies: Proxies) -> None:
    root = proxies.root.read_bytes()

    async def connect(*key: str, node: str = proxies.node) -> tuple[grpc.StatusCode, str]:
        # Dialled by its address, as APPMESH_XDS_ENDPOINT names it: what is signed is that host and port.
        async with signing_channel(proxies.addresses[0], root, AwsIam(*key)) as channel:
            call = sotw(channel)
            await call.write(first("cds", node))
            try:
                await read(call)
            except grpc.aio.AioRpcError as error:
                return error.code(), error.details() or ""
            return grpc.StatusCode.OK, ""

    assert await connect(*proxies.key) == (grpc.StatusCode.OK, "")
    assert (await connect(proxies.key[0], "guess"))[0] is grpc.StatusCode.UNAUTHENTICATED
    plain = json.loads(
        await asyncio.to_thread(proxies.cluster.run, "iam", "key", "create", "--user", "plain", "-o", "json")
    )
    code, details = await connect(plain["access_key_id"], plain["secret_access_key"])
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "appmesh:StreamAggregatedResources" in details
    assert (await connect(*proxies.key, node="mesh/signed/virtualNode/absent"))[0] is grpc.StatusCode.INVALID_ARGUMENT
