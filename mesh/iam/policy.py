"""Policy documents: JSON text to values that `mesh.iam.evaluate` looks at, or BadRequest that lists what is wrong.

Grammar: IAM User Guide, "Grammar of the IAM JSON policy language". Everything is checked when a document is stored;
what is stored is parsed once and kept by its text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from mesh.errors import BadRequest
from mesh.iam.conditions import Condition, parse_condition
from mesh.iam.patterns import ARN_SEGMENTS, Template, any_like
from mesh.limits import PROBLEMS_SHOWN, VALUE_SHOWN_CHARS

CURRENT_VERSION = "2012-10-17"
_VERSIONS = (CURRENT_VERSION, "2008-10-17")
_ACTION = re.compile(r"\*|[A-Za-z0-9-]+:[A-Za-z0-9*?]+")
_SID = re.compile(r"[A-Za-z0-9]*")
_PRINCIPAL_TYPES = ("AWS", "Service", "Federated", "CanonicalUser")
_ACCOUNT = re.compile(r"[0-9]{12}")
_PRINCIPAL_ARN = re.compile(
    r"arn:aws[a-z-]*:(iam::[0-9]{12}:(root|(user|role)/[^*?]+)|sts::[0-9]{12}:assumed-role/[^*?]+)"
)

Problems = Iterator[str]


class Statement(NamedTuple):
    """One statement. `actions` is one pattern for all of them; with `not_…` set, what fits none is meant.

    `principals`: of a trust policy, as ARNs, account ids and `*`; None in any other. `not_principals` likewise.
    """

    sid: str
    allows: bool
    actions: re.Pattern[str]
    not_actions: bool
    resources: tuple[Template, ...]
    not_resources: bool
    principals: tuple[str, ...] | None
    not_principals: bool
    conditions: tuple[Condition, ...]


class Policy(NamedTuple):
    """A document, read."""

    statements: tuple[Statement, ...]

    @property
    def allows_something(self) -> bool:
        return any(statement.allows for statement in self.statements)


def check_policy(text: str, limit_chars: int, *, trust: bool = False) -> Policy:
    """The policy that a caller wants stored; BadRequest lists all that is wrong with it. White space is not counted."""
    size = sum(not char.isspace() for char in text)
    if size > limit_chars:
        raise BadRequest(f"document: has {size} characters, white space aside, and at most {limit_chars} are allowed")
    try:
        document = _load(text)
    except (ValueError, TypeError) as error:
        raise BadRequest(f"MalformedPolicyDocument: {error}") from error
    problems = list(_problems(document, trust=trust))
    if problems:
        more = f"; and {len(problems) - PROBLEMS_SHOWN} more" if len(problems) > PROBLEMS_SHOWN else ""
        raise BadRequest("MalformedPolicyDocument: " + "; ".join(problems[:PROBLEMS_SHOWN]) + more)
    return _policy(document)


@lru_cache(maxsize=2048)
def read_policy(text: str) -> Policy:
    """A stored document, which was checked before; ValueError, KeyError, TypeError or AttributeError if it is none."""
    return _policy(_load(text))


def narrowed(before: str | None, after: str | None) -> str | None:
    """What both documents allow, less what either denies: a document, or None if it says nothing.

    None stands for a policy that says nothing. Only what both say in the same words counts as allowed by both.
    """
    old, new = (_statements(_load(text)) if text is not None else [] for text in (before, after))
    wanted = {_canonical(statement) for statement in new}
    kept = [each for each in old if each["Effect"] == "Deny" or _canonical(each) in wanted]
    known = {_canonical(statement) for statement in kept}
    kept += [each for each in new if each["Effect"] == "Deny" and _canonical(each) not in known]
    if not kept:
        return None
    return json.dumps({"Version": CURRENT_VERSION, "Statement": kept}, ensure_ascii=False)


def _canonical(statement: Mapping[str, Any]) -> str:
    return json.dumps({name: value for name, value in statement.items() if name != "Sid"}, sort_keys=True)


def _load(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text, object_pairs_hook=_each_once)
    except RecursionError as error:
        raise ValueError("the document is nested too deep") from error
    except ValueError as error:
        raise ValueError(f"the document is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise TypeError("the document must be a JSON object")
    return document


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the member '{twice[:VALUE_SHOWN_CHARS]}' is there twice")
    return found


def _statements(document: Mapping[str, Any]) -> list[Any]:
    found = document.get("Statement", [])
    return found if isinstance(found, list) else [found]


# --- what is wrong


def _problems(document: Mapping[str, Any], *, trust: bool) -> Problems:
    for name in document:
        if name not in ("Version", "Id", "Statement"):
            yield f"{_shown(name)}: is no element of a policy (known: Version, Id, Statement)"
    if document.get("Version", CURRENT_VERSION) not in _VERSIONS:
        yield f"Version: {_shown(document['Version'])} must be {' or '.join(_VERSIONS)}"
    if not isinstance(document.get("Id", ""), str):
        yield "Id: must be a string"
    statements = _statements(document)
    if not statements:
        yield "Statement: at least one is required"
    sids: set[str] = set()
    for index, statement in enumerate(statements):
        path = f"Statement[{index}]"
        if not isinstance(statement, dict):
            yield f"{path}: must be an object"
            continue
        sid = statement.get("Sid", "")
        if isinstance(sid, str) and sid and sid in sids:
            yield f"{path}.Sid: {_shown(sid)} is there twice; Statement IDs (SID) in a single policy must be unique"
        if isinstance(sid, str):
            sids.add(sid)
        yield from _statement_problems(path, statement, trust=trust)


_ELEMENTS = {
    False: ("Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"),
    True: ("Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Condition"),
}


def _statement_problems(path: str, statement: Mapping[str, Any], *, trust: bool) -> Problems:
    for name in statement:
        if name not in _ELEMENTS[trust]:
            why = "Has prohibited field" if name in _ELEMENTS[not trust] else "is no element of a statement"
            yield f"{path}: {why} {_shown(name)} (known: {', '.join(_ELEMENTS[trust])})"
    sid = statement.get("Sid", "")
    if not isinstance(sid, str) or not _SID.fullmatch(sid):
        yield f"{path}.Sid: {_shown(sid)} must be letters and digits"
    if statement.get("Effect") not in ("Allow", "Deny"):
        yield f"{path}.Effect: must be Allow or Deny"
    yield from _one_of(path, statement, "Action", _action_problem)
    if trust:
        yield from _principal_problems(path, statement)
    else:
        yield from _one_of(path, statement, "Resource", _resource_problem)
    condition = statement.get("Condition", {})
    if not isinstance(condition, dict):
        yield f"{path}.Condition: must be an object"
        return
    for operator, keys in condition.items():
        if not isinstance(keys, dict):
            yield f"{path}.Condition.{operator}: must be an object of condition keys and their values"
            continue
        for key, values in keys.items():
            try:
                parse_condition(operator, key, values, variables=True)
            except ValueError as error:
                yield f"{path}.Condition.{operator}.{key}"[:300] + f": {error}"


def _one_of(path: str, statement: Mapping[str, Any], name: str, problem: Callable[[str], str | None]) -> Problems:
    given = [each for each in (name, f"Not{name}") if each in statement]
    if len(given) != 1:
        yield f"{path}: Policy statement must contain {name.lower()}s: one of {name} and Not{name}"
        return
    values = _texts(statement[given[0]])
    if not values:
        yield f"{path}.{given[0]}: must be a string or a list of strings, and not empty"
    for value in values or ():
        wrong = problem(value)
        if wrong:
            yield f"{path}.{given[0]}: {_shown(value)} {wrong}"


def _action_problem(action: str) -> str | None:
    if _ACTION.fullmatch(action):
        return None
    return "is no action: Actions/Conditions must be prefaced by a vendor, such as appmesh:DescribeMesh, or be '*'"


def _resource_problem(resource: str) -> str | None:
    if resource == "*":
        return None
    segments = resource.split(":", ARN_SEGMENTS - 1)
    if segments[0] != "arn" or len(segments) < 3:
        return "must be in ARN format or '*'"
    return None


def _principal_problems(path: str, statement: Mapping[str, Any]) -> Problems:
    given = [each for each in ("Principal", "NotPrincipal") if each in statement]
    if len(given) != 1:
        yield f"{path}: one of Principal and NotPrincipal is required"
        return
    where, principal = f"{path}.{given[0]}", statement[given[0]]
    if given[0] == "NotPrincipal" and statement.get("Effect") == "Allow":
        yield f"{where}: Allow with NotPrincipal is not allowed; use a Condition on aws:PrincipalArn"
    if principal == "*":
        return
    if not isinstance(principal, dict) or not principal:
        yield f'{where}: must be "*" or an object such as {{"AWS": "arn:aws:iam::123456789012:user/ann"}}'
        return
    for kind, named in principal.items():
        if kind not in _PRINCIPAL_TYPES:
            yield f"{where}: {_shown(kind)} is none of {', '.join(_PRINCIPAL_TYPES)}"
        for value in _texts(named) or [""]:
            if kind == "AWS" and not (value == "*" or _ACCOUNT.fullmatch(value) or _PRINCIPAL_ARN.fullmatch(value)):
                yield f'{where}.AWS: Invalid principal in policy: "AWS":"{value[:VALUE_SHOWN_CHARS]}"'


def _texts(value: Any) -> list[str] | None:
    values = value if isinstance(value, list) else [value]
    return values if all(isinstance(each, str) and each for each in values) else None


def _shown(value: Any) -> str:
    return f"'{str(value)[:VALUE_SHOWN_CHARS]}'"


# --- what it says


def _policy(document: Mapping[str, Any]) -> Policy:
    variables = document.get("Version") == CURRENT_VERSION
    return Policy(tuple(_statement(each, variables=variables) for each in _statements(document)))


def _statement(statement: Mapping[str, Any], *, variables: bool) -> Statement:
    actions = _texts(statement.get("Action", statement.get("NotAction"))) or []
    resources = _texts(statement.get("Resource", statement.get("NotResource", "*"))) or []
    conditions = [
        parse_condition(operator, key, values, variables=variables)
        for operator, keys in statement.get("Condition", {}).items()
        for key, values in keys.items()
    ]
    return Statement(
        sid=statement.get("Sid", ""),
        allows=statement["Effect"] == "Allow",
        actions=any_like(tuple(actions)),
        not_actions="NotAction" in statement,
        resources=tuple(Template(each, variables) for each in resources),
        not_resources="NotResource" in statement,
        principals=_principals(statement.get("Principal", statement.get("NotPrincipal"))),
        not_principals="NotPrincipal" in statement,
        conditions=tuple(conditions),
    )


def _principals(principal: Any) -> tuple[str, ...] | None:
    if principal is None:
        return None
    if principal == "*":
        return ("*",)
    return tuple(_texts(principal.get("AWS", [])) or [])
