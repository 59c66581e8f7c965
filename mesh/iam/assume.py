"""Whether a caller may become a role: the role's trust policy and the caller's own, as STS combines them. Pure.

In the role's own account it is enough that the trust policy names the caller; where it names the account (or `*`), the
caller's own policies must allow it too, as they must across accounts in any case. A Deny on either side wins.
"""

from __future__ import annotations

from mesh.errors import Forbidden
from mesh.iam.evaluate import Circumstances, Question, Requester, Verdict, applies, by_session, evaluate, facts_of
from mesh.iam.policy import Statement, read_policy
from mesh.principals import iam_name
from mesh.state import State

ASSUME_ROLE = "sts:AssumeRole"


def may_assume(
    state: State,
    requester: Requester,
    role_arn: str,
    circumstances: Circumstances,
    *,
    session_name: str,
    external_id: str | None = None,
) -> None:
    """Return if `requester` may assume the role; Forbidden, in STS's words, if not, or if there is no such role."""
    role, name = state.principals.get(role_arn), iam_name(role_arn)
    facts = {"sts:rolesessionname": [session_name]}
    if external_id is not None:
        facts["sts:externalid"] = [external_id]
    question = Question(ASSUME_ROLE, role_arn, resource_account=name.account if name else None, facts=facts)
    refused = Forbidden(
        f"User: {requester.principal} is not authorized to perform: {ASSUME_ROLE} on resource: {role_arn[:300]}"
    )
    if role is None or role.trust is None or name is None:
        raise refused  # the same words as for a role that is there: nobody learns who has which roles
    own = evaluate(state, requester, question, circumstances)
    all_facts = facts_of(requester, question, circumstances)
    limited = by_session(requester, question, all_facts)
    if own.verdict is Verdict.DENIED or (limited is not None and not limited.allowed):
        raise refused
    said = [
        (statement, _names(statement, requester))
        for statement in read_policy(role.trust).statements
        if applies(statement, ASSUME_ROLE, role_arn, all_facts)
    ]
    if any(not statement.allows and named for statement, named in said):
        raise refused
    by_name = any(statement.allows and named is _EXACTLY for statement, named in said)
    by_account = any(statement.allows and named for statement, named in said)
    here = requester.account == role.account
    if (here and by_name) or (by_account and own.allowed):
        return
    raise refused


_EXACTLY, _AS_ONE_OF_MANY = "by itself", "as one of its account"


def _names(statement: Statement, requester: Requester) -> str | None:
    """How a statement of a trust policy names the requester, if it does."""
    principals = statement.principals or ()
    exact = {requester.identity, requester.principal}
    of_account = {"*", requester.account, f"arn:aws:iam::{requester.account}:root"}
    named = _EXACTLY if exact & set(principals) else _AS_ONE_OF_MANY if of_account & set(principals) else None
    if statement.not_principals:
        return None if named else _EXACTLY
    return named
