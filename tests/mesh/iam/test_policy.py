"""Policy documents: what is one, what is wrong with the others, and what is left of two of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mesh.errors import BadRequest
from mesh.iam.managed import MANAGED, PREFIX
from mesh.iam.policy import check_policy, narrowed, read_policy
from mesh.limits import POLICY_MAX_CHARS, TRUST_POLICY_MAX_CHARS
from mesh.model.operations import OPERATIONS


def statement(**members: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": "appmesh:DescribeMesh", "Resource": "*"} | members


def document(*statements: Any, **members: Any) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)} | members)


def without(name: str, **members: Any) -> dict[str, Any]:
    return {key: value for key, value in statement(**members).items() if key != name}


WRONG = [
    ("{", "not JSON"),
    ("[]", "must be a JSON object"),
    ('{"Statement": [], "Statement": []}', "'Statement' is there twice"),
    (document(), "Statement: at least one is required"),
    (document(statement(), Version="2020-01-01"), "Version: '2020-01-01' must be 2012-10-17 or 2008-10-17"),
    (document(statement(), Extra=1), "'Extra': is no element of a policy"),
    (document("x"), r"Statement\[0\]: must be an object"),
    (document(statement(Effect="Maybe")), r"Statement\[0\].Effect: must be Allow or Deny"),
    (document(without("Action")), "Policy statement must contain actions"),
    (document(statement(NotAction="x:Y")), "Policy statement must contain actions"),
    (document(without("Resource")), "Policy statement must contain resources"),
    (document(statement(Action="DescribeMesh")), "must be prefaced by a vendor"),
    (document(statement(Action="app*:DescribeMesh")), "must be prefaced by a vendor"),
    (document(statement(Action=[])), r"Statement\[0\].Action: must be a string or a list of strings, and not empty"),
    (document(statement(Resource="mesh/shop")), "must be in ARN format or '\\*'"),
    (document(statement(Sid="a b")), "Sid: 'a b' must be letters and digits"),
    (document(statement(Sid="a"), statement(Sid="a")), "must be unique"),
    (document(statement(Principal="*")), "Has prohibited field 'Principal'"),
    (document(statement(Condition={"StringIs": {"aws:SourceIp": "x"}})), "is no condition operator"),
    (document(statement(Condition={"NullIfExists": {"aws:SourceIp": "true"}})), "is no condition operator"),
    (document(statement(Condition={"StringEquals": "x"})), "must be an object of condition keys"),
    (document(statement(Condition={"StringEquals": {"SourceIp": "x"}})), "must be prefaced by a vendor"),
    (document(statement(Condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/40"}})), "no IP address or range"),
    (document(statement(Condition={"Bool": {"aws:SecureTransport": "yes"}})), "neither true nor false"),
    (document(statement(Condition={"DateLessThan": {"aws:CurrentTime": "2026-13-01"}})), "is no date"),
    (document(statement(Condition={"NumericLessThan": {"aws:EpochTime": "many"}})), "is no number"),
    (document(statement(Condition={"StringEquals": {"aws:SourceIp": {}}})), "must be a string, a number"),
    (document(statement(Condition={"StringEquals": {"aws:SourceIp": []}})), "must have a value"),
]


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_what_is_wrong_with_a_document_is_said(text: str, said: str) -> None:
    with pytest.raises(BadRequest, match="MalformedPolicyDocument: .*" + said):
        check_policy(text, POLICY_MAX_CHARS)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(BadRequest) as caught:
        check_policy(document(statement(Effect="x", Action="y"), statement(Resource="z")), POLICY_MAX_CHARS)
    assert [part.split(":")[0] for part in caught.value.message.split(": ", 1)[1].split("; ")] == [
        "Statement[0].Effect", "Statement[0].Action", "Statement[1].Resource",
    ]  # fmt: skip


TRUSTS = [
    ({"Principal": {"AWS": "arn:aws:iam::123456789012:user/ann"}}, None),
    ({"Principal": {"AWS": ["123456789012", "arn:aws:iam::123456789012:root"]}}, None),
    ({"Principal": {"Service": "ecs-tasks.amazonaws.com"}}, None),
    ({"Principal": "*", "Condition": {"StringEquals": {"sts:ExternalId": "7"}}}, None),
    ({}, "one of Principal and NotPrincipal is required"),
    ({"Principal": {"AWS": "ann"}}, 'Invalid principal in policy: "AWS":"ann"'),
    ({"Principal": {"AWS": "arn:aws:iam::123456789012:user/*"}}, "Invalid principal in policy"),
    ({"Principal": {"Friend": "ann"}}, "'Friend' is none of AWS"),
    ({"Principal": 7}, "must be"),
    ({"NotPrincipal": {"AWS": "123456789012"}}, "Allow with NotPrincipal is not allowed"),
    ({"Principal": "*", "Resource": "*"}, "Has prohibited field 'Resource'"),
]


@pytest.mark.parametrize(("members", "said"), TRUSTS)
def test_a_trust_policy_names_principals_and_no_resource(members: dict[str, Any], said: str | None) -> None:
    text = document({"Effect": "Allow", "Action": "sts:AssumeRole"} | members)
    if said is None:
        check_policy(text, TRUST_POLICY_MAX_CHARS, trust=True)
    else:
        with pytest.raises(BadRequest, match=said):
            check_policy(text, TRUST_POLICY_MAX_CHARS, trust=True)


def test_white_space_does_not_count_towards_the_size() -> None:
    text = document(statement())
    check_policy(text.replace("{", "{" + " " * POLICY_MAX_CHARS), POLICY_MAX_CHARS)
    with pytest.raises(BadRequest, match="at most 10 are allowed"):
        check_policy(text, 10)


def test_nesting_without_end_is_refused() -> None:
    with pytest.raises(BadRequest):
        check_policy('{"Statement":' + "[" * 200_000, 10**6)


def test_one_statement_needs_no_list_and_one_value_neither() -> None:
    (plain,) = read_policy(document(Statement=statement())).statements
    (listed,) = read_policy(document(statement(Action=["appmesh:DescribeMesh"], Resource=["*"]))).statements
    assert plain == listed


def actions_of(name: str) -> set[str]:
    (only,) = json.loads(MANAGED[PREFIX + name].document)["Statement"]
    return set(only["Action"])


def test_the_managed_policies_are_policies_of_actions_that_there_are() -> None:
    for policy in MANAGED.values():
        assert policy.arn == PREFIX + policy.arn.rpartition("/")[2]
        check_policy(policy.document, POLICY_MAX_CHARS)
    assert actions_of("AWSAppMeshFullAccess") == {f"appmesh:{name}" for name in OPERATIONS}
    reads = {f"appmesh:{name}" for name in OPERATIONS if name.startswith(("Describe", "List"))}
    assert actions_of("AWSAppMeshReadOnly") == reads
    assert actions_of("AWSAppMeshEnvoyAccess") == {"appmesh:StreamAggregatedResources"}


# --- what a restore makes of two documents: never more than either allows

ONE, TWO = statement(Action="a:One"), statement(Action="a:Two")
DENY = statement(Effect="Deny", Action="a:Three")


@pytest.mark.parametrize(
    ("before", "after", "left"),
    [
        (document(ONE, TWO), document(ONE), [ONE]),
        (document(ONE), document(ONE, TWO), [ONE]),
        (document(ONE), document(TWO), None),
        (document(ONE), document(ONE, DENY), [ONE, DENY]),
        (document(ONE, DENY), document(ONE), [ONE, DENY]),
        (document(ONE, DENY), None, [DENY]),
        (None, document(ONE, DENY), [DENY]),
        (document(ONE), None, None),
        (None, document(ONE), None),
        (document(statement(Action="a:One", Sid="x")), document(ONE), [statement(Action="a:One", Sid="x")]),
    ],
)
def test_two_documents_leave_what_both_allow_less_what_either_denies(
    before: str | None, after: str | None, left: list[Any] | None
) -> None:
    found = narrowed(before, after)
    assert (json.loads(found)["Statement"] if found is not None else None) == left
    assert narrowed(found, after) == found, "again changes nothing"
