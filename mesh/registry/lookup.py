"""Finding what a call names: by id, by ARN, by name; or Cloud Map's error for what is not there. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from mesh.registry.errors import InstanceNotFound, InvalidInput, NamespaceNotFound, ResourceNotFound, ServiceNotFound
from mesh.registry.names import arn_id, id_of
from mesh.registry.state import Namespace, RegistryState, Service


def namespace_of(state: RegistryState, account: str, named: str) -> Namespace:
    """The account's namespace of that id or ARN; NamespaceNotFound."""
    key = state.namespace_ids.get(id_of(named))
    if key is None or key.account != account:
        raise NamespaceNotFound(f"There is no namespace {named[:300]} in account {account}")
    return state.namespaces[key]


def service_of(state: RegistryState, account: str, named: str) -> Service:
    """The account's service of that id or ARN; ServiceNotFound."""
    key = state.service_ids.get(id_of(named))
    if key is None or key.account != account:
        raise ServiceNotFound(f"There is no service {named[:300]} in account {account}")
    return state.services[key]


def instance_key(state: RegistryState, account: str, service: str, instance_id: str) -> tuple[Service, str]:
    """A service and the id of an instance that it has; ServiceNotFound, InstanceNotFound."""
    found = service_of(state, account, service)
    if state.instance(found.key, instance_id) is None:
        raise InstanceNotFound(f"Service {found.key.service} ({found.id}) has no instance {instance_id[:80]}")
    return found, instance_id


def tagged(state: RegistryState, account: str, arn: str) -> Namespace | Service:
    """What the ARN names; ResourceNotFound."""
    named = arn_id(arn)
    if named is None:
        raise InvalidInput(f"ResourceARN: '{arn[:300]}' is the ARN of no namespace and no service")
    for ids, table in ((state.namespace_ids, state.namespaces), (state.service_ids, state.services)):
        key = cast("Mapping[str, Any]", ids).get(named)
        if key is not None and key.account == account:
            return cast("Namespace | Service", cast("Any", table)[key])
    raise ResourceNotFound(f"There is no {arn[:300]} in account {account}")
