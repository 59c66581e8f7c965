"""I4: a projector that starts from nothing and one that ran all along agree in state hash, versions and bytes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from chaos import checks
from chaos.cluster import Cluster, Process
from chaos.example import Canary
from identity.node_id import NodeId
from projector.feed.client import FeedClient, secure_channels
from projector.feed.port import NodeUpdate
from projector.snapshot import TYPES, XdsResource
from runtime.clock import SystemClock, SystemEntropy
from runtime.supervise import Supervisor
from tests.conditions import await_until, eventually
from tests.e2e.conftest import Connect

Snapshots = dict[NodeId, dict[tuple[str, str], XdsResource]]


def frontend_credentials(data_dir: Path, zone: str) -> grpc.ChannelCredentials:
    """The credentials of a zone's frontend: what any subscriber of the feed has to show."""
    directory = data_dir / "zones" / zone / "frontend"
    return grpc.ssl_channel_credentials(
        root_certificates=(directory / "role-ca.crt").read_bytes(),
        private_key=(directory / "role.key").read_bytes(),
        certificate_chain=(directory / "role.crt").read_bytes(),
    )


async def snapshots_of(cluster: Cluster, projector: Process, nodes: list[NodeId]) -> Snapshots:
    """What `projector` has for `nodes` at a head that is confirmed now."""
    credentials = frontend_credentials(cluster.data_dir, projector.zone)
    newest: dict[NodeId, NodeUpdate] = {}
    feed = FeedClient(
        zone=projector.zone,
        projectors=[(projector.zone, projector.address)],
        channels=secure_channels(lambda: credentials),
        clock=SystemClock(),
        entropy=SystemEntropy(),
        frontend_id=f"test-{projector.zone}",
        frontend_address="127.0.0.1:0",
    )
    async with Supervisor() as tasks:
        tasks.start(feed.run(), "feed")
        for node in nodes:
            feed.watch(node, lambda update: newest.__setitem__(update.node, update))
        await await_until(lambda: feed.ready, what=f"a feed from {projector.name}")
        confirmation = await feed.confirm(10.0)
        assert confirmation.ok
        assert feed.projector == (projector.zone, projector.address), "the feed left the projector under test"
    found = {node: update.snapshot for node, update in newest.items()}
    return {node: dict(snapshot.resources) for node, snapshot in found.items() if snapshot is not None}


@pytest.fixture(scope="module")
def nodes(connect: Connect, cluster: Cluster) -> list[NodeId]:
    """A mesh with some history: made, changed, partly deleted."""
    canary = Canary("replicas", 18081, 18082, gateway_port=18080)
    client = connect()
    canary.create(client)
    for weight in (10, 50, 90):
        canary.set_weights(client, 100 - weight, weight)
    client.create_virtual_node(meshName=canary.mesh, virtualNodeName="gone", spec={})
    client.delete_virtual_node(meshName=canary.mesh, virtualNodeName="gone")
    mesh = client.describe_mesh(meshName=canary.mesh)["mesh"]
    account = mesh["metadata"]["meshOwner"]
    return [
        NodeId(account, canary.mesh, "virtualGateway", canary.gateway),
        NodeId(account, canary.mesh, "virtualNode", canary.one),
        NodeId(account, canary.mesh, "virtualNode", canary.two),
    ]


def test_a_fresh_projector_equals_an_old_one_to_the_byte(cluster: Cluster, nodes: list[NodeId]) -> None:
    old, young = cluster.processes("projector")[:2]
    cluster.kill([young])
    cluster.restart([young])
    cluster.wait_ready()
    young = next(one for one in cluster.processes("projector") if one.zone == young.zone)
    end = checks.position_of(cluster.log()[-1])

    def agree() -> bool:
        return checks.hashes_equal(cluster.status()["processes"], end).ok

    eventually(agree, what="equal state hashes")
    by_old = asyncio.run(snapshots_of(cluster, old, nodes))
    by_young = asyncio.run(snapshots_of(cluster, young, nodes))

    assert set(by_old) == set(nodes)
    assert {kind for kind, _ in by_old[nodes[0]]} >= set(TYPES[:1]), "a gateway has clusters"
    assert by_young == by_old
    assert all(resource.version and resource.body for node in by_old.values() for resource in node.values())


def test_two_nodes_differ_so_that_equality_means_something(cluster: Cluster, nodes: list[NodeId]) -> None:
    projector = cluster.processes("projector")[0]
    found = asyncio.run(snapshots_of(cluster, projector, nodes))
    assert found[nodes[0]] != found[nodes[1]] != found[nodes[2]]
