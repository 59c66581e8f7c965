"""Real Envoys take what is compiled: golden nodes, and meshes made out of the model, ordinary and hostile.

One Envoy of each kind is pushed mesh after mesh; whatever it refuses fails. `make test-envoys` and `make test-hostile`
do the same at length, with an older Envoy too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from identity.node_id import NodeId
from proxy import observability
from proxy.parts import merge
from tests.conditions import eventually
from tests.envoy_process import AdsServer, Envoy, run_ads_envoy
from tests.netns import Namespace, available
from tests.projector.envoy.generated_meshes import Mesh, largest, meshes
from tests.projector.envoy.meshes import canary, compiled, gateway_id, node_id
from tests.projector.envoy.test_golden import CASES, INSTANCES
from tests.projector.envoy.test_tls_live import Certificates

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(not available(), reason="needs root and `ip` for network namespaces"),
]

FOLDER = Path("/tmp/meshlog-test-certificates")
"""Where generated specs say that their certificates are."""
EXAMPLES = int(os.environ.get("MESHLOG_TEST_MESHES", "4"))
SEED = int(os.environ.get("MESHLOG_TEST_SEED", "1"))


class Proxy:
    """A running Envoy, and what feeds it."""

    def __init__(self, envoy: Envoy, server: AdsServer) -> None:
        self._envoy, self._server = envoy, server

    def takes(self, mesh: Mesh, of: NodeId) -> None:
        """Push the node's configuration; fails where anything of it is refused."""
        if mesh.log.state.get(of.key) is None:
            return
        self._server.refused.clear()
        self._server.serve(compiled(mesh.log, of, registry=mesh.registry))
        answered = eventually(lambda: self._server.refused or self._server.settled(), what="the Envoy's answer")
        assert answered
        assert self._server.refused == [], mesh
        rejected = self._envoy.stats("update_rejected")
        assert rejected
        assert not any(rejected.values())


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    certificates = Certificates(folder := tmp_path_factory.mktemp("certificates"))
    FOLDER.mkdir(exist_ok=True)
    for member in ("crt", "key"):
        (FOLDER / f"leaf.{member}").write_bytes((folder / f"server.{member}").read_bytes())
    with Namespace("meshlog-gen") as namespace:
        first = compiled(canary(), gateway_id())
        envoy, server = run_ads_envoy(namespace, first, tmp_path_factory.mktemp("envoy"), [certificates.cluster()])
        try:
            yield Proxy(envoy, server)
        finally:
            envoy.stop()
            server.stop()


def test_a_node_of_long_names_and_many_routes_comes_up_with_every_tag_on(tmp_path: Path) -> None:
    services = min(50, max(10, EXAMPLES))
    log, of = largest(services, services)
    parts = merge({}, *observability.parts(observability.Settings(stats_tags=True), of, 9901))
    with Namespace("meshlog-big") as namespace:
        envoy, server = run_ads_envoy(namespace, compiled(log, of), tmp_path, **parts)
        try:
            assert server.refused == []
            assert not any(envoy.stats("update_rejected").values())
        finally:
            envoy.stop()
            server.stop()


unhurried = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("name", CASES)
def test_golden_nodes_are_taken_one_after_the_other(name: str, proxy: Proxy) -> None:
    mesh, of = CASES[name]
    proxy.takes(Mesh(mesh(), INSTANCES), of)


@unhurried
@seed(SEED)
@given(mesh=meshes(FOLDER))
def test_meshes_made_out_of_the_model_are_taken(mesh: Mesh, proxy: Proxy) -> None:
    proxy.takes(mesh, node_id("n0"))
    proxy.takes(mesh, gateway_id("g"))


@unhurried
@seed(SEED)
@given(mesh=meshes(FOLDER, hostile=True))
def test_hostile_meshes_are_taken_or_held_back(mesh: Mesh, proxy: Proxy) -> None:
    for key in sorted(mesh.log.state.resources):
        if key.kind in ("virtualNode", "virtualGateway"):
            proxy.takes(mesh, NodeId(key.account, key.mesh, key.kind, key.name))
