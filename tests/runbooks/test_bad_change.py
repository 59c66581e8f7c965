"""docs/runbooks/bad-change.md on a real cluster: a colleague breaks a route, and the runbook puts it back."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.cli.test_local_cluster import Commands
from tests.conditions import eventually
from tests.runbooks import runner

pytestmark = pytest.mark.e2e

LISTENER = {"portMapping": {"port": 8080, "protocol": "http"}}
ROUTE = {"meshName": "shop", "virtualRouterName": "cart", "routeName": "all"}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Commands]:
    commands = Commands(tmp_path / "state")
    try:
        commands.run("up", "--detach", "--zones", "1")
        yield commands
    finally:
        commands.close()


def node(host: str) -> dict[str, Any]:
    return {"listeners": [LISTENER], "serviceDiscovery": {"dns": {"hostname": host}}}


def route(target: str) -> dict[str, Any]:
    action = {"weightedTargets": [{"virtualNode": target, "weight": 1}]}
    return {"httpRoute": {"match": {"prefix": "/"}, "action": action}}


def make_shop(client: Any) -> None:
    client.create_mesh(meshName="shop")
    client.create_virtual_node(meshName="shop", virtualNodeName="cart", spec=node("cart.internal"))
    client.create_virtual_router(meshName="shop", virtualRouterName="cart", spec={"listeners": [LISTENER]})
    client.create_route(**ROUTE, spec=route("cart"))
    provider = {"provider": {"virtualRouter": {"virtualRouterName": "cart"}}}
    client.create_virtual_service(meshName="shop", virtualServiceName="cart.local", spec=provider)
    client.create_virtual_gateway(meshName="shop", virtualGatewayName="edge", spec={"listeners": [LISTENER]})
    target = {"target": {"virtualService": {"virtualServiceName": "cart.local"}}}
    rule = {"httpRoute": {"match": {"prefix": "/"}, "action": target}}
    client.create_gateway_route(meshName="shop", virtualGatewayName="edge", gatewayRouteName="all", spec=rule)


def test_what_changed_who_changed_it_put_it_back(cluster: Commands) -> None:
    client = cluster.appmesh()
    make_shop(client)
    good = datetime.datetime.now(datetime.UTC).isoformat()
    bobs = cluster.data("iam", "key", "create", "--user", "bob", "--admin")
    values = cluster.data("env")
    bob = boto3.client(
        "appmesh",
        endpoint_url=values["AWS_ENDPOINT_URL_APP_MESH"],
        region_name=values["AWS_REGION"],
        aws_access_key_id=bobs["access_key_id"],
        aws_secret_access_key=bobs["secret_access_key"],
    )
    bob.create_virtual_node(meshName="shop", virtualNodeName="nowhere", spec=node("nowhere.internal"))
    bob.update_route(**ROUTE, spec=route("nowhere"))
    bob.update_virtual_node(meshName="shop", virtualNodeName="cart", spec=node("elsewhere.internal"))

    told = runner.run(
        "bad-change",
        cluster.data_dir,
        {
            "MESH": "shop",
            "GOOD": good,
            "NODE": "mesh/shop/virtualGateway/edge",
            "RESOURCE": "route/cart/all",
            "WHO": "bob",
            "KEY": bobs["access_key_id"],
        },
        timeout_s=240,
    )
    assert "# mesh/shop/virtualRouter/cart/route/all changed, last touched 20" in told.stdout
    assert "user/bob" in told.stdout
    assert "+      - virtualNode: nowhere" in told.stdout
    assert "Cluster/cds_egress_shop_nowhere_http_8080" in told.stdout, "what the gateway's Envoys were given"
    assert bobs["secret_access_key"] not in told.stdout + told.stderr
    assert client.describe_route(**ROUTE)["route"]["spec"] == route("cart")
    names = [ref["virtualNodeName"] for ref in client.list_virtual_nodes(meshName="shop")["virtualNodes"]]
    assert names == ["cart"]
    with pytest.raises(bob.exceptions.ClientError, match="is disabled"):
        bob.list_meshes()
    eventually(lambda: cluster.data("status")["ready"], what="the cluster is well")
