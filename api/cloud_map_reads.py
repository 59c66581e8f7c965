"""The reading operations of the Cloud Map API: a state of the registry and an input become a document. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from api.paging import page
from mesh.registry.documents import (
    discovered_document,
    health_status,
    instance_document,
    namespace_document,
    operation_document,
    revision,
    service_document,
    tag_list,
)
from mesh.registry.errors import InstanceNotFound, OperationNotFound
from mesh.registry.lookup import instance_key, namespace_of, service_of, tagged
from mesh.registry.names import SERVICE, arn, id_of
from mesh.registry.operations import SHAPES
from mesh.registry.queries import discover, listed_namespaces, listed_operations, listed_services, named_service
from mesh.registry.state import RegistryState

Members = Mapping[str, Any]
Document = dict[str, Any]

LIST_LIMIT: int = SHAPES["MaxResults"]["max"]
"""Items of a page when the caller names no limit: the model's largest."""


def _namespace(state: RegistryState, account: str, members: Members, region: str) -> Document:
    return {"Namespace": namespace_document(state, namespace_of(state, account, members["Id"]), region)}


def _namespaces(state: RegistryState, account: str, members: Members, region: str) -> Document:
    found = listed_namespaces(state, account, members.get("Filters", ()))
    cut, token = _page(found, lambda each: each.key.namespace, ("namespaces", account), members)
    documents = [namespace_document(state, each, region) for each in cut]
    return _with_token({"Namespaces": [_without(each, "CreatorRequestId") for each in documents]}, token)


def _service(state: RegistryState, account: str, members: Members, region: str) -> Document:
    return {"Service": service_document(state, service_of(state, account, members["Id"]), region)}


def _services(state: RegistryState, account: str, members: Members, region: str) -> Document:
    found = listed_services(state, account, [_by_id(each) for each in members.get("Filters", ())])
    cut, token = _page(found, lambda each: f"{each.key.namespace}\n{each.key.service}", ("services", account), members)
    documents = [service_document(state, each, region) for each in cut]
    return _with_token({"Services": [_without(each, "CreatorRequestId", "NamespaceId") for each in documents]}, token)


def _service_attributes(state: RegistryState, account: str, members: Members, region: str) -> Document:
    service = service_of(state, account, members["ServiceId"])
    return {
        "ServiceAttributes": {
            "ServiceArn": arn(region, account, SERVICE, service.id),
            "ResourceOwner": account,
            "Attributes": dict(service.attributes),
        }
    }


def _instance(state: RegistryState, account: str, members: Members, region: str) -> Document:  # noqa: ARG001
    service, instance_id = instance_key(state, account, members["ServiceId"], members["InstanceId"])
    found = state.instances[service.key][instance_id]
    return {"ResourceOwner": account, "Instance": instance_document(service, found)}


def _instances(state: RegistryState, account: str, members: Members, region: str) -> Document:  # noqa: ARG001
    service = service_of(state, account, members["ServiceId"])
    cut, token = _page(state.discovered(service.key), lambda each: each.id, ("instances", service.id), members)
    documents = [_without(instance_document(service, each), "CreatorRequestId") for each in cut]
    return _with_token({"ResourceOwner": account, "Instances": documents}, token)


def _health(state: RegistryState, account: str, members: Members, region: str) -> Document:  # noqa: ARG001
    service = service_of(state, account, members["ServiceId"])
    wanted = members.get("Instances")
    found = [each for each in state.discovered(service.key) if wanted is None or each.id in wanted]
    missing = sorted(set(wanted or ()) - {each.id for each in found})
    if missing:
        raise InstanceNotFound(f"Service {service.key.service} ({service.id}) has no instance {missing[0][:80]}")
    cut, token = _page(found, lambda each: each.id, ("health", service.id), members)
    return _with_token({"Status": {each.id: health_status(service, each) for each in cut}}, token)


def _discover(state: RegistryState, account: str, members: Members, region: str) -> Document:  # noqa: ARG001
    service = named_service(state, account, members)
    found = discover(state, service, members)
    return {
        "Instances": [discovered_document(service, each) for each in found],
        "InstancesRevision": revision(state, service),
    }


def _revision(state: RegistryState, account: str, members: Members, region: str) -> Document:  # noqa: ARG001
    return {"InstancesRevision": revision(state, named_service(state, account, members))}


def _operation(state: RegistryState, account: str, members: Members, region: str) -> Document:  # noqa: ARG001
    found = state.operations.get(members["OperationId"])
    if found is None or found.account != account or members.get("OwnerAccount", account) != account:
        raise OperationNotFound(f"There is no operation {members['OperationId'][:300]} in account {account}")
    return {"Operation": operation_document(found)}


def _operations(state: RegistryState, account: str, members: Members, region: str) -> Document:  # noqa: ARG001
    found = listed_operations(state, account, [_by_id(each) for each in members.get("Filters", ())])
    cut, token = _page(found, lambda each: each.id, ("operations", account), members)
    documents = [operation_document(each) for each in cut]
    return _with_token({"Operations": [{"Id": each["Id"], "Status": each["Status"]} for each in documents]}, token)


def _tags(state: RegistryState, account: str, members: Members, region: str) -> Document:  # noqa: ARG001
    return {"Tags": tag_list(tagged(state, account, members["ResourceARN"]).tags)}


READS: Mapping[str, Callable[[RegistryState, str, Members, str], Document]] = {
    "GetNamespace": _namespace,
    "ListNamespaces": _namespaces,
    "GetService": _service,
    "ListServices": _services,
    "GetServiceAttributes": _service_attributes,
    "GetInstance": _instance,
    "ListInstances": _instances,
    "GetInstancesHealthStatus": _health,
    "DiscoverInstances": _discover,
    "DiscoverInstancesRevision": _revision,
    "GetOperation": _operation,
    "ListOperations": _operations,
    "ListTagsForResource": _tags,
}
"""One small function for each reading operation: of state, account, input and region."""


def _page(found: Any, name: Callable[[Any], str], scope: tuple[str, ...], members: Members) -> tuple[Any, str | None]:
    filters = [f"{each['Name']} {each.get('Condition')} {each['Values']}" for each in members.get("Filters", ())]
    limit = members.get("MaxResults", LIST_LIMIT)
    return page(found, name, (*scope, *filters), limit, members.get("NextToken"))


def _by_id(told: Members) -> Members:
    """A filter by id, whose values may be ARNs too."""
    if told["Name"] not in ("NAMESPACE_ID", "SERVICE_ID"):
        return told
    return {**told, "Values": [id_of(value) for value in told["Values"]]}


def _with_token(document: Document, token: str | None) -> Document:
    return document if token is None else {**document, "NextToken": token}


def _without(document: Document, *names: str) -> Document:
    return {name: value for name, value in document.items() if name not in names}
