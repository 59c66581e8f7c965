"""Who may do what: explicit deny, default deny, sessions, roots, and who may become whom."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from mesh.errors import Forbidden
from mesh.iam.assume import may_assume
from mesh.iam.evaluate import Circumstances, Decision, Question, Requester, Verdict, evaluate, ever_allowed, refusal
from mesh.iam.managed import PREFIX
from mesh.principals import ManagedPolicy, Principal
from mesh.state import State

ACCOUNT, OTHER = "123456789012", "999999999999"
ANN, ROLE = f"arn:aws:iam::{ACCOUNT}:user/ann", f"arn:aws:iam::{ACCOUNT}:role/ops"
OWN = f"arn:aws:iam::{ACCOUNT}:policy/own"
MESH = f"arn:aws:appmesh:eu-north-1:{ACCOUNT}:mesh/shop"
NOW = Circumstances(source_ip="203.0.113.9", time_us=1_700_000_000_000_000, secure=True, region="eu-north-1")
WHO = Requester(ACCOUNT, ANN, ANN)


def allow(action: str = "*", resource: str = "*", **members: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource} | members


def deny(action: str = "*", resource: str = "*", **members: Any) -> dict[str, Any]:
    return allow(action, resource, **members) | {"Effect": "Deny"}


def document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def state(*statements: dict[str, Any], attached: tuple[str, ...] = (), own: str | None = None) -> State:
    inline = (("inline", document(*statements)),) if statements else ()
    found = State().with_entry("principals", ANN, Principal(ANN, ACCOUNT, 0, attached, inline))
    if own is None:
        return found
    return found.with_entry("policies", OWN, ManagedPolicy(OWN, ACCOUNT, own, 1, 0, 0))


def verdict(known: State, action: str = "appmesh:DescribeMesh", resource: str = MESH, **members: Any) -> Verdict:
    return evaluate(known, WHO, Question(action, resource, **members), NOW).verdict


ALLOWED, DENIED, NOT_ALLOWED = Verdict.ALLOWED, Verdict.DENIED, Verdict.NOT_ALLOWED


@pytest.mark.parametrize(
    ("statements", "wanted"),
    [
        ((), NOT_ALLOWED),
        ((allow(),), ALLOWED),
        ((allow("appmesh:*"),), ALLOWED),
        ((allow("APPMESH:describemesh"),), ALLOWED),
        ((allow("appmesh:Describe????"),), ALLOWED),
        ((allow("appmesh:List*"),), NOT_ALLOWED),
        ((allow(resource=MESH),), ALLOWED),
        ((allow(resource=MESH + "/*"),), NOT_ALLOWED),
        ((allow(resource=f"arn:aws:appmesh:*:{ACCOUNT}:mesh/*"),), ALLOWED),
        ((allow(), deny("appmesh:DescribeMesh")), DENIED),
        ((deny("appmesh:DescribeMesh"), allow()), DENIED),
        ((allow(), deny("appmesh:DeleteMesh")), ALLOWED),
        ((allow(), deny(resource=MESH)), DENIED),
        (({"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"},), ALLOWED),
        (({"Effect": "Allow", "NotAction": ["iam:*", "appmesh:Describe*"], "Resource": "*"},), NOT_ALLOWED),
        (({"Effect": "Allow", "Action": "*", "NotResource": MESH},), NOT_ALLOWED),
        ((allow(), {"Effect": "Deny", "Action": "*", "NotResource": MESH}), ALLOWED),
        ((allow(), {"Effect": "Deny", "NotAction": "appmesh:Describe*", "Resource": "*"}), ALLOWED),
        ((allow(Condition={"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}),), ALLOWED),
        ((allow(Condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}),), NOT_ALLOWED),
        ((allow(), deny(Condition={"Bool": {"aws:SecureTransport": "false"}})), ALLOWED),
        ((allow(Condition={"StringEquals": {"aws:PrincipalAccount": ACCOUNT, "aws:username": "bob"}}),), NOT_ALLOWED),
        ((allow(Condition={"DateLessThan": {"aws:CurrentTime": "2024-01-01T00:00:00Z"}}),), ALLOWED),
        ((allow(Condition={"StringEquals": {"aws:RequestedRegion": "eu-north-1"}}),), ALLOWED),
    ],
)
def test_statements_together(statements: tuple[dict[str, Any], ...], wanted: Verdict) -> None:
    assert verdict(state(*statements)) is wanted


def test_tags_of_the_resource_and_of_the_request() -> None:
    known = state(allow(Condition={"StringEquals": {"aws:ResourceTag/Team": "a"}}))
    assert verdict(known, resource_tags={"team": "a"}) is ALLOWED
    assert verdict(known, resource_tags={"team": "b"}) is verdict(known) is NOT_ALLOWED
    known = state(
        allow(Condition={
            "StringEquals": {"aws:RequestTag/team": "a"}, "ForAllValues:StringEquals": {"aws:TagKeys": ["team"]},
        })
    )  # fmt: skip
    assert verdict(known, request_tags={"team": "a"}) is ALLOWED
    assert verdict(known, request_tags={"team": "a", "more": "b"}) is NOT_ALLOWED
    assert verdict(known) is NOT_ALLOWED
    assert (
        verdict(state(allow(), deny(Condition={"ForAnyValue:StringEquals": {"aws:TagKeys": "x"}})), tag_keys=["x"])
        is DENIED
    )


def test_what_has_no_resource_is_allowed_on_all_alone() -> None:
    assert verdict(state(allow("appmesh:ListMeshes")), "appmesh:ListMeshes", "*") is ALLOWED
    assert verdict(state(allow("appmesh:ListMeshes", MESH)), "appmesh:ListMeshes", "*") is NOT_ALLOWED


def test_a_resource_may_hold_who_asks() -> None:
    known = state(allow("iam:CreateAccessKey", f"arn:aws:iam::{ACCOUNT}:user/${{aws:username}}"))
    assert verdict(known, "iam:CreateAccessKey", ANN) is ALLOWED
    assert verdict(known, "iam:CreateAccessKey", f"arn:aws:iam::{ACCOUNT}:user/bob") is NOT_ALLOWED


def test_attached_policies_count_as_inline_ones_do_and_absent_ones_do_not() -> None:
    read_only = state(attached=(PREFIX + "AWSAppMeshReadOnly",))
    assert verdict(read_only) is ALLOWED
    assert verdict(read_only, "appmesh:DeleteMesh") is NOT_ALLOWED
    assert verdict(state(attached=(OWN,), own=document(allow()))) is ALLOWED
    assert verdict(state(attached=(OWN,))) is NOT_ALLOWED
    assert verdict(state(deny(), attached=(OWN,), own=document(allow()))) is DENIED
    assert verdict(state(attached=(PREFIX + "AdministratorAccess",)), "iam:CreateUser", ANN) is ALLOWED
    assert verdict(state(attached=(PREFIX + "MeshlogOperator",)), "iam:CreateUser", ANN) is NOT_ALLOWED


def test_who_is_not_there_may_do_nothing() -> None:
    gone = Requester(ACCOUNT, ANN, ANN)
    assert evaluate(State(), gone, Question("appmesh:DescribeMesh", MESH), NOW) == Decision(NOT_ALLOWED)


def test_an_admin_key_is_root_and_a_session_policy_limits_even_that() -> None:
    root, question = Requester(ACCOUNT, ANN, ANN, admin=True), Question("appmesh:DeleteMesh", MESH)
    assert evaluate(State(), root, question, NOW).allowed
    limited = replace(root, session_policy=document(allow("appmesh:Describe*")))
    decision = evaluate(State(), limited, question, NOW)
    assert (decision.verdict, decision.by_session) == (NOT_ALLOWED, True)
    assert evaluate(State(), limited, Question("appmesh:DescribeMesh", MESH), NOW).allowed
    denied = evaluate(State(), replace(root, session_policy=document(allow(), deny(resource=MESH))), question, NOW)
    assert (denied.verdict, denied.by_session) == (DENIED, True)


def test_a_session_policy_gives_nothing() -> None:
    session = replace(WHO, session_policy=document(allow()))
    decision = evaluate(state(allow("appmesh:List*")), session, Question("appmesh:DeleteMesh", MESH), NOW)
    assert (decision.verdict, decision.by_session) == (NOT_ALLOWED, False)


def test_a_decision_names_what_made_it() -> None:
    known = state(allow("appmesh:*", Sid="All"), deny("appmesh:Delete*"))
    assert evaluate(known, WHO, Question("appmesh:DescribeMesh", MESH), NOW) == Decision(ALLOWED, "inline", "All")
    assert evaluate(known, WHO, Question("appmesh:DeleteMesh", MESH), NOW) == Decision(DENIED, "inline", "Statement[1]")


def test_a_refusal_is_in_iams_words() -> None:
    question = Question("appmesh:DeleteMesh", MESH)
    said = f"User: {ANN} is not authorized to perform: appmesh:DeleteMesh on resource: {MESH}"
    for decision, wanted in (
        (Decision(NOT_ALLOWED), f"{said} because no identity-based policy allows the appmesh:DeleteMesh action"),
        (Decision(DENIED), f"{said} with an explicit deny in an identity-based policy"),
        (
            Decision(NOT_ALLOWED, by_session=True),
            f"{said} because no session policy allows the appmesh:DeleteMesh action",
        ),
        (Decision(DENIED, by_session=True), f"{said} with an explicit deny in a session policy"),
    ):
        assert refusal(WHO, question, decision) == wanted


def test_what_is_never_allowed_can_be_told_before_the_resource_is_known() -> None:
    assert ever_allowed(state(allow("appmesh:*", MESH)), WHO, "appmesh:DeleteMesh")
    assert not ever_allowed(state(allow("appmesh:*", MESH)), WHO, "iam:CreateUser")
    assert not ever_allowed(state(deny()), WHO, "appmesh:DeleteMesh")
    assert ever_allowed(State(), replace(WHO, admin=True), "appmesh:DeleteMesh")


# --- who may become a role


def with_role(known: State, *statements: dict[str, Any]) -> State:
    return known.with_entry("principals", ROLE, Principal(ROLE, ACCOUNT, 0, trust=document(*statements)))


def trust(principal: Any, **members: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"} | members


def assumes(known: State, who: Requester = WHO, **members: Any) -> bool:
    try:
        may_assume(known, who, ROLE, NOW, **{"session_name": "deploy", **members})
    except Forbidden as error:
        said = error.message
    else:
        return True
    assert said == f"User: {who.principal} is not authorized to perform: sts:AssumeRole on resource: {ROLE}"
    return False


ROOT_ARN = f"arn:aws:iam::{ACCOUNT}:root"
STRANGER = Requester(OTHER, f"arn:aws:iam::{OTHER}:user/eve", f"arn:aws:iam::{OTHER}:user/eve")


def test_in_the_roles_account_it_is_enough_to_be_named() -> None:
    assert assumes(with_role(state(), trust({"AWS": ANN})))
    assert not assumes(with_role(state(), trust({"AWS": f"arn:aws:iam::{ACCOUNT}:user/bob"})))
    assert not assumes(with_role(state(deny("sts:*")), trust({"AWS": ANN})))


@pytest.mark.parametrize("principal", [{"AWS": ROOT_ARN}, {"AWS": ACCOUNT}, {"AWS": "*"}, "*"])
def test_who_is_one_of_the_account_needs_a_policy_of_its_own_too(principal: Any) -> None:
    assert not assumes(with_role(state(), trust(principal)))
    assert assumes(with_role(state(allow("sts:AssumeRole", ROLE)), trust(principal)))
    assert assumes(with_role(state(), trust(principal)), replace(WHO, admin=True))


def test_across_accounts_both_sides_must_say_so() -> None:
    eve = Principal(STRANGER.identity, OTHER, 0, inline=(("p", document(allow("sts:AssumeRole", ROLE))),))
    for entry, principal, wanted in (
        (None, {"AWS": STRANGER.identity}, False),
        (eve, {"AWS": STRANGER.identity}, True),
        (eve, {"AWS": OTHER}, True),
        (eve, {"AWS": ROOT_ARN}, False),
    ):
        known = with_role(State(), trust(principal))
        known = known.with_entry("principals", STRANGER.identity, entry) if entry else known
        assert assumes(known, STRANGER) is wanted


def test_a_trust_policy_may_set_conditions_and_deny() -> None:
    secret = {"StringEquals": {"sts:ExternalId": "7"}}
    known = with_role(state(), trust({"AWS": ANN}, Condition=secret))
    assert [assumes(known), assumes(known, external_id="8"), assumes(known, external_id="7")] == [False, False, True]
    named = {"StringLike": {"sts:RoleSessionName": "${aws:username}-*"}}
    known = with_role(state(), trust({"AWS": ANN}, Condition=named))
    assert [assumes(known), assumes(known, session_name="ann-1")] == [False, True]
    assert not assumes(with_role(state(), trust("*"), trust({"AWS": ANN}, Effect="Deny")), replace(WHO, admin=True))
    others = {"Effect": "Deny", "NotPrincipal": {"AWS": ANN}, "Action": "*"}
    assert assumes(with_role(state(), trust({"AWS": ANN}), others))
    assert not assumes(with_role(state(), trust("*"), others), Requester(ACCOUNT, ROLE, ROLE, admin=True))


def test_a_role_that_is_not_there_is_refused_in_the_same_words() -> None:
    assert not assumes(state(allow()))
    assert not assumes(state(allow()).with_entry("principals", ROLE, Principal(ROLE, ACCOUNT, 0)))


def test_a_session_may_be_kept_from_assuming_more() -> None:
    session = replace(WHO, session_policy=document(allow("appmesh:*")))
    assert not assumes(with_role(state(), trust({"AWS": ANN})), session)


def test_a_role_is_no_user() -> None:
    known = with_role(state(), trust({"AWS": ANN})).with_entry(
        "principals",
        ROLE,
        Principal(ROLE, ACCOUNT, 0, inline=(("p", document(allow(Condition={"Null": {"aws:username": "true"}}))),)),
    )
    session = Requester(ACCOUNT, f"arn:aws:sts::{ACCOUNT}:assumed-role/ops/s", ROLE, session_name="s")
    assert evaluate(known, session, Question("appmesh:DescribeMesh", MESH), NOW).allowed
