"""What comes of commands about instances, and what makes the namespace and service that copied ones need. Pure."""

from __future__ import annotations

from mesh.commands import Context
from mesh.events import NewEvent
from mesh.limits import INSTANCES_PER_NAMESPACE, INSTANCES_PER_SERVICE, SERVICES_PER_NAMESPACE
from mesh.registry import rules
from mesh.registry.commands import (
    CopyInstances,
    CreateNamespace,
    CreateService,
    DeregisterInstance,
    MarkHeartbeats,
    RegisterInstance,
    ReportHealth,
)
from mesh.registry.errors import CustomHealthNotFound, InUse, ResourceLimitExceeded
from mesh.registry.events import (
    HEALTH_REPORTED,
    HEARTBEATS_HEARD,
    HEARTBEATS_MISSED,
    INSTANCE_DEREGISTERED,
    INSTANCE_REGISTERED,
    INSTANCES_COPIED,
    NAMESPACE_CREATED,
    SERVICE_CREATED,
)
from mesh.registry.lookup import instance_key, service_of
from mesh.registry.names import fresh_namespace_id, fresh_operation_id, fresh_service_id
from mesh.registry.state import HERE, NamespaceKey, RegistryState, Service, ServiceKey


def new_namespace(state: RegistryState, key: NamespaceKey, command: CreateNamespace, context: Context) -> NewEvent:
    return NewEvent(
        NAMESPACE_CREATED,
        {
            "namespace": list(key),
            "id": fresh_namespace_id(context, state.position),
            "type": command.type,
            "description": command.description,
            "properties": dict(command.properties),
            "tags": dict(command.tags),
            "creator_request_id": command.creator_request_id,
            "operation": fresh_operation_id(context, state.position),
        },
    )


def check_room_for_service(state: RegistryState, namespace: NamespaceKey) -> None:
    if len(state.inside.get(namespace) or ()) >= SERVICES_PER_NAMESPACE:
        raise ResourceLimitExceeded(
            f"Namespace {namespace.namespace} has {SERVICES_PER_NAMESPACE} services: delete some"
        )


def new_service(
    state: RegistryState, key: ServiceKey, command: CreateService, context: Context, source: str
) -> NewEvent:
    return NewEvent(
        SERVICE_CREATED,
        {
            "service": list(key),
            "id": fresh_service_id(context, state.position),
            "description": command.description,
            "spec": rules.with_defaults(command.spec),
            "tags": dict(command.tags),
            "creator_request_id": command.creator_request_id,
            "source": source,
        },
    )


def register(state: RegistryState, command: RegisterInstance, context: Context) -> list[NewEvent]:
    service = service_of(state, context.account, command.service_id)
    _check_source(service)
    rules.check_instance(service, command.attributes)
    if state.instance(service.key, command.instance_id) is None:
        _check_room(state, service.key, 1)
    data = {
        "service": list(service.key),
        "instance": command.instance_id,
        "attributes": dict(command.attributes),
        "health": rules.initial_health(command.attributes).value,
        "creator_request_id": command.creator_request_id,
        "by": context.principal,
        "operation": fresh_operation_id(context, state.position),
    }
    return [NewEvent(INSTANCE_REGISTERED, data)]


def _check_source(service: Service) -> None:
    if service.source != HERE:
        raise InUse(
            f"Service {service.key.service} is copied from {service.source}: register its instances there, or in "
            "another service"
        )


def _check_room(state: RegistryState, key: ServiceKey, more: int) -> None:
    if len(state.instances.get(key) or ()) + more > INSTANCES_PER_SERVICE:
        raise ResourceLimitExceeded(f"Service {key.service} has {INSTANCES_PER_SERVICE} instances: deregister some")
    if (state.counts.get(key.home) or 0) + more > INSTANCES_PER_NAMESPACE:
        raise ResourceLimitExceeded(
            f"Namespace {key.namespace} has {INSTANCES_PER_NAMESPACE} instances: deregister some, or use another one"
        )


def deregister(state: RegistryState, command: DeregisterInstance, context: Context) -> list[NewEvent]:
    service, instance_id = instance_key(state, context.account, command.service_id, command.instance_id)
    _check_source(service)
    data = {
        "service": list(service.key),
        "instance": instance_id,
        "operation": fresh_operation_id(context, state.position),
    }
    return [NewEvent(INSTANCE_DEREGISTERED, data)]


def report_health(state: RegistryState, command: ReportHealth, context: Context) -> list[NewEvent]:
    service, instance_id = instance_key(state, context.account, command.service_id, command.instance_id)
    if "HealthCheckCustomConfig" not in service.spec:
        raise CustomHealthNotFound(f"Service {service.key.service} has no HealthCheckCustomConfig")
    _check_source(service)
    if state.instances[service.key][instance_id].reported is command.health:
        return []
    data = {"service": list(service.key), "instances": [instance_id], "health": command.health.value}
    return [NewEvent(HEALTH_REPORTED, data)]


def mark_heartbeats(state: RegistryState, command: MarkHeartbeats, context: Context) -> list[NewEvent]:  # noqa: ARG001
    found = [(each, state.instance(command.service, each)) for each in command.instances]
    changed = [each for each, instance in found if instance is not None and instance.silent is not command.silent]
    if not changed:
        return []
    kind = HEARTBEATS_MISSED if command.silent else HEARTBEATS_HEARD
    return [NewEvent(kind, {"service": list(command.service), "instances": changed})]


def copy(state: RegistryState, command: CopyInstances, context: Context) -> list[NewEvent]:
    key = command.service
    events: list[NewEvent] = []
    service = state.services.get(key)
    if service is not None and service.source != command.source:
        whence = f"is copied from {service.source}" if service.source != HERE else "has instances registered here"
        raise InUse(f"Service {key.service} of namespace {key.namespace} {whence}: {command.source} is not mixed in")
    if key.home not in state.namespaces:
        events.append(new_namespace(state, key.home, CreateNamespace(key.namespace, rules.HTTP), context))
    if service is None:
        check_room_for_service(state, key.home)
        made = CreateService("", key.service, spec={"HealthCheckCustomConfig": {}})  # what they say there is its health
        events.append(new_service(state, key, made, context, command.source))
    found = {instance.id: instance for instance in state.discovered(key)}
    put = [
        [each, dict(attributes), health.value]
        for each, attributes, health in command.put
        if each not in found or found[each].attributes != attributes or found[each].health is not health
    ]
    removed = [each for each in command.removed if each in found]
    if put or removed:
        events.append(NewEvent(INSTANCES_COPIED, {"service": list(key), "put": put, "removed": removed}))
    return events
