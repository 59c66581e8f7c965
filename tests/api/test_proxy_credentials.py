"""Proxies that sign, the whole way: a gRPC client that signs as Envoy does, a frontend, and API servers that verify."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from api.authentication import Authenticator
from api.peers import PeerServer
from api.proxy_credentials import ProxyGate
from api.proxy_service import ProxyCredentialsService
from identity.proxy_wire import CHECK, STANDING, Granted, Presented, Refused, encode_check, encode_grants
from mesh.commands import (
    AttachPolicy,
    Create,
    CreateAccessKey,
    CreateAccount,
    CreatePrincipal,
    Delete,
    DeletePrincipal,
    DetachPolicy,
    DisableAccessKey,
    PutInlinePolicy,
    ShareMesh,
    UnshareMesh,
)
from mesh.kinds import mesh_key
from tests.api.conftest import ACCOUNT, ADMIN, REGION, Cloud, Server, running
from tests.api.test_audit import audit
from tests.api.test_sts import ROLE, assumed, submit, trust
from tests.projector.feed import certificates
from tests.xds.feeds import SERVER_NAME, Running, serving
from tests.xds.signing import EMPTY_SHA256, AwsIam, signing_channel
from tests.xds.test_server import first, read, sotw
from tests.xds.transcripts import NODE, NODE_TEXT, snapshot
from xds.server import METHOD_DELTA, METHOD_SOTW
from xds.signed import Signing
from xds.verifiers import Verifiers

USER = f"arn:aws:iam::{ACCOUNT}:user/proxy"
PROXY = ("MLOGPROXYKEY00000001", "the proxy's secret")
ENVOY_ACCESS = "arn:aws:iam::aws:policy/AWSAppMeshEnvoyAccess"
NODE_ARN = f"arn:aws:appmesh:{REGION}:{ACCOUNT}:mesh/{NODE.mesh}/virtualNode/{NODE.name}"


@dataclass
class Plane:
    """API servers with their peer ports, and a frontend that asks them."""

    cloud: Cloud
    frontend: Running
    peers: list[PeerServer]
    apis: list[str]
    """Addresses of the peer ports."""

    channels: list[grpc.aio.Channel] = field(default_factory=list)

    @property
    def server(self) -> Server:
        return self.cloud.server

    def channel(self, *key: str, name: str = SERVER_NAME) -> grpc.aio.Channel:
        address = f"127.0.0.1:{self.frontend.server.signed_port}"
        return signing_channel(address, self.frontend.certificates.servers.pem, AwsIam(*key), name)

    async def connect(self, *key: str, node: str = NODE_TEXT) -> tuple[grpc.StatusCode, str]:
        """How a stream with this key ends; OK when it is served."""
        async with self.channel(*key) as channel:
            call = sotw(channel)
            await call.write(first("cds", node))
            try:
                await read(call)
            except grpc.aio.AioRpcError as error:
                return error.code(), error.details() or ""
            return grpc.StatusCode.OK, ""

    async def open(self, *key: str, node: str = NODE_TEXT) -> Any:
        """An open stream that was answered once. Its channel is closed at the end, before the servers are."""
        channel = self.channel(*key)
        self.channels.append(channel)
        call = sotw(channel)
        await call.write(first("cds", node))
        assert await read(call) is not grpc.aio.EOF
        return call

    async def ask_after_all(self) -> None:
        assert self.frontend.server.signed is not None
        await self.frontend.server.signed.ask()


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    async with AsyncExitStack() as stack:
        cloud = await stack.enter_async_context(running(tmp_path, servers=2))
        peers, apis = [], []
        for server in cloud.servers:
            service = ProxyCredentialsService(ProxyGate(server.ports, Authenticator(server.ports)), certificates.DOMAIN)
            peer = PeerServer(server.app.state.commands, certificates.DOMAIN)
            port = await peer.start("127.0.0.1:0", certificates.role("api").serving(), service)
            stack.push_async_callback(peer.stop, 0)
            peers.append(peer)
            apis.append(f"127.0.0.1:{port}")
        zones = [("a", apis[0]), ("b", apis[1])]
        verifiers = Verifiers("a", zones, certificates.role("frontend").dialling)
        stack.push_async_callback(verifiers.close)
        frontend = await stack.enter_async_context(
            serving(tmp_path, signing=Signing(verifiers, ("elsewhere.example:443", SERVER_NAME)))
        )
        frontend.feed.put(10, snapshot(10, "cds A=1 B=1 | lds L=1").resources)
        made = Plane(cloud, frontend, peers, apis)
        yield made
        # A channel that signs anew while servers end can hold grpc's core and the interpreter against each other.
        for channel in made.channels:
            await channel.close()


async def give_key(server: Server) -> None:
    await submit(server, CreatePrincipal(USER))
    await submit(server, CreateAccessKey(*PROXY, ACCOUNT, USER, admin=False))


OK, UNAUTHENTICATED = grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED
DENIED, INVALID = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT


async def test_statuses_are_app_meshs(plane: Plane) -> None:
    admin = (ADMIN.access_key_id, ADMIN.secret)
    assert await plane.connect(*admin) == (OK, "")
    code, details = await plane.connect(ADMIN.access_key_id, "guess")
    assert code is UNAUTHENTICATED
    assert await plane.connect("MLOGNOBODYKNOWSTHIS1", "guess") == (code, details)
    await plane.server.refused.flush()
    known, unknown = await audit(plane.cloud, status="refused")
    assert known["eventName"] == "StreamAggregatedResources"
    assert known["requestParameters"] == {"node": NODE_TEXT}
    assert unknown["userIdentity"]["accessKeyId"] == "MLOGNOBODYKNOWSTHIS1"
    code, details = await plane.connect("ASIAIOSFODNN7EXAMPLE", "aws's own", "IQoJb3JpZ2lu")
    assert code is UNAUTHENTICATED
    assert "temporary credentials cannot be verified" in details
    assert (await plane.connect(*admin, node="mesh/m"))[0] is INVALID
    assert (await plane.connect(*admin, node=""))[0] is INVALID
    # The frontend knows no such node: App Mesh's status for an unknown mesh or resource.
    plane.frontend.feed.put(11, None)
    assert (await plane.connect(*admin))[0] is INVALID


async def test_a_policy_lets_a_key_be_a_node_and_no_other(plane: Plane) -> None:
    await give_key(plane.server)
    code, details = await plane.connect(*PROXY)
    assert code is DENIED
    said = f"User: {USER} is not authorized to perform: appmesh:StreamAggregatedResources on resource: {NODE_ARN}"
    assert said in details
    statement = {"Effect": "Allow", "Action": "appmesh:StreamAggregatedResources", "Resource": NODE_ARN}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    await submit(plane.server, PutInlinePolicy(USER, "be-n", document))
    assert (await plane.connect(*PROXY))[0] is OK
    assert (await plane.connect(*PROXY, node=NODE_TEXT + "2"))[0] is DENIED
    assert (await plane.connect(*PROXY, node=NODE_TEXT.replace("virtualNode", "virtualGateway")))[0] is DENIED


async def test_taking_a_policy_away_ends_the_open_stream(plane: Plane) -> None:
    await give_key(plane.server)
    await submit(plane.server, AttachPolicy(USER, ENVOY_ACCESS))
    call = await plane.open(*PROXY)
    await plane.ask_after_all()
    assert not call.done()
    await submit(plane.server, DetachPolicy(USER, ENVOY_ACCESS))
    await plane.ask_after_all()
    assert await call.code() is DENIED


async def test_disabling_the_key_ends_the_open_stream(plane: Plane) -> None:
    await give_key(plane.server)
    await submit(plane.server, AttachPolicy(USER, ENVOY_ACCESS))
    call = await plane.open(*PROXY)
    await submit(plane.server, DisableAccessKey(PROXY[0], ACCOUNT))
    await plane.ask_after_all()
    assert await call.code() is UNAUTHENTICATED
    assert (await plane.connect(*PROXY))[0] is UNAUTHENTICATED


async def test_a_role_may_be_a_node_until_it_is_deleted(plane: Plane) -> None:
    await submit(plane.server, CreatePrincipal(ROLE, trust(ADMIN.principal)))
    await submit(plane.server, AttachPolicy(ROLE, ENVOY_ACCESS))
    key = (await assumed(plane.server))["Credentials"]
    call = await plane.open(key["AccessKeyId"], key["SecretAccessKey"], key["SessionToken"])
    await plane.ask_after_all()
    assert not call.done()
    await submit(plane.server, DetachPolicy(ROLE, ENVOY_ACCESS))
    await submit(plane.server, DeletePrincipal(ROLE))
    await plane.ask_after_all()
    assert await call.code() is UNAUTHENTICATED


async def test_another_api_server_verifies_when_one_is_gone(plane: Plane) -> None:
    admin = (ADMIN.access_key_id, ADMIN.secret)
    call = await plane.open(*admin)
    await plane.peers[0].stop(0)
    assert (await plane.connect(*admin))[0] is OK
    await plane.peers[1].stop(0)
    assert (await plane.connect(*admin))[0] is grpc.StatusCode.UNAVAILABLE
    plane.frontend.feed.put(12, snapshot(12, "cds A=2 B=1").resources)
    assert not call.done()  # nobody can say, so it goes on


async def test_a_signature_for_another_name_or_method_is_none(plane: Plane) -> None:
    gate = ProxyGate(plane.server.ports, Authenticator(plane.server.ports))
    request = AWSRequest("POST", f"https://{SERVER_NAME}{METHOD_SOTW}", headers={"x-amz-content-sha256": EMPTY_SHA256})
    SigV4Auth(Credentials(ADMIN.access_key_id, ADMIN.secret), "appmesh", REGION).add_auth(request)
    headers = tuple((name.lower(), value) for name, value in request.headers.items())
    whole = Presented(NODE_TEXT, METHOD_SOTW, ("a.example", SERVER_NAME), headers, "127.0.0.1")
    assert isinstance(await gate.check(whole), Granted)
    for changed in (
        whole._replace(hosts=("a.example", "b.example:7419")),
        whole._replace(method=METHOD_DELTA),
        whole._replace(headers=headers[:-1]),
        whole._replace(headers=(*headers, ("x-amz-target", "unsigned"))),
        whole._replace(headers=tuple((name, value.replace(EMPTY_SHA256, "0" * 64)) for name, value in headers)),
    ):
        verdict = await gate.check(changed)
        assert isinstance(verdict, Refused)
        assert verdict.status == 16
    assert (await gate.standing([b"forged"]))[0].status == 16


async def test_only_frontends_ask(plane: Plane) -> None:
    presented = Presented(NODE_TEXT, "/x", (SERVER_NAME,), (), "127.0.0.1")
    for role in ("api", "projector"):
        options = [("grpc.ssl_target_name_override", "api.meshlog")]
        dialling = certificates.role(role).dialling()
        async with grpc.aio.secure_channel(plane.apis[0], dialling, options=options) as channel:
            for method, message in ((CHECK, encode_check(presented)), (STANDING, encode_grants([b"x"]))):
                ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await ask(message, timeout=10)
                assert caught.value.code() is DENIED


async def test_who_made_a_node_of_a_shared_mesh_is_its_proxy_until_the_share_ends(plane: Plane) -> None:
    tenant, key = "999999999999", ("MLOGTENANTKEY0000001", "the tenant's secret")
    mesh, node = mesh_key(NODE.account, NODE.mesh), f"mesh/{NODE.mesh}@{NODE.account}/virtualNode/{NODE.name}"
    await submit(plane.server, Create(mesh, {}))
    await submit(plane.server, CreateAccount(tenant, "", *key))
    assert (await plane.connect(*key, node=node))[0] is DENIED
    await submit(plane.server, ShareMesh(NODE.account, NODE.mesh, frozenset({tenant})))
    await submit(plane.server, Create(NODE.key, {}))
    code, details = await plane.connect(*key, node=node)
    assert (code, f"was made by account {NODE.account}" in details) == (DENIED, True)
    await submit(plane.server, Delete(NODE.key))
    await submit(plane.server, Create(NODE.key, {}), account=tenant)
    assert (await plane.connect(ADMIN.access_key_id, ADMIN.secret))[0] is DENIED  # it is not the mesh owner's
    call = await plane.open(*key, node=node)
    await plane.ask_after_all()
    assert not call.done()
    await submit(plane.server, UnshareMesh(NODE.account, NODE.mesh, frozenset({tenant})))
    await plane.ask_after_all()
    assert await call.code() is DENIED
