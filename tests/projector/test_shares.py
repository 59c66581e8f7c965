"""A share's end at the proxies: those of the account that lost the mesh get nothing, and nobody else notices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from identity.node_id import NodeId
from mesh.commands import Create, Delete, RaiseLevel, ShareMesh, UnshareMesh, Update
from mesh.events import LEVEL
from projector.envoy.compiler import Compiler
from projector.projection import Projection
from projector.snapshot import NodeSnapshot
from tests.mesh.worlds import ACCOUNT, OTHER_ACCOUNT, World, key, node_spec, route_spec, shop
from tests.projector.test_projection import WorldReplica

THEIRS = NodeId(ACCOUNT, "shop", "virtualNode", "theirs")
OURS = NodeId(ACCOUNT, "shop", "virtualNode", "cart-v2")
EDGE = NodeId(ACCOUNT, "shop", "virtualGateway", "edge")
THIRD = "888888888888"


def shared_shop() -> World:
    """The shop, whose route leads to a virtual node of another account too, and one that is shared with a third."""
    world = shop()
    world.do(RaiseLevel(LEVEL))
    world.do(ShareMesh(ACCOUNT, "shop", frozenset({OTHER_ACCOUNT, THIRD})))
    world.do(Create(THEIRS.key, node_spec(backends=("cart.shop.local",))), account=OTHER_ACCOUNT)
    world.update(key("route", "all", parent="cart"), route_spec({"cart-v1": 50, "theirs": 50}))
    return world


@dataclass
class Watch:
    """A projection, and who was told of a change."""

    world: World
    projection: Projection
    replica: WorldReplica
    told: list[NodeId] = field(default_factory=list)

    def do(self, command: object, account: str = ACCOUNT) -> list[NodeId]:
        """Who is told of what comes of a command."""
        self.told.clear()
        self.world.do(command, account=account)  # type: ignore[arg-type]
        self.replica.fold()
        return sorted(self.told)


def watched(world: World, nodes: Sequence[NodeId] = (THEIRS, OURS, EDGE)) -> Watch:
    replica = WorldReplica(world)
    watch = Watch(world, Projection(replica, Compiler()), replica)  # type: ignore[arg-type]
    for node in nodes:
        watch.projection.subscribe(node, watch.told.append)
        watch.projection.current(node)
    return watch


def resources(snapshot: NodeSnapshot | None) -> object:
    return None if snapshot is None else snapshot.resources


def test_unsharing_stops_the_consumers_proxies_and_leaves_the_others_as_they_were() -> None:
    watch = watched(shared_shop())
    before = {node: resources(watch.projection.current(node)) for node in (THEIRS, OURS, EDGE)}
    assert None not in before.values()
    assert watch.do(UnshareMesh(ACCOUNT, "shop", frozenset({OTHER_ACCOUNT}))) == [THEIRS]
    assert watch.projection.current(THEIRS) is None
    for node in (OURS, EDGE):
        assert resources(watch.projection.current(node)) == before[node]
    compiler = Compiler()  # a projector that starts now gives the same
    assert [resources(compiler.compile(watch.world.state, node)) for node in (THEIRS, OURS, EDGE)] == [
        None, before[OURS], before[EDGE],
    ]  # fmt: skip


def test_sharing_again_gives_the_consumers_proxies_what_they_had() -> None:
    watch = watched(shared_shop())
    before = resources(watch.projection.current(THEIRS))
    watch.do(UnshareMesh(ACCOUNT, "shop", frozenset({OTHER_ACCOUNT})))
    assert watch.do(ShareMesh(ACCOUNT, "shop", frozenset({OTHER_ACCOUNT}))) == [THEIRS]
    assert resources(watch.projection.current(THEIRS)) == before


def test_another_accounts_share_concerns_nobodys_proxies() -> None:
    watch = watched(shared_shop())
    assert watch.do(UnshareMesh(ACCOUNT, "shop", frozenset({THIRD}))) == []
    assert watch.projection.current(THEIRS) is not None


def test_what_a_former_consumer_made_goes_on_to_be_reached_until_the_owner_deletes_it() -> None:
    watch = watched(shared_shop())
    watch.do(UnshareMesh(ACCOUNT, "shop", frozenset({OTHER_ACCOUNT})))
    clusters = [name for _, name in watch.projection.current(EDGE).resources]  # type: ignore[union-attr]
    assert any("_theirs_" in name for name in clusters)
    assert EDGE in watch.do(Update(key("route", "all", parent="cart"), route_spec({"cart-v1": 1})))
    watch.do(Delete(THEIRS.key))
    clusters = [name for _, name in watch.projection.current(EDGE).resources]  # type: ignore[union-attr]
    assert not any("_theirs_" in name for name in clusters)
