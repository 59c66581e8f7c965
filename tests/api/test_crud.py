"""The seven kinds through an unmodified boto3: create, describe, update, list, delete, tags; and what is in the log."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.api.conftest import ACCOUNT, REGION, Cloud, Server, call

HTTP = {"port": 8080, "protocol": "http"}
NODE_SPEC = {
    "listeners": [{"portMapping": HTTP}],
    "serviceDiscovery": {"dns": {"hostname": "v1.demo.local"}},
    "backends": [],
}
ROUTE_SPEC = {
    "priority": 3,
    "httpRoute": {"match": {"prefix": "/"}, "action": {"weightedTargets": [{"virtualNode": "v1", "weight": 1}]}},
}
GATEWAY_ROUTE_SPEC = {
    "httpRoute": {
        "match": {"prefix": "/"},
        "action": {"target": {"virtualService": {"virtualServiceName": "svc.demo.local"}}},
    }
}
ROUTER_SPEC = {"listeners": [{"portMapping": HTTP}]}
STEPS: list[tuple[str, dict[str, str], dict[str, Any], dict[str, Any]]] = [
    ("mesh", {"meshName": "m"}, {"egressFilter": {"type": "DROP_ALL"}}, {"egressFilter": {"type": "ALLOW_ALL"}}),
    ("virtual_node", {"meshName": "m", "virtualNodeName": "v1"}, NODE_SPEC, {}),
    ("virtual_router", {"meshName": "m", "virtualRouterName": "r"}, ROUTER_SPEC, ROUTER_SPEC),
    (
        "route",
        {"meshName": "m", "virtualRouterName": "r", "routeName": "all"},
        ROUTE_SPEC,
        {**ROUTE_SPEC, "priority": 4},
    ),
    (
        "virtual_service",
        {"meshName": "m", "virtualServiceName": "svc.demo.local"},
        {"provider": {"virtualRouter": {"virtualRouterName": "r"}}},
        {"provider": {"virtualNode": {"virtualNodeName": "v1"}}},
    ),
    ("virtual_gateway", {"meshName": "m", "virtualGatewayName": "g"}, ROUTER_SPEC, ROUTER_SPEC),
    (
        "gateway_route",
        {"meshName": "m", "virtualGatewayName": "g", "gatewayRouteName": "in"},
        GATEWAY_ROUTE_SPEC,
        {**GATEWAY_ROUTE_SPEC, "priority": 7},
    ),
]
PLURALS = {"mesh": "meshes"}


def camel(kind: str) -> str:
    head, *tail = kind.split("_")
    return head + "".join(word.capitalize() for word in tail)


async def refused(server: Server, operation: str, **arguments: Any) -> tuple[str, int, str]:
    with pytest.raises(ClientError) as caught:
        await server.call(operation, **arguments)
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Message"]


async def test_all_seven_kinds_through_their_lives(cloud: Cloud) -> None:
    client = cloud.server.client()
    created = {}
    for kind, names, spec, _ in STEPS:
        member = camel(kind)
        answer = await call(client, f"create_{kind}", **names, spec=spec, tags=[{"key": "team", "value": "mesh"}])
        resource = created[kind] = answer[member]
        assert resource["spec"] == spec
        assert resource["status"] == {"status": "ACTIVE"}
        assert {name: resource[name] for name in names} == names
        metadata = resource["metadata"]
        assert (metadata["version"], metadata["meshOwner"], metadata["resourceOwner"]) == (1, ACCOUNT, ACCOUNT)
        assert metadata["arn"].startswith(f"arn:aws:appmesh:{REGION}:{ACCOUNT}:mesh/m")
        assert metadata["createdAt"] == metadata["lastUpdatedAt"]
        assert (await call(client, f"describe_{kind}", **names))[member] == resource
    for kind, names, _, spec in STEPS:
        updated = (await call(client, f"update_{kind}", **names, spec=spec))[camel(kind)]
        assert updated["spec"] == spec
        assert updated["metadata"]["version"] == 2
        assert updated["metadata"]["uid"] == created[kind]["metadata"]["uid"]
    for kind, names, _, _ in STEPS:
        plural = PLURALS.get(kind, f"{kind}s")
        parents = dict(list(names.items())[:-1])
        (ref,) = (await call(client, f"list_{plural}", **parents))[camel(plural)]
        assert {name: ref[name] for name in names} == names
        assert ref["version"] == 2
        arn = created[kind]["metadata"]["arn"]
        tags = (await call(client, "list_tags_for_resource", resourceArn=arn))["tags"]
        assert tags == [{"key": "team", "value": "mesh"}]
    for kind, names, _, spec in reversed(STEPS):
        gone = (await call(client, f"delete_{kind}", **names))[camel(kind)]
        assert gone["status"] == {"status": "DELETED"}
        assert gone["spec"] == spec
        code, status, message = await refused(cloud.server, f"describe_{kind}", **names)
        assert (code, status) == ("NotFoundException", 404)
        assert list(names.values())[-1] in message or "m" in message
    assert [record.type for record in await cloud.records()] == (
        ["ResourceCreated"] * 7 + ["ResourceUpdated"] * 7 + ["ResourceDeleted"] * 7
    )


async def test_every_success_says_which_position_it_holds_at(cloud: Cloud) -> None:
    answer = await cloud.server.call("create_mesh", meshName="m")
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    assert headers["x-meshlog-position"] == "1.2"
    assert headers["x-amzn-requestid"] == answer["ResponseMetadata"]["RequestId"]
    assert "server" not in headers
    read = await cloud.server.call("describe_mesh", meshName="m")
    assert read["ResponseMetadata"]["HTTPHeaders"]["x-meshlog-position"] == "1.2"


@pytest.mark.parametrize("name", ["svc.prod.local", "a b", "50%", "ünicode.local", "x+y", "%2E"])
async def test_names_travel_percent_encoded(cloud: Cloud, name: str) -> None:
    client = cloud.server.client()
    await call(client, "create_mesh", meshName="m")
    made = await call(client, "create_virtual_service", meshName="m", virtualServiceName=name, spec={})
    assert made["virtualService"]["virtualServiceName"] == name
    found = await call(client, "describe_virtual_service", meshName="m", virtualServiceName=name)
    assert found["virtualService"]["metadata"]["uid"] == made["virtualService"]["metadata"]["uid"]


async def test_lists_are_paged_and_stable_while_others_write(cloud: Cloud) -> None:
    client = cloud.server.client()
    await call(client, "create_mesh", meshName="m")
    for number in range(7):
        await call(client, "create_virtual_node", meshName="m", virtualNodeName=f"n{number}", spec={})
    first = await call(client, "list_virtual_nodes", meshName="m", limit=3)
    await call(client, "delete_virtual_node", meshName="m", virtualNodeName="n2")
    await call(client, "create_virtual_node", meshName="m", virtualNodeName="n00", spec={})
    second = await call(client, "list_virtual_nodes", meshName="m", limit=3, nextToken=first["nextToken"])
    last = await call(client, "list_virtual_nodes", meshName="m", limit=3, nextToken=second["nextToken"])
    names = [[ref["virtualNodeName"] for ref in page["virtualNodes"]] for page in (first, second, last)]
    assert names == [["n0", "n1", "n2"], ["n3", "n4", "n5"], ["n6"]]
    assert "nextToken" not in last
    for token in (first["nextToken"], "nonsense", "W10="):
        code, _, message = await refused(cloud.server, "list_meshes", nextToken=token)
        assert (code, message[:9]) == ("BadRequestException", "nextToken")


async def test_routes_are_listed_by_their_router(cloud: Cloud) -> None:
    client = cloud.server.client()
    await call(client, "create_mesh", meshName="m")
    await call(client, "create_virtual_node", meshName="m", virtualNodeName="v1", spec=NODE_SPEC)
    for router in ("r1", "r2"):
        await call(client, "create_virtual_router", meshName="m", virtualRouterName=router, spec=ROUTER_SPEC)
        names = {"meshName": "m", "virtualRouterName": router, "routeName": f"of-{router}"}
        await call(client, "create_route", **names, spec=ROUTE_SPEC)
    found = await call(client, "list_routes", meshName="m", virtualRouterName="r2")
    assert [ref["routeName"] for ref in found["routes"]] == ["of-r2"]
    code, status, message = await refused(cloud.server, "list_routes", meshName="m", virtualRouterName="r3")
    assert (code, status) == ("NotFoundException", 404)
    assert "r3" in message


async def test_tags_are_put_and_taken(cloud: Cloud) -> None:
    client = cloud.server.client()
    arn = (await call(client, "create_mesh", meshName="m"))["mesh"]["metadata"]["arn"]
    tags = [{"key": f"k{number}", "value": str(number)} for number in range(4)]
    assert (await call(client, "tag_resource", resourceArn=arn, tags=tags))["ResponseMetadata"]["HTTPStatusCode"] == 200
    await call(client, "untag_resource", resourceArn=arn, tagKeys=["k1", "absent"])
    before = len(await cloud.records())
    await call(client, "untag_resource", resourceArn=arn, tagKeys=["absent"])
    assert len(await cloud.records()) == before
    page = await call(client, "list_tags_for_resource", resourceArn=arn, limit=2)
    rest = await call(client, "list_tags_for_resource", resourceArn=arn, limit=2, nextToken=page["nextToken"])
    assert [tag["key"] for tag in page["tags"] + rest["tags"]] == ["k0", "k2", "k3"]


async def test_conflicts_and_references(cloud: Cloud) -> None:
    client = cloud.server.client()
    for kind, names, spec, _ in STEPS[:4]:
        await call(client, f"create_{kind}", **names, spec=spec)
    before = len(await cloud.records())
    assert (await refused(cloud.server, "create_mesh", meshName="m"))[:2] == ("ConflictException", 409)
    assert (await refused(cloud.server, "delete_mesh", meshName="m"))[:2] == ("ResourceInUseException", 409)
    code, status, message = await refused(cloud.server, "delete_virtual_node", meshName="m", virtualNodeName="v1")
    assert (code, status) == ("ResourceInUseException", 409)
    assert message == "VirtualNode with name v1 cannot be deleted because it is the target of one or more routes."
    assert (await refused(cloud.server, "update_mesh", meshName="other"))[:2] == ("NotFoundException", 404)
    assert len(await cloud.records()) == before


async def test_another_owners_mesh_is_forbidden(cloud: Cloud) -> None:
    code, status, _ = await refused(cloud.server, "describe_mesh", meshName="m", meshOwner="999999999999")
    assert (code, status) == ("ForbiddenException", 403)
