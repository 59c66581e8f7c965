"""The example mesh that demos, fault runs and end-to-end tests share: a gateway in front of two versions of one
service.

    client ──► virtual gateway ──► virtual service ──► virtual router ──► route 90/10 ──► version 1 | version 2

Stage: plain App Mesh calls, as a user's script makes them. It must never use anything but the public API.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

# At five, chance alone raises a false alarm about once in two million checks.
OUTLIER_SIGMAS = 5.0


@dataclass(frozen=True)
class Canary:
    """Names and ports of the example. `one` and `two` are the virtual nodes; upstreams listen on loopback."""

    mesh: str
    one_port: int
    two_port: int
    gateway_port: int
    host: str = "localhost"
    one: str = "web-v1"
    two: str = "web-v2"
    router: str = "web"
    route: str = "canary"
    service: str = "web.example.internal"
    gateway: str = "front"
    gateway_route: str = "all"

    @property
    def gateway_node(self) -> str:
        return f"mesh/{self.mesh}/virtualGateway/{self.gateway}"

    def create(self, client: Any, weight_one: int = 90, weight_two: int = 10) -> None:
        """Make all of it, references first. Raises what the client raises."""
        client.create_mesh(meshName=self.mesh)
        for name, port in ((self.one, self.one_port), (self.two, self.two_port)):
            client.create_virtual_node(meshName=self.mesh, virtualNodeName=name, spec=node_spec(self.host, port))
        client.create_virtual_router(
            meshName=self.mesh,
            virtualRouterName=self.router,
            spec={"listeners": [{"portMapping": {"port": 80, "protocol": "http"}}]},
        )
        client.create_route(
            meshName=self.mesh,
            virtualRouterName=self.router,
            routeName=self.route,
            spec=self.route_spec(weight_one, weight_two),
        )
        client.create_virtual_service(
            meshName=self.mesh,
            virtualServiceName=self.service,
            spec={"provider": {"virtualRouter": {"virtualRouterName": self.router}}},
        )
        client.create_virtual_gateway(
            meshName=self.mesh,
            virtualGatewayName=self.gateway,
            spec={"listeners": [{"portMapping": {"port": self.gateway_port, "protocol": "http"}}]},
        )
        client.create_gateway_route(
            meshName=self.mesh,
            virtualGatewayName=self.gateway,
            gatewayRouteName=self.gateway_route,
            spec=gateway_route_spec("/", self.service),
        )

    def set_weights(self, client: Any, weight_one: int, weight_two: int, **arguments: Any) -> dict[str, Any]:
        """Update the one route; returns the client's answer with its ResponseMetadata."""
        answer: dict[str, Any] = client.update_route(
            meshName=self.mesh,
            virtualRouterName=self.router,
            routeName=self.route,
            spec=self.route_spec(weight_one, weight_two),
            **arguments,
        )
        return answer

    def route_spec(self, weight_one: int, weight_two: int) -> dict[str, Any]:
        targets = [
            {"virtualNode": self.one, "weight": weight_one},
            {"virtualNode": self.two, "weight": weight_two},
        ]
        return {"httpRoute": {"match": {"prefix": "/"}, "action": {"weightedTargets": targets}}}


def node_spec(host: str, port: int) -> dict[str, Any]:
    """A virtual node with one HTTP listener, found by DNS."""
    return {
        "listeners": [{"portMapping": {"port": port, "protocol": "http"}}],
        "serviceDiscovery": {"dns": {"hostname": host}},
    }


def gateway_route_spec(prefix: str, service: str) -> dict[str, Any]:
    return {
        "httpRoute": {
            "match": {"prefix": prefix},
            "action": {"target": {"virtualService": {"virtualServiceName": service}}},
        }
    }


def within_sampling_error(hits: int, total: int, share: float) -> bool:
    """Whether `hits` of `total` independent draws fit the probability `share`: five standard deviations, exact at 0
    and 1.
    """
    expected = total * share
    deviation = math.sqrt(total * share * (1 - share))
    return abs(hits - expected) <= OUTLIER_SIGMAS * deviation
