"""What another registry says of a service, against what is known here: the commands that make both alike. Pure.

What this must never do: empty a service because its source is in trouble. A service that had instances and has none
all at once is left as it is until the source has said so for `CLOUD_MAP_EMPTY_S`, and an operator is told.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from mesh.kinds import VIRTUAL_NODE
from mesh.limits import COPIED_AT_ONCE
from mesh.registry.commands import CopyInstances
from mesh.registry.state import HERE, Health, RegistryState, ServiceKey
from mesh.state import State

Said = Mapping[str, tuple[Mapping[str, str], Health]]
"""Instances by id: attributes and health."""


def wanted_services(state: State, registry: RegistryState, account: str, only: Collection[str]) -> list[ServiceKey]:
    """The services that virtual nodes of the account name, sorted; without those that are registered here.

    `only`: of these namespaces; of all if there are none. An account's nodes may be in meshes of others.
    """
    found = set()
    for resource in state.resources.values():
        if resource.key.kind != VIRTUAL_NODE.name or resource.owner != account:
            continue
        named = resource.spec.get("serviceDiscovery", {}).get("awsCloudMap")
        if named is not None and (not only or named["namespaceName"] in only):
            found.add(ServiceKey(account, named["namespaceName"], named["serviceName"]))
    return sorted(key for key in found if key not in registry.services or registry.services[key].source != HERE)


def said_of(summaries: Collection[Mapping[str, Any]]) -> Said:
    """The instances of an answer to DiscoverInstances. What nothing checks is taken for healthy, as there."""
    return {
        each["InstanceId"]: (
            each.get("Attributes", {}),
            Health.UNHEALTHY if each.get("HealthStatus") == Health.UNHEALTHY else Health.HEALTHY,
        )
        for each in summaries
    }


def is_emptied(registry: RegistryState, key: ServiceKey, said: Said) -> bool:
    """Whether nothing would be left of what is known."""
    return not said and bool(registry.discovered(key))


def commands(registry: RegistryState, key: ServiceKey, source: str, said: Said) -> Iterator[CopyInstances]:
    """What makes the service here what is said there, in parts that fit into records; none if it is so already.

    First what is new or changed, then what is gone: whoever reads in between has more, not less.
    """
    known = {each.id: each for each in registry.discovered(key)}
    put = tuple(
        (each, attributes, health)
        for each, (attributes, health) in sorted(said.items())
        if each not in known or known[each].attributes != attributes or known[each].health is not health
    )
    removed = tuple(sorted(known.keys() - said.keys()))
    if key not in registry.services and not put:
        yield CopyInstances(key, source)
    for at in range(0, len(put), COPIED_AT_ONCE):
        yield CopyInstances(key, source, put[at : at + COPIED_AT_ONCE])
    for at in range(0, len(removed), COPIED_AT_ONCE):
        yield CopyInstances(key, source, (), removed[at : at + COPIED_AT_ONCE])
