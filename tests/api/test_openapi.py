"""`/meshlog/v1/` as its OpenAPI document tells it: valid, whole, true of the answers, and as in docs/openapi.json."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from api.openapi import openapi_document
from api.openapi_schemas import COMPONENTS, MEMBERS
from api.openapi_told import TOLD
from tests.api.conftest import ACCOUNT, Cloud
from tests.api.signing import Reply, ask
from tests.api.test_cloud_map import Shop, client_of
from tests.api.test_pki import foreign

CHECKED_IN = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"
PREFIX = "/meshlog/v1/"
Document = dict[str, Any]
_TRUST = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}}


@pytest.fixture
async def document(cloud: Cloud) -> Document:
    reply = await ask(cloud.server, "GET", PREFIX + "openapi.json")
    assert reply.status == 200
    served: Document = reply.document
    return served


def strict(schema: Any) -> Any:
    """The schema, with objects that may have no member but those that it names."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    within = {name: strict(each) for name, each in schema.items()}
    return {**within, "additionalProperties": False} if "required" in within and "properties" in within else within


def check_answer(document: Document, target: str, answer: Any) -> None:
    """Hold an answer against what the document says of its route, without tolerance for what it does not say."""
    method, path = target.split()
    operation = document["paths"][PREFIX + path][method.lower()]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    components = strict(document["components"]["schemas"])
    components["Call"].pop("additionalProperties")  # CloudTrail's own form has more members
    jsonschema.Draft202012Validator({**strict(schema), "components": {"schemas": components}}).validate(answer)


def operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Document]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def targets(document: Document) -> set[str]:
    """Method and path of every route, as TOLD has them."""
    return {f"{method.upper()} {path.removeprefix(PREFIX)}" for method, path, _ in operations(document)}


def members_of(operation: Document) -> dict[str, Document]:
    """Query members and body fields."""
    body = operation.get("requestBody", {"content": {"application/json": {"schema": {"properties": {}}}}})
    fields: dict[str, Document] = body["content"]["application/json"]["schema"]["properties"]
    return {**fields, **{parameter["name"]: parameter for parameter in operation.get("parameters", ())}}


async def test_it_is_valid(document: Document) -> None:
    OpenAPIV31SpecValidator(document).validate()


async def test_every_route_is_in_it_once(cloud: Cloud, document: Document) -> None:
    routes = {(route.method.lower(), route.path) for route in cloud.server.app.state.edge.routes}
    own = {(method, path) for method, path in routes if path.startswith(PREFIX)}
    assert {(method, path) for method, path, _ in operations(document)} == own
    actions = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(actions) == len(set(actions))


async def test_every_route_and_member_is_told_of_in_words(document: Document) -> None:
    untold = sorted(targets(document) - TOLD.keys())
    assert not untold, f"add {', '.join(untold)} to TOLD in api/openapi_told.py: a summary, and what it answers"
    members = {
        name
        for _, _, operation in operations(document)
        for name, told in members_of(operation).items()
        if "description" not in told
    }
    assert not members, f"add {', '.join(sorted(members))} to MEMBERS in api/openapi_schemas.py"


async def test_nothing_is_told_of_what_is_not_there(document: Document) -> None:
    text = json.dumps(document)
    assert not TOLD.keys() - targets(document)
    assert not [name for name in COMPONENTS if f"#/components/schemas/{name}" not in text]
    named = {name for _, _, operation in operations(document) for name in members_of(operation)}
    assert not sorted(MEMBERS.keys() - named)


async def test_the_one_in_docs_is_the_one_that_is_served(document: Document, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--rewrite"):
        CHECKED_IN.write_text(json.dumps(document, indent=1) + "\n")
    assert json.loads(CHECKED_IN.read_text()) == document, "run `make openapi`, and read its diff"


async def a_registered_instance(cloud: Cloud) -> None:
    shop = await Shop(client_of(cloud.server)).stock()
    owing = {"ServiceId": shop.ids["service"], "InstanceId": "i", "Attributes": {"MESHLOG_HEARTBEAT_S": "9"}}
    await shop.do("register_instance", **owing)


async def test_answers_are_as_it_says(cloud: Cloud, document: Document) -> None:
    server = cloud.server
    await server.call("create_mesh", meshName="m", tags=[{"key": "a", "value": "b"}])
    await server.call("create_virtual_node", meshName="m", virtualNodeName="n", spec={})
    await server.call("create_virtual_node", meshName="m", virtualNodeName="gone", spec={})
    made = await server.call("update_virtual_node", meshName="m", virtualNodeName="n", spec={"backends": []})
    await server.call("delete_virtual_node", meshName="m", virtualNodeName="gone")
    at = made["ResponseMetadata"]["HTTPHeaders"]["x-meshlog-position"]
    refused = await ask(server, "GET", PREFIX + "events?colour=blue")
    assert refused.status == 400
    await server.refused.flush()

    told: set[str] = set()

    async def get(target: str) -> Any:
        return checked(f"GET {target.partition('?')[0]}", await ask(server, "GET", PREFIX + target))

    async def post(target: str, body: Document) -> Any:
        return checked(f"POST {target}", await ask(server, "POST", PREFIX + target, body))

    def checked(target: str, reply: Reply) -> Any:
        assert reply.status == 200, reply.body
        check_answer(document, target, reply.document)
        told.add(target)
        return reply.document

    await get("openapi.json")
    await get("status")
    assert (await get("events"))["events"]
    assert (await get("events?consistency=stale"))["events"]
    assert (await get("resources?mesh=m"))["resources"]
    assert (await get(f"resources?mesh=m&name=gone&at={at}"))["resources"]
    assert (await get("resources?mesh=m&consistency=stale"))["age_s"] >= 0
    assert (await get("diff?from=0"))["changes"]
    assert (await get("diff/xds?from=0&node=mesh/m/virtualNode/n"))["changes"]
    assert (await get("proxies/config?node=mesh/m/virtualNode/n&why=Cluster/cds_egress_m_amazonaws"))["why"]["causes"]
    assert (await get("keys"))["data_keys"]
    assert (await get("quotas"))["quotas"]
    await a_registered_instance(cloud)
    assert (await get("registry/services"))["services"]
    assert (await get("registry/events"))["events"]
    assert (await post("registry/heartbeats", {"service": "shop.local/orders", "instances": ["i"]}))["lasting_s"]
    assert (await get("audit?status=refused"))["events"]
    assert (await get("audit?status=accepted"))["events"]
    assert (await post("rollback", {"mesh": "m", "to": at, "dry_run": True}))["changes"]
    assert (await post("rollback", {"mesh": "m", "to": at}))["position"]
    await post("proxies/identity", {"node": "mesh/m/virtualNode/n", "csr_pem": "CERTIFICATE REQUEST"})
    await post("keys/rotate", {})
    await post("keys/rewrap", {"class": "config"})
    await post("quotas", {"code": "L-AC861A39", "value": 20})
    await post("accounts", {"account": "210987654321", "name": "two"})
    assert (await get("accounts"))["accounts"]
    await post("shares", {"mesh": "m", "with": ["210987654321"]})
    assert (await get("shares"))["shares"]
    await post("shares/end", {"mesh": "m", "with": ["210987654321"]})
    await _iam(get, post)
    await _pki(get, post)
    jsonschema.validate(refused.document, document["components"]["schemas"]["Error"])
    assert told == targets(document)


async def _iam(get: Callable[[str], Awaitable[Any]], post: Callable[[str, Document], Awaitable[Any]]) -> None:
    statement = {"Effect": "Allow", "Action": "appmesh:*", "Resource": "*"}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    trust = {"Version": "2012-10-17", "Statement": [{**_TRUST, "Action": "sts:AssumeRole"}]}
    await post("iam/policies", {"policy": "p", "document": policy})
    assert (await get("iam/policies"))["policies"]
    assert (await get("iam/policies/show?policy=p"))["document"]
    for kind, more in (("user", {}), ("role", {"trust": trust})):
        await post(f"iam/{kind}s", {kind: "x", **more})
        await post(f"iam/{kind}s/attach", {kind: "x", "policy": "p"})
        await post(f"iam/{kind}s/policies", {kind: "x", "name": "inline", "document": policy})
        assert (await get(f"iam/{kind}s"))[f"{kind}s"]
    await post("iam/roles/trust", {"role": "x", "document": trust})
    key = (await post("access-keys", {"user": "x"}))["access_key_id"]
    assert (await get("access-keys"))["access_keys"]
    assert (await get("iam/users/show?user=x"))["access_keys"] == [key]
    await get("iam/roles/show?role=x")
    await post("iam/simulate", {"user": "x", "action": "appmesh:CreateMesh"})
    for change in ("disable", "enable", "delete"):
        await post(f"access-keys/{change}", {"access_key_id": key})
    for kind in ("user", "role"):
        await post(f"iam/{kind}s/detach", {kind: "x", "policy": "p"})
        await post(f"iam/{kind}s/policies/delete", {kind: "x", "name": "inline"})
        await post(f"iam/{kind}s/delete", {kind: "x"})
    await post("iam/policies/delete", {"policy": "p"})


async def _pki(get: Callable[[str], Awaitable[Any]], post: Callable[[str, Document], Awaitable[Any]]) -> None:
    authority = (await post("pki/authorities", {"name": "ca"}))["arn"]
    leaf = (await post("pki/certificates", {"domain": "a.local", "authority": authority}))["arn"]
    assert (await get("pki/authorities"))["authorities"]
    assert (await get("pki/certificates"))["certificates"]
    assert (await get(f"pki/certificates/show?certificate={leaf}"))["chain"]
    await post("pki/certificates/rotate", {"certificate": leaf})
    brought, root = foreign("b.local")
    body = {"certificate": brought.chain, "chain": root, "private_key": brought.secret}
    await post("pki/certificates/import", body)
    await post("pki/certificates/delete", {"certificate": leaf})
    await post("pki/authorities/rotate", {"authority": authority})
    await post("pki/authorities/retire", {"authority": authority})


async def test_a_route_without_words_is_documented_all_the_same(cloud: Cloud) -> None:
    route = next(route for route in cloud.server.app.state.edge.routes if route.action == "meshlog:ListKeys")
    odd = replace(route, path=route.path + "/odd", action="meshlog:ListOddThings")
    [(_, _, operation)] = operations(openapi_document([odd]))
    assert operation["summary"] == "List odd things"
