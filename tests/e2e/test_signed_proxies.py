"""A real Envoy without a certificate: it signs its streams (SigV4, by Envoy's own AWS signer) with an access key."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from chaos.cluster import Cluster, wait_for
from chaos.envoy import Envoy, free_port
from proxy.bootstrap import SERVER_NAME, Endpoint, build, to_yaml
from tests.e2e.conftest import Connect
from tests.xds.signing import AwsIam, signing_channel
from tests.xds.test_server import first, read, sotw

MESH, NODE = "signed", "front"
FILTERS = "type.googleapis.com/envoy.extensions.filters.http"
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
        """As `meshlog proxy bootstrap` writes it, but signing in place of showing a certificate."""
        frontends = [Endpoint(f"z{number}", address) for number, address in enumerate(self.addresses, 1)]
        matcher = {"san_type": "DNS", "matcher": {"exact": SERVER_NAME}}
        trusted = {"trusted_ca": {"filename": str(self.root)}, "match_typed_subject_alt_names": [matcher]}
        tls = {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": SERVER_NAME,
            "common_tls_context": {"alpn_protocols": ["h2"], "validation_context": trusted},
        }
        document: Any = build(node_id=self.node, frontends=frontends, tls_context=tls, admin_port=admin_port)
        (options,) = document["static_resources"]["clusters"][0]["typed_extension_protocol_options"].values()
        access_key_id, secret = self.key
        signer = {
            "@type": f"{FILTERS}.aws_request_signing.v3.AwsRequestSigning",
            "service_name": "appmesh",
            "region": self.region,
            "use_unsigned_payload": True,
            "credential_provider": {"inline_credential": {"access_key_id": access_key_id, "secret_access_key": secret}},
        }
        codec = {"@type": f"{FILTERS}.upstream_codec.v3.UpstreamCodec"}
        options["http_filters"] = [
            {"name": "envoy.filters.http.aws_request_signing", "typed_config": signer},
            {"name": "envoy.filters.http.upstream_codec", "typed_config": codec},
        ]
        return to_yaml(document)


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


def test_an_envoy_that_signs_is_served_until_its_key_is_disabled(proxies: Proxies, tmp_path: Path) -> None:
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
