"""A registry's log that stops is the registry's alone: its writes are answered 503, and the meshes go on."""

from __future__ import annotations

from eventlog.records import NewRecord
from eventlog.writer import LogWriter
from mesh.registry.events import INSTANCE_DEREGISTERED
from tests.api.conftest import ACCOUNT, ADMIN, Cloud
from tests.api.test_registry import stocked
from tests.conditions import await_until


async def test_poison_in_the_registry_stops_its_writes_and_no_mesh(cloud: Cloud) -> None:
    server, shop = cloud.server, await stocked(cloud.server, 1)
    registry = server.ports.registry
    assert registry is not None
    assert isinstance(registry.writer, LogWriter)
    data = {"service": [ACCOUNT, "shop.local", "orders"], "instance": "nobody"}
    poison = NewRecord(INSTANCE_DEREGISTERED, 1, ACCOUNT, ADMIN.principal, "", "r", None, data)
    await registry.writer.append(registry.replica.head_ref, [poison], registry.replica.state.time_us)
    await await_until(lambda: registry.replica.halted is not None)
    _, status, _ = await shop.refused("deregister_instance", ServiceId=shop.ids["service"], InstanceId="i0")
    assert status == 503
    await server.call("create_mesh", meshName="goes-on")
    found = await server.call("list_meshes")
    assert [mesh["meshName"] for mesh in found["meshes"]] == ["goes-on"]
