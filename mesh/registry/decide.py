"""Registry commands to events: every rule that needs to know what else exists. Pure. See `mesh.decide`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from mesh.commands import Context, RaiseLevel, RecordDataKeys
from mesh.errors import BadRequest, CallerError
from mesh.events import DATA_KEYS_DRAWN, DATA_KEYS_REWRAPPED, LEVEL_RAISED, NewEvent
from mesh.limits import (
    NAMESPACES_PER_ACCOUNT,
    REGISTRY_TAGS_MAX,
    SERVICE_ATTRIBUTES_MAX,
)
from mesh.registry import decide_instances as instances
from mesh.registry import rules
from mesh.registry.commands import (
    ChangeServiceAttributes,
    CopyInstances,
    CreateNamespace,
    CreateService,
    DeleteNamespace,
    DeleteService,
    DeregisterInstance,
    MarkHeartbeats,
    RegisterInstance,
    RegistryCommand,
    ReportHealth,
    TagRegistered,
    UpdateNamespace,
    UpdateService,
)
from mesh.registry.errors import (
    DuplicateRequest,
    InUse,
    InvalidInput,
    NamespaceAlreadyExists,
    RegistryTooManyTags,
    ResourceLimitExceeded,
    ServiceAlreadyExists,
    ServiceAttributesLimitExceeded,
)
from mesh.registry.events import (
    LEVEL,
    NAMESPACE_DELETED,
    NAMESPACE_UPDATED,
    SERVICE_ATTRIBUTES_CHANGED,
    SERVICE_DELETED,
    SERVICE_UPDATED,
    TAGS_CHANGED,
)
from mesh.registry.lookup import namespace_of, service_of, tagged
from mesh.registry.names import fresh_operation_id
from mesh.registry.state import HERE, Namespace, NamespaceKey, RegistryState, Service, ServiceKey, TokenEntry


@dataclass(frozen=True, slots=True)
class Decision:
    """What a command leads to: events, or the answer of the first call with the same token (`replay`)."""

    events: tuple[NewEvent, ...]
    replay: TokenEntry | None = None


def decide(state: RegistryState, command: RegistryCommand, context: Context) -> Decision:
    """The events that `command` leads to in `state`; raises a CallerError that names what is in the way."""
    if context.token is not None:
        entry = state.tokens.get(context.token.digest)
        if entry is not None:
            if entry.body == context.token.body:
                return Decision((), entry)
            raise _used_before(context.operation, entry)
    return Decision(tuple(DECIDERS[type(command)](state, command, context)))


def _used_before(operation: str, entry: TokenEntry) -> CallerError:
    why = f"The request id of this {operation} was used before, with another input: send a new one, or the same input"
    if operation == "CreateService":
        return ServiceAlreadyExists(why, ServiceId=entry.outcome.get("service", ""))
    return DuplicateRequest(why, DuplicateOperationId=entry.outcome.get("operation", ""))


# --- namespaces


def _create_namespace(state: RegistryState, command: CreateNamespace, context: Context) -> list[NewEvent]:
    key = NamespaceKey(context.account, command.name)
    there = state.namespaces.get(key)
    if there is not None:
        raise NamespaceAlreadyExists(
            f"There is a namespace {command.name} in account {context.account}: {there.id}",
            NamespaceId=there.id,
            CreatorRequestId=there.creator_request_id,
        )
    if sum(each.account == context.account for each in state.namespaces) >= NAMESPACES_PER_ACCOUNT:
        raise ResourceLimitExceeded(f"Account {context.account} has {NAMESPACES_PER_ACCOUNT} namespaces: delete some")
    _check_tags(command.tags, command.name)
    return [instances.new_namespace(state, key, command, context)]


def _update_namespace(state: RegistryState, command: UpdateNamespace, context: Context) -> list[NewEvent]:
    namespace = namespace_of(state, context.account, command.id)
    if namespace.type != command.type:
        raise InvalidInput(f"Id: namespace {namespace.id} is of type {namespace.type}, not {command.type}")
    data: dict[str, Any] = {
        "namespace": list(namespace.key),
        "operation": fresh_operation_id(context, state.position),
    }
    if command.description is not None:
        data["description"] = command.description
    if command.properties is not None:
        data["properties"] = {**namespace.properties, **command.properties}
    return [NewEvent(NAMESPACE_UPDATED, data)]


def _delete_namespace(state: RegistryState, command: DeleteNamespace, context: Context) -> list[NewEvent]:
    namespace = namespace_of(state, context.account, command.id)
    inside = state.services_in(namespace.key)
    if inside:
        raise InUse(
            f"Namespace {namespace.key.namespace} has {len(inside)} services, {inside[0].key.service} among them"
        )
    data = {"namespace": list(namespace.key), "operation": fresh_operation_id(context, state.position)}
    return [NewEvent(NAMESPACE_DELETED, data)]


# --- services


def _create_service(state: RegistryState, command: CreateService, context: Context) -> list[NewEvent]:
    namespace = namespace_of(state, context.account, command.namespace_id)
    key = ServiceKey(*namespace.key, command.name)
    there = _same_name(state, namespace, key)
    if there is not None:
        raise ServiceAlreadyExists(
            f"There is a service {there.key.service} in namespace {namespace.key.namespace}: {there.id}",
            ServiceId=there.id,
            CreatorRequestId=there.creator_request_id,
        )
    rules.check_service(namespace.type, command.spec)
    instances.check_room_for_service(state, namespace.key)
    _check_tags(command.tags, command.name)
    return [instances.new_service(state, key, command, context, HERE)]


def _same_name(state: RegistryState, namespace: Namespace, key: ServiceKey) -> Service | None:
    """DNS tells no capital from a small letter, so neither do names in a namespace that it serves."""
    if key in state.services or namespace.type == rules.HTTP:
        return state.services.get(key)
    lower = key.service.lower()
    return next((each for each in state.services_in(namespace.key) if each.key.service.lower() == lower), None)


def _update_service(state: RegistryState, command: UpdateService, context: Context) -> list[NewEvent]:
    service = service_of(state, context.account, command.id)
    before = service.spec
    spec = {name: before[name] for name in ("Type", "HealthCheckCustomConfig") if name in before}
    if "DnsConfig" in command.change:
        routing = before.get("DnsConfig", {}).get("RoutingPolicy", "MULTIVALUE")
        spec["DnsConfig"] = {"RoutingPolicy": routing, **command.change["DnsConfig"]}
    elif "DnsConfig" in before:
        spec["DnsConfig"] = before["DnsConfig"]
    if "HealthCheckConfig" in command.change:
        spec["HealthCheckConfig"] = command.change["HealthCheckConfig"]
    rules.check_service(state.namespaces[service.key.home].type, spec)
    data = {
        "service": list(service.key),
        "operation": fresh_operation_id(context, state.position),
        "description": command.change.get("Description", service.description),
        "spec": rules.with_defaults(spec),
    }
    return [NewEvent(SERVICE_UPDATED, data)]


def _delete_service(state: RegistryState, command: DeleteService, context: Context) -> list[NewEvent]:
    service = service_of(state, context.account, command.id)
    count = len(state.instances.get(service.key) or ())
    if count:
        raise InUse(f"Service {service.key.service} has {count} instances: deregister them first")
    return [NewEvent(SERVICE_DELETED, {"service": list(service.key)})]


def _change_attributes(state: RegistryState, command: ChangeServiceAttributes, context: Context) -> list[NewEvent]:
    service = service_of(state, context.account, command.id)
    kept = {key: value for key, value in service.attributes.items() if key not in command.unset}
    if len({**kept, **command.put}) > SERVICE_ATTRIBUTES_MAX:
        raise ServiceAttributesLimitExceeded(f"A service has {SERVICE_ATTRIBUTES_MAX} attributes at most")
    unset = sorted(set(command.unset) & set(service.attributes))
    changed = {key: value for key, value in command.put.items() if kept.get(key) != value}
    if not unset and not changed:
        return []
    return [NewEvent(SERVICE_ATTRIBUTES_CHANGED, {"service": list(service.key), "set": changed, "unset": unset})]


# --- tags, and what any log has


def _tag(state: RegistryState, command: TagRegistered, context: Context) -> list[NewEvent]:
    resource = tagged(state, context.account, command.arn)
    _check_tags({**resource.tags, **command.put}, command.arn)
    unset = sorted(set(command.unset) & set(resource.tags))
    put = {key: value for key, value in command.put.items() if resource.tags.get(key) != value}
    if not unset and not put:
        return []
    return [NewEvent(TAGS_CHANGED, {"of": list(resource.key), "set": put, "unset": unset})]


def _check_tags(tags: Mapping[str, str], name: str) -> None:
    if len(tags) > REGISTRY_TAGS_MAX:
        raise RegistryTooManyTags(f"A resource has {REGISTRY_TAGS_MAX} tags at most", ResourceName=name)
    if any(key.lower().startswith("aws:") for key in tags):
        raise InvalidInput("Tags: keys that begin with 'aws:' are AWS's own")


def _record_data_keys(state: RegistryState, command: RecordDataKeys, context: Context) -> list[NewEvent]:  # noqa: ARG001
    if not command.key_ids:
        return []
    if command.kek is None:
        return [NewEvent(DATA_KEYS_DRAWN, {"keys": list(command.key_ids)})]
    return [NewEvent(DATA_KEYS_REWRAPPED, {"keys": list(command.key_ids), "kek": command.kek})]


def _raise_level(state: RegistryState, command: RaiseLevel, context: Context) -> list[NewEvent]:  # noqa: ARG001
    if not state.level <= command.level <= LEVEL:
        raise BadRequest(f"level {command.level} is out of reach: the registry's log is at {state.level} of {LEVEL}")
    return [NewEvent(LEVEL_RAISED, {"level": command.level})] if command.level > state.level else []


DECIDERS = cast(
    "Mapping[type[RegistryCommand], Callable[[RegistryState, RegistryCommand, Context], list[NewEvent]]]",
    {
        CreateNamespace: _create_namespace,
        UpdateNamespace: _update_namespace,
        DeleteNamespace: _delete_namespace,
        CreateService: _create_service,
        UpdateService: _update_service,
        DeleteService: _delete_service,
        ChangeServiceAttributes: _change_attributes,
        RegisterInstance: instances.register,
        DeregisterInstance: instances.deregister,
        ReportHealth: instances.report_health,
        MarkHeartbeats: instances.mark_heartbeats,
        CopyInstances: instances.copy,
        TagRegistered: _tag,
        RecordDataKeys: _record_data_keys,
        RaiseLevel: _raise_level,
    },
)
"""One small function for each command."""
