"""`meshlog proxy config` against a real API server over a log in memory: what a node is given, and why."""

from __future__ import annotations

import pytest

from tests.api.canary import make_canary, route
from tests.api.conftest import Cloud, cloud
from tests.cli.shell import Shell, use

__all__ = ["cloud"]

CALLER, CLUSTER = "mesh/m/virtualNode/caller", "Cluster/cds_egress_m_v1_http_8080"
V1 = {
    "listeners": [{"portMapping": {"port": 8080, "protocol": "http"}}],
    "serviceDiscovery": {"dns": {"hostname": "v1.internal"}},
}


@pytest.fixture
async def shell(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Over the canary, whose router a service is, and a node that calls it."""
    await make_canary(cloud)
    mesh = {"meshName": "m"}
    await cloud.server.call("update_virtual_node", **mesh, virtualNodeName="v1", spec=V1)
    listening = {"listeners": V1["listeners"]}
    await cloud.server.call("update_virtual_router", **mesh, virtualRouterName="r", spec=listening)
    provider = {"virtualRouter": {"virtualRouterName": "r"}}
    await cloud.server.call("create_virtual_service", **mesh, virtualServiceName="s.m", spec={"provider": provider})
    backends = [{"virtualService": {"virtualServiceName": "s.m"}}]
    await cloud.server.call("create_virtual_node", **mesh, virtualNodeName="caller", spec={"backends": backends})
    return use(cloud, monkeypatch)


async def test_it_lists_what_a_node_is_given_and_tells_all_of_it_as_json(shell: Shell) -> None:
    names = (await shell.run("proxy", "config", CALLER, "-o", "name")).out.split()
    assert CLUSTER in names
    assert "Listener/lds_egress_0.0.0.0_15001" in names
    table = await shell.run("proxy", "config", CALLER)
    assert table.out.splitlines()[0].split() == ["RESOURCE", "VERSION"]
    assert "held back: mesh/m/virtualNode/v2" in table.err
    answer = (await shell.run("proxy", "config", CALLER, "-o", "json")).data
    (cluster,) = [each for each in answer["resources"] if each["resource"] == CLUSTER]
    assert cluster["spec"]["loadAssignment"]["clusterName"] == "cds_egress_m_v1_http_8080"


async def test_it_is_told_as_of_a_moment(shell: Shell) -> None:
    early = await shell.run("proxy", "config", "mesh/m/virtualNode/v1", "--at", "3", "-o", "name")
    assert not [name for name in early.out.split() if name.startswith("Listener/lds_ingress")]
    now = await shell.run("proxy", "config", "mesh/m/virtualNode/v1", "-o", "name")
    assert [name for name in now.out.split() if name.startswith("Listener/lds_ingress")]
    assert "is not there after position 1.3" in (await shell.run("proxy", "config", CALLER, "--at", "3", code=4)).err


async def test_why_names_events_actors_and_fields(shell: Shell, cloud: Cloud) -> None:
    log = (await shell.run("log", "-o", "json", "-m", "m")).data
    updated = next(
        event for event in log if event["resource"] == "mesh/m/virtualNode/v1" and "updated" in event["type"].lower()
    )
    told = await shell.run("proxy", "config", CALLER, "--why", CLUSTER.replace("Cluster", "cluster"))
    assert "named by RouteConfiguration/rds_egress_http_8080" in told.out
    assert f"1.{updated['position']} {updated['time']} {updated['type']} by {updated['actor']}" in told.out
    assert "spec.serviceDiscovery.dns.hostname" in told.out
    await cloud.server.call("tag_resource", resourceArn=await arn_of(shell), tags=[{"key": "a", "value": "b"}])
    again = await shell.run("proxy", "config", CALLER, "--why", CLUSTER, "-o", "json")
    (cause,) = [each for each in again.data["why"]["causes"] if each["what"] == "mesh/m/virtualNode/v1"]
    assert cause["event"]["position"] == updated["position"], "tags are behind nothing"
    await cloud.server.call("update_route", meshName="m", virtualRouterName="r", routeName="all", spec=route(0, 100))
    why_routes = await shell.run("proxy", "config", CALLER, "--why", "route/rds_egress_http_8080", "-o", "json")
    causes = {each["what"]: each for each in why_routes.data["why"]["causes"]}
    weights = [field for field in causes["mesh/m/virtualRouter/r/route/all"]["fields"] if field.endswith(".weight")]
    assert len(weights) == 2


async def arn_of(shell: Shell) -> str:
    found = (await shell.run("get", "vn", "v1", "-m", "m", "-o", "json")).data
    arn: str = found["metadata"]["arn"]
    return arn


async def test_what_cannot_be_told_is_said(shell: Shell) -> None:
    assert "write TYPE/NAME" in (await shell.run("proxy", "config", CALLER, "--why", "Thing/x", code=2)).err
    assert (
        "has no Cluster/nothing" in (await shell.run("proxy", "config", CALLER, "--why", "Cluster/nothing", code=4)).err
    )
    await shell.run("proxy", "config", "mesh/m/virtualNode/nobody", code=4)
    await shell.run("proxy", "config", "what", code=2)
