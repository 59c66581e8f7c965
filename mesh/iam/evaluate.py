"""Who may do what: policies and a request to a decision, as IAM decides. Pure; the state is looked at, nothing changed.

    an explicit Deny anywhere → denied;  no Allow by the identity's policies → denied;
    a session policy that does not allow it → denied;  else allowed

An account's admin key is its root: no policy of the account limits it there. What another account owns is for a policy
to name; whether that account shares it is not decided here. (IAM User Guide: "Policy evaluation logic".)
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from mesh.iam.conditions import Facts, met
from mesh.iam.managed import MANAGED
from mesh.iam.patterns import arn_like
from mesh.iam.policy import Policy, Statement, read_policy
from mesh.principals import Principal, iam_name
from mesh.state import State


@dataclass(frozen=True, slots=True)
class Requester:
    """Who asks. `principal` is the ARN to show, `identity` the user or role whose policies count (mind sessions).

    `admin`: an account's root key. `session_policy`: a document that a session was begun with, JSON text.
    """

    account: str
    principal: str
    identity: str
    admin: bool = False
    session_policy: str | None = None
    session_name: str | None = None

    @property
    def is_root(self) -> bool:
        """Whether nothing limits it in its account."""
        return self.admin and self.session_policy is None

    session_issued_us: int | None = None
    """When temporary credentials were issued; None for a long-lived key."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a request brings along beside who asks for what. `time_us` is the server's clock."""

    source_ip: str
    time_us: int
    secure: bool
    user_agent: str = ""
    region: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """May this be done to that? `resource`: an ARN, `*` where the action has none. `facts`: what only it has."""

    action: str
    resource: str = "*"
    resource_account: str | None = None
    resource_tags: Mapping[str, str] = field(default_factory=dict)
    request_tags: Mapping[str, str] | None = None
    """Tags that the request brings, if it is one that brings tags."""
    tag_keys: Sequence[str] | None = None
    """Their keys; or those that it takes away."""
    facts: Mapping[str, Sequence[str]] = field(default_factory=dict)


class Verdict(Enum):
    """The end of an evaluation."""

    ALLOWED = "allowed"
    DENIED = "explicit deny"
    NOT_ALLOWED = "implicit deny"


class Decision(NamedTuple):
    """A verdict, and what made it: the policy and statement (by Sid or number), where one did.

    `by_session`: the session policy withheld it.
    """

    verdict: Verdict
    policy: str = ""
    statement: str = ""
    by_session: bool = False

    @property
    def allowed(self) -> bool:
        return self.verdict is Verdict.ALLOWED


_ROOT = Decision(Verdict.ALLOWED, "(admin key)")


def evaluate(state: State, requester: Requester, question: Question, circumstances: Circumstances) -> Decision:
    """Whether the requester's policies allow it."""
    if requester.is_root:
        return _ROOT
    facts = _Facts(requester, question, circumstances)
    decision = _ROOT if requester.admin else _by_policies(policies_of(state, requester.identity), question, facts)
    limited = by_session(requester, question, facts)
    if limited is None or limited.allowed or decision.verdict is Verdict.DENIED:
        return decision
    return limited._replace(by_session=True) if decision.allowed or limited.verdict is Verdict.DENIED else decision


def by_session(requester: Requester, question: Question, facts: Facts) -> Decision | None:
    """What the policy says that the requester's session was begun with; None without one, which limits nothing."""
    if requester.session_policy is None:
        return None
    return _by_policies([("session policy", read_policy(requester.session_policy))], question, facts)


def ever_allowed(state: State, requester: Requester, action: str) -> bool:
    """Whether there is anything at all that the requester's policies allow this action on."""
    return requester.admin or any(
        statement.allows and _is_about(statement, action)
        for _, policy in policies_of(state, requester.identity)
        for statement in policy.statements
    )


def policies_of(state: State, identity: str) -> list[tuple[str, Policy]]:
    """The policies of a user or role, by name or ARN; none if it is not there (any more)."""
    principal: Principal | None = state.principals.get(identity)
    if principal is None:
        return []
    found = [(name, read_policy(document)) for name, document in principal.inline]
    for arn in principal.policies:
        document = document_of(state, arn)
        if document is not None:
            found.append((arn, read_policy(document)))
    return found


def document_of(state: State, policy: str) -> str | None:
    """The document of a managed policy, AWS's or an account's own; None if there is no such policy."""
    if policy in MANAGED:
        return MANAGED[policy].document
    own = state.policies.get(policy)
    return own.document if own is not None else None


def _by_policies(policies: Iterable[tuple[str, Policy]], question: Question, facts: Facts) -> Decision:
    allowed: Decision | None = None
    for name, policy in policies:
        for number, statement in enumerate(policy.statements):
            if (allowed and statement.allows) or not applies(statement, question.action, question.resource, facts):
                continue
            told = statement.sid or f"Statement[{number}]"
            if not statement.allows:
                return Decision(Verdict.DENIED, name, told)
            allowed = Decision(Verdict.ALLOWED, name, told)
    return allowed or Decision(Verdict.NOT_ALLOWED)


def applies(statement: Statement, action: str, resource: str, facts: Facts) -> bool:
    """Whether a statement is about this action on this resource, under these facts."""
    if not _is_about(statement, action):
        return False

    def single(key: str) -> str | None:
        values = facts.get(key) or ()
        return values[0] if len(values) == 1 else None

    patterns = (template.resolve(single) for template in statement.resources)
    covered = any(pattern is not None and arn_like(pattern, resource) for pattern in patterns)
    if covered is statement.not_resources:
        return False
    return all(met(condition, facts) for condition in statement.conditions)


def _is_about(statement: Statement, action: str) -> bool:
    return (statement.actions.fullmatch(action) is not None) is not statement.not_actions


class _Facts(Mapping[str, Sequence[str]]):
    """`facts_of`, made when the first of them is asked for: most policies ask for none."""

    def __init__(self, requester: Requester, question: Question, circumstances: Circumstances) -> None:
        self._of = requester, question, circumstances
        self._made: Facts | None = None

    @property
    def _all(self) -> Facts:
        if self._made is None:
            self._made = facts_of(*self._of)
        return self._made

    def __getitem__(self, key: str) -> Sequence[str]:
        return self._all[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


def facts_of(requester: Requester, question: Question, circumstances: Circumstances) -> Facts:
    """The condition keys of a request, in lower case: those of `docs/iam.md`."""
    name = iam_name(requester.identity)
    at = datetime.datetime.fromtimestamp(circumstances.time_us // 1_000_000, datetime.UTC)
    role = requester.session_name is not None
    facts: dict[str, Sequence[str]] = {
        "aws:principalarn": [requester.identity],
        "aws:principalaccount": [requester.account],
        "aws:principaltype": ["AssumedRole" if role else "User"],
        "aws:currenttime": [at.strftime("%Y-%m-%dT%H:%M:%SZ")],
        "aws:epochtime": [str(circumstances.time_us // 1_000_000)],
        "aws:securetransport": ["true" if circumstances.secure else "false"],
    }
    if circumstances.source_ip:
        facts["aws:sourceip"] = [circumstances.source_ip]
    if circumstances.user_agent:
        facts["aws:useragent"] = [circumstances.user_agent]
    if circumstances.region:
        facts["aws:requestedregion"] = [circumstances.region]
    if requester.session_issued_us is not None:
        issued = datetime.datetime.fromtimestamp(requester.session_issued_us // 1_000_000, datetime.UTC)
        facts["aws:tokenissuetime"] = [issued.strftime("%Y-%m-%dT%H:%M:%SZ")]
    if name is not None and not role:
        facts["aws:username"] = [name.name]
        facts["aws:userid"] = [name.name]
    if name is not None and role:
        facts["aws:userid"] = [f"{name.name}:{requester.session_name}"]
    if question.resource_account is not None:
        facts["aws:resourceaccount"] = [question.resource_account]
    _add_tags(facts, "aws:resourcetag/", question.resource_tags)
    if question.request_tags is not None:
        _add_tags(facts, "aws:requesttag/", question.request_tags)
    keys = question.tag_keys if question.tag_keys is not None else list(question.request_tags or ())
    if keys:
        facts["aws:tagkeys"] = list(keys)
    return facts | {key.lower(): values for key, values in question.facts.items()}


def _add_tags(facts: dict[str, Sequence[str]], prefix: str, tags: Mapping[str, str]) -> None:
    # Tag keys that differ in the case of letters alone are one condition key, as in IAM: any of their values.
    for key, value in tags.items():
        name = prefix + key.lower()
        facts[name] = [*facts.get(name, ()), value]


def refusal(requester: Requester, question: Question, decision: Decision) -> str:
    """The sentence in which IAM refuses."""
    kind = "session" if decision.by_session else "identity-based"
    said = (
        f"User: {requester.principal} is not authorized to perform: {question.action} on resource: {question.resource}"
    )
    if decision.verdict is Verdict.DENIED:
        return f"{said} with an explicit deny in {'a' if decision.by_session else 'an'} {kind} policy"
    return f"{said} because no {kind} policy allows the {question.action} action"
