"""A virtual node that is discovered by Cloud Map: from the registry's instances to the endpoints of its cluster.

Endpoints are the instances that have all of the node's attributes and are healthy (what Cloud Map gives if asked for
no health in particular), each at one address. The port is always the listener's: a sidecar tells its connections apart
by that, so the instance's own AWS_INSTANCE_PORT is for others.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from mesh.kinds import VIRTUAL_NODE
from mesh.registry.state import Health, Instance, ServiceKey
from projector.envoy.plans import AssignmentPlan, EndpointPlan
from projector.envoy.specs import ip_preference
from projector.envoy.view import Spec, View

V4, V6 = "AWS_INSTANCE_IPV4", "AWS_INSTANCE_IPV6"
ZONE, REGION = "AVAILABILITY_ZONE", "REGION"

_ADDRESSES = {
    None: (V4, V6),
    "IPv4_PREFERRED": (V4, V6),
    "IPv6_PREFERRED": (V6, V4),
    "IPv4_ONLY": (V4,),
    "IPv6_ONLY": (V6,),
}
"""Unset prefers v4 (the user guide), other than for DNS."""

_REGION_OF_ZONE = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]+(?=[a-z-])", re.ASCII)
"""`eu-west-1a` lies in `eu-west-1`, and the local zone `us-west-2-lax-1a` in `us-west-2`."""


def assignment(view: View, name: str, cluster: str, port: int) -> AssignmentPlan:
    """The endpoints of `cluster`, which reaches virtual node `name` on `port`. Without any it is empty, with an alarm.

    A part.
    """
    node = view.existing(VIRTUAL_NODE.name, name)
    wanted = node.spec["serviceDiscovery"]["awsCloudMap"]
    # A shared mesh's member has its namespaces in its own account.
    service = ServiceKey(node.owner, wanted["namespaceName"], wanted["serviceName"])
    instances = view.discovered(service)
    chosen = [each for each in instances if _has(each, wanted.get("attributes"))]
    healthy = [each for each in chosen if each.health is Health.HEALTHY]
    members = _ADDRESSES[ip_preference(view.mesh_spec(), node.spec)]
    endpoints = _endpoints(healthy, members, port)
    if not endpoints:
        what = f"finds nobody for {service.service} in {service.namespace}"
        why = _why(len(instances), len(chosen), len(healthy), members)
        view.alarm(
            node, "spec.serviceDiscovery.awsCloudMap", f"{what} ({why}), so its share of requests is answered 503"
        )
    return AssignmentPlan(cluster, endpoints)


def service_name(wanted: Spec) -> str:
    """What certificates call a service of Cloud Map: `<service>.<namespace>`."""
    return f"{wanted['serviceName']}.{wanted['namespaceName']}"


def _why(instances: int, chosen: int, healthy: int, members: tuple[str, ...]) -> str:
    if not instances:
        return "the registry has no instance of it"
    if not chosen:
        return f"none of its {instances} instances has the attributes asked for"
    if not healthy:
        return f"none of the {chosen} instances asked for is healthy"
    return f"none of the {healthy} healthy instances has an address in {' or '.join(members)}"


def _has(instance: Instance, attributes: Iterable[Spec] | None) -> bool:
    return all(instance.attributes.get(each["key"]) == each["value"] for each in attributes or ())


def _endpoints(instances: Iterable[Instance], members: tuple[str, ...], port: int) -> tuple[EndpointPlan, ...]:
    """By place, then address. Of two instances at one address the first counts: Envoy takes none twice."""
    found: dict[str, EndpointPlan] = {}
    for instance in instances:
        address = _address(instance, members)
        if address is not None and address not in found:
            found[address] = EndpointPlan(*_place(instance), address, port)
    return tuple(sorted(found.values()))


def _address(instance: Instance, members: tuple[str, ...]) -> str | None:
    """The instance's first usable address. Envoy refuses a whole assignment for one that it cannot read."""
    for member in members:
        parse = ipaddress.IPv4Address if member == V4 else ipaddress.IPv6Address
        try:
            address = parse(instance.attributes.get(member, ""))
        except ValueError:
            continue
        if getattr(address, "scope_id", None) is None:
            return str(address)
    return None


def _place(instance: Instance) -> tuple[str, str]:
    zone = instance.attributes.get(ZONE, "")
    known = _REGION_OF_ZONE.match(zone)
    return instance.attributes.get(REGION) or (known[0] if known else ""), zone
