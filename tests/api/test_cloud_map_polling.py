"""Instances copied from another Cloud Map over HTTP, by an unmodified botocore: another cluster of ours, and moto's.

Not run against AWS itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from moto.server import ThreadedMotoServer
from prometheus_client import CollectorRegistry

from api.cloud_map_polling import AwsCloudMap, CloudMapDuty
from api.registry_duties import submitter
from mesh.registry.state import ServiceKey
from runtime.clock import SystemEntropy
from runtime.limits import CLOUD_MAP_ALARM_S, CLOUD_MAP_EMPTY_S, CLOUD_MAP_WHOLE_S
from runtime.settings import CloudMapSettings
from tests.api.conftest import ACCOUNT, ADMIN, REGION, Cloud, Server, running
from tests.api.test_cloud_map import IP, Shop, client_of
from tests.api.test_registry import Clock

CART = ServiceKey(ACCOUNT, "ecs.local", "cart")


@pytest.fixture
async def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cloud]:
    """A cluster of its own in AWS's place, and credentials for it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ADMIN.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", ADMIN.secret)
    (tmp_path / "aws").mkdir()
    async with running(tmp_path / "aws") as cloud:
        yield cloud


class Poller:
    """The duty of a server, whose clock a test moves."""

    def __init__(self, server: Server, endpoint: str, namespaces: str = "") -> None:
        assert server.ports.registry is not None
        self.registry, self.clock = server.ports.registry.replica, Clock(server)
        settings = CloudMapSettings(region=REGION, endpoint=endpoint, namespaces=namespaces)
        self.duty = CloudMapDuty(
            AwsCloudMap(settings),
            server.ports.replica,
            self.registry,
            submitter(server.app.state.registry_commands, SystemEntropy()),
            settings,
            account=ACCOUNT,
            clock=self.clock,
            metrics=CollectorRegistry(),
        )

    async def round(self, after_s: float = 5) -> dict[str, str]:
        """One round, that much later: the copied instances and their health."""
        self.clock.ahead_s += after_s
        await self.duty.round()
        return {each.id: each.health.value for each in self.registry.state.discovered(CART)}


async def node(server: Server, name: str, namespace: str, service: str) -> None:
    discovery = {"awsCloudMap": {"namespaceName": namespace, "serviceName": service}}
    listeners = [{"portMapping": {"port": 8080, "protocol": "http"}}]
    spec = {"listeners": listeners, "serviceDiscovery": discovery}
    await server.call("create_virtual_node", meshName="m", virtualNodeName=name, spec=spec)


async def stocked(server: Server) -> Shop:
    """In AWS's place: two tasks of a service, as ECS registers them."""
    shop = Shop(client_of(server))
    namespace = await shop.namespace(CART.namespace)
    shop.ids["cart"] = await shop.service(namespace, CART.service, HealthCheckCustomConfig={})
    for number in range(2):
        attributes = {**IP, "AVAILABILITY_ZONE": "eu-north-1a", "ECS_CLUSTER_NAME": "shop"}
        await shop.do("register_instance", ServiceId=shop.ids["cart"], InstanceId=f"t{number}", Attributes=attributes)
    return shop


async def asking(server: Server) -> None:
    await server.call("create_mesh", meshName="m")
    await node(server, "cart", *CART[1:])


async def test_what_changes_there_changes_here(cloud: Cloud, aws: Cloud) -> None:
    shop = await stocked(aws.server)
    await asking(cloud.server)
    poller = Poller(cloud.server, aws.server.url)
    assert await poller.round() == {"t0": "HEALTHY", "t1": "HEALTHY"}
    before = poller.registry.state
    await poller.round()
    await poller.round(CLOUD_MAP_WHOLE_S)
    assert poller.registry.state is before, "and what stays is no event"
    cart = {"ServiceId": shop.ids["cart"]}
    await shop.do("update_instance_custom_health_status", **cart, InstanceId="t0", Status="UNHEALTHY")
    assert await poller.round() == {"t0": "UNHEALTHY", "t1": "HEALTHY"}
    await shop.do("register_instance", **cart, InstanceId="t2", Attributes=IP)
    await shop.do("deregister_instance", **cart, InstanceId="t0")
    assert await poller.round() == {"t1": "HEALTHY", "t2": "HEALTHY"}
    assert poller.registry.state.services[CART].source == aws.server.url
    [copied, *_] = poller.registry.state.discovered(CART)
    assert copied.attributes["ECS_CLUSTER_NAME"] == "shop"
    assert not poller.duty.alarms


async def test_a_source_that_fails_takes_nothing_away_and_is_told_of(cloud: Cloud, tmp_path: Path) -> None:
    await asking(cloud.server)
    poller = Poller(cloud.server, "http://127.0.0.1:1")
    assert await poller.round() == {}
    assert not poller.duty.alarms
    await poller.round(CLOUD_MAP_ALARM_S)
    [alarm] = poller.duty.alarms
    assert "service cart of namespace ecs.local" in alarm
    assert "no answer" in alarm
    assert CART not in poller.registry.state.services


async def test_a_source_that_ends_and_comes_back(cloud: Cloud, aws: Cloud) -> None:
    shop = await stocked(aws.server)
    await asking(cloud.server)
    poller = Poller(cloud.server, aws.server.url)
    there = await poller.round()
    for number in range(2):
        await shop.do("deregister_instance", ServiceId=shop.ids["cart"], InstanceId=f"t{number}")
    await shop.do("delete_service", Id=shop.ids["cart"])
    assert await poller.round(CLOUD_MAP_EMPTY_S) == there, "a service that is gone there is a failure"
    await poller.round(CLOUD_MAP_ALARM_S)
    assert "ServiceNotFound" in poller.duty.alarms[0]


async def test_sudden_emptiness_is_believed_only_after_a_while(cloud: Cloud, aws: Cloud) -> None:
    shop = await stocked(aws.server)
    await asking(cloud.server)
    poller = Poller(cloud.server, aws.server.url)
    there = await poller.round()
    for number in range(2):
        await shop.do("deregister_instance", ServiceId=shop.ids["cart"], InstanceId=f"t{number}")
    assert await poller.round() == there
    assert "all at once" in poller.duty.alarms[0]
    assert await poller.round(CLOUD_MAP_EMPTY_S - 10) == there
    assert await poller.round(20) == {}
    assert not poller.duty.alarms


async def test_what_is_registered_here_is_not_asked_for_there(cloud: Cloud, aws: Cloud) -> None:
    await stocked(aws.server)
    await asking(cloud.server)
    here = Shop(client_of(cloud.server))
    namespace = await here.namespace(CART.namespace)
    service = await here.service(namespace, CART.service)
    await here.do("register_instance", ServiceId=service, InstanceId="mine", Attributes=IP)
    assert await Poller(cloud.server, aws.server.url).round() == {"mine": "HEALTHY"}


async def test_only_the_namespaces_that_are_set(cloud: Cloud, aws: Cloud) -> None:
    await stocked(aws.server)
    await asking(cloud.server)
    assert await Poller(cloud.server, aws.server.url, "other.local, else.local").round() == {}
    assert await Poller(cloud.server, aws.server.url, "other.local, ecs.local").round() != {}


async def test_many_instances_come_in_parts(cloud: Cloud, aws: Cloud) -> None:
    shop = await stocked(aws.server)
    for number in range(2, 100):
        told = {"ServiceId": shop.ids["cart"], "InstanceId": f"t{number}", "Attributes": IP}
        await shop.do("register_instance", **told)
    await asking(cloud.server)
    assert len(await Poller(cloud.server, aws.server.url).round()) == 100


async def test_from_the_cloud_map_of_moto(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's server of the protocol."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        client: Any = botocore.session.get_session().create_client(
            "servicediscovery", region_name=REGION, endpoint_url=url
        )
        client.create_http_namespace(Name=CART.namespace)
        [namespace] = client.list_namespaces()["Namespaces"]
        made = client.create_service(Name=CART.service, NamespaceId=namespace["Id"], HealthCheckCustomConfig={})
        client.register_instance(ServiceId=made["Service"]["Id"], InstanceId="t0", Attributes=IP)
        await asking(cloud.server)
        assert await Poller(cloud.server, url).round() == {"t0": "HEALTHY"}
    finally:
        server.stop()
