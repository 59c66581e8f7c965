"""What is registered, as Cloud Map's JSON: members and shapes of its model. Times are epoch seconds. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mesh.frozen import thaw
from mesh.registry.names import NAMESPACE, SERVICE, arn
from mesh.registry.rules import HTTP, has_check, service_type
from mesh.registry.state import Instance, Namespace, Operation, RegistryState, Service

SUCCESS = "SUCCESS"
UNKNOWN = "UNKNOWN"
EPOCH_REVISIONS = 1 << 40
_US = 1_000_000


def namespace_document(state: RegistryState, namespace: Namespace, region: str) -> dict[str, Any]:
    """`GetNamespace`, and an item of `ListNamespaces`. DNS namespaces have no hosted zone: none is made here."""
    properties: dict[str, Any] = {"HttpProperties": {"HttpName": namespace.key.namespace}}
    if namespace.type != HTTP:
        properties["DnsProperties"] = thaw(namespace.properties).get("DnsProperties", {})
    return _some(
        {
            "Id": namespace.id,
            "Arn": arn(region, namespace.key.account, NAMESPACE, namespace.id),
            "ResourceOwner": namespace.key.account,
            "Name": namespace.key.namespace,
            "Type": namespace.type,
            "Description": namespace.description,
            "ServiceCount": len(state.inside.get(namespace.key) or ()),
            "Properties": properties,
            "CreateDate": namespace.created_us / _US,
            "CreatorRequestId": namespace.creator_request_id or None,
        }
    )


def service_document(state: RegistryState, service: Service, region: str) -> dict[str, Any]:
    """`CreateService`, `GetService`, and an item of `ListServices`."""
    spec = thaw(service.spec)
    kind = state.namespaces[service.key.home].type
    return _some(
        {
            "Id": service.id,
            "Arn": arn(region, service.key.account, SERVICE, service.id),
            "ResourceOwner": service.key.account,
            "Name": service.key.service,
            "NamespaceId": service.namespace_id,
            "Description": service.description,
            "InstanceCount": len(state.instances.get(service.key) or ()),
            "DnsConfig": spec.get("DnsConfig"),
            "Type": service_type(kind, spec),
            "HealthCheckConfig": spec.get("HealthCheckConfig"),
            "HealthCheckCustomConfig": spec.get("HealthCheckCustomConfig"),
            "CreateDate": service.created_us / _US,
            "CreatorRequestId": service.creator_request_id or None,
            "CreatedByAccount": service.key.account,
        }
    )


def instance_document(service: Service, instance: Instance) -> dict[str, Any]:
    """`GetInstance`, and an item of `ListInstances`."""
    return _some(
        {
            "Id": instance.id,
            "CreatorRequestId": instance.creator_request_id or None,
            "Attributes": dict(instance.attributes),
            "CreatedByAccount": service.key.account,
        }
    )


def discovered_document(service: Service, instance: Instance) -> dict[str, Any]:
    """An item of `DiscoverInstances`."""
    return {
        "InstanceId": instance.id,
        "NamespaceName": service.key.namespace,
        "ServiceName": service.key.service,
        "HealthStatus": health_status(service, instance),
        "Attributes": dict(instance.attributes),
    }


def health_status(service: Service, instance: Instance) -> str:
    """HEALTHY, UNHEALTHY, or UNKNOWN where nothing checks it."""
    return instance.health.value if has_check(service, instance) else UNKNOWN


def operation_document(operation: Operation) -> dict[str, Any]:
    """`GetOperation`. An operation is done before anybody is told of it."""
    return {
        "Id": operation.id,
        "OwnerAccount": operation.account,
        "Type": operation.type,
        "Status": SUCCESS,
        "CreateDate": operation.created_us / _US,
        "UpdateDate": operation.created_us / _US,
        "Targets": dict(operation.targets),
    }


def revision(state: RegistryState, service: Service) -> int:
    """What `DiscoverInstancesRevision` tells: another number after a restore, which may have taken changes away."""
    return (state.position.epoch - 1) * EPOCH_REVISIONS + service.revision


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as the API lists them, sorted by key."""
    return [{"Key": key, "Value": tags[key]} for key in sorted(tags)]


def _some(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if value is not None}
