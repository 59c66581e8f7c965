"""What a server still tells of the last writes when no etcd can be asked: for the report of a restore."""

from __future__ import annotations

from typing import Any

from api.recent import RecentEvents
from mesh.commands import CreateAccessKey, Rollback, Update
from mesh.position import Position
from tests.api.conftest import ADMIN, Cloud
from tests.api.signing import Signing, ask
from tests.mesh.worlds import ACCOUNT, MESH, World, key, node_spec, shop

MESHLOG = Signing(service="meshlog")


async def recent(cloud: Cloud, query: str = "") -> Any:
    reply = await ask(cloud.server, "GET", f"/meshlog/v1/events?consistency=stale{query}", b"", MESHLOG)
    assert reply.status == 200, reply
    return reply.document


async def test_the_last_writes_are_told_while_the_store_is_cut_off(cloud: Cloud) -> None:
    await cloud.server.call("create_mesh", meshName="m")
    spec = {"serviceDiscovery": {"dns": {"hostname": "planted.internal"}}}
    written = await cloud.server.call("create_virtual_node", meshName="m", virtualNodeName="v", spec=spec)
    at = written["ResponseMetadata"]["HTTPHeaders"]["x-meshlog-position"]
    cloud.store.reachable = False
    told = await recent(cloud, "&after=2")
    assert [(event["position"], event["actor"], event["resource"]) for event in told["events"]] == [
        (3, ADMIN.principal, "mesh/m/virtualNode/v")
    ]
    assert (told["oldest"], told["position"]) == ("1.1", at)
    assert "planted" not in str(told)


async def test_it_is_marked_with_its_age(cloud: Cloud) -> None:
    assert (await recent(cloud))["age_s"] is None, "nothing was confirmed yet"
    await cloud.server.replica.confirmed(1.0)
    assert 0 <= (await recent(cloud))["age_s"] < 60


async def test_a_foreign_signature_gets_nothing(cloud: Cloud) -> None:
    forged = Signing(key=(ADMIN.access_key_id, "wrong"))
    reply = await ask(cloud.server, "GET", "/meshlog/v1/events?consistency=stale", b"", forged)
    assert reply.status in (400, 403)


def folded(world: World, kept: int) -> RecentEvents:
    events = RecentEvents(kept)
    events.folded(world.states[0], world.state, world.events)
    return events


def test_only_so_many_are_kept_and_the_oldest_is_said() -> None:
    world = shop()
    events = folded(world, kept=3)
    assert [event.position.position for event in events.after(Position(1, 0))] == [7, 8, 9]
    assert events.oldest == Position(1, 7)
    assert RecentEvents().oldest is None


def test_neither_specs_nor_secrets_are_kept() -> None:
    world = shop()
    world.do(Update(key("virtualNode", "cart-v1"), node_spec(9999)))
    world.do(Rollback(ACCOUNT, MESH.mesh, world.states[-2]))
    world.do(CreateAccessKey("AKID", "planted secret", ACCOUNT, "arn:aws:iam::123456789012:root", True))
    kept = str(folded(world, kept=100).after(Position(1, 0)))
    assert "cart-v1" in kept
    assert "AKID" in kept
    assert "planted secret" not in kept
    assert "portMapping" not in kept
