"""The App Mesh API: 38 operations out of the model's table, through one reader and one small function for each verb.

rest-json: members travel in path, query and body as the model says; a success is the bare resource, a reference list
or {}. Reads answer from a state that a quorum read begun after the call has confirmed.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from api.authorization import Target
from api.body import parse_object
from api.calls import Answer, Call, query_members
from api.commands import CommandService, Origin, Outcome
from api.paging import page
from api.ports import ApiPorts
from api.routes import Found, Route, Router
from identity.caller import Caller
from identity.sigv4 import APPMESH, SignedRequest
from mesh.arn import parse_arn
from mesh.commands import Command, Create, Delete, TagResource, UntagResource, Update, idempotency_token
from mesh.decide import present
from mesh.documents import ACTIVE, DELETED, resource_document, resource_ref, tag_list
from mesh.errors import BadRequest, OutcomeUnknown
from mesh.input import check_input
from mesh.kinds import MESH, ResourceKey, mesh_key
from mesh.model.operations import (
    CREATE,
    DELETE,
    DESCRIBE,
    LIST,
    LIST_TAGS,
    OPERATIONS,
    TAG,
    UNTAG,
    UPDATE,
    Operation,
    match,
)
from mesh.references import hard_references, soft_references
from mesh.rules import tags_from_list
from mesh.sharing import check_may_change, check_visible, shared_with
from mesh.state import Resource, State

PREVIEW = "appmesh-preview"
"""What scripts for App Mesh's preview channel sign for: the same URIs, from before a feature was in App Mesh itself."""
LIST_LIMIT = 100
"""Items of a page when the caller names no limit: the model's largest."""
TAGS_LIMIT = 50

_INTEGER = re.compile(r"-?\d{1,18}", re.ASCII)
_TAG_ACTION = f"{APPMESH}:TagResource"
_TOKEN = "clientToken"  # noqa: S105 - a member's name


class AppMeshApi:
    """The handlers, bound to one server's ports and command service."""

    def __init__(self, ports: ApiPorts, commands: CommandService) -> None:
        self._ports = ports
        self._commands = commands
        self._verbs: Mapping[str, Callable[[Operation, Call], Awaitable[Answer]]] = {
            CREATE: self._create,
            UPDATE: self._update,
            DELETE: self._delete,
            DESCRIBE: self._describe,
            LIST: self._list,
            TAG: self._tag,
            UNTAG: self._untag,
            LIST_TAGS: self._list_tags,
        }

    def router(self) -> Router:
        """One route for each operation of the model."""
        routes = {name: self._route(operation) for name, operation in OPERATIONS.items()}

        def find(request: SignedRequest) -> Found | None:
            found = match(request.method, request.path)
            return Found(routes[found[0].name], found[1]) if found else None

        return Router(tuple(routes.values()), find)

    def _route(self, operation: Operation) -> Route:
        return Route(
            method=operation.method,
            path=operation.uri,
            action=f"{APPMESH}:{operation.name}",
            services=(APPMESH, PREVIEW),
            read=partial(read_members, operation),
            targets=partial(touched, operation),
            handle=partial(self._verbs[operation.verb], operation),
        )

    async def _create(self, operation: Operation, call: Call) -> Answer:
        key = operation.key(call.caller.account, call.members)
        tags = tags_from_list(call.members.get("tags", ()))
        command = Create(key, call.members.get("spec", {}), tags, checked=True)  # by `read_members`
        return await self._write(operation, call, command, ACTIVE)

    async def _update(self, operation: Operation, call: Call) -> Answer:
        key = operation.key(call.caller.account, call.members)
        return await self._write(operation, call, Update(key, call.members.get("spec", {}), checked=True), ACTIVE)

    async def _delete(self, operation: Operation, call: Call) -> Answer:
        key = operation.key(call.caller.account, call.members)
        return await self._write(operation, call, Delete(key), DELETED)

    async def _write(self, operation: Operation, call: Call, command: Command, status: str) -> Answer:
        outcome = await self._submit(operation, call, command)
        if outcome.resource is None:
            raise OutcomeUnknown("The write is in the log, but its answer is no longer kept; describe the resource")
        return Answer(resource_document(outcome.resource, self._ports.region, status), outcome.position)

    async def _tag(self, operation: Operation, call: Call) -> Answer:
        key = parse_arn(call.members["resourceArn"]).key
        outcome = await self._submit(operation, call, TagResource(key, tags_from_list(call.members["tags"])))
        return Answer({}, outcome.position)

    async def _untag(self, operation: Operation, call: Call) -> Answer:
        key = parse_arn(call.members["resourceArn"]).key
        outcome = await self._submit(operation, call, UntagResource(key, tuple(call.members["tagKeys"])))
        return Answer({}, outcome.position)

    async def _submit(self, operation: Operation, call: Call, command: Command) -> Outcome:
        return await self._commands.submit(command, origin_of(operation.name, call))

    async def _describe(self, operation: Operation, call: Call) -> Answer:
        state = await confirmed_state(self._ports)
        key = operation.key(call.caller.account, call.members)
        check_visible(state, key.account, key.mesh, call.caller.account)
        resource = _present_with_parents(state, key)
        return Answer(resource_document(resource, self._ports.region), state.position)

    async def _list(self, operation: Operation, call: Call) -> Answer:
        state = await confirmed_state(self._ports)
        key = operation.key(call.caller.account, call.members)
        if key.kind == MESH.name:
            found = sorted((*state.meshes(key.account), *shared_with(state, key.account)), key=_place_in_list)
        else:
            check_visible(state, key.account, key.mesh, call.caller.account)
            _require_containers(state, key)
            found = [item for item in state.in_mesh(key.account, key.mesh, key.kind) if item.key.parent == key.parent]
        limit = call.members.get("limit", LIST_LIMIT)
        cut, token = page(found, _place_in_list, key, limit, call.members.get("nextToken"))
        assert operation.kind is not None  # noqa: S101 - only the tag operations have none
        refs = [resource_ref(item, self._ports.region) for item in cut]
        return Answer(_with_token({operation.kind.plural: refs}, token), state.position)

    async def _list_tags(self, operation: Operation, call: Call) -> Answer:  # noqa: ARG002 - one shape for the table
        state = await confirmed_state(self._ports)
        key = parse_arn(call.members["resourceArn"]).key
        check_visible(state, key.account, key.mesh, call.caller.account)
        resource = _present_with_parents(state, key)
        check_may_change(resource, call.caller.account, "list the tags of")
        tags = tag_list(resource)
        limit = call.members.get("limit", TAGS_LIMIT)
        cut, token = page(tags, lambda tag: tag["key"], ("tags", *key), limit, call.members.get("nextToken"))
        return Answer(_with_token({"tags": cut}, token), state.position)


async def confirmed_state(ports: ApiPorts) -> State:
    """The state to answer a read from: it holds everything that was written before the read began."""
    await ports.replica.confirmed(ports.read_deadline_s)
    return ports.replica.state


def origin_of(operation_name: str, call: Call) -> Origin:
    """Where a call's command comes from.

    Without a clientToken, the SDK's id of the call stands in for one: an SDK that repeats a delete whose answer was
    lost is told of its own deletion, not that there is nothing. Else the request's id does, which repeats nothing.
    """
    caller, client_token = call.caller, call.members.get(_TOKEN)
    if not client_token:
        client_token = f"invocation {call.invocation}" if call.invocation else call.request_id  # no clientToken has " "
    return Origin(
        account=caller.account,
        principal=caller.principal,
        source_ip=call.source_ip,
        request_id=call.request_id,
        operation=operation_name,
        token=idempotency_token(caller.account, caller.principal, operation_name, client_token, call.members),
        allowed=call.allowed,
    )


def read_members(operation: Operation, request: SignedRequest, path_members: Mapping[str, str]) -> dict[str, Any]:
    """An operation's input, checked against the model and the rules; BadRequest lists what is wrong with it."""
    members: dict[str, Any] = {member: path_members[name] for member, name in operation.path_members.items()}
    query = query_members(request.query)
    for member, name in operation.query_members.items():
        if name in query:
            members[member] = _number(query[name]) if operation.member_type(member) == "integer" else query[name]
    if operation.body_members or request.method == "PUT":
        body = parse_object(request.body)
        elsewhere = (operation.path_members.keys() | operation.query_members.keys()) & body.keys()
        if elsewhere:
            raise BadRequest(f"{', '.join(sorted(elsewhere))}: belongs in the URI, not in the body")
        members.update(body)
    check_input(operation, members)
    return members


def touched(operation: Operation, caller: Caller, members: Mapping[str, Any]) -> list[Target]:
    """What a call touches: the resource, and what its spec comes to refer to (App Mesh authorises both).

    A list is of what its parent holds. Who creates with tags must be allowed to tag, too.
    """
    tags = tags_from_list(members["tags"]) if members.get("tags") else None
    if operation.kind is None:
        return [Target(parse_arn(members["resourceArn"]).key, None, tags, members.get("tagKeys"))]
    if operation.verb == LIST and operation.kind is MESH:
        return [Target("*")]
    key = operation.key(caller.account, members)
    if operation.verb == LIST:
        parent = operation.kind.parent
        home = mesh_key(key.account, key.mesh)
        return [Target(ResourceKey(key.account, key.mesh, parent, "", key.parent) if parent else home)]
    found = [key]
    if operation.verb in (CREATE, UPDATE):
        spec = members.get("spec", {})
        found += [reference.target for reference in hard_references(key, spec) if reference.path]
        if operation.verb == CREATE:
            found += [reference.target for reference in soft_references(key, spec)]
    targets = [Target(each, None, tags) for each in dict.fromkeys(found)]
    return targets if tags is None else [*targets, Target(key, _TAG_ACTION, tags)]


def _number(text: str) -> int | str:
    """A whole number of the query string; what is none stays text, and the model says so."""
    return int(text) if _INTEGER.fullmatch(text) else text


def _with_token(document: dict[str, Any], token: str | None) -> dict[str, Any]:
    return document if token is None else {**document, "nextToken": token}


def _place_in_list(resource: Resource) -> str:
    """By name; of meshes that have one name, in the order of their owners. No name has a '/'."""
    key = resource.key
    return f"{key.name}/{key.account}" if key.kind == MESH.name else key.name


def _require_containers(state: State, key: ResourceKey) -> None:
    for reference in hard_references(key, {}):
        present(state, reference.target)


def _present_with_parents(state: State, key: ResourceKey) -> Resource:
    """The resource; when it is absent since its mesh or parent is, NotFound names that."""
    if key not in state.resources:
        _require_containers(state, key)
    return present(state, key)
