"""Two accounts, one cluster: what each sees and may do over HTTP, by boto3 and by Meshlog's own routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.api.conftest import ACCOUNT, ADMIN, REGION, Cloud, Server, running
from tests.api.signing import Reply, Signing, ask

OTHER, THIRD = "999999999999", "888888888888"
LISTENERS = [{"portMapping": {"port": 80, "protocol": "http"}}]
NODE_SPEC = {"listeners": LISTENERS, "serviceDiscovery": {"dns": {"hostname": "h"}}}
SHOP = {"meshName": "shop", "meshOwner": ACCOUNT}
"""The mesh, as another account names it."""
FORBIDDEN = "ForbiddenException"


@dataclass
class Tenant:
    """An account's admin: boto3 and raw calls."""

    server: Server
    account: str
    key: tuple[str, str]

    async def call(self, operation: str, **arguments: Any) -> Any:
        client = boto3.client(
            "appmesh", endpoint_url=self.server.url, region_name=REGION, aws_access_key_id=self.key[0],
            aws_secret_access_key=self.key[1], config=Config(retries={"total_max_attempts": 1}),
        )  # fmt: skip
        return await asyncio.to_thread(getattr(client, operation), **arguments)

    async def refused(self, operation: str, **arguments: Any) -> tuple[str, str]:
        with pytest.raises(ClientError) as caught:
            await self.call(operation, **arguments)
        return caught.value.response["Error"]["Code"], caught.value.response["Error"]["Message"]

    async def ask(self, method: str, target: str, body: Any = b"") -> Reply:
        return await ask(self.server, method, f"/meshlog/v1/{target}", body, Signing(key=self.key, service="meshlog"))


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    async with running(tmp_path) as cloud:
        yield cloud


@pytest.fixture
async def owner(cloud: Cloud) -> Tenant:
    """The account that the cluster was made with, with a mesh and a virtual node in it."""
    owner = Tenant(cloud.server, ACCOUNT, (ADMIN.access_key_id, ADMIN.secret))
    await owner.call("create_mesh", meshName="shop", tags=[{"key": "team", "value": "one"}])
    await owner.call("create_virtual_node", meshName="shop", virtualNodeName="cart", spec=NODE_SPEC)
    return owner


async def added(owner: Tenant, account: str) -> Tenant:
    reply = await owner.ask("POST", "accounts", {"account": account, "name": "a tenant"})
    assert reply.status == 200, reply.document
    return Tenant(owner.server, account, (reply.document["access_key_id"], reply.document["secret_access_key"]))


@pytest.fixture
async def tenant(owner: Tenant) -> Tenant:
    return await added(owner, OTHER)


@pytest.fixture
async def consumer(owner: Tenant, tenant: Tenant) -> Tenant:
    """A tenant that the mesh is shared with, with a virtual node of its own in it."""
    reply = await owner.ask("POST", "shares", {"mesh": "shop", "with": [OTHER]})
    assert reply.document == {"mesh": "shop", "owner": ACCOUNT, "shared_with": [OTHER], "changed": [OTHER]}
    await tenant.call("create_virtual_node", **SHOP, virtualNodeName="theirs", spec=NODE_SPEC)
    return tenant


# --- accounts


async def test_a_tenant_has_an_admin_of_its_own_and_sees_itself(owner: Tenant, tenant: Tenant) -> None:
    everybody = (await owner.ask("GET", "accounts")).document["accounts"]
    assert [(each["account"], each["operator"]) for each in everybody] == [(ACCOUNT, True), (OTHER, False)]
    assert [each["account"] for each in (await tenant.ask("GET", "accounts")).document["accounts"]] == [OTHER]
    await tenant.call("create_mesh", meshName="shop")  # a name of its own account
    assert (await tenant.ask("POST", "access-keys", {"user": "bob"})).status == 200


async def test_who_runs_the_cluster_is_the_account_that_it_was_made_with(owner: Tenant, tenant: Tenant) -> None:
    for method, target, body in (
        ("POST", "accounts", {"account": THIRD}),
        ("POST", "keys/rotate", {"class": "all"}),
        ("GET", "keys", b""),
    ):
        reply = await tenant.ask(method, target, body)
        assert (reply.status, reply.code) == (403, FORBIDDEN), (target, reply.document)
    again = await owner.ask("POST", "accounts", {"account": OTHER})
    assert (again.status, again.code) == (409, "ConflictException")


async def test_a_repeated_creation_of_an_account_tells_the_first_key(owner: Tenant) -> None:
    body = {"account": THIRD, "name": "once", "clientToken": "one"}
    first, again = [(await owner.ask("POST", "accounts", body)).document for _ in range(2)]
    assert first == again
    assert (
        await Tenant(owner.server, THIRD, (first["access_key_id"], first["secret_access_key"])).ask("GET", "shares")
    ).status == 200


# --- before a mesh is shared


READS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("describe_mesh", {}),
    ("list_virtual_nodes", {}),
    ("describe_virtual_node", {"virtualNodeName": "cart"}),
    ("list_routes", {"virtualRouterName": "r"}),
    ("create_virtual_node", {"virtualNodeName": "new", "spec": NODE_SPEC}),
    ("update_virtual_node", {"virtualNodeName": "cart", "spec": NODE_SPEC}),
    ("delete_virtual_node", {"virtualNodeName": "cart"}),
    ("create_virtual_gateway", {"virtualGatewayName": "g", "spec": {"listeners": LISTENERS}}),
)


async def test_what_is_not_shared_is_as_what_is_not_there(owner: Tenant, tenant: Tenant) -> None:
    for operation, arguments in READS:
        there = await tenant.refused(operation, **SHOP, **arguments)
        absent = await tenant.refused(operation, meshName="none", meshOwner=ACCOUNT, **arguments)
        assert there[0] == absent[0] == FORBIDDEN
        assert there[1].replace("shop", "none") == absent[1], operation
    for target in ("resources?{}", "events?{}", "diff?from=1&{}", "resources?at=1&{}"):
        one, two = [
            await tenant.ask("GET", target.format(f"mesh={mesh}&account={ACCOUNT}")) for mesh in ("shop", "none")
        ]
        assert one.status == two.status == 403, (target, one.document)
        assert one.document["message"].replace("shop", "none") == two.document["message"]
    arn = f"arn:aws:appmesh:{REGION}:{ACCOUNT}:mesh/shop"
    assert (await tenant.refused("list_tags_for_resource", resourceArn=arn))[0] == FORBIDDEN
    assert (await tenant.call("list_meshes"))["meshes"] == []
    assert (await tenant.ask("GET", "resources?kind=mesh")).document["resources"] == []
    assert (await tenant.ask("GET", "shares")).document["shares"] == []
    told = (await tenant.ask("GET", "events")).document["events"]
    assert {event["account"] for event in told} <= {OTHER}


# --- while it is shared


async def test_a_consumer_sees_all_of_the_mesh_by_its_owner(owner: Tenant, consumer: Tenant) -> None:
    (mesh,) = (await consumer.call("list_meshes"))["meshes"]
    assert (mesh["meshName"], mesh["meshOwner"], mesh["resourceOwner"]) == ("shop", ACCOUNT, ACCOUNT)
    nodes = (await consumer.call("list_virtual_nodes", **SHOP))["virtualNodes"]
    owners = {node["virtualNodeName"]: node["resourceOwner"] for node in nodes}
    assert owners == {"cart": ACCOUNT, "theirs": OTHER}
    assert {node["meshOwner"] for node in nodes} == {ACCOUNT}
    assert nodes == (await owner.call("list_virtual_nodes", meshName="shop"))["virtualNodes"]
    described = await consumer.call("describe_virtual_node", **SHOP, virtualNodeName="theirs")
    arn = described["virtualNode"]["metadata"]["arn"]
    assert arn == f"arn:aws:appmesh:{REGION}:{ACCOUNT}:mesh/shop/virtualNode/theirs"
    assert [share["account"] for share in (await consumer.ask("GET", "shares")).document["shares"]] == [OTHER]


async def test_a_repeated_share_is_told_what_the_first_did(owner: Tenant) -> None:
    body = {"mesh": "shop", "with": [OTHER], "clientToken": "once"}
    first, again = [(await owner.ask("POST", "shares", body)).document for _ in range(2)]
    assert first == again
    assert first["changed"] == [OTHER]
    assert (await owner.ask("POST", "shares", {"mesh": "shop", "with": [OTHER]})).document["changed"] == []
    assert (await owner.ask("POST", "shares", {"mesh": "shop", "with": []})).status == 400
    assert (await owner.ask("POST", "shares", {"mesh": "none", "with": [OTHER]})).status == 404


async def test_a_consumer_changes_its_own_and_the_owner_deletes_it(owner: Tenant, consumer: Tenant) -> None:
    await consumer.call("update_virtual_node", **SHOP, virtualNodeName="theirs", spec=NODE_SPEC)
    code, said = await consumer.refused("update_virtual_node", **SHOP, virtualNodeName="cart", spec=NODE_SPEC)
    assert (code, f"was made by account {ACCOUNT}" in said) == (FORBIDDEN, True)
    assert (await consumer.refused("delete_virtual_node", **SHOP, virtualNodeName="cart"))[0] == FORBIDDEN
    gateway = {"virtualGatewayName": "g", "spec": {"listeners": LISTENERS}}
    assert (await consumer.refused("create_virtual_gateway", **SHOP, **gateway))[0] == FORBIDDEN
    theirs = {"meshName": "shop", "virtualNodeName": "theirs"}
    assert (await owner.refused("update_virtual_node", **theirs, spec={}))[0] == FORBIDDEN
    assert (await owner.refused("delete_mesh", meshName="shop"))[0] == "ResourceInUseException"
    gone = await owner.call("delete_virtual_node", **theirs)
    assert gone["virtualNode"]["metadata"]["resourceOwner"] == OTHER


async def test_each_tags_what_it_made(owner: Tenant, consumer: Tenant) -> None:
    arn = f"arn:aws:appmesh:{REGION}:{ACCOUNT}:mesh/shop"
    theirs = f"{arn}/virtualNode/theirs"
    await consumer.call("tag_resource", resourceArn=theirs, tags=[{"key": "a", "value": "b"}])
    assert (await consumer.call("list_tags_for_resource", resourceArn=theirs))["tags"] == [{"key": "a", "value": "b"}]
    for who, what in ((owner, theirs), (consumer, arn)):
        assert (await who.refused("list_tags_for_resource", resourceArn=what))[0] == FORBIDDEN
        assert (await who.refused("untag_resource", resourceArn=what, tagKeys=["a"]))[0] == FORBIDDEN
        assert (await who.refused("tag_resource", resourceArn=what, tags=[{"key": "c", "value": "d"}]))[0] == FORBIDDEN
    told = (await consumer.ask("GET", f"resources?mesh=shop&account={ACCOUNT}")).document["resources"]
    tags_of = {each["metadata"]["arn"].rpartition("/")[2]: each["tags"] for each in told}
    assert tags_of == {"shop": [], "cart": [], "theirs": [{"key": "a", "value": "b"}]}


async def test_one_name_in_two_accounts_is_listed_twice_page_by_page(owner: Tenant, consumer: Tenant) -> None:
    await consumer.call("create_mesh", meshName="shop")
    await consumer.call("create_mesh", meshName="apple")
    found, token = list[tuple[str, str]](), None
    while True:
        page = await consumer.call("list_meshes", limit=1, **({"nextToken": token} if token else {}))
        found += [(mesh["meshName"], mesh["meshOwner"]) for mesh in page["meshes"]]
        token = page.get("nextToken")
        if token is None:
            break
    assert found == [("apple", OTHER), ("shop", ACCOUNT), ("shop", OTHER)]
    assert len((await consumer.ask("GET", "resources?kind=mesh")).document["resources"]) == 3


async def test_one_client_token_of_two_accounts_is_two_calls(owner: Tenant, consumer: Tenant) -> None:
    for who in (owner, consumer):
        node = await who.call(
            "create_virtual_node", **SHOP, clientToken="the-same", virtualNodeName=f"by-{who.account}", spec=NODE_SPEC
        )
        assert node["virtualNode"]["metadata"]["resourceOwner"] == who.account


# --- the past


async def test_a_consumer_sees_what_happened_since_the_share_but_not_who(owner: Tenant, consumer: Tenant) -> None:
    await owner.call("update_virtual_node", meshName="shop", virtualNodeName="cart", spec={**NODE_SPEC, "backends": []})
    query = f"mesh=shop&account={ACCOUNT}"
    told = (await consumer.ask("GET", f"events?{query}")).document["events"]
    assert [event["type"] for event in told] == ["MeshShared", "ResourceCreated", "ResourceUpdated"]
    assert [event["actor"] for event in told] == [
        f"arn:aws:iam::{ACCOUNT}:root", f"arn:aws:iam::{OTHER}:user/admin", f"arn:aws:iam::{ACCOUNT}:root",
    ]  # fmt: skip
    assert [bool(event["source_ip"]) for event in told] == [False, True, False]
    assert (await owner.ask("GET", "events?mesh=shop")).document["events"][-2]["actor"] == f"arn:aws:iam::{OTHER}:root"
    recent = (await consumer.ask("GET", f"events?{query}&consistency=stale")).document["events"]
    assert [event["type"] for event in recent] == [event["type"] for event in told]
    share = told[0]["position"]
    for target in (
        f"resources?at={share - 1}&{query}",
        f"diff?from={share - 1}&{query}",
        f"diff?from={share}&to=1&{query}",
    ):
        assert (await consumer.ask("GET", target)).status == 403, target
    before, after = [
        (await consumer.ask("GET", f"resources?at={at}&{query}")).document["resources"] for at in (share, share + 1)
    ]
    assert len(after) == len(before) + 1
    (change,) = [
        change for change in (await consumer.ask("GET", f"diff?from={share}&{query}")).document["changes"]
        if change["resource"].endswith("/cart")
    ]  # fmt: skip
    assert change["last_change"]["actor"] == f"arn:aws:iam::{ACCOUNT}:root"


async def test_each_account_rolls_back_what_it_made(owner: Tenant, consumer: Tenant) -> None:
    at = (await consumer.ask("GET", "status")).document["position"]
    changed = {**NODE_SPEC, "backends": []}
    await owner.call("update_virtual_node", meshName="shop", virtualNodeName="cart", spec=changed)
    await consumer.call("update_virtual_node", **SHOP, virtualNodeName="theirs", spec=changed)
    whole = await owner.ask("POST", "rollback", {"mesh": "shop", "to": at})
    assert (whole.status, "--own" in whole.document["message"]) == (409, True)
    shown = await owner.ask("POST", "rollback", {"mesh": "shop", "to": at, "dry_run": True})
    assert len(shown.document["refused"]) == 1
    mine = {"mesh": "shop", "account": ACCOUNT, "to": at, "own": True}
    done = await consumer.ask("POST", "rollback", mine)
    assert [change["resource"] for change in done.document["changes"]] == ["mesh/shop/virtualNode/theirs"]
    done = await owner.ask("POST", "rollback", {"mesh": "shop", "to": at, "own": True})
    assert [change["resource"] for change in done.document["changes"]] == ["mesh/shop/virtualNode/cart"]
    both = await consumer.ask("POST", "rollback", {**mine, "only": ["virtualNode/theirs"]})
    assert both.status == 400


# --- proxies, and the end of a share


async def identity(who: Tenant, node: str) -> Reply:
    return await who.ask("POST", "proxies/identity", {"node": node, "csr_pem": "CERTIFICATE REQUEST"})


async def test_who_made_a_node_gets_certificates_for_its_proxies(owner: Tenant, consumer: Tenant) -> None:
    theirs = f"mesh/shop@{ACCOUNT}/virtualNode/theirs"
    issued = await identity(consumer, theirs)
    assert (issued.status, issued.document["node"]) == (200, theirs)
    for who, node in ((owner, theirs), (consumer, f"mesh/shop@{ACCOUNT}/virtualNode/cart")):
        assert (await identity(who, node)).status == 403
    assert (await identity(consumer, "mesh/shop/virtualNode/theirs")).status == 404  # in its own account


async def test_after_the_share_everything_is_as_if_it_had_never_been(owner: Tenant, consumer: Tenant) -> None:
    ended = await owner.ask("POST", "shares/end", {"mesh": "shop", "with": [OTHER, THIRD]})
    assert ended.document == {"mesh": "shop", "owner": ACCOUNT, "shared_with": [], "changed": [OTHER]}
    for operation, arguments in READS:
        assert (await consumer.refused(operation, **SHOP, **arguments))[0] == FORBIDDEN
    assert (await consumer.refused("delete_virtual_node", **SHOP, virtualNodeName="theirs"))[0] == FORBIDDEN
    assert (await consumer.call("list_meshes"))["meshes"] == []
    assert (await identity(consumer, f"mesh/shop@{ACCOUNT}/virtualNode/theirs")).status == 403
    assert (await consumer.ask("GET", f"events?mesh=shop&account={ACCOUNT}&consistency=stale")).status == 403
    await owner.call("delete_virtual_node", meshName="shop", virtualNodeName="theirs")


async def test_the_audit_tells_each_account_its_calls_and_the_owner_those_on_its_mesh(
    owner: Tenant, consumer: Tenant
) -> None:
    def calls(reply: Reply) -> set[tuple[str, str, str | None]]:
        return {
            (event["eventName"], event["userIdentity"]["accountId"], event["userIdentity"].get("arn"))
            for event in reply.document["events"]
        }

    told = calls(await consumer.ask("GET", "audit?status=accepted"))
    assert told == {("CreateVirtualNode", OTHER, f"arn:aws:iam::{OTHER}:user/admin")}
    seen = calls(await owner.ask("GET", "audit?status=accepted"))
    assert ("CreateVirtualNode", OTHER, None) in seen
    assert ("CreateVirtualNode", ACCOUNT, ADMIN.principal) in seen
