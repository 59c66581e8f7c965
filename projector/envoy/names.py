"""The names of Envoy resources, exactly as App Mesh gave them: dashboards, alarms and stats regexes depend on them.

Sources: the user guide's page on Envoy metrics, and published config dumps of App Mesh proxies.
"""

from __future__ import annotations

INGRESS_PORT = 15000
"""Where a sidecar takes in redirected inbound connections."""

EGRESS_PORT = 15001
"""Where a sidecar takes in redirected outbound connections, and a gateway talks to itself."""

ANY_V4 = "0.0.0.0"  # noqa: S104 (a listener binds every address; part of its name too)

ANY_V6 = "::"

INGRESS = "ingress"
EGRESS = "egress"

SELF_REDIRECT_VHOST = "self_redirect"
DEFAULT_BACKEND_VHOST = "default_backend"
LOCAL_APP_VHOST = "local_app"

VIRTUAL_SERVICE_HEADER = "x-app-mesh-virtual-service"
"""Carries the virtual service across a gateway's self-redirect where the host name must stay as it came."""

STATS_METADATA = "aws.appmesh.aggregate_stats"

SDS_CLUSTER = "static_cluster_sds_unix_socket"
"""The proxy's own: its bootstrap has it where there is an SDS socket (APPMESH_SDS_SOCKET_PATH of App Mesh's image)."""


def listener(direction: str, port: int, v6: bool = False) -> str:
    """`lds_ingress_0.0.0.0_15000`. The one beside it for IPv6 is ours: no dump of App Mesh's shows one."""
    return f"lds_{direction}_{f'[{ANY_V6}]' if v6 else ANY_V4}_{port}"


def routes(direction: str, protocol: str, port: int) -> str:
    return f"rds_{direction}_{protocol}_{port}"


def cluster(direction: str, mesh: str, virtual_node: str, protocol: str, port: int) -> str:
    return f"cds_{direction}_{mesh}_{virtual_node}_{protocol}_{port}"


def self_redirect_cluster(mesh: str, gateway: str, protocol: str, listener_port: int | None) -> str:
    """`listener_port` only where the gateway has several listeners."""
    within = "" if listener_port is None else f"{listener_port}_"
    return f"cds_{INGRESS}_{mesh}_{gateway}_self_redirect_{within}{protocol}_{EGRESS_PORT}"


def amazonaws_cluster(mesh: str) -> str:
    return f"cds_{EGRESS}_{mesh}_amazonaws"


def allow_all_cluster(mesh: str) -> str:
    return f"cds_{EGRESS}_{mesh}_mesh-allow-all"


def unavailable_cluster(mesh: str, virtual_node: str) -> str:
    """A cluster without endpoints, for a target that cannot be compiled: its share of requests is answered 503.

    Ours; no App Mesh name ends like this, so it never meets one.
    """
    return f"cds_{EGRESS}_{mesh}_{virtual_node}_unavailable"


def further_cluster(name: str, number: int) -> str:
    """The second, third... cluster for a listener that one caller reaches by several client policies. Ours, too."""
    return f"{name}_policy{number}"


def stat_prefix(direction: str, protocol: str, port: int, several: bool) -> str:
    """`ingress`, or `ingress.<protocol>.<port>` on a resource with several listeners."""
    return f"{direction}.{protocol}.{port}" if several else direction


def is_unavailable(cluster_name: str) -> bool:
    """Whether this is a name that `unavailable_cluster` makes."""
    return cluster_name.endswith("_unavailable")
