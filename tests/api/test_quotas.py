"""Quotas over HTTP: shown with what is used, changed by an admin, and in force for the next call."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.api.conftest import ACCOUNT, Cloud, call
from tests.api.signing import ask

QUOTAS = "/meshlog/v1/quotas"
GATEWAYS = "L-87E74146"
LISTENERS = {"listeners": [{"portMapping": {"port": 80, "protocol": "http"}}]}


async def quota(cloud: Cloud, code: str) -> dict[str, Any]:
    reply = await ask(cloud.server, "GET", QUOTAS)
    assert reply.status == 200, reply
    assert reply.document["account"] == ACCOUNT
    found: dict[str, Any] = next(each for each in reply.document["quotas"] if each["code"] == code)
    return found


async def test_a_quota_is_met_raised_and_put_back(cloud: Cloud) -> None:
    client = cloud.server.client()
    await call(client, "create_mesh", meshName="m")
    for number in range(3):
        await call(client, "create_virtual_gateway", meshName="m", virtualGatewayName=f"g{number}", spec=LISTENERS)
    assert await quota(cloud, GATEWAYS) == {
        "code": GATEWAYS,
        "name": "Virtual gateways per mesh",
        "value": 3,
        "default": 3,
        "adjustable": True,
        "used": {"count": 3, "where": "mesh/m"},
    }
    one_more = {"meshName": "m", "virtualGatewayName": "g3", "spec": LISTENERS}
    with pytest.raises(ClientError) as refused:
        await call(client, "create_virtual_gateway", **one_more)
    assert refused.value.response["Error"]["Code"] == "LimitExceededException"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert GATEWAYS in refused.value.response["Error"]["Message"]
    raised = await ask(cloud.server, "POST", QUOTAS, {"code": GATEWAYS, "value": 4})
    assert (raised.status, raised.document["value"]) == (200, 4)
    await call(client, "create_virtual_gateway", **one_more)
    back = await ask(cloud.server, "POST", QUOTAS, {"code": GATEWAYS, "value": None})
    assert (back.document["value"], back.document["used"]["count"]) == (3, 4)
    assert [record.type for record in await cloud.records()][-3:] == ["QuotaChanged", "ResourceCreated", "QuotaChanged"]


async def test_what_is_no_quota_is_refused(cloud: Cloud) -> None:
    for body, said in (
        ({"code": "L-0", "value": 1}, "is no quota's code"),
        ({"code": GATEWAYS, "value": "9"}, "value: must be a whole number or null"),
        ({"code": GATEWAYS, "value": True}, "value: must be a whole number or null"),
        ({"code": GATEWAYS}, "value: is required"),
        ({"code": "L-AE1D9567", "value": 11}, "is fixed at 10"),
    ):
        reply = await ask(cloud.server, "POST", QUOTAS, body)
        assert (reply.status, reply.code) == (400, "BadRequestException")
        assert said in reply.document["message"]


async def test_backends_and_targets_are_counted_where_there_are_most(cloud: Cloud) -> None:
    client = cloud.server.client()
    await call(client, "create_mesh", meshName="m")
    backends = [{"virtualService": {"virtualServiceName": name}} for name in "abc"]
    await call(client, "create_virtual_node", meshName="m", virtualNodeName="n", spec={"backends": backends})
    await call(client, "create_virtual_node", meshName="m", virtualNodeName="o", spec={"backends": backends[:1]})
    await call(client, "create_virtual_router", meshName="m", virtualRouterName="r", spec=LISTENERS)
    action = {"weightedTargets": [{"virtualNode": name, "weight": 1} for name in "no"]}
    route = {"priority": 3, "httpRoute": {"match": {"prefix": "/"}, "action": action}}
    await call(client, "create_route", meshName="m", virtualRouterName="r", routeName="all", spec=route)
    assert (await quota(cloud, "L-8775AB18"))["used"] == {"count": 3, "where": "mesh/m/virtualNode/n"}
    assert (await quota(cloud, "L-AE1D9567"))["used"] == {"count": 2, "where": "mesh/m/virtualRouter/r/route/all"}
    assert (await quota(cloud, "L-BB90B7FF"))["used"] == {"count": 1, "where": "mesh/m/virtualRouter/r"}
    assert (await quota(cloud, "L-AC861A39"))["used"] == {"count": 1, "where": ""}
    assert (await quota(cloud, "L-606A910B"))["used"] is None
