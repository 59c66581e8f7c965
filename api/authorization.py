"""Who may do what: one table that names every route, and one function that all of them pass through.

A caller's policies (`mesh.iam`) decide, for every action on every resource that a call touches; an account's admin key
is its root. A route that the table does not name is refused to everybody.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from api.ports import ApiPorts
from identity.caller import Caller
from identity.sigv4 import APPMESH, CLOUD_MAP, MESHLOG, STS
from identity.verification import DISABLED, caller_with
from mesh.arn import arn
from mesh.errors import Forbidden, NotAuthenticated, Unavailable
from mesh.iam.evaluate import Circumstances, Decision, Question, Requester, Verdict, evaluate, ever_allowed, refusal
from mesh.kinds import ResourceKey
from mesh.principals import IAM
from mesh.sharing import check_may_run, check_operator, check_visible, seen_since
from mesh.state import State


class Rule(StrEnum):
    """What a route asks of its caller."""

    POLICY = "policy"
    """That a policy of the caller's allows the action on all that the call touches."""
    OPERATOR = "operator"
    """The same, and that the caller's account is the one that the cluster was made with."""
    ANYONE = "anyone"
    """Whoever has a key: what the call may do beyond that is decided where it is handled."""


_APP_MESH = (
    "CreateMesh", "DescribeMesh", "UpdateMesh", "DeleteMesh", "ListMeshes",
    "CreateVirtualNode", "DescribeVirtualNode", "UpdateVirtualNode", "DeleteVirtualNode", "ListVirtualNodes",
    "CreateVirtualRouter", "DescribeVirtualRouter", "UpdateVirtualRouter", "DeleteVirtualRouter", "ListVirtualRouters",
    "CreateRoute", "DescribeRoute", "UpdateRoute", "DeleteRoute", "ListRoutes",
    "CreateVirtualService", "DescribeVirtualService", "UpdateVirtualService", "DeleteVirtualService",
    "ListVirtualServices",
    "CreateVirtualGateway", "DescribeVirtualGateway", "UpdateVirtualGateway", "DeleteVirtualGateway",
    "ListVirtualGateways",
    "CreateGatewayRoute", "DescribeGatewayRoute", "UpdateGatewayRoute", "DeleteGatewayRoute", "ListGatewayRoutes",
    "TagResource", "UntagResource", "ListTagsForResource",
)  # fmt: skip
_MESHLOG = (
    "GetStatus", "IssueProxyIdentity", "ListEvents", "ListResources", "DiffMesh", "DiffProxy", "RollbackMesh",
    "LookupEvents", "ListQuotas", "SetQuota", "ListShares", "ShareMesh", "UnshareMesh", "ListAccounts",
    "ListCertificateAuthorities", "CreateCertificateAuthority", "RotateCertificateAuthority",
    "RetireCertificateAuthority", "ListCertificates", "DescribeCertificate", "IssueCertificate", "RotateCertificate",
    "ImportCertificate", "DeleteCertificate",
    "ListRegistered", "ListRegistryEvents", "GetProxyConfig",
)  # fmt: skip
_OPERATOR = ("ListKeys", "RotateKeys", "RewrapKeys", "CreateAccount")
_IAM = (
    "ListAccessKeys", "CreateAccessKey", "UpdateAccessKey", "DeleteAccessKey",
    "ListUsers", "GetUser", "CreateUser", "DeleteUser", "AttachUserPolicy", "DetachUserPolicy", "PutUserPolicy",
    "DeleteUserPolicy",
    "ListRoles", "GetRole", "CreateRole", "DeleteRole", "AttachRolePolicy", "DetachRolePolicy", "PutRolePolicy",
    "DeleteRolePolicy", "UpdateAssumeRolePolicy",
    "ListPolicies", "GetPolicy", "CreatePolicy", "DeletePolicy", "SimulatePrincipalPolicy",
)  # fmt: skip
_CLOUD_MAP = (
    "CreateHttpNamespace", "CreatePrivateDnsNamespace", "CreatePublicDnsNamespace", "UpdateHttpNamespace",
    "UpdatePrivateDnsNamespace", "UpdatePublicDnsNamespace", "DeleteNamespace", "GetNamespace", "ListNamespaces",
    "CreateService", "UpdateService", "DeleteService", "GetService", "ListServices",
    "GetServiceAttributes", "UpdateServiceAttributes", "DeleteServiceAttributes",
    "RegisterInstance", "DeregisterInstance", "GetInstance", "ListInstances",
    "GetInstancesHealthStatus", "UpdateInstanceCustomHealthStatus", "DiscoverInstances", "DiscoverInstancesRevision",
    "GetOperation", "ListOperations", "TagResource", "UntagResource", "ListTagsForResource",
)  # fmt: skip
_STS = ("GetCallerIdentity", "GetSessionToken", "AssumeRole")

RULES: Mapping[str, Rule] = {
    **{f"{APPMESH}:{name}": Rule.POLICY for name in _APP_MESH},
    **{f"{MESHLOG}:{name}": Rule.POLICY for name in _MESHLOG},
    **{f"{MESHLOG}:{name}": Rule.OPERATOR for name in _OPERATOR},
    **{f"{IAM}:{name}": Rule.POLICY for name in _IAM},
    **{f"{CLOUD_MAP}:{name}": Rule.POLICY for name in _CLOUD_MAP},
    **{f"{STS}:{name}": Rule.ANYONE for name in _STS},
    f"{MESHLOG}:GetOpenApi": Rule.ANYONE,
}
"""By IAM action."""

CONNECT = f"{APPMESH}:StreamAggregatedResources"
"""To be a proxy of a virtual node or gateway: what a certificate for one is asked under."""


class Target(NamedTuple):
    """One thing that a call touches. `resource`: its key, or an ARN of IAM; `*` where the action has no resource.

    `action`: where it is not the call's own. `request_tags`: those that the call puts on it; `tag_keys`: their keys, or
    those that it takes away. `facts`: condition keys that only this has.
    """

    resource: ResourceKey | str
    action: str | None = None
    request_tags: Mapping[str, str] | None = None
    tag_keys: Sequence[str] | None = None
    facts: Mapping[str, Sequence[str]] = MappingProxyType({})


Targets = Iterable[Target | ResourceKey]
"""A key alone is touched by the call's own action."""


def requester_of(caller: Caller) -> Requester:
    """The caller as policies see it."""
    session = caller.session
    role = session is not None and ":role/" in caller.identity
    return Requester(
        caller.account,
        caller.principal,
        caller.identity,
        admin=caller.admin,
        session_policy=session.policy if session is not None else None,
        session_name=session.name if session is not None and role else None,
        session_issued_us=session.issued_us if session is not None else None,
    )


def authorise(state: State, caller: Caller, action: str, targets: Targets, circumstances: Circumstances) -> None:
    """Return if `caller` may do `action` to all of `targets`; Forbidden otherwise, in IAM's words.

    The same action is asked for each, as App Mesh authorises what a specification comes to refer to; without any, for
    `*`. What another account owns must be allowed like anything else, and be shared (`mesh.sharing`) beside that.
    """
    if RULES.get(action) is Rule.ANYONE:
        return
    requester = requester_of(caller)
    touched = [Target(each) if isinstance(each, ResourceKey) else each for each in targets] or [Target("*")]
    named = RULES.get(action) in (Rule.POLICY, Rule.OPERATOR)
    if not (named and requester.is_root):
        for target in touched:
            question = _question(state, caller, target, action, circumstances)
            decision = evaluate(state, requester, question, circumstances) if named else Decision(Verdict.NOT_ALLOWED)
            if not decision.allowed:
                raise Forbidden(refusal(requester, question, decision))
    if RULES.get(action) is Rule.OPERATOR:
        check_operator(state, caller.account, f"call {action}")
    for target in touched:
        if isinstance(target.resource, ResourceKey):
            check_visible(state, target.resource.account, target.resource.mesh, caller.account)
            if target.action == CONNECT:
                check_may_run(state, target.resource, caller.account)


def authorise_unread(state: State, caller: Caller, action: str) -> None:
    """Forbidden if `caller` may do `action` to nothing at all: who may not is not told what is wrong with an input."""
    requester = requester_of(caller)
    if RULES.get(action) is not Rule.ANYONE and not ever_allowed(state, requester, action):
        raise Forbidden(refusal(requester, Question(action), Decision(Verdict.NOT_ALLOWED)))


async def authorise_now(
    ports: ApiPorts, caller: Caller, action: str, targets: Targets, circumstances: Circumstances
) -> State:
    """`authorise` on what this server knows; and before it refuses, on all that was written before the call.

    So what another server has just granted counts here at once. Where the log's head cannot be confirmed, the refusal
    stands. What another server has just taken away is found out by `still_allowed`, on the state that counts in the
    end. Gives the state that was judged by.
    """
    touched = list(targets)
    replica, before = ports.replica, ports.replica.state
    try:
        authorise(before, caller, action, touched, circumstances)
    except Forbidden:
        with contextlib.suppress(Unavailable):
            await replica.confirmed(ports.read_deadline_s)
        if replica.state.position == before.position:
            raise
        before = replica.state
        authorise(before, caller, action, touched, circumstances)
    return before


def still_allowed(
    judged: State, caller: Caller, action: str, targets: Targets, circumstances: Circumstances
) -> Callable[[State], None]:
    """What tells whether a caller who was allowed something by the state `judged` is so by a later one.

    It raises Forbidden; NotAuthenticated if the access key opens nothing any more.
    """
    touched = list(targets)

    def check(state: State) -> None:
        if caller.session is None and state.access_keys is not judged.access_keys:
            key = state.access_keys.get(caller.access_key_id)
            if key is None:
                raise NotAuthenticated(f"The access key {caller.access_key_id} is no more.", DISABLED)
            caller_with(key, caller.region)
        if not (caller.admin and caller.session is None):
            authorise(state, caller, action, touched, circumstances)

    return check


def _question(state: State, caller: Caller, target: Target, action: str, circumstances: Circumstances) -> Question:
    resource, known = target.resource, None
    # No policy is asked about the tags of what the caller may not see: its answer would tell them.
    if isinstance(resource, ResourceKey) and seen_since(state, resource.account, resource.mesh, caller.account):
        known = state.get(resource)
    return Question(
        target.action or action,
        arn(circumstances.region, resource) if isinstance(resource, ResourceKey) else resource,
        resource_account=resource.account if isinstance(resource, ResourceKey) else None,
        resource_tags=known.tags if known is not None else {},
        request_tags=target.request_tags,
        tag_keys=target.tag_keys,
        facts=target.facts,
    )
