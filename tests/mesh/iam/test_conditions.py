"""Condition operators, wildcards and variables, by the tables of the IAM User Guide."""

from __future__ import annotations

import time
from fnmatch import translate
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from mesh.iam.conditions import Facts, met, parse_condition
from mesh.iam.patterns import Template, arn_like, like

ONE: Facts = {
    "aws:sourceip": ["203.0.113.9"],
    "aws:username": ["ann"],
    "aws:principalarn": ["arn:aws:iam::123456789012:user/ann"],
    "aws:epochtime": ["1700000000"],
    "aws:currenttime": ["2023-11-14T22:13:20Z"],
    "aws:securetransport": ["false"],
    "aws:tagkeys": ["team", "stage"],
    "aws:resourcetag/team": ["a"],
    "aws:none": [],
}

TABLE: list[tuple[str, str, Any, bool]] = [
    ("StringEquals", "aws:username", "ann", True),
    ("stringequals", "AWS:UserName", "ann", True),
    ("StringEquals", "aws:username", "Ann", False),
    ("StringEquals", "aws:username", "a*", False),
    ("StringEquals", "aws:username", ["bob", "ann"], True),
    ("StringNotEquals", "aws:username", ["bob", "ann"], False),
    ("StringNotEquals", "aws:username", ["bob", "eve"], True),
    ("StringEqualsIgnoreCase", "aws:username", "ANN", True),
    ("StringNotEqualsIgnoreCase", "aws:username", "ANN", False),
    ("StringLike", "aws:username", "a?n", True),
    ("StringLike", "aws:username", "a*z", False),
    ("StringNotLike", "aws:username", "a*", False),
    ("StringEquals", "aws:ResourceTag/Team", "a", True),
    ("ArnLike", "aws:PrincipalArn", "arn:aws:iam::123456789012:user/*", True),
    ("ArnEquals", "aws:PrincipalArn", "arn:aws:iam::*:user/ann", True),
    ("ArnNotLike", "aws:PrincipalArn", "arn:aws:iam::*:role/*", True),
    ("ArnNotEquals", "aws:PrincipalArn", "arn:aws:iam::*:user/*", False),
    ("IpAddress", "aws:SourceIp", "203.0.113.0/24", True),
    ("IpAddress", "aws:SourceIp", ["10.0.0.0/8", "203.0.113.9"], True),
    ("NotIpAddress", "aws:SourceIp", "203.0.113.0/24", False),
    ("NotIpAddress", "aws:SourceIp", "2001:db8::/32", True),
    ("Bool", "aws:SecureTransport", "false", True),
    ("Bool", "aws:SecureTransport", False, True),
    ("Bool", "aws:SecureTransport", "true", False),
    ("NumericEquals", "aws:EpochTime", 1700000000, True),
    ("NumericNotEquals", "aws:EpochTime", "1700000000", False),
    ("NumericLessThan", "aws:EpochTime", "1700000000", False),
    ("NumericLessThanEquals", "aws:EpochTime", "1700000000", True),
    ("NumericGreaterThan", "aws:EpochTime", "1699999999", True),
    ("NumericGreaterThanEquals", "aws:EpochTime", "1700000001", False),
    ("NumericEquals", "aws:username", 1, False),
    ("DateEquals", "aws:CurrentTime", "2023-11-14T22:13:20Z", True),
    ("DateNotEquals", "aws:CurrentTime", "2023-11-14T22:13:20Z", False),
    ("DateLessThan", "aws:CurrentTime", "2023-11-15T00:00:00+02:00", False),
    ("DateLessThan", "aws:CurrentTime", "2023-11-15", True),
    ("DateLessThanEquals", "aws:CurrentTime", "1700000000", True),
    ("DateGreaterThan", "aws:CurrentTime", "2023-01-01T00:00:00Z", True),
    ("DateGreaterThanEquals", "aws:EpochTime", "2023-11-14T22:13:20Z", True),
    ("BinaryEquals", "aws:username", "ann", True),
    # a key that the request does not have
    ("StringEquals", "aws:absent", "x", False),
    ("StringEquals", "aws:none", "x", False),
    ("StringNotEquals", "aws:absent", "x", True),
    ("StringEqualsIfExists", "aws:absent", "x", True),
    ("StringEqualsIfExists", "aws:username", "bob", False),
    ("NotIpAddress", "aws:absent", "10.0.0.0/8", True),
    ("BoolIfExists", "aws:MultiFactorAuthPresent", "false", True),
    ("Null", "aws:absent", "true", True),
    ("Null", "aws:absent", "false", False),
    ("Null", "aws:username", "false", True),
    ("Null", "aws:username", True, False),
    # keys with several values
    ("ForAnyValue:StringEquals", "aws:TagKeys", "team", True),
    ("ForAnyValue:StringEquals", "aws:TagKeys", "other", False),
    ("ForAnyValue:StringNotEquals", "aws:TagKeys", "team", True),
    ("ForAnyValue:StringNotEquals", "aws:TagKeys", ["team", "stage"], False),
    ("ForAnyValue:StringEquals", "aws:absent", "team", False),
    ("ForAnyValue:StringEqualsIfExists", "aws:absent", "team", True),
    ("ForAllValues:StringEquals", "aws:TagKeys", ["team", "stage", "more"], True),
    ("ForAllValues:StringEquals", "aws:TagKeys", ["team"], False),
    ("ForAllValues:StringEquals", "aws:absent", "team", True),
    ("ForAllValues:StringNotEquals", "aws:TagKeys", "team", False),
    ("ForAllValues:StringLike", "aws:TagKeys", "*t*", True),
    # variables
    ("StringEquals", "aws:username", "${aws:username}", True),
    ("StringEquals", "aws:ResourceTag/team", "${aws:username}", False),
    ("StringEquals", "aws:username", "${aws:absent, 'ann'}", True),
    ("StringEquals", "aws:username", "${aws:absent}", False),
    ("StringNotEquals", "aws:username", "${aws:absent}", True),
    ("StringLike", "aws:PrincipalArn", "*/${aws:username}", True),
    ("StringLike", "aws:username", "${*}", False),
]


@pytest.mark.parametrize(("operator", "key", "values", "wanted"), TABLE)
def test_an_operator_on_a_key(operator: str, key: str, values: Any, wanted: bool) -> None:
    assert met(parse_condition(operator, key, values, variables=True), ONE) is wanted


def test_a_value_that_looks_like_a_wildcard_is_none() -> None:
    facts = {"aws:username": ["*"], "aws:principaltag/x": ["anything"]}
    condition = parse_condition("StringLike", "aws:principaltag/x", "${aws:username}", variables=True)
    assert not met(condition, facts)
    assert met(condition, facts | {"aws:principaltag/x": ["*"]})


def test_an_address_of_ipv4_in_ipv6_is_that_address() -> None:
    condition = parse_condition("IpAddress", "aws:SourceIp", "10.0.0.0/8", variables=True)
    assert met(condition, {"aws:sourceip": ["::ffff:10.1.2.3"]})
    assert not met(condition, {"aws:sourceip": ["unix"]})


def test_variables_mean_nothing_in_policies_of_2008() -> None:
    assert not met(parse_condition("StringEquals", "aws:username", "${aws:username}", variables=False), ONE)
    assert Template("${aws:username}", variables=False).resolve(lambda _: "ann") == "${aws:username}"


@pytest.mark.parametrize(
    ("pattern", "arn", "wanted"),
    [
        ("*", "*", True),
        ("*", "arn:aws:appmesh:r:1:mesh/m", True),
        ("arn:aws:appmesh:*:1:mesh/m", "arn:aws:appmesh:r:1:mesh/m", True),
        ("arn:aws:appmesh:*", "arn:aws:appmesh:r:1:mesh/m", True),
        ("arn:aws:*:mesh/m", "arn:aws:appmesh:r:1:mesh/m", False),
        ("arn:aws:appmesh:r:1:mesh/m", "*", False),
        ("arn:aws:appmesh:r:1:mesh/*/virtualNode/?", "arn:aws:appmesh:r:1:mesh/m/virtualNode/n", True),
        ("arn:aws:appmesh:r:1:mesh/*", "arn:aws:appmesh:r:1:mesh/m/virtualNode/n", True),
        ("arn:aws:appmesh:r:1:mesh/m", "arn:aws:appmesh:r:1:mesh/M", False),
        ("arn:aws:appmesh:r:1:mesh/*", "arn:aws:appmesh:r:2:mesh/m", False),
        ("arn:aws:appmesh:r:1:mesh/*", "arn:aws:appmesh:r:1:mesh/m/virtualService/a:b", True),
    ],
)
def test_wildcards_of_an_arn_stay_within_a_segment_but_for_the_last(pattern: str, arn: str, wanted: bool) -> None:
    assert arn_like(pattern, arn) is wanted


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
@example("*a*b*", "abab")
def test_a_pattern_is_what_the_shell_takes_it_for(pattern: str, text: str) -> None:
    import re

    assert like(pattern, text) is (re.fullmatch(translate(pattern), text) is not None)


def test_no_pattern_takes_long() -> None:
    began = time.perf_counter()
    for _ in range(10):
        assert not like("*a" * 200 + "b", "a" * 2000)
        assert not arn_like("arn:aws:x:r:1:" + "*a" * 200 + "b", "arn:aws:x:r:1:" + "a" * 2000)
    assert time.perf_counter() - began < 60
