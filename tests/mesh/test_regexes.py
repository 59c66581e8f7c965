"""Regular expressions: refused where Envoy would refuse them, with a reason, and never taken for another language."""

from __future__ import annotations

import pytest

from mesh.errors import BadRequest
from mesh.limits import REGEX_PROGRAM_MAX
from mesh.regexes import fault
from mesh.rules import check_spec


@pytest.mark.parametrize("regex", ["/v[0-9]+/.*", "(?i)ÜNI", "a" * 255, r"\d{1,3}(\.\d{1,3}){3}", "", "(a+)+$"])
def test_what_re2_reads_is_sound(regex: str) -> None:
    assert fault(regex) == ""


@pytest.mark.parametrize("regex", ["(", "a**", "(?<=a)b", r"(a)\1", "[z-a]", "a{1001}", "(x{1,50}){1,50}", "\\"])
def test_what_re2_does_not_read_is_named(regex: str) -> None:
    assert fault(regex).startswith("is no regular expression to RE2")


def test_a_regex_that_explodes_is_too_large() -> None:
    assert f"at most {REGEX_PROGRAM_MAX}" in fault("(a{1,20}){1,20}[a-z]{1,250}")


@pytest.mark.parametrize(
    ("match", "field"),
    [
        ({"path": {"regex": "("}}, "spec.httpRoute.match.path.regex"),
        (
            {"prefix": "/", "headers": [{"name": "x", "match": {"regex": "("}}]},
            "spec.httpRoute.match.headers[0].match.regex",
        ),
    ],
)
def test_the_api_refuses_a_route_with_a_regex_that_envoy_would_refuse(match: dict[str, object], field: str) -> None:
    action = {"weightedTargets": [{"virtualNode": "a", "weight": 1}]}
    with pytest.raises(BadRequest) as refused:
        check_spec("route", {"httpRoute": {"match": match, "action": action}})
    assert field in refused.value.message
