"""What App Mesh was known to get wrong, with its issue on AWS's roadmap, and a real Envoy for which it goes right.

Compiled nodes go through the frontend's own protocol machines, SotW and delta, so that order and repeats are theirs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from chaos.envoy import Envoy
from mesh.registry.state import RegistryState
from runtime.ports import free_port
from tests.conditions import await_until
from tests.netns import Namespace, available
from tests.projector.envoy.meshes import Log, canary, cloud_map_node, compiled, gateway_id, key, listener, node, route
from tests.projector.envoy.test_endpoints import instance, registry
from tests.projector.envoy.test_envoy_accepts import get, upstream
from tests.xds.envoys import bootstrap
from tests.xds.feeds import Running, serving

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(not available(), reason="needs root and `ip` for network namespaces"),
    pytest.mark.parametrize("mode", ["sotw", "delta"]),
]
CHECK = {
    "protocol": "tcp",
    "healthyThreshold": 2,
    "unhealthyThreshold": 2,
    "intervalMillis": 5000,
    "timeoutMillis": 2000,
}


class Gateway:
    """The gateway of a mesh whose two versions of `cart` are one server, found by Cloud Map and by address."""

    def __init__(self, running: Running, proxy: Envoy, port: int, server: int) -> None:
        self.log, self.server = Log(), server
        self.instances = registry(instance("a", "127.0.0.1"))
        self._running, self._proxy, self._port, self._position = running, proxy, port, 0

    async def show(self) -> None:
        """Feed what the mesh compiles to now; returns when the proxy has taken it and nothing warms."""
        self._position += 1
        snapshot = compiled(self.log, gateway_id(), registry=self.instances)
        self._running.feed.put(self._position, snapshot.resources)

        def taken() -> bool:
            return [each.settled.position for each in self._running.server.proxies if each.settled] == [self._position]

        await await_until(taken, what="the proxy's agreement")
        for name, count in (await self.stats("update_rejected|warming_clusters|total_listeners_warming")).items():
            assert count == 0, name

    async def stats(self, pattern: str) -> dict[str, int]:
        return await asyncio.to_thread(self._proxy.stats, pattern)

    async def ask(self, path: str = "/cart/x") -> int:
        return (await asyncio.to_thread(get, self._port, path))[0]


@asynccontextmanager
async def gateway_of(mode: str, folder: Path) -> AsyncIterator[Gateway]:
    with Namespace(f"meshlog-bugs-{free_port()}") as namespace, upstream("v1", namespace) as server:
        async with serving(folder) as running:
            await asyncio.to_thread(namespace.carry, running.port)
            admin = free_port()
            path = folder / "envoy.json"
            path.write_text(json.dumps(bootstrap(mode, running.port, admin, running.certificates, folder)))
            outside = await asyncio.to_thread(namespace.expose, admin)
            port = await asyncio.to_thread(namespace.expose, 8088)
            proxy = Envoy(path, admin_port=outside, log=folder / "envoy.log", prefix=namespace.prefix)
            try:
                gateway = Gateway(running, proxy, port, server)
                gateway.log = canary()
                gateway.log.update(key("virtualNode", "cart-v1"), cloud_map_node(listener(server)))
                gateway.log.update(key("virtualNode", "cart-v2"), node(listener(server), host="127.0.0.1"))
                await gateway.show()
                yield gateway
            finally:
                await asyncio.to_thread(proxy.stop)


async def test_endpoints_are_there_again_after_any_change_of_their_cluster(mode: str, tmp_path: Path) -> None:
    """Roadmap 192: a health check changed in place left the cluster without endpoints for half an hour."""
    async with gateway_of(mode, tmp_path) as gateway:
        gateway.log.update(key("route", "all", "cart"), route({"cart-v1": 1}))
        await gateway.show()
        assert await gateway.ask() == 200
        checks: list[dict[str, Any]] = [{"healthCheck": CHECK}, {"healthCheck": {**CHECK, "healthyThreshold": 3}}, {}]
        for members in checks:
            gateway.log.update(key("virtualNode", "cart-v1"), cloud_map_node(listener(gateway.server, **members)))
            await gateway.show()
            assert [await gateway.ask() for _ in range(5)] == [200] * 5
        totals = await gateway.stats(f"cds_egress_shop_cart-v1_http_{gateway.server}.membership_total")
        assert list(totals.values()) == [1]


async def test_endpoints_come_and_go_as_they_are_registered(mode: str, tmp_path: Path) -> None:
    """Roadmap 213: one that was deregistered went on to get requests while its health checks were good."""
    async with gateway_of(mode, tmp_path) as gateway:
        gateway.log.update(key("route", "all", "cart"), route({"cart-v1": 1}))
        spec = cloud_map_node(listener(gateway.server, healthCheck=CHECK))
        gateway.log.update(key("virtualNode", "cart-v1"), spec)
        await gateway.show()
        stat = f"cds_egress_shop_cart-v1_http_{gateway.server}.membership_total"
        both = registry(instance("a", "127.0.0.1"), instance("b", "127.0.0.2"))
        ill = registry(instance("a", "127.0.0.1"), instance("b", "127.0.0.2", health="UNHEALTHY"))
        for instances, members, answer in (
            (both, 2, 200),
            (ill, 1, 200),
            (RegistryState(), 0, 503),
            (both, 2, 200),
        ):
            gateway.instances = instances
            await gateway.show()
            assert list((await gateway.stats(stat)).values()) == [members]
            assert await gateway.ask() == answer


async def test_the_first_route_into_an_empty_router_arrives_and_the_last_one_leaves(mode: str, tmp_path: Path) -> None:
    """Roadmap 108: the first route was not sent until something else changed. 218: deletions came late."""
    async with gateway_of(mode, tmp_path) as gateway:
        for _ in range(2):
            gateway.log.delete(key("route", "all", "cart"))
            await gateway.show()
            assert await gateway.ask() == 404
            gateway.log.create(key("route", "all", "cart"), route({"cart-v2": 1}))
            await gateway.show()
            assert await gateway.ask() == 200
        gateway.log.delete(key("gatewayRoute", "cart", "edge"))
        await gateway.show()
        assert await gateway.ask() == 404
        assert await gateway.stats("cluster_manager.active_clusters") == {"cluster_manager.active_clusters": 2}
