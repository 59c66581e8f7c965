"""What is asked of a registry state: discovery by attributes and health, and the filters of lists. Pure.

Discovery is the model's: an instance has all `QueryParameters`; of those, whoever has all `OptionalParameters` too, if
there are any; of those, by health. Health counts only in a service that has a check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mesh.registry.documents import SUCCESS
from mesh.registry.errors import NamespaceNotFound, ServiceNotFound
from mesh.registry.rules import has_check
from mesh.registry.state import Health, Instance, Namespace, NamespaceKey, Operation, RegistryState, Service, ServiceKey

HEALTHY_OR_ELSE_ALL, ALL = "HEALTHY_OR_ELSE_ALL", "ALL"
DISCOVER_LIMIT = 100
SELF = "SELF"


def named_service(state: RegistryState, account: str, members: Mapping[str, Any]) -> Service:
    """The service that `NamespaceName` and `ServiceName` say; NamespaceNotFound, ServiceNotFound.

    Nobody's namespaces are shared with anybody here: another `OwnerAccount` has none that the caller may see.
    """
    owner = members.get("OwnerAccount", account)
    home = NamespaceKey(account, members["NamespaceName"])
    if owner != account or home not in state.namespaces:
        raise NamespaceNotFound(f"There is no namespace {home.namespace[:300]} in account {owner}")
    service = state.services.get(ServiceKey(*home, members["ServiceName"]))
    if service is None:
        raise ServiceNotFound(f"Namespace {home.namespace} has no service {members['ServiceName'][:300]}")
    return service


def discover(state: RegistryState, service: Service, members: Mapping[str, Any]) -> list[Instance]:
    """The instances that `DiscoverInstances` gives, sorted by id."""
    found = [each for each in state.discovered(service.key) if _has(each, members.get("QueryParameters", {}))]
    preferred = [each for each in found if _has(each, members.get("OptionalParameters", {}))]
    found = _by_health(service, preferred or found, members.get("HealthStatus", HEALTHY_OR_ELSE_ALL))
    return found[: members.get("MaxResults", DISCOVER_LIMIT)]


def _by_health(service: Service, found: list[Instance], wanted: str) -> list[Instance]:
    if wanted == ALL or not any(has_check(service, each) for each in found):
        return found
    healthy = [each for each in found if each.health is Health.HEALTHY]
    if wanted == HEALTHY_OR_ELSE_ALL:
        return healthy or found
    return healthy if wanted == Health.HEALTHY else [each for each in found if each.health is Health.UNHEALTHY]


def _has(instance: Instance, wanted: Mapping[str, str]) -> bool:
    return all(instance.attributes.get(key) == value for key, value in wanted.items())


Filters = Sequence[Mapping[str, Any]]


def listed_namespaces(state: RegistryState, account: str, filters: Filters) -> list[Namespace]:
    """The account's namespaces that meet all filters, sorted by name."""
    facts: Mapping[str, Callable[[Namespace], str]] = {
        "TYPE": lambda each: each.type,
        "NAME": lambda each: each.key.namespace,
        "HTTP_NAME": lambda each: each.key.namespace,
        "RESOURCE_OWNER": lambda each: SELF,  # noqa: ARG005 - a table of functions with one shape
    }
    own = (state.namespaces[key] for key in sorted(state.namespaces) if key.account == account)
    return [each for each in own if all(_meets(facts[told["Name"]](each), told) for told in filters)]


def listed_services(state: RegistryState, account: str, filters: Filters) -> list[Service]:
    """The account's services that meet all filters, sorted by namespace and name."""
    facts: Mapping[str, Callable[[Service], str]] = {
        "NAMESPACE_ID": lambda each: each.namespace_id,
        "RESOURCE_OWNER": lambda each: SELF,  # noqa: ARG005
    }
    own = (state.services[key] for key in sorted(state.services) if key.account == account)
    return [each for each in own if all(_meets(facts[told["Name"]](each), told) for told in filters)]


def listed_operations(state: RegistryState, account: str, filters: Filters) -> list[Operation]:
    """The account's operations that are remembered and meet all filters, sorted by id."""
    facts: Mapping[str, Callable[[Operation], str]] = {
        "NAMESPACE_ID": lambda each: each.targets.get("NAMESPACE", ""),
        "SERVICE_ID": lambda each: each.targets.get("SERVICE", ""),
        "STATUS": lambda each: SUCCESS,  # noqa: ARG005
        "TYPE": lambda each: each.type,
        "UPDATE_DATE": lambda each: str(each.created_us // 1_000_000),
    }
    own = sorted((each for each in state.operations.values() if each.account == account), key=lambda each: each.id)
    return [each for each in own if all(_meets(facts[told["Name"]](each), told) for told in filters)]


def _meets(actual: str, told: Mapping[str, Any]) -> bool:
    condition, values = told.get("Condition", "EQ"), told["Values"]
    if condition == "BETWEEN":
        first, last = values
        return all(each.isdigit() for each in (actual, first, last)) and int(first) <= int(actual) <= int(last)
    if condition == "BEGINS_WITH":
        return actual.startswith(values[0])
    return actual in values
