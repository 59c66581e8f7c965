"""Real Envoys, both protocols, over mutual TLS: they take what they are sent and never fail a request over a change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chaos.envoy import Envoy
from mesh.position import Position
from projector.snapshot import XdsResource
from runtime.ports import free_port
from runtime.tls import server_credentials
from tests.conditions import PATIENCE_S, await_until
from tests.xds.envoys import cluster, endpoints, envoy, listener, resource_set, route, traffic, upstream
from tests.xds.feeds import Running, serving
from xds.freshness import NodeMemory
from xds.server import XdsServer

BOTH = pytest.mark.parametrize("mode", ["sotw", "delta"])
SWAPS = 15


@dataclass
class Scene:
    running: Running
    proxy: Envoy
    blue: int
    green: int
    port: int
    position: int = 0

    def put(self, *resources: XdsResource) -> Position:
        self.position += 1
        self.running.feed.put(self.position, resource_set(resources))
        return Position(1, self.position)

    def world(self, to: str = "blue", timeout_ms: int = 1000) -> list[XdsResource]:
        """A listener that sends everything to the cluster `to`, and only that cluster."""
        place = self.blue if to.startswith("blue") else self.green
        return [
            cluster(to, timeout_ms), endpoints(to, place), listener("in", self.port, "routes"), route("routes", to),
        ]  # fmt: skip

    async def settled(self, position: Position) -> None:
        await await_until(
            lambda: [proxy.settled for proxy in self.running.server.proxies] == [position],
            what=f"the proxy's agreement to {position}: {list(self.running.server.proxies)}",
        )

    async def stats(self, pattern: str) -> dict[str, int]:
        return await asyncio.to_thread(self.proxy.stats, pattern)

    async def assert_nothing_refused_nor_warming(self) -> None:
        rejected = await self.stats("update_rejected")
        assert rejected
        assert not any(rejected.values()), rejected
        warming = await self.stats("warming_clusters|total_listeners_warming")
        assert len(warming) == 2
        assert not any(warming.values()), warming

    async def dynamic_config(self) -> dict[str, Any]:
        """What it has, without when and under which version it came."""
        found: dict[str, Any] = {}
        for section in (await asyncio.to_thread(self.proxy.config_dump))["configs"]:
            for entry in section.get("dynamic_active_clusters", []):
                found["cluster " + entry["cluster"]["name"]] = entry["cluster"]
            for entry in section.get("dynamic_listeners", []):
                found["listener " + entry["name"]] = entry["active_state"]["listener"]
            for entry in section.get("dynamic_route_configs", []):
                found["route " + entry["route_config"]["name"]] = entry["route_config"]
            for entry in section.get("dynamic_endpoint_configs", []):
                if "cluster_name" in entry["endpoint_config"]:
                    found["endpoints " + entry["endpoint_config"]["cluster_name"]] = entry["endpoint_config"]
        return found


@asynccontextmanager
async def scene(mode: str, folder: Path, port: int | None = None) -> AsyncIterator[Scene]:
    certificates = folder / f"certificates-{mode}"
    certificates.mkdir()
    async with serving(certificates) as running, upstream("blue") as blue, upstream("green") as green:
        async with envoy(mode, running.port, running.certificates, folder / mode) as proxy:
            yield Scene(running, proxy, blue, green, port or free_port())


async def test_both_protocols_bring_the_same_config_into_force(tmp_path: Path) -> None:
    configs = []
    port = free_port()
    for mode in ("sotw", "delta"):
        async with scene(mode, tmp_path, port) as it:
            world = [*it.world()[:1], endpoints("blue", 9), *it.world()[2:]]
            await it.settled(it.put(*world))
            await asyncio.to_thread(it.proxy.wait_live, it.port)
            await it.assert_nothing_refused_nor_warming()
            configs.append(await it.dynamic_config())
    assert configs[0] == configs[1]
    assert sorted(configs[0]) == ["cluster blue", "endpoints blue", "listener in", "route routes"]


@BOTH
async def test_moving_traffic_to_a_new_cluster_and_removing_the_old_one_fails_no_request(
    mode: str, tmp_path: Path
) -> None:
    async with scene(mode, tmp_path) as it:
        await it.settled(it.put(*it.world("blue-0")))
        await asyncio.to_thread(it.proxy.wait_live, it.port)
        async with traffic(it.port) as load:
            await await_until(lambda: load.answers["200 blue"] > 20)
            for swap in range(1, SWAPS):
                await it.settled(it.put(*it.world(f"{('blue', 'green')[swap % 2]}-{swap}")))
            await await_until(lambda: load.answers["200 green"] > 20)
        assert not load.failures, load.answers
        await it.assert_nothing_refused_nor_warming()
        clusters = [name for name in await it.dynamic_config() if name.startswith("cluster ")]
        assert clusters == [f"cluster blue-{SWAPS - 1}"]


@BOTH
async def test_changes_faster_than_the_proxy_end_in_the_last_one(mode: str, tmp_path: Path) -> None:
    async with scene(mode, tmp_path) as it:
        await it.settled(it.put(*it.world("blue-0")))
        await asyncio.to_thread(it.proxy.wait_live, it.port)
        async with traffic(it.port) as load:
            await await_until(lambda: load.answers["200 blue"] > 20)
            for swap in range(1, 60):
                position = it.put(*it.world(f"{('blue', 'green')[swap % 2]}-{swap}"))
                await asyncio.sleep(0.005)
            await it.settled(position)
            await await_until(lambda: load.answers["200 green"] > 20)
        assert not load.failures, load.answers
        clusters = [name for name in await it.dynamic_config() if name.startswith("cluster ")]
        assert clusters == ["cluster green-59"]


@BOTH
async def test_a_changed_cluster_with_unchanged_endpoints_and_a_changed_listener_do_not_stay_warming(
    mode: str, tmp_path: Path
) -> None:
    async with scene(mode, tmp_path) as it:
        await it.settled(it.put(*it.world()))
        await asyncio.to_thread(it.proxy.wait_live, it.port)
        async with traffic(it.port) as load:
            async with asyncio.timeout(PATIENCE_S):
                await it.settled(it.put(*it.world(timeout_ms=2000)))
            await it.assert_nothing_refused_nor_warming()
            changed = [*it.world(timeout_ms=2000)[:2], listener("in", it.port, "routes", "other"), it.world()[3]]
            await it.settled(it.put(*changed))
            await await_until(lambda: load.answers["200 blue"] > 20)
            await it.assert_nothing_refused_nor_warming()
        failures = {answer: count for answer, count in load.failures.items() if answer != "IncompleteReadError"}
        assert not failures, load.answers  # the old listener's connections are closed when it drains


@BOTH
async def test_a_refused_cluster_is_reported_not_repeated_and_healed_by_the_next_change(
    mode: str, tmp_path: Path
) -> None:
    async with scene(mode, tmp_path) as it:
        await it.settled(it.put(*it.world()))
        await asyncio.to_thread(it.proxy.wait_live, it.port)
        async with traffic(it.port) as load:
            bad = it.put(*it.world(), cluster("poor", bad=True), endpoints("poor", it.green))
            (proxy,) = it.running.server.proxies
            await await_until(lambda: proxy.refusal is not None)
            assert proxy.refusal is not None
            assert (proxy.refusal.type, proxy.refusal.names, proxy.refusal.position) == ("cds", ("poor",), bad)
            it.put(*it.world(), cluster("poor", bad=True), endpoints("poor", it.blue))
            await await_until(lambda: it.running.count("meshlog_xds_nacks_total", mode=mode, type="cds") >= 1)
            await it.settled(it.put(*it.world("green"), cluster("poor"), endpoints("poor", it.blue)))
            assert it.running.count("meshlog_xds_nacks_total", mode=mode, type="cds") == 1
            assert not [proxy for proxy in it.running.server.proxies if proxy.refusal]
            await await_until(lambda: load.answers["200 green"] > 20)
        assert not load.failures, load.answers


async def _replace_frontend(it: Scene, ready: bool = True) -> XdsServer:
    """Another frontend under the old address, which knows nothing but what its feed tells."""
    old = it.running.server
    await old.stop(0)
    fresh = XdsServer(
        feed=it.running.feed,
        trust_domain="mesh.test",
        clock=old.clock,
        entropy=old.entropy,
        metrics=old.metrics,
        memory=NodeMemory(),
    )
    it.running.feed.ready = ready
    await fresh.start(f"127.0.0.1:{it.running.port}", server_credentials(it.running.certificates.files))
    it.running.server = fresh
    return fresh


@BOTH
async def test_another_frontend_with_the_same_state_sends_no_set_again(mode: str, tmp_path: Path) -> None:
    async with scene(mode, tmp_path) as it:
        position = it.put(*it.world())
        await it.settled(position)
        before = {kind: it.running.count("meshlog_xds_pushes_total", mode=mode, type=kind) for kind in ("cds", "lds")}
        async with traffic(it.port) as load:
            fresh = await _replace_frontend(it)
            await it.settled(position)
            await it.settled(it.put(*it.world(), cluster("more"), endpoints("more", it.green)))
            await await_until(lambda: load.answers["200 blue"] > 20)
        await fresh.stop(0)
        assert not load.failures, load.answers
        after = {kind: it.running.count("meshlog_xds_pushes_total", mode=mode, type=kind) for kind in ("cds", "lds")}
        assert after == {"cds": before["cds"] + 1, "lds": before["lds"]}


async def test_a_cluster_deleted_meanwhile_goes_when_a_delta_proxy_meets_another_frontend(tmp_path: Path) -> None:
    async with scene("delta", tmp_path) as it:
        await it.settled(it.put(*it.world("blue"), cluster("more"), endpoints("more", it.green)))
        await asyncio.to_thread(it.proxy.wait_live, it.port)
        async with traffic(it.port) as load:
            await await_until(lambda: load.answers["200 blue"] > 20)
            await it.running.server.stop(0)
            position = it.put(*it.world("green"))
            fresh = await _replace_frontend(it)
            await it.settled(position)
            await await_until(lambda: load.answers["200 green"] > 20)
        await fresh.stop(0)
        assert not load.failures, load.answers
        assert [name for name in await it.dynamic_config() if name.startswith("cluster")] == ["cluster green"]


@BOTH
async def test_a_frontend_without_state_takes_nothing_away(mode: str, tmp_path: Path) -> None:
    async with scene(mode, tmp_path) as it:
        await it.settled(it.put(*it.world()))
        await asyncio.to_thread(it.proxy.wait_live, it.port)
        async with traffic(it.port) as load:
            fresh = await _replace_frontend(it, ready=False)
            await await_until(lambda: it.running.count("meshlog_xds_calls_refused_total", code="UNAVAILABLE") >= 1)
            await await_until(lambda: load.answers["200 blue"] > 100)
        await fresh.stop(0)
        assert not load.failures, load.answers
        assert "listener in" in await it.dynamic_config()
