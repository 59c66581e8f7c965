"""One Envoy in delta mode and one in state-of-the-world mode, for one node at one time, have one configuration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from chaos.cluster import Cluster
from chaos.envoy import Envoy
from chaos.example import Canary
from chaos.traffic import ask_many
from chaos.upstream import UpstreamProcess
from runtime.ports import free_port
from tests import netns
from tests.conditions import eventually
from tests.e2e.conftest import Connect

pytestmark = [pytest.mark.netns, pytest.mark.skipif(not netns.available(), reason="needs root and `ip netns`")]

MODES = ("delta", "sotw")
VERSIONS = {"version_info", "last_updated"}


class Twin:
    """An Envoy in its own namespace, seen from the host through relays."""

    def __init__(self, mode: str, inside: netns.Namespace, bootstrap: Path, canary: Canary, log: Path) -> None:
        self.mode = mode
        self._envoy = Envoy(
            bootstrap, admin_port=inside.expose(self._admin_of(bootstrap.read_text())), log=log, prefix=inside.prefix
        )
        self.port = inside.expose(canary.gateway_port)

    @staticmethod
    def _admin_of(text: str) -> int:
        return int(yaml.safe_load(text)["admin"]["address"]["socket_address"]["port_value"])

    def wait_live(self) -> None:
        self._envoy.wait_live()
        eventually(lambda: not ask_many("127.0.0.1", self.port, 1).failed, what=f"an answer through {self.mode}")

    def only_v2(self) -> bool:
        return ask_many("127.0.0.1", self.port, 20).counts() == {"v2": 20}

    def resources(self) -> dict[str, dict[str, Any]]:
        """Every dynamic resource by kind and name, without versions and times."""
        found: dict[str, dict[str, Any]] = {}
        for section in self._envoy.config_dump()["configs"]:
            kind = section["@type"].rpartition(".")[2]
            for group in ("dynamic_active_clusters", "dynamic_route_configs", "dynamic_endpoint_configs"):
                for entry in section.get(group, []):
                    for part in ("cluster", "route_config", "endpoint_config"):
                        if part in entry:
                            name = entry[part].get("name") or entry[part].get("cluster_name")
                            found.setdefault(kind, {})[name] = entry[part]
            for entry in section.get("dynamic_listeners", []):
                found.setdefault(kind, {})[entry["name"]] = entry["active_state"]["listener"]
        return found

    def stop(self) -> None:
        self._envoy.stop()


@pytest.fixture(scope="module")
def twins(
    cluster: Cluster,
    connect: Connect,
    upstreams: tuple[UpstreamProcess, UpstreamProcess],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Canary, list[Twin]]]:
    tmp_path = tmp_path_factory.mktemp("twins")
    one, two = upstreams
    canary = Canary("two-modes", one.port, two.port, gateway_port=free_port())
    canary.create(connect())
    frontends = [int(process.address.rpartition(":")[2]) for process in cluster.processes("frontend")]
    spaces = [netns.Namespace(f"mlt-{mode}") for mode in MODES]
    running: list[Twin] = []
    try:
        for mode, inside in zip(MODES, spaces, strict=True):
            for port in (*frontends, one.port, two.port):
                inside.carry(port)
            bootstrap = cluster.bootstrap(canary.gateway_node, admin_port=free_port(), out=tmp_path / mode, mode=mode)
            running.append(Twin(mode, inside, bootstrap, canary, tmp_path / f"{mode}.log"))
        for twin in running:
            twin.wait_live()
        yield canary, running
    finally:
        for twin in running:
            twin.stop()
        for inside in spaces:
            inside.close()


def test_both_have_the_same_config_at_first_and_after_a_change(
    twins: tuple[Canary, list[Twin]], connect: Connect
) -> None:
    canary, (delta, sotw) = twins
    before = delta.resources()
    assert {"ClustersConfigDump", "ListenersConfigDump", "RoutesConfigDump"} <= set(before)
    assert sotw.resources() == before

    canary.set_weights(connect(), 0, 100)
    for twin in (delta, sotw):
        eventually(twin.only_v2, what=f"the change through {twin.mode}")
    eventually(lambda: delta.resources() == sotw.resources() != before, what="one new config in both")


def test_they_really_speak_two_protocols(twins: tuple[Canary, list[Twin]]) -> None:
    """Guards the test above: two Envoys in one mode would also agree."""
    _, running = twins
    kinds = [
        twin._envoy.config_dump()["configs"][0]["bootstrap"]["dynamic_resources"]["ads_config"] for twin in running
    ]
    assert [kind["api_type"] for kind in kinds] == ["DELTA_GRPC", "GRPC"]
