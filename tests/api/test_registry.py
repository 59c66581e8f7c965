"""Heartbeats, listing and events of the registry over HTTP, and the duty that marks who falls silent."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from api.registry_duties import HeartbeatDuty, submitter
from mesh.errors import NoQuorum
from runtime.clock import SystemEntropy
from runtime.limits import HEARTBEAT_GAP_S
from tests.api.conftest import Cloud, MemoryHeartbeats, Server
from tests.api.signing import Reply, Signing, ask
from tests.api.test_cloud_map import IP, Shop, client_of

OWES = {**IP, "MESHLOG_HEARTBEAT_S": "5"}


class Clock:
    """A clock that is ahead of the system's, as far as a test moves it."""

    def __init__(self, server: Server) -> None:
        self._clock, self.ahead_s = server.ports.clock, 0.0

    def now_us(self) -> int:
        return self._clock.now_us() + int(self.ahead_s * 1e6)

    def monotonic_s(self) -> float:
        return self._clock.monotonic_s() + self.ahead_s

    async def sleep(self, delay_s: float) -> None:
        self.ahead_s += delay_s


class Watch:
    """A duty whose heartbeats and clock a test moves."""

    def __init__(self, server: Server) -> None:
        registry = server.ports.registry
        assert registry is not None
        assert isinstance(registry.heartbeats, MemoryHeartbeats)
        self.beats, self.clock = registry.heartbeats, Clock(server)
        submit = submitter(server.app.state.registry_commands, SystemEntropy())
        self.duty = HeartbeatDuty(registry.replica, registry.heartbeats, submit, self.clock, CollectorRegistry())

    async def watch(self, for_s: float) -> None:
        """Look every four seconds."""
        for _ in range(int(for_s / 4) + 1):
            self.clock.ahead_s += 4
            await self.duty.look()


async def post(server: Server, route: str, **body: Any) -> Reply:
    return await ask(server, "POST", f"/meshlog/v1/registry/{route}", body, Signing(service="meshlog"))


async def get(server: Server, route: str) -> Any:
    reply = await ask(server, "GET", f"/meshlog/v1/registry/{route}", b"", Signing(service="meshlog"))
    assert reply.status == 200, reply
    return reply.document


async def stocked(server: Server, count: int = 3) -> Shop:
    shop = Shop(client_of(server))
    shop.ids["namespace"] = await shop.namespace("shop.local")
    shop.ids["service"] = await shop.service(shop.ids["namespace"], "orders")
    for number in range(count):
        told = {"ServiceId": shop.ids["service"], "InstanceId": f"i{number}", "Attributes": OWES}
        await shop.do("register_instance", **told)
    return shop


async def healths(server: Server) -> dict[str, tuple[str, bool]]:
    [service] = (await get(server, "services?service=orders"))["services"]
    return {each["id"]: (each["health"], each["silent"]) for each in service["instances"]}


async def test_a_silent_instance_turns_unhealthy_and_back_when_it_is_heard(cloud: Cloud) -> None:
    server = cloud.server
    shop, watch = await stocked(server), Watch(server)
    beat = await post(server, "heartbeats", service="shop.local/orders", instances=["i0", "i1", "i2"])
    assert (beat.status, beat.document["lasting_s"]["i0"]) == (200, 5)
    await watch.watch(20)
    assert set((await healths(server)).values()) == {("HEALTHY", False)}
    del watch.beats.heard[next(name for name in watch.beats.heard if name[3] == "i1")]
    await watch.watch(8)
    assert (await healths(server))["i1"] == ("UNHEALTHY", True)
    names = {"NamespaceName": "shop.local", "ServiceName": "orders"}
    found = await shop.do("discover_instances", **names)
    assert [each["InstanceId"] for each in found["Instances"]] == ["i0", "i2"]
    assert (await post(server, "heartbeats", service=shop.ids["service"], instances=["i1"])).status == 200
    await watch.watch(0)
    assert (await healths(server))["i1"] == ("HEALTHY", False)
    told = [each["type"] for each in (await get(server, "events?service=orders&instance=i1"))["events"]]
    assert told == ["InstanceRegistered", "HeartbeatsMissed", "HeartbeatsHeard"]


async def test_an_outage_of_ours_empties_nothing(cloud: Cloud) -> None:
    server = cloud.server
    await stocked(server)
    watch = Watch(server)
    await watch.watch(60)
    assert set((await healths(server)).values()) == {("HEALTHY", False)}
    assert "3 of 3 at once" in watch.duty.alarms[0]
    await post(server, "heartbeats", service="shop.local/orders", instances=["i0", "i1", "i2"])
    await watch.watch(0)
    assert watch.duty.alarms == ()


async def test_after_a_gap_everybody_is_watched_anew(cloud: Cloud) -> None:
    server = cloud.server
    await stocked(server)
    watch = Watch(server)
    await post(server, "heartbeats", service="shop.local/orders", instances=["i0", "i1"])
    watch.clock.ahead_s += HEARTBEAT_GAP_S + 60
    await watch.duty.look()
    assert (await healths(server))["i2"] == ("HEALTHY", False)
    await watch.watch(8)
    assert (await healths(server))["i2"] == ("UNHEALTHY", True)


async def test_a_look_that_etcd_does_not_answer_says_nothing(cloud: Cloud) -> None:
    watch = Watch(cloud.server)

    async def away() -> Any:
        raise NoQuorum("etcd is away")

    watch.beats.kept = away  # type: ignore[method-assign]
    with pytest.raises(NoQuorum):
        await watch.duty.look()


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"service": "shop.local/none", "instances": ["i0"]}, 404, "no service"),
        ({"service": "srv-none", "instances": ["i0"]}, 404, "no service"),
        ({"service": "shop.local/orders", "instances": ["none"]}, 404, "no instance"),
        ({"service": "shop.local/orders", "instances": ["plain"]}, 400, "MESHLOG_HEARTBEAT_S"),
        ({"service": "shop.local/orders", "instances": ["i0"] * 101}, 400, "100"),
    ],
)
async def test_heartbeats_of_what_is_not_there(cloud: Cloud, body: dict[str, Any], status: int, told: str) -> None:
    shop = await stocked(cloud.server, 1)
    await shop.do("register_instance", ServiceId=shop.ids["service"], InstanceId="plain", Attributes=IP)
    reply = await post(cloud.server, "heartbeats", **body)
    assert (reply.status, told in reply.document["message"]) == (status, True), reply


async def test_events_name_who_did_what_when_and_of_which_account(cloud: Cloud) -> None:
    shop = await stocked(cloud.server, 1)
    await shop.do("deregister_instance", ServiceId=shop.ids["service"], InstanceId="i0")
    events = (await get(cloud.server, "events"))["events"]
    assert [each["type"] for each in events] == [
        "NamespaceCreated",
        "ServiceCreated",
        "InstanceRegistered",
        "InstanceDeregistered",
    ]
    assert all(each["actor"].startswith("arn:aws:iam::") and each["time_us"] for each in events)
    assert (await get(cloud.server, "events?limit=1"))["events"] == events[-1:]
    assert (await get(cloud.server, f"events?after={events[2]['position']}"))["events"] == events[3:]
