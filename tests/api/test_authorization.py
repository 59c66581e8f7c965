"""Every route × (no credentials, wrong signature, other account, denied, allowed), from the app's table of routes."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from api.authorization import CONNECT, RULES, Rule, authorise
from api.cloud_map_wire import CBOR_PATH, TARGET
from api.cloud_map_wire import CODES as CLOUD_MAP_CODES
from api.commands import Origin
from api.query_protocol import CODES
from api.requests import BodyReader, QueryReader
from api.routes import Route
from identity.caller import Caller
from identity.sigv4 import CLOUD_MAP, STS
from mesh.commands import (
    Command,
    Create,
    CreateAccessKey,
    CreateAccount,
    DisableAccessKey,
    EnableAccessKey,
    PutInlinePolicy,
    idempotency_token,
)
from mesh.errors import Forbidden
from mesh.iam.evaluate import Circumstances
from mesh.kinds import mesh_key
from mesh.model.operations import OPERATIONS
from mesh.state import State
from runtime.cbor import encode
from tests.api.conftest import ACCOUNT, ADMIN, REGION, Cloud, Server, running
from tests.api.signing import Reply, Signing, ask
from tests.api.test_pki import foreign
from tests.conditions import await_until
from tests.mesh.worlds import SHOP

OTHER_ACCOUNT = "999999999999"
PLAIN = ("AKIAMESHLOGPLAIN0001", "may do nothing")
GRANTED = ("AKIAMESHLOGGRANT0001", "may do what is granted")
OTHER = ("AKIAMESHLOGOTHER0001", "the root of another account")
GRANTED_ARN = f"arn:aws:iam::{ACCOUNT}:user/granted"
NOW = Circumstances(source_ip="127.0.0.1", time_us=0, secure=False, region=REGION)

ABSENT, HIDDEN = "none", "shop"
"""A mesh that nobody has, and one that its owner shares with nobody."""

QUERIES: dict[str, dict[str, str]] = {
    "meshlog:ListResources": {"kind": "mesh"},
    "meshlog:DiffMesh": {"from": "0"},
    "meshlog:DiffProxy": {"from": "0", "node": "mesh/{mesh}@{account}/virtualNode/cart-v1"},
    "meshlog:DescribeCertificate": {"certificate": "none"},
    "meshlog:GetProxyConfig": {"node": "mesh/{mesh}@{account}/virtualNode/cart-v1"},
    "iam:GetUser": {"user": "granted"},
    "iam:GetRole": {"role": "none"},
    "iam:GetPolicy": {"policy": "AWSAppMeshReadOnly"},
}
TRUST = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}}
NOTHING = {"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Action": "x:Y", "Resource": "*"}}
NO_CA = f"arn:aws:acm-pca:{REGION}:{ACCOUNT}:certificate-authority/none"
NO_CERTIFICATE = f"arn:aws:acm:{REGION}:{ACCOUNT}:certificate/none"
BROUGHT = foreign("brought.local")[0]
BODIES: dict[str, dict[str, Any]] = {
    "POST rollback": {"mesh": "{mesh}", "account": "{account}", "to": 1},
    "POST proxies/identity": {"node": "mesh/{mesh}@{account}/virtualNode/n", "csr_pem": "CERTIFICATE REQUEST"},
    "POST keys/rotate": {"class": "all"},
    "POST keys/rewrap": {"class": "all"},
    "POST quotas": {"code": "L-AC861A39", "value": 20},
    "POST shares": {"mesh": "{mesh}", "with": ["888888888888"]},
    "POST shares/end": {"mesh": "{mesh}", "with": ["888888888888"]},
    "POST accounts": {"account": "888888888888"},
    "POST access-keys": {"user": "ann"},
    "POST access-keys/disable": {"access_key_id": "none"},
    "POST access-keys/enable": {"access_key_id": "none"},
    "POST access-keys/delete": {"access_key_id": "none"},
    "POST iam/users": {"user": "new"},
    "POST iam/users/delete": {"user": "none"},
    "POST iam/users/attach": {"user": "none", "policy": "AWSAppMeshReadOnly"},
    "POST iam/users/detach": {"user": "none", "policy": "AWSAppMeshReadOnly"},
    "POST iam/users/policies": {"user": "none", "name": "p", "document": NOTHING},
    "POST iam/users/policies/delete": {"user": "none", "name": "p"},
    "POST iam/roles": {"role": "new", "trust": TRUST},
    "POST iam/roles/delete": {"role": "none"},
    "POST iam/roles/attach": {"role": "none", "policy": "AWSAppMeshReadOnly"},
    "POST iam/roles/detach": {"role": "none", "policy": "AWSAppMeshReadOnly"},
    "POST iam/roles/policies": {"role": "none", "name": "p", "document": NOTHING},
    "POST iam/roles/policies/delete": {"role": "none", "name": "p"},
    "POST iam/roles/trust": {"role": "none", "document": TRUST},
    "POST iam/policies": {"policy": "new", "document": NOTHING},
    "POST iam/policies/delete": {"policy": "none"},
    "POST pki/authorities": {"name": "new"},
    "POST pki/authorities/rotate": {"authority": NO_CA},
    "POST pki/authorities/retire": {"authority": NO_CA},
    "POST pki/certificates": {"domain": "a.local", "authority": NO_CA},
    "POST pki/certificates/rotate": {"certificate": NO_CERTIFICATE},
    "POST pki/certificates/import": {"certificate": BROUGHT.chain, "private_key": BROUGHT.secret},
    "POST pki/certificates/delete": {"certificate": NO_CERTIFICATE},
    "POST registry/heartbeats": {"service": "srv-none", "instances": ["i"]},
    "POST iam/simulate": {"user": "granted", "action": "appmesh:ListMeshes"},
}
IN_NO_SERVICE = {"ServiceId": "srv-none", "InstanceId": "i"}
NO_ARN = f"arn:aws:servicediscovery:{REGION}:{ACCOUNT}:service/srv-none"
CLOUD_MAP_INPUTS: dict[str, dict[str, Any]] = {
    "CreateHttpNamespace": {"Name": "new"},
    "CreatePrivateDnsNamespace": {"Name": "new.private", "Vpc": "vpc-1"},
    "CreatePublicDnsNamespace": {"Name": "new.public"},
    **{f"Update{kind}Namespace": {"Id": "ns-none", "Namespace": {}} for kind in ("PrivateDns", "PublicDns")},
    "UpdateHttpNamespace": {"Id": "ns-none", "Namespace": {"Description": ""}},
    **{f"{verb}Namespace": {"Id": "ns-none"} for verb in ("Get", "Delete")},
    **{f"List{plural}": {} for plural in ("Namespaces", "Services", "Operations")},
    "CreateService": {"Name": "new", "NamespaceId": "ns-none"},
    "UpdateService": {"Id": "srv-none", "Service": {}},
    **{f"{verb}Service": {"Id": "srv-none"} for verb in ("Get", "Delete")},
    "GetServiceAttributes": {"ServiceId": "srv-none"},
    "UpdateServiceAttributes": {"ServiceId": "srv-none", "Attributes": {"a": "b"}},
    "DeleteServiceAttributes": {"ServiceId": "srv-none", "Attributes": ["a"]},
    "RegisterInstance": {**IN_NO_SERVICE, "Attributes": {}},
    "DeregisterInstance": IN_NO_SERVICE,
    "GetInstance": IN_NO_SERVICE,
    "ListInstances": {"ServiceId": "srv-none"},
    "GetInstancesHealthStatus": {"ServiceId": "srv-none"},
    "UpdateInstanceCustomHealthStatus": {**IN_NO_SERVICE, "Status": "HEALTHY"},
    **{f"DiscoverInstances{what}": {"NamespaceName": "none", "ServiceName": "none"} for what in ("", "Revision")},
    "GetOperation": {"OperationId": "none"},
    "TagResource": {"ResourceARN": NO_ARN, "Tags": []},
    "UntagResource": {"ResourceARN": NO_ARN, "TagKeys": []},
    "ListTagsForResource": {"ResourceARN": NO_ARN},
}
FORMS = {"AssumeRole": f"&RoleArn=arn%3Aaws%3Aiam%3A%3A{ACCOUNT}%3Arole%2Fnone&RoleSessionName=session"}
NEEDS = {"meshlog:IssueProxyIdentity": CONNECT}
"""What a route asks to be allowed where that is not its own action."""


def name_of(route: Route) -> str:
    return f"{route.method} {route.path.removeprefix('/meshlog/v1/')}"


def filled(value: Any, mesh: str, account: str) -> Any:
    """The places of the mesh and its account, filled."""
    if isinstance(value, dict):
        return {key: filled(each, mesh, account) for key, each in value.items()}
    return value.replace("{mesh}", mesh).replace("{account}", account) if isinstance(value, str) else value


def names_an_owner(route: Route) -> bool:
    """Whether a call of the route can say that it is about another account's things."""
    operation = OPERATIONS.get(route.action.partition(":")[2])
    if CLOUD_MAP in route.services:
        return False
    if operation is not None:
        return "meshOwner" in operation.query_members.values() or "resourceArn" in operation.query_members.values()
    known = route.read.known if isinstance(route.read, QueryReader) else ()
    return "account" in known or "{account}" in json.dumps([BODIES.get(name_of(route)), QUERIES.get(route.action)])


async def request(
    server: Server,
    route: Route,
    signing: Signing,
    mesh: str = ABSENT,
    *,
    account: str = ACCOUNT,
    owner: str | None = None,
) -> Reply:
    """The route asked for something well formed: about that mesh, of `owner` where it can name one."""
    if CLOUD_MAP in route.services:
        name = route.action.partition(":")[2]
        members = {**CLOUD_MAP_INPUTS[name]}
        if route.path.startswith(CBOR_PATH):
            members |= {"Name": f"cbor.{members['Name']}"} if name.startswith("Create") else {}
            return await ask(server, "POST", route.path, encode(members), signing)
        return await ask(server, "POST", "/", members, replace(signing, amz_target=f"{TARGET}.{name}"))
    operation = OPERATIONS.get(route.action.partition(":")[2])
    query = {name: filled(value, mesh, account) for name, value in QUERIES.get(route.action, {}).items()}
    if operation is not None and "resourceArn" in operation.query_members.values():
        query["resourceArn"] = f"arn:aws:appmesh:{REGION}:{account}:mesh/{mesh}"
    if owner is not None and operation is not None and "meshOwner" in operation.query_members.values():
        query["meshOwner"] = owner
    if owner is not None and isinstance(route.read, QueryReader) and "account" in route.read.known:
        query |= {"account": owner, **({"mesh": mesh} if route.action != "meshlog:ListResources" else {"name": mesh})}
    target = re.sub(r"\{\w+\}", mesh, route.path) + FORMS.get(route.action.partition(":")[2], "")
    target += f"?{urlencode(query, quote_via=quote)}" if query else ""
    body: Any = b""
    if operation is not None and route.method == "PUT":
        body = _input(operation, mesh)
    elif isinstance(route.read, BodyReader):
        assert name_of(route) in BODIES, f"say in BODIES what a well-formed body of {name_of(route)} is"
        body = filled(BODIES[name_of(route)], mesh, account)
    return await ask(server, route.method, target, body, signing)


def _input(operation: Any, mesh: str) -> dict[str, Any]:
    listeners = [{"portMapping": {"port": 80, "protocol": "http"}}]
    target = {"virtualService": {"virtualServiceName": "none"}}
    specs = {
        "Route": {"tcpRoute": {"action": {"weightedTargets": [{"virtualNode": "none", "weight": 1}]}}},
        "GatewayRoute": {"httpRoute": {"match": {"prefix": "/"}, "action": {"target": target}}},
        "VirtualGateway": {"listeners": listeners},
    }
    values = {
        "tags": [{"key": "a", "value": "b"}],
        "tagKeys": ["a"],
        "spec": specs.get(operation.kind.title, {}) if operation.kind else {},
    }
    return {
        name: values.get(name, mesh)
        for name in operation.body_members
        if name in ("spec", "tagKeys") or (name == "tags" and operation.kind is None) or name.endswith("Name")
    }


async def do(server: Server, command: Command, account: str = ACCOUNT) -> None:
    """Bring a command into the log, past the edge."""
    token = idempotency_token(account, ADMIN.principal, "Setup", uuid.uuid4().hex, {})
    origin = Origin(account, ADMIN.principal, "", "r", "Setup", token)
    outcome = await server.app.state.commands.submit(command, origin)
    await server.replica.wait_for(outcome.position, 5.0)


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    """A server with a mesh, a user who may do nothing, one whose rights are changed, and another account."""
    async with running(tmp_path) as cloud:
        for key, spec in SHOP:
            await do(cloud.server, Create(key._replace(account=ACCOUNT), spec))
        await do(cloud.server, CreateAccessKey(*PLAIN, ACCOUNT, f"arn:aws:iam::{ACCOUNT}:user/plain", admin=False))
        await do(cloud.server, CreateAccessKey(*GRANTED, ACCOUNT, GRANTED_ARN, admin=False))
        await do(cloud.server, CreateAccount(OTHER_ACCOUNT, "tenant", *OTHER))
        yield cloud


@pytest.fixture
def server(cloud: Cloud) -> Server:
    return cloud.server


async def grant(server: Server, *statements: dict[str, Any]) -> None:
    """What the user `granted` may do from now on."""
    document = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    await do(server, PutInlinePolicy(GRANTED_ARN, "test", document))


async def refusals(server: Server, route: Route) -> dict[str, Reply]:
    """What those get who may not call the route, by column."""
    service = route.services[0]
    columns = {
        "no credentials": request(server, route, Signing(key=None)),
        "wrong signature": request(server, route, Signing(key=(ADMIN.access_key_id, "guess"), service=service)),
    }
    if RULES[route.action] is not Rule.ANYONE:
        columns["denied"] = request(server, route, Signing(key=PLAIN, service=service))
        columns["denied what is there"] = request(server, route, Signing(key=PLAIN, service=service), HIDDEN)
    return dict(zip(columns, await asyncio.gather(*columns.values()), strict=True))


EXPECTED = {
    "no credentials": "MissingAuthenticationTokenException",
    "wrong signature": "InvalidSignatureException",
    "denied": "ForbiddenException",
    "denied what is there": "ForbiddenException",
}


async def test_every_route_refuses_whoever_may_not_call_it(cloud: Cloud, server: Server) -> None:
    before = server.replica.position
    for route in server.app.state.edge.routes:
        for column, reply in (await refusals(server, route)).items():
            cloud_map = CLOUD_MAP in route.services
            codes = CODES if STS in route.services else CLOUD_MAP_CODES if cloud_map else {}
            wanted = (400 if cloud_map else 403, codes.get(EXPECTED[column], EXPECTED[column]))
            assert (reply.status, reply.code) == wanted, (name_of(route), column, reply)
    assert server.replica.position == before, "and nothing is written"


async def test_every_route_tells_another_account_nothing(server: Server) -> None:
    """Asked about this account's things: one answer, whether they are there. The rest tells of the other's own."""
    before = server.replica.state.resources
    for route in server.app.state.edge.routes:
        signing = Signing(key=OTHER, service=route.services[0])
        if names_an_owner(route):
            absent, hidden = [await request(server, route, signing, mesh, owner=ACCOUNT) for mesh in (ABSENT, HIDDEN)]
            assert (hidden.status, hidden.code) == (403, "ForbiddenException"), (name_of(route), hidden)
            assert absent.status == 403, (name_of(route), absent)
            told, wanted = hidden.document["message"], absent.document["message"]
            assert told.replace(HIDDEN, ABSENT) == wanted.replace(HIDDEN, ABSENT), name_of(route)
        else:
            reply = await request(server, route, signing, HIDDEN, account=OTHER_ACCOUNT)
            told_of = [word for word in (b"cart-v1", b"user/granted", PLAIN[0].encode()) if word in reply.body]
            assert not told_of, (name_of(route), told_of)
    assert {key for key in server.replica.state.resources if key.account == ACCOUNT} == set(before)


ANSWERED = (
    "appmesh:CreateMesh", "appmesh:ListMeshes", "meshlog:ListEvents", "meshlog:GetStatus", "meshlog:LookupEvents",
    "meshlog:ListResources", "meshlog:DiffMesh", "meshlog:ListKeys", "meshlog:RotateKeys", "meshlog:RewrapKeys",
    "meshlog:ListQuotas", "meshlog:SetQuota", "meshlog:ListShares", "meshlog:ListAccounts", "meshlog:CreateAccount",
    "meshlog:GetOpenApi", "meshlog:ListCertificateAuthorities", "meshlog:CreateCertificateAuthority",
    "meshlog:ListCertificates", "meshlog:ImportCertificate",
    "meshlog:ListRegistered", "meshlog:ListRegistryEvents",
    "iam:ListAccessKeys", "iam:CreateAccessKey",
    "iam:ListUsers", "iam:GetUser", "iam:CreateUser", "iam:ListRoles", "iam:CreateRole", "iam:ListPolicies",
    *(f"servicediscovery:Create{kind}Namespace" for kind in ("Http", "PrivateDns", "PublicDns")),
    *(f"servicediscovery:List{plural}" for plural in ("Namespaces", "Services", "Operations")),
    "iam:GetPolicy", "iam:CreatePolicy", "iam:SimulatePrincipalPolicy", "sts:GetCallerIdentity", "sts:GetSessionToken",
)  # fmt: skip
"""Routes that have an answer without anything of a certain name being there; the others say 404."""


async def test_every_route_answers_whoever_is_granted_its_action_alone(server: Server) -> None:
    routes = server.app.state.edge.routes
    for route in sorted(routes, key=lambda route: route.action == "appmesh:CreateMesh"):
        signing = Signing(key=GRANTED, service=route.services[0])
        if RULES[route.action] is not Rule.ANYONE:
            action = NEEDS.get(route.action, route.action)
            await grant(server, {"Effect": "Allow", "Action": action, "Resource": "*"})
        allowed = await request(server, route, signing)
        wanted = 403 if route.action == "sts:AssumeRole" else 200 if route.action in ANSWERED else 404
        assert allowed.status == wanted, (name_of(route), allowed)


async def test_every_route_answers_the_root_of_the_account(server: Server) -> None:
    for route in sorted(server.app.state.edge.routes, key=lambda route: route.action == "appmesh:CreateMesh"):
        allowed = await request(server, route, Signing(service=route.services[0]))
        wanted = 403 if route.action == "sts:AssumeRole" else 200 if route.action in ANSWERED else 404
        assert allowed.status == wanted, (name_of(route), allowed)


async def test_every_route_has_a_rule_and_every_rule_a_route(server: Server) -> None:
    assert {route.action for route in server.app.state.edge.routes} == set(RULES)


async def test_forbidden_names_who_what_and_where(server: Server) -> None:
    reply = await ask(server, "DELETE", "/v20190125/meshes/shop", b"", Signing(key=PLAIN))
    assert reply.document["message"] == (
        f"User: arn:aws:iam::{ACCOUNT}:user/plain is not authorized to perform: appmesh:DeleteMesh on resource: "
        f"arn:aws:appmesh:{REGION}:{ACCOUNT}:mesh/shop because no identity-based policy allows the "
        "appmesh:DeleteMesh action"
    )


async def test_a_deny_wins_and_says_so(server: Server) -> None:
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    mesh = f"arn:aws:appmesh:*:{ACCOUNT}:mesh/shop"
    await grant(server, everything, {"Effect": "Deny", "Action": "appmesh:Delete*", "Resource": mesh})
    reply = await ask(server, "DELETE", "/v20190125/meshes/shop", b"", Signing(key=GRANTED))
    assert reply.code == "ForbiddenException"
    assert reply.document["message"].endswith("mesh/shop with an explicit deny in an identity-based policy")
    assert (await ask(server, "DELETE", "/v20190125/meshes/other", b"", Signing(key=GRANTED))).status == 404


async def test_what_a_specification_names_is_authorised_too(server: Server) -> None:
    arn = f"arn:aws:appmesh:{REGION}:{ACCOUNT}:mesh/shop"
    allow = {"Effect": "Allow", "Action": "appmesh:*"}
    route, node = f"{arn}/virtualRouter/cart/route/beta", f"{arn}/virtualNode/cart-v1"
    spec = {"tcpRoute": {"action": {"weightedTargets": [{"virtualNode": "cart-v1", "weight": 1}]}}}
    create = (server, "PUT", "/v20190125/meshes/shop/virtualRouter/cart/routes")
    body = {"routeName": "beta", "spec": spec}
    await grant(server, {**allow, "Resource": route})
    refused = await ask(*create, body, Signing(key=GRANTED))
    assert f"appmesh:CreateRoute on resource: {node} because" in refused.document["message"]
    await grant(server, {**allow, "Resource": [route, node]})
    tagged = await ask(*create, {**body, "tags": [{"key": "team", "value": "a"}]}, Signing(key=GRANTED))
    assert tagged.status == 200, "appmesh:* has TagResource in it"
    backend = {"virtualService": {"virtualServiceName": "later.shop.local"}}
    nodes = {"virtualNodeName": "n", "spec": {"backends": [backend]}}
    refused = await ask(server, "PUT", "/v20190125/meshes/shop/virtualNodes", nodes, Signing(key=GRANTED))
    assert refused.code == "ForbiddenException"
    both = [f"{arn}/virtualNode/n", f"{arn}/virtualService/later.shop.local"]
    await grant(server, {**allow, "Action": "appmesh:CreateVirtualNode", "Resource": both})
    tagged_node = {**nodes, "tags": [{"key": "team", "value": "a"}]}
    refused = await ask(server, "PUT", "/v20190125/meshes/shop/virtualNodes", tagged_node, Signing(key=GRANTED))
    assert f"appmesh:TagResource on resource: {both[0]} because" in refused.document["message"]
    made = await ask(server, "PUT", "/v20190125/meshes/shop/virtualNodes", nodes, Signing(key=GRANTED))
    assert made.status == 200, made


async def test_rights_may_hang_on_tags_and_on_the_address(server: Server) -> None:
    own = {"StringEquals": {"aws:ResourceTag/owner": "${aws:username}"}}
    new = {"StringEquals": {"aws:RequestTag/owner": "${aws:username}"}, "IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}
    await grant(
        server,
        {"Effect": "Allow", "Action": ["appmesh:CreateMesh", "appmesh:TagResource"], "Resource": "*", "Condition": new},
        {
            "Effect": "Allow",
            "Action": ["appmesh:DescribeMesh", "appmesh:DeleteMesh"],
            "Resource": "*",
            "Condition": own,
        },
    )
    signing = Signing(key=GRANTED)
    for owner, status in (("bob", 403), ("granted", 200)):
        body = {"meshName": "mine", "tags": [{"key": "owner", "value": owner}]}
        assert (await ask(server, "PUT", "/v20190125/meshes", body, signing)).status == status
    assert (await ask(server, "GET", "/v20190125/meshes/mine", b"", signing)).status == 200
    assert (await ask(server, "GET", "/v20190125/meshes/shop", b"", signing)).status == 403
    elsewhere = {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}
    await grant(server, {"Effect": "Allow", "Action": "appmesh:*", "Resource": "*", "Condition": elsewhere})
    assert (await ask(server, "GET", "/v20190125/meshes/mine", b"", signing)).status == 403


async def test_who_may_not_call_is_not_told_what_is_wrong_with_the_input(server: Server) -> None:
    wrong = {"meshName": "x" * 300, "nonsense": 1}
    assert (await ask(server, "PUT", "/v20190125/meshes", wrong, Signing(key=PLAIN))).code == "ForbiddenException"
    assert (await ask(server, "PUT", "/v20190125/meshes", wrong, Signing())).code == "BadRequestException"


async def test_meshlog_routes_take_either_service_name_and_app_mesh_only_its_own(server: Server) -> None:
    assert (await ask(server, "GET", "/meshlog/v1/status", b"", Signing(service="meshlog"))).status == 200
    assert (await ask(server, "GET", "/meshlog/v1/status", b"", Signing(service="appmesh"))).status == 200
    assert (await ask(server, "GET", "/v20190125/meshes", b"", Signing(service="meshlog"))).status == 403


async def test_what_another_server_has_just_granted_counts_at_once(tmp_path: Path) -> None:
    async with running(tmp_path, servers=2) as pair:
        first, second = pair.servers
        await do(first, CreateAccessKey(*GRANTED, ACCOUNT, GRANTED_ARN, admin=False))
        await await_until(lambda: second.replica.position >= first.replica.position, what="the other server follows")
        for number in range(5):
            action = ("appmesh:ListMeshes", "appmesh:CreateMesh")[number % 2]
            await grant(first, {"Effect": "Allow", "Action": action, "Resource": "*"})
            signing = Signing(key=GRANTED)
            if number % 2:
                reply = await ask(second, "PUT", "/v20190125/meshes", {"meshName": f"m{number}"}, signing)
            else:
                reply = await ask(second, "GET", "/v20190125/meshes", b"", signing)
            assert reply.status == 200, reply


async def test_what_another_server_has_just_taken_away_counts_at_once(tmp_path: Path) -> None:
    """The second server hears of the log's new records late: what it would allow by what it knows is refused."""
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    async with running(tmp_path, servers=2, late=True) as pair:
        first, second = pair.servers
        await do(first, CreateAccessKey(*GRANTED, ACCOUNT, GRANTED_ARN, admin=False))
        signing = Signing(key=GRANTED)
        for number in range(4):
            await grant(first, everything)
            assert (await ask(second, "GET", "/v20190125/meshes", b"", signing)).status == 200
            # Back to back, without waiting for what either server folds.
            token = idempotency_token(ACCOUNT, ADMIN.principal, "Setup", uuid.uuid4().hex, {})
            origin = Origin(ACCOUNT, ADMIN.principal, "", "r", "Setup", token)
            nothing: Command = PutInlinePolicy(
                GRANTED_ARN, "test", json.dumps({"Statement": {**everything, "Effect": "Deny"}})
            )
            if number >= 2:
                nothing = DisableAccessKey(GRANTED[0], ACCOUNT)
            await first.app.state.commands.submit(nothing, origin)
            if number % 2:
                reply = await ask(second, "PUT", "/v20190125/meshes", {"meshName": f"m{number}"}, signing)
            else:
                reply = await ask(second, "GET", "/v20190125/meshes", b"", signing)
            assert reply.status == 403, (number, reply)
            if number >= 2:
                await do(first, EnableAccessKey(GRANTED[0], ACCOUNT))
        assert not [key for key in first.replica.state.resources if key.mesh.startswith("m")]


def test_an_action_without_a_rule_is_refused_to_an_admin_too() -> None:
    admin = Caller(ACCOUNT, ADMIN.principal, ADMIN.principal, ADMIN.access_key_id, True, REGION)
    authorise(State(), admin, "appmesh:DescribeMesh", [mesh_key(ACCOUNT, "m")], NOW)
    with pytest.raises(Forbidden):
        authorise(State(), admin, "appmesh:MakeCoffee", (), NOW)


def test_the_root_of_one_account_may_do_nothing_in_another() -> None:
    admin = Caller(ACCOUNT, ADMIN.principal, ADMIN.principal, ADMIN.access_key_id, True, REGION)
    with pytest.raises(Forbidden, match="mesh m of account 999999999999"):
        authorise(State(), admin, "appmesh:DescribeMesh", [mesh_key("999999999999", "m")], NOW)
