"""Every route × (no credentials, wrong signature, not an admin, allowed), from the app's own table of routes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from api.authorization import RULES, Rule, authorise
from api.commands import Origin
from api.query_protocol import CODES
from identity.caller import Caller
from identity.sigv4 import STS
from mesh.commands import CreateAccessKey, idempotency_token
from mesh.errors import Forbidden
from mesh.iam.evaluate import Circumstances
from mesh.kinds import mesh_key
from mesh.model.operations import OPERATIONS
from mesh.state import State
from tests.api.conftest import ACCOUNT, ADMIN, REGION, Cloud, Server, running
from tests.api.signing import Reply, Signing, ask

PLAIN = ("AKIAMESHLOGPLAIN0001", "not an admin's secret")
ARN = f"arn:aws:appmesh:{REGION}:{ACCOUNT}:mesh/none"
NOW = Circumstances(source_ip="127.0.0.1", time_us=0, secure=False, region=REGION)
ANSWERED = (
    "appmesh:CreateMesh", "appmesh:ListMeshes", "meshlog:ListEvents", "meshlog:GetStatus", "meshlog:LookupEvents",
    "meshlog:ListResources", "meshlog:DiffMesh", "meshlog:ListAccessKeys", "meshlog:CreateAccessKey",
    "meshlog:ListKeys", "meshlog:RotateKeys", "meshlog:RewrapKeys", "sts:GetCallerIdentity", "sts:GetSessionToken",
)  # fmt: skip
QUERIES = {
    "meshlog:ListResources": "?kind=mesh",
    "meshlog:DiffMesh": "?from=0",
    "meshlog:DiffProxy": "?from=0&node=mesh%2Fnone%2FvirtualNode%2Fn",
}
INPUTS: dict[str, Any] = {
    "meshlog:RollbackMesh": {"mesh": "none", "to": 1},
    "meshlog:CreateAccessKey": {"user": "ann"},
    "meshlog:RotateKeys": {"class": "all"},
    "meshlog:RewrapKeys": {"class": "all"},
    "meshlog:DisableAccessKey": {"access_key_id": "none"},
    "meshlog:IssueProxyIdentity": {"node": "mesh/none/virtualNode/n", "csr_pem": "CERTIFICATE REQUEST"},
}


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    """A server that knows a key of nobody in particular beside the admin's."""
    async with running(tmp_path) as cloud:
        command = CreateAccessKey(*PLAIN, ACCOUNT, f"arn:aws:iam::{ACCOUNT}:user/plain", admin=False)
        token = idempotency_token(ACCOUNT, ADMIN.principal, "CreateAccessKey", "t", {})
        origin = Origin(ACCOUNT, ADMIN.principal, "", "r", "CreateAccessKey", token)
        await cloud.server.app.state.commands.submit(command, origin)
        yield cloud


@pytest.fixture
def server(cloud: Cloud) -> Server:
    return cloud.server


async def request(server: Server, route: Any, signing: Signing) -> Reply:
    """The route asked for something that is well formed."""
    target = re.sub(r"\{\w+\}", "none", route.path) + QUERIES.get(route.action, "")
    if "tag" in target.rpartition("/")[2]:
        target += f"?resourceArn={ARN.replace(':', '%3A').replace('/', '%2F')}"
    body: Any = b""
    if route.method in ("PUT", "POST") and STS not in route.services:
        operation = OPERATIONS.get(route.action.partition(":")[2])
        body = INPUTS.get(route.action) or _input(operation)
    return await ask(server, route.method, target, body, signing)


def _input(operation: Any) -> dict[str, Any]:
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
        name: values.get(name, "none")
        for name in operation.body_members
        if name in ("spec", "tagKeys") or (name == "tags" and operation.kind is None) or name.endswith("Name")
    }


async def test_every_route_by_every_kind_of_caller(cloud: Cloud, server: Server) -> None:
    routes = server.app.state.edge.routes
    for route in routes:
        service = route.services[0]
        denied = {
            "MissingAuthenticationTokenException": Signing(key=None),
            "InvalidSignatureException": Signing(key=(ADMIN.access_key_id, "guess"), service=service),
        }
        if RULES[route.action] is not Rule.ANYONE:
            denied["ForbiddenException"] = Signing(key=PLAIN, service=service)
        for code, signing in denied.items():
            reply = await request(server, route, signing)
            told = CODES[code] if service == STS else code
            assert (reply.status, reply.code) == (403, told), (route.action, reply)
    assert [record.type for record in await cloud.records()] == ["AccessKeyCreated"]
    # Well formed and let through: there is an answer, or there is nothing of that name. The one that makes it is last.
    for route in sorted(routes, key=lambda route: route.action == "appmesh:CreateMesh"):
        allowed = await request(server, route, Signing(service=route.services[0]))
        assert allowed.status == (200 if route.action in ANSWERED else 404), (route.action, allowed)


async def test_forbidden_names_who_what_and_where(server: Server) -> None:
    reply = await ask(server, "DELETE", "/v20190125/meshes/none", b"", Signing(key=PLAIN))
    assert "user/plain is not authorized to perform: appmesh:DeleteMesh" in reply.document["message"]


async def test_meshlog_routes_take_either_service_name_and_app_mesh_only_its_own(server: Server) -> None:
    assert (await ask(server, "GET", "/meshlog/v1/status", b"", Signing(service="meshlog"))).status == 200
    assert (await ask(server, "GET", "/meshlog/v1/status", b"", Signing(service="appmesh"))).status == 200
    assert (await ask(server, "GET", "/v20190125/meshes", b"", Signing(service="meshlog"))).status == 403


async def test_every_route_has_a_rule_and_every_rule_a_route(server: Server) -> None:
    assert {route.action for route in server.app.state.edge.routes} == set(RULES)


def test_an_action_without_a_rule_is_refused_to_an_admin_too() -> None:
    admin = Caller(ACCOUNT, ADMIN.principal, ADMIN.principal, ADMIN.access_key_id, True, REGION)
    authorise(State(), admin, "appmesh:DescribeMesh", [mesh_key(ACCOUNT, "m")], NOW)
    with pytest.raises(Forbidden):
        authorise(State(), admin, "appmesh:MakeCoffee", (), NOW)


def test_an_admin_of_one_account_may_do_nothing_in_another() -> None:
    admin = Caller(ACCOUNT, ADMIN.principal, ADMIN.principal, ADMIN.access_key_id, True, REGION)
    with pytest.raises(Forbidden, match="mesh m of account 999999999999"):
        authorise(State(), admin, "appmesh:DescribeMesh", [mesh_key("999999999999", "m")], NOW)
