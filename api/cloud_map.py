"""The Cloud Map API over the registry's log: 30 operations, one small function for each kind of them.

Reads and writes are linearizable, as those of App Mesh are: a read is answered from a state of the registry that a
quorum read begun after the call has confirmed. Who may do what is in the log of the meshes, so that one is asked for
its head as well: a right that was taken away counts at once here too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

from api.authorization import Target
from api.calls import Answer, Call
from api.cloud_map_reads import READS
from api.cloud_map_wire import CBOR_PATH, JSON_PATH, TARGET, members_of, operation_of
from api.commands import CommandService, Origin
from api.ports import ApiPorts, RegistryPorts
from api.routes import Found, Route, Router
from identity.caller import Caller
from identity.sigv4 import CLOUD_MAP, SignedRequest
from mesh.commands import idempotency_token
from mesh.errors import NotReady, OutcomeUnknown
from mesh.frozen import Frozen
from mesh.registry.commands import (
    ChangeServiceAttributes,
    CreateNamespace,
    CreateService,
    DeleteNamespace,
    DeleteService,
    DeregisterInstance,
    RegisterInstance,
    RegistryCommand,
    ReportHealth,
    TagRegistered,
    UpdateNamespace,
    UpdateService,
)
from mesh.registry.documents import service_document
from mesh.registry.names import NAMESPACE, SERVICE, arn, arn_id, id_of
from mesh.registry.operations import OPERATIONS, REQUEST_ID_MEMBERS, check_input
from mesh.registry.rules import DNS_PRIVATE, DNS_PUBLIC, HTTP
from mesh.registry.state import Health, RegistryState

RegistryCommands = CommandService[RegistryState, RegistryCommand, Frozen]
POSITION_HEADER = "x-meshlog-registry-position"
_SPEC = ("Type", "DnsConfig", "HealthCheckConfig", "HealthCheckCustomConfig")

_NAMING = ("ResourceARN", "ServiceId", "NamespaceId", "Id")

Members = Mapping[str, Any]


def _tags(members: Members) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in members.get("Tags", ())}


def _create_namespace(kind: str, members: Members) -> RegistryCommand:
    properties = {name: members[name] for name in ("Vpc",) if name in members} | members.get("Properties", {})
    return CreateNamespace(
        members["Name"],
        kind,
        members.get("Description"),
        properties,
        _tags(members),
        members.get("CreatorRequestId", ""),
    )


def _update_namespace(kind: str, members: Members) -> RegistryCommand:
    change = members["Namespace"]
    return UpdateNamespace(members["Id"], kind, change.get("Description"), change.get("Properties"))


def _create_service(members: Members) -> RegistryCommand:
    dns = dict(members.get("DnsConfig", {}))
    namespace = members.get("NamespaceId") or dns.get("NamespaceId", "")  # where it was before 2018
    dns.pop("NamespaceId", None)
    spec = {name: members[name] for name in _SPEC if name in members}
    spec |= {"DnsConfig": dns} if "DnsConfig" in spec else {}
    request = members.get("CreatorRequestId", "")
    return CreateService(namespace, members["Name"], members.get("Description"), spec, _tags(members), request)


COMMANDS: Mapping[str, Callable[[Members], RegistryCommand]] = {
    "CreateHttpNamespace": partial(_create_namespace, HTTP),
    "CreatePrivateDnsNamespace": partial(_create_namespace, DNS_PRIVATE),
    "CreatePublicDnsNamespace": partial(_create_namespace, DNS_PUBLIC),
    "UpdateHttpNamespace": partial(_update_namespace, HTTP),
    "UpdatePrivateDnsNamespace": partial(_update_namespace, DNS_PRIVATE),
    "UpdatePublicDnsNamespace": partial(_update_namespace, DNS_PUBLIC),
    "DeleteNamespace": lambda told: DeleteNamespace(told["Id"]),
    "CreateService": _create_service,
    "UpdateService": lambda told: UpdateService(told["Id"], told["Service"]),
    "DeleteService": lambda told: DeleteService(told["Id"]),
    "UpdateServiceAttributes": lambda told: ChangeServiceAttributes(told["ServiceId"], told["Attributes"]),
    "DeleteServiceAttributes": lambda told: ChangeServiceAttributes(told["ServiceId"], {}, tuple(told["Attributes"])),
    "RegisterInstance": lambda told: RegisterInstance(
        told["ServiceId"], told["InstanceId"], told["Attributes"], told.get("CreatorRequestId", "")
    ),
    "DeregisterInstance": lambda told: DeregisterInstance(told["ServiceId"], told["InstanceId"]),
    "UpdateInstanceCustomHealthStatus": lambda told: ReportHealth(
        told["ServiceId"], told["InstanceId"], Health(told["Status"])
    ),
    "TagResource": lambda told: TagRegistered(told["ResourceARN"], _tags(told)),
    "UntagResource": lambda told: TagRegistered(told["ResourceARN"], {}, tuple(told["TagKeys"])),
}
"""What each writing operation asks of the registry."""


class CloudMapApi:
    """The handlers, bound to one server's ports and the registry's command service."""

    def __init__(self, ports: ApiPorts, registry: RegistryPorts, commands: RegistryCommands) -> None:
        self._ports, self._registry, self._commands = ports, registry, commands

    def router(self) -> Router:
        """Each operation in both protocols: JSON has one path for all, and a header that tells which it is."""
        routes = {(name, cbor): self._route(name, cbor=cbor) for name in OPERATIONS for cbor in (False, True)}

        def find(request: SignedRequest) -> Found | None:
            name = operation_of(request)
            route = routes.get((name, request.path != JSON_PATH)) if name else None
            return Found(route, {}) if route else None

        return Router(tuple(routes.values()), find)

    def _route(self, name: str, *, cbor: bool) -> Route:
        def read(request: SignedRequest, path_members: Mapping[str, str]) -> dict[str, Any]:  # noqa: ARG001
            members = members_of(request)
            check_input(name, members)
            return members

        handle = partial(self._write if name in COMMANDS else self._read, name)
        path = f"{CBOR_PATH}{name}" if cbor else f"{JSON_PATH}?X-Amz-Target={TARGET}.{name}"
        return Route("POST", path, f"{CLOUD_MAP}:{name}", (CLOUD_MAP,), read, self._targets, handle)

    def _targets(self, caller: Caller, members: Members) -> list[Target]:
        """What a call is about, by the id that it names; `*` for what is found by name, listed or made."""
        state, region = self._registry.replica.state, self._ports.region
        tags = _tags(members) if "Tags" in members else None
        facts = {
            f"{CLOUD_MAP}:{name.lower()}": [members[name]]
            for name in ("NamespaceName", "ServiceName")
            if name in members
        }
        named = (
            members.get("ResourceARN") or members.get("ServiceId") or members.get("NamespaceId") or members.get("Id")
        )
        if not isinstance(named, str) or not named:
            return [Target("*", None, tags, facts=facts)]
        found = arn_id(named) or id_of(named)
        kind = NAMESPACE if found.startswith("ns-") else SERVICE
        resource = arn(region, caller.account, kind, found)
        facts[f"{CLOUD_MAP}:{kind}arn"] = [resource]
        key = cast("Any", state.namespace_ids if kind == NAMESPACE else state.service_ids).get(found)
        if key is not None and key.account == caller.account:
            entry = cast("Any", state.namespaces if kind == NAMESPACE else state.services)[key]
            facts |= {f"aws:resourcetag/{tag}": [value] for tag, value in entry.tags.items()}
        return [Target(resource, None, tags, members.get("TagKeys"), facts)]

    async def _read(self, name: str, call: Call) -> Answer:
        await self._confirmed(call)
        state = self._registry.replica.state
        return self._answer(READS[name](state, call.caller.account, call.members, self._ports.region), state)

    async def _write(self, name: str, call: Call) -> Answer:
        await self._confirmed(call)
        outcome = await self._commands.submit(COMMANDS[name](call.members), self._origin(name, call))
        state, told = self._registry.replica.state, outcome.resource or {}
        if "operation" in told:
            return self._answer({"OperationId": told["operation"]}, state)
        if "service" in told and name == "CreateService":
            key = state.service_ids.get(told["service"])
            if key is None:
                raise OutcomeUnknown("The service was made, and is gone since; look before you make it again")
            return self._answer({"Service": service_document(state, state.services[key], self._ports.region)}, state)
        return self._answer({}, state)

    def _answer(self, document: Mapping[str, Any], state: RegistryState) -> Answer:
        return Answer(document, self._ports.replica.state.position, {POSITION_HEADER: str(state.position)})

    async def _confirmed(self, call: Call) -> None:
        """Both logs are folded up to heads that were read after the call came; and it is still allowed."""
        ports, within_s = self._ports, self._ports.read_deadline_s
        if self._registry.replica.halted is not None:
            raise NotReady(f"The registry stands still: {self._registry.replica.halted}")
        await asyncio.gather(ports.replica.confirmed(within_s), self._registry.replica.confirmed(within_s))
        call.allowed(ports.replica.state)

    def _origin(self, name: str, call: Call) -> Origin:
        caller, members = call.caller, call.members
        token = next((members[each] for each in REQUEST_ID_MEMBERS if members.get(each)), None)
        if token is None:
            token = f"invocation {call.invocation}" if call.invocation else call.request_id
        told = {member: value for member, value in members.items() if member not in REQUEST_ID_MEMBERS}
        return Origin(
            account=caller.account,
            principal=caller.principal,
            source_ip=call.source_ip,
            request_id=call.request_id,
            operation=name,
            token=idempotency_token(caller.account, caller.principal, name, token, told),
        )
