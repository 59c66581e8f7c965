"""Keys, users, roles and policies in the log: what is refused, what is folded, and what a restore applies again."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from mesh.commands import (
    AttachPolicy,
    Command,
    CreateAccessKey,
    CreatePrincipal,
    DeleteAccessKey,
    DeleteInlinePolicy,
    DeletePolicy,
    DeletePrincipal,
    DetachPolicy,
    DisableAccessKey,
    EnableAccessKey,
    PutInlinePolicy,
    PutPolicy,
    PutTrustPolicy,
    RecordKeyUse,
)
from mesh.errors import BadRequest, Conflict, Forbidden, LimitExceeded, MeshlogError, NotFound, Poison
from mesh.events import NARROWING_TYPES, RESTRICTING_TYPES, Event, NewEvent
from mesh.evolve import evolve
from mesh.iam.evaluate import Circumstances, Question, Requester, evaluate
from mesh.iam.managed import PREFIX
from mesh.limits import (
    INLINE_POLICIES_MAX_CHARS,
    POLICIES_PER_ACCOUNT,
    POLICIES_PER_PRINCIPAL,
    POLICY_TEXT_MAX_BYTES,
    PRINCIPALS_PER_ACCOUNT,
)
from mesh.position import Position
from mesh.principals import ManagedPolicy, Principal
from mesh.state import State, computed_fingerprint
from tests.mesh.worlds import ACCOUNT, OTHER_ACCOUNT, World, placed

ANN, BOB = f"arn:aws:iam::{ACCOUNT}:user/ann", f"arn:aws:iam::{ACCOUNT}:user/bob"
OPS, OWN = f"arn:aws:iam::{ACCOUNT}:role/ops", f"arn:aws:iam::{ACCOUNT}:policy/own"
THEIRS = f"arn:aws:iam::{OTHER_ACCOUNT}:user/ann"
READ_ONLY = PREFIX + "AWSAppMeshReadOnly"
TRUST = '{"Statement": {"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}}'


def allowing(*actions: str, effect: str = "Allow") -> str:
    statements = [{"Effect": effect, "Action": action, "Resource": "*"} for action in actions]
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def access() -> World:
    """Ann with a key and an inline policy, the role ops, a policy of the account's own, and a stranger's key."""
    world = World()
    world.do(CreateAccessKey("ROOT", "s", ACCOUNT, f"arn:aws:iam::{ACCOUNT}:user/admin", admin=True))
    world.do(CreateAccessKey("ANN1", "s", ACCOUNT, ANN, admin=False))
    world.do(CreatePrincipal(OPS, TRUST))
    world.do(PutInlinePolicy(ANN, "p", allowing("a:One", "a:Two")))
    world.do(PutPolicy(OWN, allowing("b:One", "b:Two")))
    world.do(AttachPolicy(ANN, OWN))
    world.do(CreateAccessKey("EVE1", "s", OTHER_ACCOUNT, THEIRS, admin=True))
    return world


def refusal(world: World, command: Command, error: type[MeshlogError]) -> str:
    with pytest.raises(error) as caught:
        world.do(command)
    assert type(caught.value) is error
    return caught.value.message


REFUSED = [
    (CreatePrincipal(ANN), Conflict, "User with name ann already exists."),
    (CreatePrincipal(OPS, TRUST), Conflict, "Role with name ops already exists."),
    (CreatePrincipal(THEIRS), NotFound, "cannot be found in account"),
    (CreatePrincipal("arn:aws:iam::1:user/x"), BadRequest, "is not arn:aws:iam::123456789012:user/<name> or"),
    (CreatePrincipal(ANN + "/deep"), BadRequest, "is not arn"),
    (CreatePrincipal(f"arn:aws:iam::{ACCOUNT}:user/" + "x" * 65), BadRequest, "more than 64 characters"),
    (CreatePrincipal(BOB, TRUST), BadRequest, "a user has none"),
    (CreatePrincipal(OPS + "2"), BadRequest, "a role needs a trust policy"),
    (CreatePrincipal(OPS + "2", allowing("a:B")), BadRequest, "MalformedPolicyDocument"),
    (DeletePrincipal(BOB), NotFound, "The user with name bob cannot be found"),
    (DeletePrincipal(ANN), Conflict, "must delete access keys first: ANN1"),
    (PutTrustPolicy(ANN, TRUST), BadRequest, "is a user"),
    (PutTrustPolicy(OPS, "{"), BadRequest, "MalformedPolicyDocument"),
    (AttachPolicy(BOB, READ_ONLY), NotFound, "The user with name bob cannot be found"),
    (AttachPolicy(ANN, OWN + "2"), NotFound, "does not exist or is not attachable"),
    (AttachPolicy(ANN, PREFIX + "NoSuchPolicy"), BadRequest, "is not arn"),
    (AttachPolicy(THEIRS, READ_ONLY), NotFound, "cannot be found in account"),
    (DetachPolicy(ANN, READ_ONLY), NotFound, "is not attached to"),
    (PutInlinePolicy(ANN, "a b", allowing("a:B")), BadRequest, "name: 'a b' must be"),
    (PutInlinePolicy(ANN, "q", "[]"), BadRequest, "MalformedPolicyDocument"),
    (PutInlinePolicy(ANN, "q", " " * POLICY_TEXT_MAX_BYTES + "{}"), BadRequest, "larger than"),
    (DeleteInlinePolicy(ANN, "q"), NotFound, "The policy with name q cannot be found"),
    (PutPolicy(OWN, "{}", create=False), BadRequest, "MalformedPolicyDocument"),
    (PutPolicy(OWN, allowing("a:B"), create=True), Conflict, "A policy called own already exists"),
    (PutPolicy(READ_ONLY, allowing("a:B")), BadRequest, "is not arn"),
    (PutPolicy(f"arn:aws:iam::{ACCOUNT}:policy/AWSAppMeshReadOnly", allowing("a:B")), Conflict, "one of AWS's own"),
    (DeletePolicy(OWN), Conflict, f"detach it from {ANN} first"),
    (DeletePolicy(OWN + "2"), NotFound, "was not found"),
    (EnableAccessKey("NONE", ACCOUNT), NotFound, "has no access key NONE"),
    (DeleteAccessKey("EVE1", ACCOUNT), NotFound, "has no access key EVE1"),
    (DeleteAccessKey("ROOT", ACCOUNT), Conflict, "ROOT is the last admin key"),
    (DeleteAccessKey("ROOT", ACCOUNT, by_admin=False), Forbidden, "ROOT is an admin key"),
    (DisableAccessKey("ANN1", ACCOUNT, BOB), NotFound, f"{BOB} has no access key ANN1"),
    (CreateAccessKey("NEW", "s", ACCOUNT, BOB, admin=True, by_admin=False), Forbidden, "only be made with an admin"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "error", "said"), REFUSED)
def test_what_may_not_be_is_refused_in_words(command: Command, error: type[MeshlogError], said: str) -> None:
    assert said in refusal(access(), command, error)


NOTHING_TO_DO = [
    AttachPolicy(ANN, OWN),
    PutInlinePolicy(ANN, "p", allowing("a:One", "a:Two")),
    PutPolicy(OWN, allowing("b:One", "b:Two")),
    PutTrustPolicy(OPS, TRUST),
    EnableAccessKey("ANN1", ACCOUNT),
    RecordKeyUse(3_600_000_000, ("NONE", "EVE1")),
]


@pytest.mark.parametrize("command", NOTHING_TO_DO)
def test_what_is_so_already_is_no_event(command: Command) -> None:
    assert access().do(command).events == ()


def test_an_account_has_bounds() -> None:
    world = access()
    state = world.state
    for number in range(POLICIES_PER_PRINCIPAL):
        arn = f"{OWN}{number}"
        state = state.with_entry("policies", arn, ManagedPolicy(arn, ACCOUNT, allowing("a:B"), 1, 0, 0))
        if number < POLICIES_PER_PRINCIPAL - 1:
            world.states.append(state)
            world.do(AttachPolicy(ANN, arn))
            state = world.state
    world.states.append(state)
    assert "PoliciesPerUser" in refusal(world, AttachPolicy(ANN, f"{OWN}{POLICIES_PER_PRINCIPAL - 1}"), LimitExceeded)
    large = allowing(*(f"a:{'x' * 100}{number}" for number in range(45)))
    world.do(PutInlinePolicy(ANN, "large", large))
    assert str(INLINE_POLICIES_MAX_CHARS) in refusal(world, PutInlinePolicy(ANN, "more", large), LimitExceeded)
    world.do(PutInlinePolicy(ANN, "large", large + " "))

    users = {f"arn:{number}": Principal(f"arn:{number}", ACCOUNT, 0) for number in range(PRINCIPALS_PER_ACCOUNT)}
    world.states.append(state.but(principals=state.principals.update(users)))
    refusal(world, CreatePrincipal(BOB), LimitExceeded)
    own = {
        f"arn:{number}": ManagedPolicy(f"arn:{number}", ACCOUNT, "", 1, 0, 0) for number in range(POLICIES_PER_ACCOUNT)
    }
    world.states.append(state.but(policies=state.policies.update(own)))
    refusal(world, PutPolicy(OWN + "-new", allowing("a:B")), LimitExceeded)
    world.do(PutPolicy(OWN, allowing("a:B")))


def test_a_user_has_two_keys_at_most_and_comes_with_the_first() -> None:
    world = access()
    assert [event.type for event in world.do(CreateAccessKey("BOB1", "s", ACCOUNT, BOB, admin=False)).events] == [
        "PrincipalCreated", "AccessKeyCreated",
    ]  # fmt: skip
    assert len(world.do(CreateAccessKey("BOB2", "s", ACCOUNT, BOB, admin=False)).events) == 1
    world.do(DisableAccessKey("BOB1", ACCOUNT))
    said = refusal(world, CreateAccessKey("BOB3", "s", ACCOUNT, BOB, admin=False), LimitExceeded)
    assert "AccessKeysPerUser: 2" in said
    assert "BOB1, BOB2" in said, "a disabled one counts until it is deleted, as in IAM"
    world.do(DeleteAccessKey("BOB1", ACCOUNT))
    world.do(CreateAccessKey("BOB3", "s", ACCOUNT, BOB, admin=False))
    assert sorted(world.state.access_keys) == ["ANN1", "BOB2", "BOB3", "EVE1", "ROOT"]


def test_a_key_goes_off_and_on_again() -> None:
    world = access()
    world.do(DisableAccessKey("ANN1", ACCOUNT))
    assert world.state.access_keys["ANN1"].disabled_us == world.state.time_us
    world.do(EnableAccessKey("ANN1", ACCOUNT))
    assert world.state.access_keys["ANN1"].disabled_us is None


def test_use_is_on_record_once_an_hour_and_never_goes_back() -> None:
    world, hour = access(), 3_600_000_000
    assert world.do(RecordKeyUse(2 * hour, ("ANN1", "ROOT", "ANN1"))).events[0].data["keys"] == ["ANN1", "ROOT"]
    assert world.do(RecordKeyUse(2 * hour, ("ANN1",))).events == ()
    assert world.do(RecordKeyUse(hour, ("ANN1",))).events == ()
    assert world.state.access_keys["ANN1"].used_us == 2 * hour


def test_a_user_goes_when_nothing_is_left_of_it() -> None:
    world = access()
    world.do(DeleteAccessKey("ANN1", ACCOUNT))
    assert "detach all policies first" in refusal(world, DeletePrincipal(ANN), Conflict)
    world.do(DetachPolicy(ANN, OWN))
    assert "delete policies first: p" in refusal(world, DeletePrincipal(ANN), Conflict)
    world.do(DeleteInlinePolicy(ANN, "p"))
    world.do(DeletePrincipal(ANN))
    assert ANN not in world.state.principals
    assert world.state.fingerprint == computed_fingerprint(world.state)


def test_a_policy_counts_its_documents() -> None:
    world = access()
    born = world.state.policies[OWN]
    world.do(PutPolicy(OWN, allowing("c:One")))
    now = world.state.policies[OWN]
    assert (born.version, now.version, now.created_us, now.document) == (1, 2, born.created_us, allowing("c:One"))


# --- the fold


def applied(state: State, event_type: str, **data: Any) -> State:
    at = Position(1, state.position.position + 1)
    event: Event = placed(NewEvent(event_type, data), at)
    return evolve(state, event)


@pytest.mark.parametrize(
    ("event_type", "data"),
    [
        ("PrincipalCreated", {"principal": ANN, "account": ACCOUNT, "trust": None}),
        ("PrincipalCreated", {"principal": BOB, "account": ACCOUNT, "trust": "{"}),
        ("PolicyAttached", {"principal": BOB, "policy": OWN}),
        ("PolicyDetached", {"principal": BOB, "policy": OWN}),
        ("InlinePolicyPut", {"principal": BOB, "name": "p", "document": allowing("a:B")}),
        ("InlinePolicyPut", {"principal": ANN, "name": "p", "document": "no document"}),
        ("InlinePolicyPut", {"principal": ANN, "name": 7, "document": allowing("a:B")}),
        ("TrustPolicyPut", {"principal": BOB, "document": TRUST}),
        ("PolicyPut", {"policy": OWN, "account": ACCOUNT, "document": '{"Statement": [{}]}'}),
    ],
)
def test_what_does_not_fit_stops_the_fold(event_type: str, data: dict[str, Any]) -> None:
    with pytest.raises(Poison):
        applied(access().state, event_type, **data)


WHO = Requester(ACCOUNT, ANN, ANN)
NOW = Circumstances("203.0.113.9", 0, secure=True)


def may(state: State, *actions: str) -> list[str]:
    """Which of these ann may do."""
    return [action for action in actions if evaluate(state, WHO, Question(action), NOW).allowed]


ALL = ("a:One", "a:Two", "b:One", "b:Two", "c:One")


def test_a_restore_takes_away_again_and_gives_nothing() -> None:
    """What happened after the moment: a:Two was taken from the inline policy and c:One given, b:* was detached."""
    then = access().state
    assert may(then, *ALL) == ["a:One", "a:Two", "b:One", "b:Two"]
    state = applied(then, "InlinePolicyPut", principal=ANN, name="p", document=allowing("a:One", "c:One"), within=True)
    assert may(state, *ALL) == ["a:One", "b:One", "b:Two"]
    state = applied(state, "PolicyPut", policy=OWN, account=ACCOUNT, document=allowing("b:Two", "c:One"), within=True)
    assert may(state, *ALL) == ["a:One", "b:Two"]
    state = applied(state, "PolicyDetached", principal=ANN, policy=OWN, within=True)
    assert may(state, *ALL) == ["a:One"]
    state = applied(state, "PolicyAttached", principal=ANN, policy=PREFIX + "AdministratorAccess", within=True)
    assert may(state, *ALL) == ["a:One"]
    state = applied(state, "InlinePolicyDeleted", principal=ANN, name="p", within=True)
    assert may(state, *ALL) == []
    assert state.fingerprint == computed_fingerprint(state)


def test_a_restore_keeps_what_was_denied_since_and_before() -> None:
    then = access().state
    denied = allowing("b:One", effect="Deny")
    state = applied(then, "InlinePolicyPut", principal=ANN, name="guard", document=denied, within=True)
    assert may(state, *ALL) == ["a:One", "a:Two", "b:Two"]
    state = applied(state, "InlinePolicyDeleted", principal=ANN, name="guard", within=True)
    assert may(state, *ALL) == ["a:One", "a:Two", "b:Two"], "to delete a Deny would be to give"
    guard = f"{OWN}-guard"
    state = applied(
        state, "PolicyPut", policy=guard, account=ACCOUNT, document=allowing("a:One", effect="Deny"), within=True
    )
    state = applied(state, "PolicyAttached", principal=ANN, policy=guard, within=True)
    assert may(state, *ALL) == ["a:Two", "b:Two"]
    state = applied(state, "PolicyDetached", principal=ANN, policy=guard, within=True)
    assert may(state, *ALL) == ["a:Two", "b:Two"]


def test_a_restore_bears_that_nothing_is_there() -> None:
    for event_type in sorted(NARROWING_TYPES):
        data = {"principal": BOB, "policy": OWN, "name": "p", "document": allowing("a:B"), "account": ACCOUNT}
        assert applied(State(), event_type, **data, within=True).but(position=State().position, time_us=0) == State()
    trusted = applied(access().state, "TrustPolicyPut", principal=OPS, document=allowing("a:B"), within=True)
    assert json.loads(trusted.principals[OPS].trust or "")["Statement"] == []


def test_a_deleted_policy_is_attached_to_nobody_afterwards() -> None:
    state = applied(access().state, "PolicyDeleted", policy=OWN)
    assert state.principals[ANN].policies == ()
    assert OWN not in state.policies
    assert {"PolicyDeleted", "PrincipalDeleted", "AccessKeyDeleted", "AccessKeyDisabled"} < RESTRICTING_TYPES


statements = st.fixed_dictionaries(
    {
        "Effect": st.sampled_from(["Allow", "Allow", "Deny"]),
        "Action": st.sampled_from(["a:One", "a:Two", "a:*", "*"]),
        "Resource": st.sampled_from(["*", "arn:aws:x:::one"]),
    }
)
documents = st.one_of(st.none(), st.lists(statements, min_size=1, max_size=4))


def with_inline(found: list[dict[str, str]] | None) -> State:
    state = State().with_entry("principals", ANN, Principal(ANN, ACCOUNT, 0))
    if found is None:
        return state
    return applied(state, "InlinePolicyPut", principal=ANN, name="p", document=json.dumps({"Statement": found}))


@given(documents, documents, st.sampled_from(["a:One", "a:Two", "b:Three"]), st.sampled_from(["*", "arn:aws:x:::one"]))
def test_what_a_restore_leaves_was_allowed_then_and_is_allowed_since(
    then: list[dict[str, str]] | None, since: list[dict[str, str]] | None, action: str, resource: str
) -> None:
    before = with_inline(then)
    if since is None:
        after = applied(before, "InlinePolicyDeleted", principal=ANN, name="p", within=True)
    else:
        document = json.dumps({"Statement": since})
        after = applied(before, "InlinePolicyPut", principal=ANN, name="p", document=document, within=True)
    question = Question(action, resource)
    if evaluate(after, WHO, question, NOW).allowed:
        assert evaluate(before, WHO, question, NOW).allowed
        assert evaluate(with_inline(since), WHO, question, NOW).allowed


@given(documents, statements, st.sampled_from(["a:One", "b:Three"]))
def test_a_deny_more_allows_nothing_more(found: list[dict[str, str]] | None, more: dict[str, str], action: str) -> None:
    question = Question(action)
    denied = with_inline([*(found or []), {**more, "Effect": "Deny"}])
    assert not evaluate(denied, WHO, question, NOW).allowed or evaluate(with_inline(found), WHO, question, NOW).allowed
    assert not evaluate(with_inline(found), replace(WHO, identity=BOB), question, NOW).allowed, "by default"
