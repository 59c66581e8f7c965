"""Tenants and shared meshes: who sees, makes, changes and deletes what, and what a share does not outlive."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.checkpoint import from_documents, to_documents
from mesh.commands import (
    Command,
    Context,
    Create,
    CreateAccount,
    Delete,
    IssueProxyIdentity,
    RaiseLevel,
    Rollback,
    ShareMesh,
    TagResource,
    UnshareMesh,
    UntagResource,
    Update,
)
from mesh.decide import decide
from mesh.draft import Draft
from mesh.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    LevelTooLow,
    LimitExceeded,
    MeshlogError,
    NotFound,
    ResourceInUse,
)
from mesh.events import LEVEL, NewEvent
from mesh.kinds import KINDS, ResourceKey, mesh_key
from mesh.limits import CONSUMERS_PER_MESH
from mesh.position import ORIGIN
from mesh.sharing import check_visible_at, is_operator, is_served, seen_since, shared_with
from mesh.state import computed_fingerprint, state_hash
from tests.mesh.worlds import (
    ACCOUNT,
    MESH,
    OTHER_ACCOUNT,
    World,
    gateway_route_spec,
    gateway_spec,
    key,
    node_provider,
    node_spec,
    route_spec,
    router_spec,
    shop,
)

OWNER, CONSUMER, STRANGER = ACCOUNT, OTHER_ACCOUNT, "888888888888"
NODE = key("virtualNode", "theirs")
ROUTE = key("route", "theirs", parent="cart")


def share(*consumers: str, mesh: str = "shop") -> ShareMesh:
    return ShareMesh(OWNER, mesh, frozenset(consumers))


def unshare(*consumers: str) -> UnshareMesh:
    return UnshareMesh(OWNER, "shop", frozenset(consumers))


def shared_shop() -> World:
    """The shop, shared with one other account, which has a virtual node and a route in it."""
    world = shop()
    world.do(RaiseLevel(LEVEL))
    world.do(share(CONSUMER))
    world.do(Create(NODE, node_spec()), account=CONSUMER)
    world.do(Create(ROUTE, route_spec({"theirs": 1}, "/theirs")), account=CONSUMER)
    return world


def refusal(world: World, command: Command, error: type[MeshlogError], account: str) -> str:
    with pytest.raises(error) as caught:
        world.decide(command, account=account)
    assert type(caught.value) is error
    return caught.value.message


# --- consumers make and change


def test_what_a_consumer_makes_is_its_own_under_the_owners_arn() -> None:
    world = shared_shop()
    assert (world.at(NODE).owner, world.at(NODE).key.account) == (CONSUMER, OWNER)
    assert (world.at(key("virtualNode", "cart-v1")).owner) == OWNER


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mesh"])
def test_a_consumer_makes_nodes_routers_services_and_routes_and_no_gateways(kind: str) -> None:
    specs: dict[str, tuple[str, dict[str, Any]]] = {
        "virtualNode": ("", node_spec()),
        "virtualRouter": ("", router_spec()),
        "route": ("cart", route_spec({"cart-v1": 1}, "/new")),
        "virtualService": ("", node_provider("cart-v2")),
        "virtualGateway": ("", gateway_spec()),
        "gatewayRoute": ("edge", gateway_route_spec("v1.shop.local", "/new")),
    }
    parent, spec = specs[kind]
    command = Create(key(kind, "new", parent=parent), spec)
    if kind in ("virtualGateway", "gatewayRoute"):
        assert OWNER in refusal(shared_shop(), command, Forbidden, CONSUMER)
    else:
        assert shared_shop().decide(command, account=CONSUMER).events[0].data["owner"] == CONSUMER


def test_each_changes_and_tags_what_it_made_and_nothing_else() -> None:
    world, owners = shared_shop(), key("virtualNode", "cart-v1")
    for resource, maker, other in ((NODE, CONSUMER, OWNER), (owners, OWNER, CONSUMER)):
        update, tags = Update(resource, node_spec(9000)), {"a": "b"}
        for command in (update, TagResource(resource, tags), UntagResource(resource, ("a",))):
            world.decide(command, account=maker)
            assert f"was made by account {maker}" in refusal(world, command, Forbidden, other)


def test_a_consumer_deletes_its_own_and_the_owner_anything() -> None:
    world = shared_shop()
    refusal(world, Delete(key("virtualService", "v1.shop.local")), Forbidden, CONSUMER)
    refusal(world, Delete(NODE), ResourceInUse, OWNER)  # their route still leads to it
    world.do(Delete(ROUTE), account=OWNER)
    world.do(Delete(NODE), account=CONSUMER)
    assert NODE not in world.state.resources


def test_the_owner_cannot_delete_a_mesh_that_a_consumer_has_something_in() -> None:
    world = World()
    world.create(MESH, {})
    world.do(RaiseLevel(LEVEL))
    world.do(share(CONSUMER))
    world.do(Create(NODE, node_spec()), account=CONSUMER)
    refusal(world, Delete(MESH), ResourceInUse, OWNER)


# --- strangers


@pytest.mark.parametrize("account", [CONSUMER, STRANGER])
@pytest.mark.parametrize("there", [True, False])
def test_a_stranger_is_told_the_same_whether_the_mesh_is_there_or_not(account: str, there: bool) -> None:
    world = shop() if there else World()
    world.do(RaiseLevel(LEVEL))
    node = key("virtualNode", "cart-v1")
    told = {
        refusal(world, command, Forbidden, account)
        for command in (
            Create(NODE, node_spec()),
            Create(key("virtualGateway", "new"), gateway_spec()),
            Update(node, node_spec()),
            Delete(node),
            TagResource(node, {"a": "b"}),
            UntagResource(node, ("a",)),
            IssueProxyIdentity(node, "01", 1),
            Rollback(OWNER, "shop", world.states[0]),
        )
    }
    (sentence,) = told
    assert f"is not shared with account {account}" in sentence


def test_only_the_owner_shares_and_only_what_is_there() -> None:
    world = shared_shop()
    refusal(world, share(STRANGER), Forbidden, CONSUMER)
    refusal(world, unshare(CONSUMER), Forbidden, CONSUMER)
    refusal(world, share(OWNER), BadRequest, OWNER)
    refusal(world, share("12"), BadRequest, OWNER)
    refusal(world, ShareMesh(OWNER, "none", frozenset({CONSUMER})), NotFound, OWNER)
    crowd = {f"{number:012}" for number in range(CONSUMERS_PER_MESH)}
    refusal(world, share(*crowd), LimitExceeded, OWNER)


def test_a_share_needs_every_server_to_understand_it() -> None:
    world = shop()
    with pytest.raises(LevelTooLow, match="level 2"):
        decide(world.state, share(CONSUMER), Context(OWNER, "arn", "ShareMesh", level=1))
    assert [event.type for event in world.do(share(CONSUMER)).events] == ["LevelRaised", "MeshShared"]


# --- shares begin and end


def test_sharing_twice_and_unsharing_what_was_not_shared_is_no_event() -> None:
    world = shared_shop()
    since = seen_since(world.state, OWNER, "shop", CONSUMER)
    assert world.do(share(CONSUMER)).events == ()
    (event,) = world.do(share(CONSUMER, STRANGER)).events
    assert event.data["with"] == [STRANGER]
    assert seen_since(world.state, OWNER, "shop", CONSUMER) == since
    (event,) = world.do(unshare(STRANGER, "777777777777")).events
    assert event.data["with"] == [STRANGER]
    assert world.do(unshare(STRANGER)).events == ()
    assert seen_since(world.state, OWNER, "shop", STRANGER) is None


def test_after_the_share_the_consumer_has_nothing_and_what_it_made_stays() -> None:
    world = shared_shop()
    assert is_served(world.state, world.at(NODE))
    world.do(unshare(CONSUMER))
    assert not is_served(world.state, world.at(NODE))
    assert is_served(world.state, world.at(key("virtualNode", "cart-v1")))
    for command in (Update(NODE, node_spec()), Delete(ROUTE), IssueProxyIdentity(NODE, "01", 1)):
        assert "is not shared" in refusal(world, command, Forbidden, CONSUMER)
    refusal(world, Update(NODE, node_spec()), Forbidden, OWNER)
    world.do(Delete(ROUTE))
    world.do(Delete(NODE))


def test_a_share_ends_with_its_mesh() -> None:
    world = World()
    world.do(RaiseLevel(LEVEL))
    world.create(MESH, {})
    world.do(share(CONSUMER))
    world.delete(MESH)
    assert not world.state.shares
    world.create(MESH, {})
    assert seen_since(world.state, OWNER, "shop", CONSUMER) is None
    assert world.state.fingerprint == computed_fingerprint(world.state)


def test_a_rollback_that_takes_a_mesh_away_ends_its_share_and_one_that_brings_it_back_does_not_share_it() -> None:
    world = World()
    world.do(RaiseLevel(LEVEL))
    before = world.state
    world.create(MESH, {})
    world.do(share(CONSUMER))
    there = world.state
    world.do(Rollback(OWNER, "shop", before, allow_mesh_deletion=True))
    assert not world.state.shares
    world.do(Rollback(OWNER, "shop", there))
    assert MESH in world.state.resources
    assert not world.state.shares


# --- what is seen


def test_a_consumer_lists_the_meshes_that_are_shared_with_it() -> None:
    world = shared_shop()
    world.create(mesh_key(OWNER, "another"), {})
    world.do(share(CONSUMER, STRANGER, mesh="another"))
    assert [mesh.key.name for mesh in shared_with(world.state, CONSUMER)] == ["another", "shop"]
    assert [mesh.key.name for mesh in shared_with(world.state, STRANGER)] == ["another"]
    assert list(shared_with(world.state, OWNER)) == []


def test_the_past_before_the_share_is_the_owners() -> None:
    world = shared_shop()
    since = seen_since(world.state, OWNER, "shop", CONSUMER)
    assert seen_since(world.state, OWNER, "shop", OWNER) == ORIGIN
    assert since is not None
    check_visible_at(world.state, OWNER, "shop", CONSUMER, since)
    for account in (CONSUMER, STRANGER):
        with pytest.raises(Forbidden):
            check_visible_at(world.state, OWNER, "shop", account, world.states[3].position)
    world.do(unshare(CONSUMER))
    world.do(share(CONSUMER))
    with pytest.raises(Forbidden):
        check_visible_at(world.state, OWNER, "shop", CONSUMER, since)


# --- rollback


def test_each_rolls_back_its_own_and_the_owner_deletes() -> None:
    world = shared_shop()
    then = world.state
    world.do(Update(NODE, node_spec(9000)), account=CONSUMER)
    world.update(key("virtualNode", "cart-v1"), node_spec(9001))
    world.do(Create(key("virtualNode", "more"), node_spec()), account=CONSUMER)
    both = frozenset({NODE, key("virtualNode", "cart-v1")})
    for account, own, foreign in ((OWNER, both - {NODE}, CONSUMER), (CONSUMER, frozenset({NODE}), OWNER)):
        told = refusal(world, Rollback(OWNER, "shop", then, only=both), Conflict, account)
        assert f"was made by account {foreign}" in told
        (event,) = world.decide(Rollback(OWNER, "shop", then, only=own), account=account).events
        assert [tuple(change["key"]) for change in event.data["changes"]] == [tuple(each) for each in own]
    refusal(world, Rollback(OWNER, "shop", then), Conflict, OWNER)
    gone = Rollback(OWNER, "shop", then, only=frozenset({key("virtualNode", "more")}))
    assert world.decide(gone, account=OWNER).events
    assert world.decide(gone, account=CONSUMER).events


def test_a_consumer_does_not_roll_back_to_before_the_share() -> None:
    world = shared_shop()
    early = Rollback(OWNER, "shop", world.states[9], only=frozenset({NODE}))
    assert "is shared with" in refusal(world, early, Forbidden, CONSUMER)


# --- proxies


@pytest.mark.parametrize(("node", "by"), [(NODE, CONSUMER), (key("virtualNode", "cart-v1"), OWNER)])
def test_who_made_a_node_runs_its_proxies(node: ResourceKey, by: str) -> None:
    world = shared_shop()
    assert world.decide(IssueProxyIdentity(node, "01", 1), account=by).events
    for account in {OWNER, CONSUMER, STRANGER} - {by}:
        refusal(world, IssueProxyIdentity(node, "01", 1), Forbidden, account)


def test_a_consumers_node_must_be_there_before_its_proxies_are() -> None:
    missing = IssueProxyIdentity(key("virtualNode", "later"), "01", 1)
    world = shared_shop()
    refusal(world, missing, NotFound, CONSUMER)
    assert world.decide(missing, account=OWNER).events


# --- accounts


def test_the_account_that_the_cluster_was_made_with_adds_others() -> None:
    world = shop()
    world.do(RaiseLevel(LEVEL))
    made, admin = world.do(CreateAccount(CONSUMER, "team two", "AKTWO", "secret")).events
    assert made.data == {"account": CONSUMER, "name": "team two"}
    assert (admin.data["admin"], admin.data["principal"]) == (True, f"arn:aws:iam::{CONSUMER}:user/admin")
    assert is_operator(world.state, OWNER)
    assert not is_operator(world.state, CONSUMER)
    refusal(world, CreateAccount(STRANGER, "", "AKTHREE", "secret"), Forbidden, CONSUMER)
    for account in (CONSUMER, OWNER):
        refusal(world, CreateAccount(account, "", "AKTHREE", "secret"), Conflict, OWNER)
    refusal(world, CreateAccount("12", "", "AKTHREE", "secret"), BadRequest, OWNER)
    refusal(world, CreateAccount(STRANGER, "a\nb", "AKTHREE", "secret"), BadRequest, OWNER)
    refusal(world, CreateAccount(STRANGER, "", "AKTWO", "secret"), Conflict, OWNER)


# --- kept


def test_shares_and_accounts_are_in_checkpoints_and_in_the_state_hash() -> None:
    world = shared_shop()
    world.do(CreateAccount(CONSUMER, "team two", "AKTWO", "secret"))
    state = world.state
    again = from_documents(*to_documents(state))
    assert (again.shares, again.accounts) == (state.shares, state.accounts)
    assert state.fingerprint == computed_fingerprint(state)
    assert seen_since(again, OWNER, "shop", CONSUMER) == seen_since(state, OWNER, "shop", CONSUMER)
    without = state.with_entry("shares", (OWNER, "shop"), None)
    assert state_hash(without) != state_hash(state)


def test_a_fold_in_bulk_ends_a_share_with_its_mesh_too() -> None:
    world = World()
    world.do(RaiseLevel(LEVEL))
    world.create(MESH, {})
    world.do(share(CONSUMER))
    world.delete(MESH)
    world.create(MESH, {})
    draft = Draft(world.states[0])
    for event in world.events:
        draft.fold(event)
    assert draft.state() == world.state
    draft = Draft(world.states[3])  # the share is in the base
    for event in world.events[3:]:
        draft.fold(event)
    assert draft.state() == world.state


# --- whatever is tried

NODES = tuple(key("virtualNode", name) for name in ("a", "b"))
COMMANDS: tuple[Command, ...] = (
    share(CONSUMER),
    unshare(CONSUMER),
    Create(MESH, {}),
    Delete(MESH),
    *(Create(node, node_spec()) for node in NODES),
    *(Update(node, node_spec(9000)) for node in NODES),
    *(Delete(node) for node in NODES),
    *(TagResource(node, {"a": "b"}) for node in NODES),
    *(IssueProxyIdentity(node, "01", 1) for node in NODES),
)


def attempt(world: World, command: Command, account: str) -> tuple[tuple[NewEvent, ...], type[MeshlogError] | None]:
    try:
        return world.do(command, account=account).events, None
    except MeshlogError as error:
        return (), type(error)


@given(st.lists(st.tuples(st.sampled_from(COMMANDS), st.sampled_from((OWNER, CONSUMER, STRANGER))), max_size=40))
@settings(max_examples=150)
def test_nothing_that_anybody_tries_reaches_what_is_not_theirs(tried: list[tuple[Command, str]]) -> None:
    world = World()
    world.create(MESH, {})
    world.do(share(CONSUMER))
    for command, account in tried:
        before = world.state
        seen = seen_since(before, OWNER, "shop", account) is not None
        events, refused = attempt(world, command, account)
        if refused is not None:
            assert seen or refused is Forbidden  # whoever sees nothing learns nothing by asking
            continue
        target = getattr(command, "key", getattr(command, "node", MESH))
        there = before.get(target)
        assert seen
        assert account == OWNER or not isinstance(command, (ShareMesh, UnshareMesh))
        if there is not None and events and not isinstance(command, (ShareMesh, UnshareMesh)):
            assert there.owner == account or (isinstance(command, Delete) and account == OWNER)
        made = world.state.get(target)
        if there is None and made is not None:
            assert made.owner == account
    assert world.state.fingerprint == computed_fingerprint(world.state)
    assert set(world.state.shares) <= set(world.state.of_mesh)
