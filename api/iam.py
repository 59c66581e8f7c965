"""Users, roles and policies over HTTP, of the caller's own account: made, listed, changed, deleted, asked about.

GET  iam/users, iam/roles                    {users|roles: [{arn, name, created, policies, inline, trust?}]}
GET  iam/users/show?user=                    one of them, with the documents of its inline policies
POST iam/users {user}, iam/roles {role, trust}; …/delete {user|role}
POST …/attach, …/detach {user|role, policy}  a managed policy: its name, or its ARN
POST …/policies {user|role, name, document}, …/policies/delete {user|role, name}
POST iam/roles/trust {role, document}
GET  iam/policies                            {policies: [{arn, name, description, version, created, updated, attached}]}
GET  iam/policies/show?policy=               one of them, with its document
POST iam/policies {policy, document, create?}, iam/policies/delete {policy}
POST iam/simulate {user|role, action, resource?, source_ip?, tags?} → {decision, policy, statement, message}

Actions are IAM's own (iam:CreateUser, …) on IAM's own ARNs, so that policies that delegate them can be brought along.
All POST bodies take a clientToken. A document is JSON text, kept verbatim, or an object.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from api.appmesh import confirmed_state, origin_of
from api.authorization import Target
from api.calls import Answer, Call
from api.commands import CommandService
from api.history import iso
from api.ports import ApiPorts
from api.reads import READING, reading
from api.requests import Fields, read_body, read_query, route, router_of
from api.routes import Route, Router
from identity.caller import Caller
from mesh.arn import parse_arn
from mesh.commands import (
    AttachPolicy,
    Command,
    CreatePrincipal,
    DeleteInlinePolicy,
    DeletePolicy,
    DeletePrincipal,
    DetachPolicy,
    PutInlinePolicy,
    PutPolicy,
    PutTrustPolicy,
)
from mesh.errors import BadRequest, NotFound
from mesh.iam.evaluate import Question, Requester, document_of, evaluate, refusal
from mesh.iam.managed import MANAGED, PREFIX
from mesh.principals import IAM, IamName, Principal, iam_name
from mesh.state import State

_DOCUMENT = (str, dict)
_TOKEN: Fields = {"clientToken": (str, False)}
USER, ROLE, POLICY = "user", "role", "policy"
_PLURAL = {USER: "users", ROLE: "roles", POLICY: "policies"}


class IamApi:
    """The handlers, bound to one server's ports."""

    def __init__(self, ports: ApiPorts, commands: CommandService) -> None:
        self._ports, self._commands = ports, commands

    def router(self) -> Router:
        """Its routes."""
        return router_of([*self._principal_routes(USER), *self._principal_routes(ROLE), *self._policy_routes()])

    def _principal_routes(self, kind: str) -> list[Route]:
        plural, title = f"iam/{_PLURAL[kind]}", kind.title()
        own: Fields = {kind: (str, True), **_TOKEN}
        attached: Fields = {kind: (str, True), "policy": (str, True), **_TOKEN}
        named: Fields = {kind: (str, True), "name": (str, True), **_TOKEN}
        inline: Fields = {kind: (str, True), "name": (str, True), "document": (_DOCUMENT, True), **_TOKEN}
        made: Fields = own if kind == USER else {kind: (str, True), "trust": (_DOCUMENT, True), **_TOKEN}
        routes = [
            self._read(f"GET {plural}", f"List{title}s", (), _everything, partial(self._list, kind)),
            self._read(f"GET {plural}/show", f"Get{title}", (kind,), partial(_named, kind), partial(self._show, kind)),
            self._change(f"POST {plural}", f"Create{title}", kind, made, _create),
            self._change(f"POST {plural}/delete", f"Delete{title}", kind, own, _delete),
            self._change(f"POST {plural}/attach", f"Attach{title}Policy", kind, attached, _attach),
            self._change(f"POST {plural}/detach", f"Detach{title}Policy", kind, attached, _detach),
            self._change(f"POST {plural}/policies", f"Put{title}Policy", kind, inline, _put_inline),
            self._change(f"POST {plural}/policies/delete", f"Delete{title}Policy", kind, named, _delete_inline),
        ]
        if kind == ROLE:
            trust: Fields = {ROLE: (str, True), "document": (_DOCUMENT, True), **_TOKEN}
            routes.append(self._change(f"POST {plural}/trust", "UpdateAssumeRolePolicy", kind, trust, _put_trust))
        return routes

    def _policy_routes(self) -> list[Route]:
        put: Fields = {POLICY: (str, True), "document": (_DOCUMENT, True), "create": (bool, False), **_TOKEN}
        asked: Fields = {
            USER: (str, False),
            ROLE: (str, False),
            "action": (str, True),
            "resource": (str, False),
            "source_ip": (str, False),
            "tags": (dict, False),
        }
        return [
            self._read("GET iam/policies", "ListPolicies", (), _everything, self._list_policies),
            self._read("GET iam/policies/show", "GetPolicy", (POLICY,), _named_policy, self._show_policy),
            self._change("POST iam/policies", "CreatePolicy", POLICY, put, _put_policy),
            self._change(
                "POST iam/policies/delete", "DeletePolicy", POLICY, {POLICY: (str, True), **_TOKEN}, _delete_policy
            ),
            route("POST iam/simulate", f"{IAM}:SimulatePrincipalPolicy", read_body(asked), _asked, self._simulate),
        ]

    def _read(
        self,
        target: str,
        action: str,
        query: tuple[str, ...],
        targets: Callable[[Caller, Mapping[str, Any]], list[Target]],
        answer: Callable[[State, Call], dict[str, Any]],
    ) -> Route:
        async def handle(call: Call) -> Answer:
            read = await reading(self._ports, call)
            return read.answer(answer(read.state, call))

        return route(target, f"{IAM}:{action}", read_query(*READING, required=query), targets, handle)

    def _change(
        self,
        target: str,
        action: str,
        kind: str,
        fields: Fields,
        command_of: Callable[[IamName, Mapping[str, Any]], Command],
    ) -> Route:
        async def handle(call: Call) -> Answer:
            name = _name(kind, call.caller, call.members)
            outcome = await self._commands.submit(command_of(name, call.members), origin_of(action, call))
            await self._ports.replica.wait_for(outcome.position, self._ports.read_deadline_s)
            return Answer(_document(self._ports.replica.state, name), outcome.position)

        return route(target, f"{IAM}:{action}", read_body(fields), partial(_named, kind), handle)

    def _list(self, kind: str, state: State, call: Call) -> dict[str, Any]:
        mine = (each for each in state.principals.values() if each.account == call.caller.account)
        return {_PLURAL[kind]: [_principal(each) for each in sorted(mine) if f":{kind}/" in each.arn]}

    def _show(self, kind: str, state: State, call: Call) -> dict[str, Any]:
        name = _name(kind, call.caller, call.members)
        principal = _present(state, name)
        keys = sorted(key.access_key_id for key in state.access_keys.values() if key.principal == principal.arn)
        return _principal(principal) | {"documents": dict(principal.inline), "access_keys": keys}

    def _list_policies(self, state: State, call: Call) -> dict[str, Any]:
        own = sorted(each.arn for each in state.policies.values() if each.account == call.caller.account)
        return {"policies": [_policy(state, arn, call.caller.account) for arn in (*own, *MANAGED)]}

    def _show_policy(self, state: State, call: Call) -> dict[str, Any]:
        arn = _policy_arn(call.members["policy"], call.caller.account)
        document = document_of(state, arn) if _is_mine(arn, call.caller.account) else None
        if document is None:
            raise NotFound(f"Policy {arn} was not found: see `meshlog iam policy list`")
        return _policy(state, arn, call.caller.account) | {"document": document}

    async def _simulate(self, call: Call) -> Answer:
        state, members, account = await confirmed_state(self._ports), call.members, call.caller.account
        name = _asked_name(call.caller, members)
        _present(state, name)
        session = "simulated" if name.kind == ROLE else None
        requester = Requester(account, name.arn, name.arn, session_name=session)
        resource, tags, known = members.get("resource", "*"), members.get("tags"), None
        if tags is not None and not all(isinstance(value, str) for value in tags.values()):
            raise BadRequest("tags: must be an object of strings")
        if ":appmesh:" in resource and "*" not in resource:
            key = parse_arn(resource).key
            known = state.get(key) if key.account == account else None
        question = Question(
            members["action"],
            resource,
            resource_account=known.key.account if known is not None else None,
            resource_tags=known.tags if known is not None else {},
            request_tags=tags,
        )
        here = call.circumstances
        if "source_ip" in members:
            here = replace(here, source_ip=members["source_ip"])
        decision = evaluate(state, requester, question, here)
        document = {
            "principal": name.arn,
            "action": question.action,
            "resource": resource,
            "decision": decision.verdict.value,
            "policy": decision.policy or None,
            "statement": decision.statement or None,
            "message": None if decision.allowed else refusal(requester, question, decision),
        }
        return Answer(document, state.position)


# --- names


def _name(kind: str, caller: Caller, members: Mapping[str, Any]) -> IamName:
    """The user, role or policy that a member names: by its name, or by its ARN in the caller's account."""
    text = members[kind]
    arn = text if text.startswith("arn:") else f"arn:aws:iam::{caller.account}:{kind}/{text}"
    found = iam_name(arn)
    if found is None or found.kind != kind:
        raise BadRequest(f"{kind}: '{text[:80]}' must be letters, digits and the characters _+=,.@-, or an ARN")
    if found.account != caller.account:
        raise NotFound(f"{arn} cannot be found in account {caller.account}")
    return found


def _asked_name(caller: Caller, members: Mapping[str, Any]) -> IamName:
    if (USER in members) == (ROLE in members):
        raise BadRequest("user: name either a user or a role")
    return _name(USER if USER in members else ROLE, caller, members)


def _policy_arn(text: str, account: str) -> str:
    """The ARN of a managed policy by its own name or ARN. What AWS's are called, no other is."""
    if text.startswith("arn:"):
        return text
    return PREFIX + text if PREFIX + text in MANAGED else f"arn:aws:iam::{account}:policy/{text}"


def _is_mine(arn: str, account: str) -> bool:
    name = iam_name(arn)
    return arn in MANAGED or (name is not None and name.account == account)


def _present(state: State, name: IamName) -> Principal:
    found = state.principals.get(name.arn)
    if found is None:
        raise NotFound(f"The {name.kind} with name {name.name} cannot be found: see `meshlog iam {name.kind} list`")
    return found


# --- what is authorised


def _everything(caller: Caller, members: Mapping[str, Any]) -> list[Target]:  # noqa: ARG001
    return [Target("*")]


def _named(kind: str, caller: Caller, members: Mapping[str, Any]) -> list[Target]:
    arn = _name(kind, caller, members).arn
    if kind != POLICY and POLICY in members:  # so that attaching can be delegated for some policies alone
        return [Target(arn, facts={"iam:PolicyARN": [_policy_arn(members[POLICY], caller.account)]})]
    return [Target(arn)]


def _named_policy(caller: Caller, members: Mapping[str, Any]) -> list[Target]:
    return [Target(_policy_arn(members[POLICY], caller.account))]


def _asked(caller: Caller, members: Mapping[str, Any]) -> list[Target]:
    return [Target(_asked_name(caller, members).arn)]


# --- commands


def _text(document: str | dict[str, Any]) -> str:
    return document if isinstance(document, str) else json.dumps(document, indent=2, ensure_ascii=False)


def _create(name: IamName, members: Mapping[str, Any]) -> Command:
    return CreatePrincipal(name.arn, _text(members["trust"]) if name.kind == ROLE else None)


def _delete(name: IamName, members: Mapping[str, Any]) -> Command:  # noqa: ARG001
    return DeletePrincipal(name.arn)


def _attach(name: IamName, members: Mapping[str, Any]) -> Command:
    return AttachPolicy(name.arn, _policy_arn(members["policy"], name.account))


def _detach(name: IamName, members: Mapping[str, Any]) -> Command:
    return DetachPolicy(name.arn, _policy_arn(members["policy"], name.account))


def _put_inline(name: IamName, members: Mapping[str, Any]) -> Command:
    return PutInlinePolicy(name.arn, members["name"], _text(members["document"]))


def _delete_inline(name: IamName, members: Mapping[str, Any]) -> Command:
    return DeleteInlinePolicy(name.arn, members["name"])


def _put_trust(name: IamName, members: Mapping[str, Any]) -> Command:
    return PutTrustPolicy(name.arn, _text(members["document"]))


def _put_policy(name: IamName, members: Mapping[str, Any]) -> Command:
    return PutPolicy(name.arn, _text(members["document"]), create=members.get("create", False))


def _delete_policy(name: IamName, members: Mapping[str, Any]) -> Command:  # noqa: ARG001
    return DeletePolicy(name.arn)


# --- documents


def _document(state: State, name: IamName) -> dict[str, Any]:
    """What a change left; of what is deleted, its ARN."""
    if name.kind == POLICY and name.arn in state.policies:
        return _policy(state, name.arn, name.account)
    principal = state.principals.get(name.arn)
    return _principal(principal) if principal is not None else {"arn": name.arn, "name": name.name, "deleted": True}


def _principal(principal: Principal) -> dict[str, Any]:
    document: dict[str, Any] = {
        "arn": principal.arn,
        "name": principal.arn.rpartition("/")[2],
        "created": iso(principal.created_us),
        "policies": list(principal.policies),
        "inline": [name for name, _ in principal.inline],
    }
    return document if principal.trust is None else {**document, "trust": principal.trust}


def _policy(state: State, arn: str, account: str) -> dict[str, Any]:
    attached = sorted(
        each.arn for each in state.principals.values() if arn in each.policies and each.account == account
    )
    document: dict[str, Any] = {"arn": arn, "name": arn.rpartition("/")[2], "attached": attached}
    if arn in MANAGED:
        return {**document, "description": MANAGED[arn].description, "version": 1, "created": None, "updated": None}
    own = state.policies[arn]
    created, updated = iso(own.created_us), iso(own.updated_us)
    return {**document, "description": None, "version": own.version, "created": created, "updated": updated}
