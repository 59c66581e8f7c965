"""Plans to finished resources: which message, which bytes, which version. Bytes are made once per plan and remembered.

A route configuration is put together from virtual hosts that are remembered one by one, so that a change of one service
costs one virtual host, however many stand beside it.
"""

from __future__ import annotations

from collections import OrderedDict

import betterproto2

from projector.envoy.plans import (
    AssignmentPlan,
    ClusterPlan,
    IdentityPlan,
    KeptVhost,
    ListenerPlan,
    Plan,
    RoutesPlan,
    TrustPlan,
    VhostPlan,
)
from projector.envoy.protos import route
from projector.envoy.render_cluster import cluster_message
from projector.envoy.render_endpoint import assignment_bytes
from projector.envoy.render_listener import listener_message
from projector.envoy.render_route import vhost_message
from projector.envoy.render_tls import secret_message
from projector.snapshot import (
    TYPE_CLUSTER,
    TYPE_ENDPOINT,
    TYPE_LISTENER,
    TYPE_ROUTE,
    TYPE_SECRET,
    XdsResource,
    xds_resource,
)
from runtime.limits import COMPILED_BYTES_MAX, COMPILED_PLANS_MAX

_NAME_TAG = b"\x0a"
"""RouteConfiguration.name: field 1, length-delimited."""
_VHOSTS_TAG = b"\x12"
"""RouteConfiguration.virtual_hosts: field 2, length-delimited."""


class Renderer:
    """The memo of rendered plans, bounded by count and by bytes; the least recently used goes first."""

    def __init__(self, plans_max: int = COMPILED_PLANS_MAX, size_max_bytes: int = COMPILED_BYTES_MAX) -> None:
        self._plans_max = plans_max
        self._size_max_bytes = size_max_bytes
        self._resources: OrderedDict[Plan | VhostPlan, XdsResource | bytes] = OrderedDict()
        self._same: dict[int, tuple[Plan, XdsResource]] = {}
        """By `id`, the very same plans again: most of a node's are, and hashing is dear. Goes with any eviction."""
        self._size_bytes = 0
        self.serialised = 0
        """How many messages were serialised so far (vhosts, clusters, assignments, listeners, secrets)."""

    def resource(self, plan: Plan) -> XdsResource:
        """The finished resource of `plan`."""
        same = self._same.get(id(plan))
        if same is not None and same[0] is plan:
            return same[1]
        found = self._resources.get(plan)
        if isinstance(found, XdsResource):
            self._resources.move_to_end(plan)
            resource = found
        else:
            resource = self._make(plan)
            self._keep(plan, resource, len(resource.body))
        if not isinstance(plan, RoutesPlan):  # which are put together anew for each look
            self._same[id(plan)] = plan, resource
            if len(self._same) > self._plans_max:
                self._same.clear()
        return resource

    def _make(self, plan: Plan) -> XdsResource:
        if isinstance(plan, ClusterPlan):
            self.serialised += 1
            return xds_resource(TYPE_CLUSTER, plan.name, bytes(cluster_message(plan)))
        if isinstance(plan, ListenerPlan):
            self.serialised += 1
            return xds_resource(TYPE_LISTENER, plan.name, bytes(listener_message(plan)))
        if isinstance(plan, AssignmentPlan):
            self.serialised += 1
            return xds_resource(TYPE_ENDPOINT, plan.name, assignment_bytes(plan))
        if isinstance(plan, IdentityPlan | TrustPlan):
            self.serialised += 1
            return xds_resource(TYPE_SECRET, plan.name, bytes(secret_message(plan)))
        return xds_resource(TYPE_ROUTE, plan.name, self._route_configuration(plan))

    def _route_configuration(self, plan: RoutesPlan) -> bytes:
        parts = _field(_NAME_TAG, plan.name.encode())
        for vhost in plan.vhosts:
            body = vhost.body if isinstance(vhost, KeptVhost) else self._vhost(vhost)
            parts += _field(_VHOSTS_TAG, body)
        return b"".join(parts)

    def _vhost(self, plan: VhostPlan) -> bytes:
        found = self._resources.get(plan)
        if isinstance(found, bytes):
            self._resources.move_to_end(plan)
            return found
        self.serialised += 1
        body = bytes(vhost_message(plan))
        self._keep(plan, body, len(body))
        return body

    def _keep(self, plan: Plan | VhostPlan, made: XdsResource | bytes, size_bytes: int) -> None:
        self._resources[plan] = made
        self._size_bytes += size_bytes
        while len(self._resources) > self._plans_max or self._size_bytes > self._size_max_bytes:
            if len(self._resources) == 1:
                break
            self._same.clear()
            _, dropped = self._resources.popitem(last=False)
            self._size_bytes -= len(dropped if isinstance(dropped, bytes) else dropped.body)


def _field(tag: bytes, body: bytes) -> list[bytes]:
    return [tag, betterproto2.encode_varint(len(body)), body]


def vhosts_of(body: bytes) -> dict[str, tuple[bytes, frozenset[str]]]:
    """The virtual hosts of a serialised route configuration: bytes, and the clusters that they name."""
    found = {}
    for vhost in route.RouteConfiguration.parse(body).virtual_hosts:
        clusters: set[str] = set()
        for entry in vhost.routes:
            action = entry.route
            if action is None:
                continue
            if action.cluster:
                clusters.add(action.cluster)
            if action.weighted_clusters is not None:
                clusters.update(weighted.name for weighted in action.weighted_clusters.clusters)
        found[vhost.name] = (bytes(vhost), frozenset(clusters))
    return found
