"""An assignment plan to the bytes of Envoy's ClusterLoadAssignment, written by upb.

betterproto2 takes 148 ms for a thousand endpoints, and an assignment changes with every instance that comes or goes.
"""

from __future__ import annotations

from itertools import groupby

from projector.envoy.plans import AssignmentPlan, EndpointPlan
from projector.envoy.wire import endpoint_pb2 as wire


def assignment_bytes(plan: AssignmentPlan) -> bytes:
    """The message, one group of endpoints for each place; without endpoints it says so by having no group."""
    message = wire.ClusterLoadAssignment(cluster_name=plan.name)
    for place, endpoints in groupby(plan.endpoints, lambda endpoint: (endpoint.region, endpoint.zone)):
        group = message.endpoints.add()
        if any(place):
            group.locality.region, group.locality.zone = place
        for endpoint in endpoints:
            _add(group, endpoint)
    return message.SerializeToString(deterministic=True)


def _add(group: wire.LocalityLbEndpoints, endpoint: EndpointPlan) -> None:
    address = group.lb_endpoints.add().endpoint.address.socket_address
    address.address, address.port_value = endpoint.address, endpoint.port
