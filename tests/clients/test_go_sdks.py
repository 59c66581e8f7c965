"""AWS's two Go SDKs: what Terraform's provider (v2) and the Kubernetes controller (v1) send and read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster import pki
from mesh import errors
from mesh.model.operations import OPERATIONS
from runtime.clock import SystemClock, SystemEntropy
from runtime.settings import TlsFiles
from tests.api.conftest import ACCOUNT, REGION, Cloud
from tests.api.generated import WORLD, inputs
from tests.api.signing import ask
from tests.clients.go_client import V1, V2, Credentials, GoClient, GoError, go_client
from tests.clients.servers import Refusing, api_server, refusing_server
from tests.clients.whole_mesh import MESH, PARTS, Part

CONSUMER = "210987654321"
HTTP = {"portMapping": {"port": 80, "protocol": "http"}}
TYPES = {V1: "*appmesh.", V2: "*types."}
BY_CODE = {
    each.code: each
    for each in (
        errors.BadRequest, errors.LimitExceeded, errors.TooManyTags, errors.Forbidden, errors.NotFound, errors.Conflict,
        errors.ResourceInUse, errors.TooManyRequests, errors.Unavailable, errors.MeshlogError,
    )
}  # fmt: skip


@pytest.fixture(scope="module", params=[V1, V2])
def cloud_and_client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with api_server(tmp_path_factory.mktemp("api")) as cloud, go_client(request.param, cloud.server.url) as client:
        yield cloud, client


@pytest.fixture
def client(cloud_and_client: tuple[Cloud, GoClient]) -> GoClient:
    return cloud_and_client[1]


def owned(part: Part) -> dict[str, str]:
    """What an operation on an existing part is given: its names and, except for a mesh, its mesh's owner."""
    return {**part.names, **({} if part.title == "Mesh" else {"meshOwner": ACCOUNT})}


def test_every_operation_of_a_whole_mesh(client: GoClient) -> None:
    called: set[str] = set()

    def call(op: str, **members: Any) -> Any:
        called.add(op)
        return client.call(op, **members)

    tag = {"key": "team", "value": "shop"}
    arns: list[str] = []
    for part in PARTS:
        made = call(f"Create{part.title}", **owned(part), spec=part.spec, tags=[tag])[part.member]
        assert made["spec"] == part.spec
        assert made == call(f"Describe{part.title}", **owned(part))[part.member]
        metadata = made["metadata"]
        assert (metadata["version"], metadata["meshOwner"], made["status"]) == (1, ACCOUNT, {"status": "ACTIVE"})
        assert metadata["createdAt"] == metadata["lastUpdatedAt"] > 1_700_000_000
        changed = call(f"Update{part.title}", **owned(part), spec=part.changed)[part.member]
        assert changed["spec"] == part.changed
        assert changed["metadata"]["uid"] == metadata["uid"]
        arns.append(metadata["arn"])
    for part, arn in zip(PARTS, arns, strict=True):
        home = {} if part.title == "Mesh" else {**part.home, "meshOwner": ACCOUNT}
        refs = call(f"List{part.lists}", **home)[part.lists[0].lower() + part.lists[1:]]
        assert arn in [ref["arn"] for ref in refs]
        assert all(ref["createdAt"] <= ref["lastUpdatedAt"] for ref in refs)
        call("TagResource", resourceArn=arn, tags=[{"key": "tier", "value": ""}])
        assert call("ListTagsForResource", resourceArn=arn)["tags"] == [tag, {"key": "tier", "value": ""}]
        call("UntagResource", resourceArn=arn, tagKeys=["team"])
        assert call("ListTagsForResource", resourceArn=arn)["tags"] == [{"key": "tier", "value": ""}]
    for part in [*sorted(PARTS[1:], key=_deleted_when), PARTS[0]]:
        gone = call(f"Delete{part.title}", **owned(part))[part.member]
        assert gone["status"] == {"status": "DELETED"}
    assert MESH not in [ref["meshName"] for ref in call("ListMeshes")["meshes"]]
    assert called == set(OPERATIONS)


def _deleted_when(part: Part) -> int:
    order = ("GatewayRoute", "VirtualGateway", "VirtualService", "Route", "VirtualRouter", "VirtualNode")
    return order.index(part.title)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_the_model_allows_comes_back_as_it_was_sent(client: GoClient, data: st.DataObject) -> None:
    """Drawn from the model; each SDK has its own idea of what is absent, empty or zero."""
    if "world" not in [mesh["meshName"] for mesh in client.call("ListMeshes")["meshes"]]:
        for op, members in WORLD:
            client.call(op, **members)
    part = data.draw(st.sampled_from(sorted({part.title for part in PARTS} - {"Mesh"})))
    members = data.draw(inputs(OPERATIONS[f"Create{part}"]))
    resource = part[0].lower() + part[1:]
    made = client.call(f"Create{part}", **members)[resource]
    names = {name: value for name, value in members.items() if name not in ("spec", "tags")}
    assert client.call(f"Delete{part}", **names)[resource]["spec"] == made["spec"] == members["spec"]


def test_paginators_see_everything_once(client: GoClient) -> None:
    client.call("CreateMesh", meshName="paged")
    names = [f"n{number}" for number in range(7)]
    for name in names:
        client.call("CreateVirtualNode", meshName="paged", virtualNodeName=name, spec={})
        client.call("CreateVirtualRouter", meshName="paged", virtualRouterName=name, spec={})
        client.call("CreateVirtualService", meshName="paged", virtualServiceName=name, spec={})
    for plural, member in (
        ("VirtualNodes", "virtualNodeName"),
        ("VirtualRouters", "virtualRouterName"),
        ("VirtualServices", "virtualServiceName"),
    ):
        pages = client.pages(f"List{plural}", meshName="paged", limit=3)
        listed = [[ref[member] for ref in page[plural[0].lower() + plural[1:]]] for page in pages]
        assert listed == [names[:3], names[3:6], names[6:]]
    arn = client.call("DescribeMesh", meshName="paged")["mesh"]["metadata"]["arn"]
    client.call("TagResource", resourceArn=arn, tags=[{"key": name, "value": name} for name in names])
    tags = [
        tag["key"] for page in client.pages("ListTagsForResource", resourceArn=arn, limit=2) for tag in page["tags"]
    ]
    assert tags == names


def test_errors_of_the_real_server_have_their_own_types(client: GoClient) -> None:
    client.call("CreateMesh", meshName="errors")
    client.call("CreateVirtualRouter", meshName="errors", virtualRouterName="r", spec={})
    client.call("CreateVirtualNode", meshName="errors", virtualNodeName="n", spec={})
    spec = {"httpRoute": {"match": {"prefix": "/"}, "action": {"weightedTargets": [{"virtualNode": "n", "weight": 1}]}}}
    route = {"meshName": "errors", "virtualRouterName": "r", "routeName": "x"}
    client.call("CreateRoute", **route, spec=spec)
    arn = f"arn:aws:appmesh:{REGION}:{ACCOUNT}:mesh/errors"
    tags = [{"key": f"k{number}", "value": ""} for number in range(30)]
    client.call("TagResource", resourceArn=arn, tags=tags)
    more = [{"key": f"m{number}", "value": ""} for number in range(30)]
    for op, members, code in (
        ("DescribeVirtualNode", {"meshName": "errors", "virtualNodeName": "absent"}, "NotFoundException"),
        ("CreateMesh", {"meshName": "errors"}, "ConflictException"),
        ("DeleteVirtualNode", {"meshName": "errors", "virtualNodeName": "n"}, "ResourceInUseException"),
        ("UpdateRoute", {**route, "spec": {**spec, "priority": 1001}}, "BadRequestException"),
        ("TagResource", {"resourceArn": arn, "tags": more}, "TooManyTagsException"),
        ("CreateVirtualNode", {"meshName": "a/b", "virtualNodeName": "n", "spec": {}}, "BadRequestException"),
    ):
        with pytest.raises(GoError) as refused:
            client.call(op, **members)
        error = refused.value
        assert (error.type, error.code) == (TYPES[client.sdk] + code, code), op
        assert error.status == BY_CODE[code].http_status
        assert error.message
        assert error.request_id


def test_every_declared_error_of_every_operation_is_decoded() -> None:
    with refusing_server() as server:
        for sdk in (V1, V2):
            with go_client(sdk, server.url) as client:
                for operation in OPERATIONS.values():
                    for code in operation.errors:
                        _refused_as(server, client, operation.name, code)


def _refused_as(server: Refusing, client: GoClient, op: str, code: str) -> None:
    server.error = BY_CODE[code](f"{op} says {code}")
    with pytest.raises(GoError) as refused:
        client.call(op, **_some_input(op))
    error = refused.value
    assert (error.type, error.code, error.message) == (TYPES[client.sdk] + code, code, f"{op} says {code}")
    assert (error.status, error.request_id) == (BY_CODE[code].http_status, "11112222-3333-4444-5555-666677778888")
    if client.sdk == V2 and code != "InternalServerErrorException":
        assert error.fault == ("server" if code == "ServiceUnavailableException" else "client")


def _some_input(op: str) -> dict[str, Any]:
    """An input that the SDK itself has nothing against."""
    if op in ("TagResource", "UntagResource", "ListTagsForResource"):
        what: dict[str, Any] = {"TagResource": {"tags": []}, "UntagResource": {"tagKeys": []}}.get(op, {})
        return {"resourceArn": f"arn:aws:appmesh:{REGION}:{ACCOUNT}:mesh/m", **what}
    verb = next(verb for verb in ("Create", "Describe", "Update", "Delete", "List") if op.startswith(verb))
    part = next(part for part in PARTS if op.removeprefix(verb) in (part.title, part.lists))
    if op.startswith("List"):
        return part.home
    return {**part.names, **({"spec": part.spec} if op.startswith(("Create", "Update")) else {})}


def test_the_controller_reaches_us_under_awss_own_name(tmp_path: Path) -> None:
    """It has no option for an endpoint: DNS and a root that it trusts are all that may be changed."""
    tls = _certificate(tmp_path, f"appmesh.{REGION}.amazonaws.com")
    with api_server(tmp_path, tls) as cloud:
        address = cloud.server.url.removeprefix("https://")
        with go_client(V1, "", AWS_CA_BUNDLE=str(tls.authority), APPMESH_ADDRESS=address) as controller:
            for part in PARTS[:2]:
                with pytest.raises(GoError) as absent:
                    controller.call(f"Describe{part.title}", **part.names)
                assert absent.value.code == "NotFoundException"
                controller.call(f"Create{part.title}", **part.names, spec=part.spec)
                seen = controller.call(f"Describe{part.title}", **part.names)[part.member]
                assert seen["spec"] == part.spec, "it would update for ever"
                controller.call(f"Update{part.title}", **part.names, spec=part.changed)
            controller.call("DeleteVirtualNode", **PARTS[1].names)
            controller.call("DeleteMesh", meshName=MESH)
        with go_client(V1, "", APPMESH_ADDRESS=address) as distrustful:
            with pytest.raises(GoError, match="certificate"):
                distrustful.call("ListMeshes")


def _certificate(directory: Path, host: str) -> TlsFiles:
    clock, entropy = SystemClock(), SystemEntropy()
    root = pki.create_authority(pki.ROLES_ROOT, clock.now_us(), entropy)
    leaf = pki.Leaf(common_name="api", hosts=(host,), server=True)
    files = TlsFiles(certificate=directory / "tls.crt", key=directory / "tls.key", authority=directory / "ca.crt")
    pki.save_issued(pki.issue(root, leaf, clock.now_us(), entropy), root, files)
    return files


def test_a_wrong_secret_is_told_to_the_sdks(tmp_path: Path) -> None:
    with api_server(tmp_path) as cloud:
        for sdk in (V1, V2):
            with go_client(sdk, cloud.server.url, Credentials(secret="wrong")) as client:
                with pytest.raises(GoError) as refused:
                    client.call("ListMeshes")
                assert refused.value.status == 403
                assert refused.value.code


def tell(cloud: Cloud, target: str, body: dict[str, Any]) -> Any:
    """One of Meshlog's own calls, by the first account's admin."""
    reply = asyncio.run(ask(cloud.server, "POST", f"/meshlog/v1/{target}", body))
    assert reply.status == 200, reply.body
    return reply.document


def test_a_mesh_of_another_account_is_there_once_it_is_shared(tmp_path: Path) -> None:
    with api_server(tmp_path) as cloud:
        key = tell(cloud, "accounts", {"account": CONSUMER, "name": "consumer"})
        consumer = Credentials(key["access_key_id"], key["secret_access_key"])
        shared = {"meshName": MESH, "meshOwner": ACCOUNT}
        with go_client(V2, cloud.server.url) as owner:
            owner.call("CreateMesh", meshName=MESH)
            owner.call("CreateVirtualNode", meshName=MESH, virtualNodeName="owned", spec={})
            for sdk in (V1, V2):
                with go_client(sdk, cloud.server.url, consumer) as other:
                    for name in (MESH, "absent"):  # and nobody can tell the two apart
                        with pytest.raises(GoError) as unseen:
                            other.call("DescribeMesh", meshName=name, meshOwner=ACCOUNT)
                        assert unseen.value.type == f"{TYPES[sdk]}ForbiddenException"
                    assert other.call("ListMeshes") == {"meshes": []}

                    tell(cloud, "shares", {"mesh": MESH, "with": [CONSUMER]})
                    [seen] = other.call("ListMeshes")["meshes"]
                    assert (seen["meshOwner"], seen["resourceOwner"]) == (ACCOUNT, ACCOUNT)
                    made = other.call("CreateVirtualNode", **shared, virtualNodeName="mine", spec={})["virtualNode"]
                    assert made["metadata"]["meshOwner"] == ACCOUNT
                    assert made["metadata"]["resourceOwner"] == CONSUMER
                    assert made["metadata"]["arn"] == f"arn:aws:appmesh:{REGION}:{ACCOUNT}:mesh/{MESH}/virtualNode/mine"
                    names = [ref["virtualNodeName"] for ref in other.call("ListVirtualNodes", **shared)["virtualNodes"]]
                    assert names == ["mine", "owned"]
                    for op, members in (
                        ("UpdateVirtualNode", {"virtualNodeName": "owned", "spec": {"backends": []}}),
                        ("DeleteVirtualNode", {"virtualNodeName": "owned"}),
                        ("CreateVirtualGateway", {"virtualGatewayName": "g", "spec": {"listeners": [HTTP]}}),
                    ):
                        with pytest.raises(GoError) as refused:
                            other.call(op, **shared, **members)
                        assert refused.value.type == f"{TYPES[sdk]}ForbiddenException", op
                owner.call("DeleteVirtualNode", meshName=MESH, virtualNodeName="mine")
                tell(cloud, "shares/end", {"mesh": MESH, "with": [CONSUMER]})


def test_sts_as_terraform_asks_it(tmp_path: Path) -> None:
    """Who am I, and the temporary credentials of a role, which the App Mesh clients of both SDKs then use."""
    trust = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}
    role = f"arn:aws:iam::{ACCOUNT}:role/deploy"
    with api_server(tmp_path) as cloud, go_client(V2, cloud.server.url) as admin:
        assert admin.call("sts:GetCallerIdentity")["account"] == ACCOUNT
        tell(cloud, "iam/roles", {"role": "deploy", "trust": {"Version": "2012-10-17", "Statement": [trust]}})
        tell(cloud, "iam/roles/attach", {"role": "deploy", "policy": "AWSAppMeshReadOnly"})
        given = admin.call("sts:AssumeRole", roleArn=role, roleSessionName="terraform", durationSeconds=900)
        key = given["credentials"]
        session = Credentials(key["accessKeyId"], key["secretAccessKey"], key["sessionToken"])
        assert key["expiration"] > 1_700_000_000
        for sdk in (V1, V2):
            with go_client(sdk, cloud.server.url, session) as deploy:
                assert deploy.call("ListMeshes") == {"meshes": []}
                with pytest.raises(GoError, match="assumed-role/deploy/terraform is not authorized") as refused:
                    deploy.call("CreateMesh", meshName="m")
                assert refused.value.code == "ForbiddenException"
        with go_client(V2, cloud.server.url, session) as deploy:
            identity = deploy.call("sts:GetCallerIdentity")
            assert identity["arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/deploy/terraform"
