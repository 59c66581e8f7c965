"""Registry events to registry state: the fold. Total on every type and schema that this build knows, pure.

As in `mesh.evolve`, an event that cannot be folded is Poison: the replica stops before it and names the position.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mesh.errors import Poison
from mesh.events import (
    DATA_KEYS_DRAWN,
    DATA_KEYS_REWRAPPED,
    LEVEL_RAISED,
    LOG_RESTORED,
    RECORD_QUARANTINED,
    Happened,
)
from mesh.evolve import UNFIT
from mesh.frozen import Frozen, freeze
from mesh.position import Position
from mesh.registry.events import (
    HEALTH_REPORTED,
    HEARTBEATS_HEARD,
    HEARTBEATS_MISSED,
    INSTANCE_DEREGISTERED,
    INSTANCE_REGISTERED,
    INSTANCES_COPIED,
    LEVEL,
    NAMESPACE_CREATED,
    NAMESPACE_DELETED,
    NAMESPACE_UPDATED,
    SCHEMAS,
    SERVICE_ATTRIBUTES_CHANGED,
    SERVICE_CREATED,
    SERVICE_DELETED,
    SERVICE_UPDATED,
    TAGS_CHANGED,
)
from mesh.registry.state import (
    NO_FACTS,
    Health,
    Instance,
    Namespace,
    NamespaceKey,
    Operation,
    RegistryState,
    Service,
    ServiceKey,
    TokenEntry,
)

Data = Mapping[str, Any]
Folded = tuple[RegistryState, Frozen]
"""The next state, and what a repeated call is answered with."""


def evolve(state: RegistryState, event: Happened) -> RegistryState:
    """The state after `event`, which must come after `state.position`; raises Poison."""
    fold = FOLDS.get(event.type)
    if fold is None or event.schema > SCHEMAS[event.type]:
        raise Poison(
            f"the event at {event.position} of the registry is of type {event.type} schema {event.schema}, which this "
            "build does not know: run a newer build, or quarantine the event"
        )
    if event.position <= state.position:
        raise Poison(f"the event at {event.position} does not come after {state.position}: the log was read twice")
    if event.data is None:
        raise Poison(f"the event at {event.position} ({event.type}) has no data, and is no secret")
    moved = state.but(position=event.position, time_us=max(state.time_us, event.time_us))
    try:
        moved, outcome = fold(moved, event.data)
    except UNFIT as error:
        why = "it is nested too deep" if isinstance(error, RecursionError) else f"{type(error).__name__} {error}"
        raise Poison(f"the event at {event.position} ({event.type}) does not fit the state before it: {why}") from error
    if event.token is None:
        return moved
    return moved.with_token(event.token.digest, TokenEntry(event.token.body, event.position, moved.time_us, outcome))


def _namespace_created(state: RegistryState, data: Data) -> Folded:
    key = NamespaceKey(*data["namespace"])
    if key in state.namespaces or data["id"] in state.namespace_ids:
        raise ValueError(f"namespace {key.namespace} is there already")
    namespace = Namespace(
        key,
        data["id"],
        data["type"],
        data["description"],
        freeze(data["properties"]),
        freeze(data["tags"]),
        data["creator_request_id"],
        state.time_us,
    )
    return _operated(state.with_namespace(key, namespace), data, "CREATE_NAMESPACE", {"NAMESPACE": namespace.id}, key)


def _namespace_updated(state: RegistryState, data: Data) -> Folded:
    key = NamespaceKey(*data["namespace"])
    namespace = state.namespaces[key]
    changed = namespace._replace(
        description=data.get("description", namespace.description),
        properties=freeze(data.get("properties", namespace.properties)),
    )
    return _operated(state.with_namespace(key, changed), data, "UPDATE_NAMESPACE", {"NAMESPACE": namespace.id}, key)


def _namespace_deleted(state: RegistryState, data: Data) -> Folded:
    key = NamespaceKey(*data["namespace"])
    namespace = state.namespaces[key]
    if key in state.inside:
        raise ValueError(f"namespace {key.namespace} has services")
    return _operated(state.with_namespace(key, None), data, "DELETE_NAMESPACE", {"NAMESPACE": namespace.id}, key)


def _service_created(state: RegistryState, data: Data) -> Folded:
    key = ServiceKey(*data["service"])
    namespace = state.namespaces[key.home]
    if key in state.services or data["id"] in state.service_ids:
        raise ValueError(f"service {key.service} is there already")
    service = Service(
        key,
        data["id"],
        namespace.id,
        data["description"],
        freeze(data["spec"]),
        NO_FACTS,
        freeze(data["tags"]),
        data["creator_request_id"],
        state.time_us,
        # Each change of instances takes a position at least, so this is above all that the name had before.
        state.position.position,
        data["source"],
    )
    return state.with_service(key, service), freeze({"service": service.id})


def _service_updated(state: RegistryState, data: Data) -> Folded:
    key = ServiceKey(*data["service"])
    service = state.services[key]
    changed = service._replace(description=data["description"], spec=freeze(data["spec"]))
    return _operated(state.with_service(key, changed), data, "UPDATE_SERVICE", {"SERVICE": service.id}, key)


def _service_deleted(state: RegistryState, data: Data) -> Folded:
    key = ServiceKey(*data["service"])
    if key in state.instances:
        raise ValueError(f"service {key.service} has instances")
    if key not in state.services:
        raise ValueError(f"there is no service {key.service}")
    return state.with_service(key, None), NO_FACTS


def _service_attributes_changed(state: RegistryState, data: Data) -> Folded:
    key = ServiceKey(*data["service"])
    service = state.services[key]
    attributes = _changed(service.attributes, data)
    return state.with_service(key, service._replace(attributes=attributes)), NO_FACTS


def _instance_registered(state: RegistryState, data: Data) -> Folded:
    key, instance_id = ServiceKey(*data["service"]), data["instance"]
    service = state.services[key]
    instance = Instance(
        instance_id,
        freeze(data["attributes"]),
        Health(data["health"]),
        data["creator_request_id"],
        state.time_us,
        data["by"],
        _since(state, key, instance_id, Health(data["health"])),
        state.position,
        reported=Health(data["health"]),
    )
    state = _revised(state.with_instance(key, instance_id, instance), service)
    return _operated(state, data, "REGISTER_INSTANCE", {"INSTANCE": instance_id, "SERVICE": service.id}, key)


def _instance_deregistered(state: RegistryState, data: Data) -> Folded:
    key, instance_id = ServiceKey(*data["service"]), data["instance"]
    service = state.services[key]
    if instance_id not in state.instances[key]:
        raise ValueError(f"there is no instance {instance_id}")
    state = _revised(state.with_instance(key, instance_id, None), service)
    return _operated(state, data, "DEREGISTER_INSTANCE", {"INSTANCE": instance_id, "SERVICE": service.id}, key)


def _health_reported(state: RegistryState, data: Data) -> Folded:
    return _health(state, data, {"reported": Health(data["health"])}), NO_FACTS


def _heartbeats_missed(state: RegistryState, data: Data) -> Folded:
    return _health(state, data, {"silent": True}), NO_FACTS


def _heartbeats_heard(state: RegistryState, data: Data) -> Folded:
    return _health(state, data, {"silent": False}), NO_FACTS


def _health(state: RegistryState, data: Data, said: Mapping[str, Any]) -> RegistryState:
    key = ServiceKey(*data["service"])
    service = state.services[key]
    for instance_id in data["instances"]:
        before = state.instances[key][instance_id]
        after = before.but(**said, changed_at=state.position)
        if after.health is not before.health:
            after = after.but(health_us=state.time_us)
        state = state.with_instance(key, instance_id, after)
    return _revised(state, service)


def _since(state: RegistryState, key: ServiceKey, instance_id: str, health: Health) -> int:
    """Since when an instance that is now `health` is so."""
    before = state.instance(key, instance_id)
    return before.health_us if before is not None and before.health is health else state.time_us


def _copied(state: RegistryState, data: Data) -> Folded:
    key = ServiceKey(*data["service"])
    service = state.services[key]
    for instance_id in data["removed"]:
        if state.instance(key, instance_id) is None:
            raise ValueError(f"there is no instance {instance_id}")
        state = state.with_instance(key, instance_id, None)
    for instance_id, attributes, said in data["put"]:
        before, health = state.instance(key, instance_id), Health(said)
        instance = Instance(
            instance_id,
            freeze(attributes),
            health,
            "",
            before.registered_us if before else state.time_us,
            service.source,
            _since(state, key, instance_id, health),
            state.position,
            reported=health,
        )
        state = state.with_instance(key, instance_id, instance)
    return _revised(state, service), NO_FACTS


def _tags_changed(state: RegistryState, data: Data) -> Folded:
    names = data["of"]
    if len(names) == len(NamespaceKey._fields):
        home = NamespaceKey(*names)
        namespace = state.namespaces[home]
        return state.with_namespace(home, namespace._replace(tags=_changed(namespace.tags, data))), NO_FACTS
    key = ServiceKey(*names)
    service = state.services[key]
    return state.with_service(key, service._replace(tags=_changed(service.tags, data))), NO_FACTS


def _data_keys(state: RegistryState, data: Data) -> Folded:
    if not all(isinstance(key_id, str) for key_id in data["keys"]):
        raise ValueError("a data key's id is text")
    return state, NO_FACTS


def _level_raised(state: RegistryState, data: Data) -> Folded:
    level: int = data["level"]
    if level > LEVEL:
        raise ValueError(f"level {level} is above {LEVEL}, the highest that this build understands")
    return state.but(level=max(state.level, level)), NO_FACTS


def _log_restored(state: RegistryState, data: Data) -> Folded:
    base = Position(data["from_epoch"], data["position"])
    if base.epoch >= state.position.epoch or base.position + 1 != state.position.position:
        raise ValueError(f"a timeline that goes on from {base} does not begin with {state.position}")
    return state.but(lineage=(*state.lineage, base)), NO_FACTS


def _nothing(state: RegistryState, data: Data) -> Folded:  # noqa: ARG001 - one shape for the table
    return state, NO_FACTS


def _changed(before: Frozen, data: Data) -> Frozen:
    unset = set(data["unset"])
    kept = {key: value for key, value in before.items() if key not in unset}
    return freeze({**kept, **data["set"]})


def _revised(state: RegistryState, service: Service) -> RegistryState:
    return state.with_service(service.key, service._replace(revision=service.revision + 1))


def _operated(
    state: RegistryState, data: Data, kind: str, targets: Mapping[str, str], key: NamespaceKey | ServiceKey
) -> Folded:
    operation_id = data.get("operation")
    if operation_id is None:
        return state, NO_FACTS
    operation = Operation(operation_id, key.account, kind, freeze(targets), state.time_us)
    return state.with_operation(operation), freeze({"operation": operation_id})


FOLDS: Mapping[str, Callable[[RegistryState, Data], Folded]] = {
    NAMESPACE_CREATED: _namespace_created,
    NAMESPACE_UPDATED: _namespace_updated,
    NAMESPACE_DELETED: _namespace_deleted,
    SERVICE_CREATED: _service_created,
    SERVICE_UPDATED: _service_updated,
    SERVICE_DELETED: _service_deleted,
    SERVICE_ATTRIBUTES_CHANGED: _service_attributes_changed,
    INSTANCE_REGISTERED: _instance_registered,
    INSTANCE_DEREGISTERED: _instance_deregistered,
    HEALTH_REPORTED: _health_reported,
    HEARTBEATS_MISSED: _heartbeats_missed,
    HEARTBEATS_HEARD: _heartbeats_heard,
    INSTANCES_COPIED: _copied,
    TAGS_CHANGED: _tags_changed,
    DATA_KEYS_DRAWN: _data_keys,
    DATA_KEYS_REWRAPPED: _data_keys,
    LEVEL_RAISED: _level_raised,
    LOG_RESTORED: _log_restored,
    RECORD_QUARANTINED: _nothing,
}
"""One small function for each type of event."""


def folded(events: Iterable[Happened], state: RegistryState | None = None) -> RegistryState:
    """All of them, one after the other."""
    state = RegistryState() if state is None else state
    for event in events:
        state = evolve(state, event)
    return state
