"""What is allowed in a mesh that has other things in it, and the words in which the rest is refused."""

from __future__ import annotations

import typing
from dataclasses import replace
from typing import Any

import pytest

from mesh.commands import (
    COMMANDS,
    AttachPolicy,
    Command,
    Context,
    Create,
    CreateAccessKey,
    CreateAccount,
    CreatePrincipal,
    Delete,
    DeleteAccessKey,
    DeleteInlinePolicy,
    DeletePolicy,
    DeletePrincipal,
    DetachPolicy,
    DisableAccessKey,
    EnableAccessKey,
    IssueProxyIdentity,
    PutInlinePolicy,
    PutPolicy,
    PutTrustPolicy,
    RaiseLevel,
    RecordDataKeys,
    RecordKeyUse,
    Rollback,
    SetQuota,
    ShareMesh,
    TagResource,
    UnshareMesh,
    UntagResource,
    Update,
    idempotency_token,
)
from mesh.decide import DECIDERS, decide
from mesh.errors import BadRequest, Conflict, Forbidden, LevelTooLow, MeshlogError, NotFound, ResourceInUse, TooManyTags
from mesh.events import EVENT_TYPES, LEVEL
from mesh.kinds import ResourceKey, mesh_key
from mesh.state import State
from tests.mesh.pki_worlds import PKI_COMMANDS
from tests.mesh.worlds import (
    ACCOUNT,
    MESH,
    OTHER_ACCOUNT,
    SHOP,
    World,
    gateway_route_spec,
    key,
    node_provider,
    node_spec,
    route_spec,
    shop,
    token,
)


def refusal(world: World, command: Command, error: type[MeshlogError], **fields: Any) -> str:
    before = world.state
    with pytest.raises(error) as caught:
        world.do(command, **fields)
    assert type(caught.value) is error
    assert world.state is before
    return caught.value.message


def test_every_command_has_its_function() -> None:
    assert set(DECIDERS) == set(COMMANDS) == set(typing.get_args(Command))


ANN, OPS, OWN = (f"arn:aws:iam::{ACCOUNT}:{name}" for name in ("user/bea", "role/ops", "policy/own"))
NOTHING = '{"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Action": "*", "Resource": "*"}}'
TRUST = '{"Statement": {"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}}'
ACCESS_COMMANDS: tuple[Command, ...] = (
    EnableAccessKey("LESS", ACCOUNT),
    RecordKeyUse(3_600_000_000, ("LESS",)),
    DeleteAccessKey("LESS", ACCOUNT),
    CreatePrincipal(ANN),
    CreatePrincipal(OPS, TRUST),
    PutPolicy(OWN, NOTHING),
    AttachPolicy(ANN, OWN),
    DetachPolicy(ANN, OWN),
    DeletePolicy(OWN),
    PutInlinePolicy(ANN, "p", NOTHING),
    DeleteInlinePolicy(ANN, "p"),
    PutTrustPolicy(OPS, TRUST + " "),
    DeletePrincipal(OPS),
    SetQuota(ACCOUNT, "L-E043DFB4", 7),
)


def test_every_type_of_event_has_a_command_that_leads_to_it() -> None:
    world = shop()
    world.update(MESH, {})
    world.do(TagResource(MESH, {"a": "b"}))
    world.do(Rollback(ACCOUNT, "shop", world.states[-2]))
    world.do(CreateAccessKey("AKID", "secret", ACCOUNT, "arn:aws:iam::123456789012:root", True))
    world.do(CreateAccessKey("LESS", "secret", ACCOUNT, "arn:aws:iam::123456789012:user/ann", False))
    world.do(DisableAccessKey("LESS", ACCOUNT))
    world.do(IssueProxyIdentity(key("virtualNode", "cart-v1"), "01", 1))
    world.do(RecordDataKeys(("config-1",)))
    world.do(RecordDataKeys(("config-1", "secrets-1"), "kek-2"))
    world.delete(key("gatewayRoute", "cart", parent="edge"))
    world.do(RaiseLevel(LEVEL))
    for command in (*ACCESS_COMMANDS, *PKI_COMMANDS):
        world.do(command)
    world.do(CreateAccount(OTHER_ACCOUNT, "the others", "AKOTHER", "secret"))
    world.do(ShareMesh(ACCOUNT, "shop", frozenset({OTHER_ACCOUNT})))
    world.do(UnshareMesh(ACCOUNT, "shop", frozenset({OTHER_ACCOUNT})))
    # What an operator does beside the API, a restore and a quarantine, is no command.
    assert {event.type for event in world.events} == set(EVENT_TYPES) - {"LogRestored", "RecordQuarantined"}


def test_a_create_carries_what_was_sent_and_what_was_drawn() -> None:
    world = World()
    (event,) = world.do(Create(MESH, {}, {"team": "a"})).events
    assert event.type == "ResourceCreated"
    assert event.data == {"key": list(MESH), "uid": "uid-1", "owner": ACCOUNT, "spec": {}, "tags": {"team": "a"}}


@pytest.mark.parametrize("made", [each for each, _ in SHOP])
def test_a_name_can_be_made_once(made: ResourceKey) -> None:
    world = shop()
    message = refusal(world, Create(made, dict(SHOP)[made]), Conflict)
    assert message.split(" already exists ")[0].endswith(f"with name {made.name}")


def test_virtual_service_names_are_free_text() -> None:
    world = shop()
    made = world.create(key("virtualService", "*.b.c..local"), {})
    assert made.version == 1


ABSENT = [
    (Create(key("virtualNode", "n", mesh="none"), {}), f"Mesh with name none is not present for account {ACCOUNT}"),
    (
        Create(key("route", "x", parent="none"), route_spec({"cart-v1": 1})),
        f"VirtualRouter with name none is not present under mesh shop for account {ACCOUNT}",
    ),
    (
        Create(key("gatewayRoute", "x", parent="none"), gateway_route_spec("cart.shop.local")),
        f"VirtualGateway with name none is not present under mesh shop for account {ACCOUNT}",
    ),
    (
        Update(key("virtualNode", "none"), {}),
        f"VirtualNode with name none is not present under mesh shop for account {ACCOUNT}",
    ),
    (
        Delete(key("virtualNode", "none")),
        f"VirtualNode with name none is not present under mesh shop for account {ACCOUNT}",
    ),
    (
        Delete(key("route", "none", parent="cart")),
        f"Route with name none is not present under VirtualRouter cart under mesh shop for account {ACCOUNT}",
    ),
    (
        Delete(key("route", "none", parent="none")),
        f"VirtualRouter with name none is not present under mesh shop for account {ACCOUNT}",
    ),
    (
        TagResource(key("virtualNode", "none"), {"a": "b"}),
        f"VirtualNode with name none is not present under mesh shop for account {ACCOUNT}",
    ),
    (
        UntagResource(key("virtualNode", "n", mesh="none"), ("a",)),
        f"Mesh with name none is not present for account {ACCOUNT}",
    ),
    (
        Rollback(ACCOUNT, "none", State()),
        f"Mesh with name none is not present for account {ACCOUNT}, neither now nor after position 1.0",
    ),
]


@pytest.mark.parametrize(("command", "message"), ABSENT)
def test_what_is_absent_is_named(command: Command, message: str) -> None:
    assert refusal(shop(), command, NotFound) == message


HARD = [
    (
        key("route", "new", parent="cart"),
        route_spec({"cart-v1": 1, "none": 1}),
        "VirtualNode with name none",
    ),
    (
        key("virtualService", "new"),
        node_provider("none"),
        "VirtualNode with name none",
    ),
    (
        key("virtualService", "new"),
        {"provider": {"virtualRouter": {"virtualRouterName": "none"}}},
        "VirtualRouter with name none",
    ),
    (
        key("gatewayRoute", "new", parent="edge"),
        gateway_route_spec("none"),
        "VirtualService with name none",
    ),
]


@pytest.mark.parametrize(("made", "spec", "who"), HARD)
def test_a_hard_reference_must_resolve_at_create_and_at_update(
    made: ResourceKey, spec: dict[str, Any], who: str
) -> None:
    world = shop()
    message = f"{who} is not present under mesh shop for account {ACCOUNT}"
    assert refusal(world, Create(made, spec), NotFound) == message
    (old,) = (each for each, _ in SHOP if each.kind == made.kind and each.name != "v1.shop.local")
    assert refusal(world, Update(old, spec), NotFound) == message


def test_a_backend_may_name_what_does_not_exist() -> None:
    assert shop().create(key("virtualNode", "n"), node_spec(backends=("never.there",))).version == 1


def test_a_backend_does_not_hold_its_virtual_service() -> None:
    world = shop()
    world.create(key("virtualService", "stock.shop.local"), {})
    world.delete(key("virtualService", "stock.shop.local"))


IN_USE = [
    (
        MESH,
        (
            f"Mesh shop for account {ACCOUNT} has active VirtualServices, VirtualGateways, VirtualRouters, "
            "VirtualNodes, please delete VirtualServices, VirtualGateways, VirtualRouters, VirtualNodes before "
            "deleting the Mesh"
        ),
    ),
    (
        key("virtualNode", "cart-v2"),
        "VirtualNode with name cart-v2 cannot be deleted because it is the target of one or more routes.",
    ),
    (key("virtualRouter", "cart"), "VirtualRouter with name cart cannot be deleted because it has routes: [all]"),
    (
        key("virtualGateway", "edge"),
        "VirtualGateway with name edge cannot be deleted because it has gateway routes: [cart]",
    ),
    (
        key("virtualService", "cart.shop.local"),
        "VirtualService cart.shop.local is being referenced in the following: GATEWAY_ROUTE: [cart]",
    ),
]


@pytest.mark.parametrize(("used", "message"), IN_USE)
def test_what_is_in_use_stays(used: ResourceKey, message: str) -> None:
    assert refusal(shop(), Delete(used), ResourceInUse) == message


def test_a_mesh_of_nodes_alone_stays_in_app_meshs_words() -> None:
    world = World()
    world.create(MESH, {})
    world.create(key("virtualNode", "n"), {})
    assert refusal(world, Delete(MESH), ResourceInUse) == (
        f"Mesh shop for account {ACCOUNT} has active VirtualNodes, please delete VirtualNodes before deleting the Mesh"
    )


def test_a_provider_stays_also_when_no_route_uses_it() -> None:
    world = shop()
    world.delete(key("route", "all", parent="cart"))
    message = refusal(world, Delete(key("virtualRouter", "cart")), ResourceInUse)
    assert message == "VirtualRouter with name cart cannot be deleted because it is a VirtualService provider"
    message = refusal(world, Delete(key("virtualNode", "cart-v1")), ResourceInUse)
    assert message == "VirtualNode with name cart-v1 cannot be deleted because it is a VirtualService provider"


def test_all_can_be_deleted_from_the_leaves_up() -> None:
    world = shop()
    for each, _ in reversed(SHOP):
        world.delete(each)
    assert not world.state.resources


def test_an_update_that_changes_nothing_is_still_an_update() -> None:
    world = shop()
    node = key("virtualNode", "cart-v1")
    assert world.update(node, node_spec()).version == 2


def test_specs_are_checked_before_anything_is_looked_up() -> None:
    message = refusal(World(), Create(key("virtualNode", "n", mesh="none"), {"x": 1}), BadRequest)
    assert message.startswith("1 validation error: spec.x: ")


@pytest.mark.parametrize(
    "command",
    [
        Create(key("virtualNode", "new"), {}),
        Update(MESH, {}),
        Delete(key("gatewayRoute", "cart", parent="edge")),
        TagResource(MESH, {"a": "b"}),
        UntagResource(MESH, ("a",)),
        Rollback(ACCOUNT, "shop", State()),
        IssueProxyIdentity(key("virtualNode", "cart-v1"), "01", 1),
    ],
)
def test_another_account_learns_nothing_of_a_mesh(command: Command) -> None:
    said = refusal(shop(), command, Forbidden, account=OTHER_ACCOUNT)
    assert said.startswith(
        f"mesh shop of account {ACCOUNT} is not shared with account {OTHER_ACCOUNT}, or is not there"
    )
    if not isinstance(command, Rollback):
        assert refusal(World(), command, Forbidden, account=OTHER_ACCOUNT) == said


def test_equal_names_in_two_accounts_are_two_resources() -> None:
    world = shop()
    other = mesh_key(OTHER_ACCOUNT, "shop")
    world.do(Create(other, {}), account=OTHER_ACCOUNT)
    assert world.at(other).owner == OTHER_ACCOUNT
    assert [resource.key.account for resource in world.state.meshes(OTHER_ACCOUNT)] == [OTHER_ACCOUNT]


def test_tags_are_added_and_taken_away() -> None:
    world = shop()
    world.do(TagResource(MESH, {"a": "1", "b": "1"}))
    world.do(TagResource(MESH, {"b": "2"}))
    world.do(UntagResource(MESH, ("a", "never there")))
    assert dict(world.at(MESH).tags) == {"b": "2"}
    assert world.at(MESH).version == 1, "tags are no part of the specification"


def test_tagging_with_what_is_there_writes_nothing() -> None:
    world = shop()
    world.do(TagResource(MESH, {"a": "1"}))
    assert world.do(TagResource(MESH, {"a": "1"})).events == ()
    assert world.do(UntagResource(MESH, ("x",))).events == ()


def test_a_resource_has_at_most_fifty_tags() -> None:
    world = shop()
    world.do(TagResource(MESH, {str(number): "" for number in range(50)}))
    world.do(TagResource(MESH, {"0": "new value"}))
    refusal(world, TagResource(MESH, {"51st": ""}), TooManyTags)


def test_the_same_token_with_the_same_body_answers_from_the_log() -> None:
    world = World()
    again = token("t", {"meshName": "shop"})
    world.do(Create(MESH, {}), token=again)
    world.update(MESH, {"egressFilter": {"type": "ALLOW_ALL"}})
    decision = world.do(Create(MESH, {}), token=again)
    assert decision.events == ()
    assert decision.replay is not None
    assert decision.replay.position == world.events[0].position
    assert decision.replay.outcome == world.states[1].resources[MESH], "as the first call left it, not as it is now"


def test_the_same_token_with_another_body_is_a_conflict() -> None:
    world = World()
    world.do(Create(MESH, {}), token=token("t", {"meshName": "shop"}))
    other = key("mesh", "other", mesh="other")
    assert "clientToken" in refusal(world, Create(other, {}), Conflict, token=token("t", {"meshName": "other"}))


def test_a_repeated_delete_with_its_token_is_answered_with_what_went() -> None:
    world = World()
    made = world.create(MESH, {})
    world.do(Delete(MESH), token=token("d"))
    replay = world.do(Delete(MESH), token=token("d")).replay
    assert replay is not None
    assert replay.outcome == made
    refusal(world, Delete(MESH), NotFound, token=token("another"))


def test_a_refused_call_leaves_its_token_free() -> None:
    world = World()
    again = token("t")
    refusal(world, Create(key("virtualNode", "n"), {}), NotFound, token=again)
    world.create(MESH, {})
    assert len(world.do(Create(key("virtualNode", "n"), {}), token=again).events) == 1


def test_a_token_marks_who_what_and_with_which_input() -> None:
    one = idempotency_token(ACCOUNT, "arn:a", "CreateMesh", "t", {"meshName": "m", "tags": []})
    assert one == idempotency_token(
        ACCOUNT, "arn:a", "CreateMesh", "t", {"tags": [], "meshName": "m", "clientToken": "t"}
    )
    digests = {
        idempotency_token(account, principal, operation, text, {}).digest
        for account in (ACCOUNT, OTHER_ACCOUNT)
        for principal in ("arn:a", "arn:b")
        for operation in ("CreateMesh", "UpdateMesh")
        for text in ("t", "u")
    }
    assert len(digests) == 16
    assert one.body != idempotency_token(ACCOUNT, "arn:a", "CreateMesh", "t", {"meshName": "n", "tags": []}).body


def test_access_keys_are_made_once_and_do_not_print_their_secret() -> None:
    world = World()
    command = CreateAccessKey("AKID", "very secret", ACCOUNT, "arn:aws:iam::123456789012:root", True)
    world.do(command)
    assert world.state.access_keys["AKID"].secret == "very secret"
    refusal(world, command, Conflict)
    refusal(world, CreateAccessKey("X", "s", "12", "arn", False), BadRequest)
    refusal(world, CreateAccessKey("X", "", ACCOUNT, "arn", False), BadRequest)
    assert "very secret" not in repr(command)


def test_a_key_is_disabled_and_the_last_admin_key_never() -> None:
    world = World()
    for name, admin in (("ONE", True), ("TWO", True), ("LESS", False)):
        world.do(CreateAccessKey(name, "secret", ACCOUNT, f"arn:aws:iam::{ACCOUNT}:user/{name}", admin))
    world.do(CreateAccessKey("THEIRS", "secret", OTHER_ACCOUNT, f"arn:aws:iam::{OTHER_ACCOUNT}:user/x", True))
    (event,) = world.do(DisableAccessKey("ONE", ACCOUNT)).events
    assert event.data == {"access_key_id": "ONE"}
    assert world.state.access_keys["ONE"].disabled_us == world.state.time_us
    assert world.do(DisableAccessKey("ONE", ACCOUNT)).events == (), "it is that already"
    said = refusal(world, DisableAccessKey("TWO", ACCOUNT), Conflict)
    assert "TWO is the last admin key of account 123456789012" in said
    world.do(DisableAccessKey("LESS", ACCOUNT))
    unknown = refusal(world, DisableAccessKey("NONE", ACCOUNT), NotFound)
    theirs = refusal(world, DisableAccessKey("THEIRS", ACCOUNT), NotFound)
    assert unknown.replace("NONE", "THEIRS") == theirs
    refusal(world, DisableAccessKey("THEIRS", OTHER_ACCOUNT), NotFound)


def test_only_nodes_and_gateways_have_proxies_and_they_may_come_first() -> None:
    world = World()
    assert len(world.do(IssueProxyIdentity(key("virtualGateway", "not yet"), "01", 1)).events) == 1
    refusal(world, IssueProxyIdentity(key("virtualService", "s"), "01", 1), BadRequest)
    refusal(world, IssueProxyIdentity(key("virtualNode", "a/b"), "01", 1), BadRequest)


def test_a_level_never_goes_back_nor_above_this_build() -> None:
    world = World()
    assert world.do(RaiseLevel(1)).events == ()
    refusal(world, RaiseLevel(0), BadRequest)
    refusal(world, RaiseLevel(LEVEL + 1), BadRequest)


def test_what_older_members_would_not_understand_waits_for_them_and_raises_the_level_once() -> None:
    command, context = CreatePrincipal(ANN), Context(ACCOUNT, ANN, "CreateUser", level=1)
    with pytest.raises(LevelTooLow, match="CreateUser needs a cluster of level 2, and this one is of level 1"):
        decide(State(), command, context)
    raised = decide(State(), command, replace(context, level=2)).events
    assert [event.type for event in raised] == ["LevelRaised", "PrincipalCreated"]
    assert [event.type for event in decide(State(level=2), command, context).events] == ["PrincipalCreated"]
