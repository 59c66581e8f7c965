"""What a resource is made from, as plain hashable values: between App Mesh specs and Envoy messages.

A plan holds everything that its resource's bytes depend on and nothing else. Equal plans give equal bytes, so a plan is
the memo's key, and making plans (cheap) is kept apart from serialising them (dear). Durations are milliseconds.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple, TypeVar

P = TypeVar("P", bound=type[Any])


def hashed_once(plan: P) -> P:
    """The plan, remembering its hash: else a tuple hashes all that is in it whenever it is looked up."""

    def remembered(self: Any) -> int:
        found: int | None = vars(self).get("hash")
        if found is None:
            found = vars(self)["hash"] = tuple.__hash__(self)
        return found

    called = {name: getattr(plan, name) for name in ("__doc__", "__module__", "__qualname__")}
    return type(plan.__name__, (plan,), {**called, "__hash__": remembered})  # type: ignore[return-value]


class Discovery(Enum):
    """How a cluster finds its endpoints. EDS: by the assignment of the cluster's name."""

    STATIC = "STATIC"
    LOGICAL_DNS = "LOGICAL_DNS"
    STRICT_DNS = "STRICT_DNS"
    ORIGINAL_DST = "ORIGINAL_DST"
    EDS = "EDS"


class Family(Enum):
    """Which IP versions DNS may give, and in which order. AUTO is v6, then v4."""

    AUTO = "AUTO"
    V4_ONLY = "V4_ONLY"
    V6_ONLY = "V6_ONLY"
    V4_PREFERRED = "V4_PREFERRED"


class HealthCheckPlan(NamedTuple):
    """`idle_interval_ms`: how often while no requests are sent; None leaves Envoy's minute."""

    protocol: str
    path: str
    port: int | None
    interval_ms: int
    timeout_ms: int
    healthy: int
    unhealthy: int
    idle_interval_ms: int | None = None


class OutlierPlan(NamedTuple):
    max_server_errors: int
    interval_ms: int
    base_ejection_ms: int
    max_ejection_percent: int


class PoolPlan(NamedTuple):
    """Circuit breaker limits; None is App Mesh's "no limit"."""

    connections: int | None = None
    pending: int | None = None
    requests: int | None = None


class CertificatePlan(NamedTuple):
    """Who one is: a chain and its key in files of the proxy, or a secret that the proxy fetches by name.

    `ours`: this control plane serves the secret; else it is the proxy's own SDS socket.
    """

    chain: str = ""
    key: str = ""
    secret: str = ""
    ours: bool = False


class ValidationPlan(NamedTuple):
    """Whom one believes: a CA in a file or a secret. `names`: one of them is in the peer's certificate (none: any).

    `ours` as in `CertificatePlan`.
    """

    authority: str = ""
    secret: str = ""
    names: tuple[str, ...] = ()
    ours: bool = False


class IdentityPlan(NamedTuple):
    """A secret that says who one is: a chain and its key, PEM."""

    name: str
    chain: str
    key: str

    def __repr__(self) -> str:
        return f"IdentityPlan({self.name})"


class TrustPlan(NamedTuple):
    """A secret that says whom one believes: roots, PEM."""

    name: str
    roots: tuple[str, ...]


class TlsPlan(NamedTuple):
    """One side of TLS. `protocols` are ALPN's. No certificate: shows none. No validation: believes anybody.

    `server_name` is what a client asks for.
    """

    protocols: tuple[str, ...] = ()
    certificate: CertificatePlan | None = None
    validation: ValidationPlan | None = None
    server_name: str = ""


@hashed_once
class ClusterPlan(NamedTuple):
    """`address` None: no endpoint (or found by original destination). `tags` None: no stats metadata."""

    name: str
    discovery: Discovery
    address: str | None
    port: int
    connect_timeout_ms: int
    http2: bool = False
    family: Family = Family.AUTO
    tags: tuple[tuple[str, str], ...] | None = None
    pool: PoolPlan = PoolPlan()
    health_check: HealthCheckPlan | None = None
    outlier: OutlierPlan | None = None
    tls: TlsPlan | None = None


class EndpointPlan(NamedTuple):
    """One instance of a service, and where it runs ('' where that is not known)."""

    region: str
    zone: str
    address: str
    port: int


class AssignmentPlan(NamedTuple):
    """The endpoints of the cluster `name`, in order, none twice."""

    name: str
    endpoints: tuple[EndpointPlan, ...]


class TextPlan(NamedTuple):
    """`kind` is exact, prefix, suffix or regex."""

    kind: str
    text: str


class RangePlan(NamedTuple):
    """A number from `start`, and below `end`."""

    start: int
    end: int


class HeaderPlan(NamedTuple):
    """A condition on a header. Without a match: that it is there."""

    name: str
    match: TextPlan | RangePlan | None = None
    invert: bool = False


class QueryPlan(NamedTuple):
    """A condition on a query parameter. Without `exact`: that it is there."""

    name: str
    exact: str | None = None


class MatchPlan(NamedTuple):
    """Exactly one of `prefix`, `path` and `regex`. `grpc`: gRPC requests alone.

    `virtual_service`: the gateway's own header must say this.
    """

    prefix: str | None = None
    path: str | None = None
    regex: str | None = None
    headers: tuple[HeaderPlan, ...] = ()
    queries: tuple[QueryPlan, ...] = ()
    grpc: bool = False
    virtual_service: str | None = None


class RetryPlan(NamedTuple):
    retry_on: tuple[str, ...]
    status_codes: tuple[int, ...]
    max_retries: int
    per_try_timeout_ms: int | None


@hashed_once
class RoutePlan(NamedTuple):
    """`targets` are (cluster, weight); exactly one without `weighted`. No target at all: answer 503.

    `timeout_ms` None leaves Envoy's own default (15 s), 0 is no limit. `prefix_rewrite` replaces what the match's
    prefix or exact path matched, `path_rewrite` the whole path. `tags` None: no stats metadata.
    """

    match: MatchPlan
    targets: tuple[tuple[str, int], ...]
    weighted: bool = False
    timeout_ms: int | None = None
    idle_timeout_ms: int | None = None
    retry: RetryPlan | None = None
    prefix_rewrite: str | None = None
    path_rewrite: str | None = None
    host_rewrite: str | None = None
    tags: tuple[tuple[str, str], ...] | None = None
    add_virtual_service: str | None = None
    strip_virtual_service: bool = False


class VhostPlan(NamedTuple):
    name: str
    domains: tuple[str, ...]
    routes: tuple[RoutePlan, ...]


class KeptVhost(NamedTuple):
    """A virtual host taken over from an earlier snapshot, as serialised there."""

    name: str
    body: bytes


class RoutesPlan(NamedTuple):
    """One route configuration."""

    name: str
    vhosts: tuple[VhostPlan | KeptVhost, ...]


class AccessLogPlan(NamedTuple):
    """A file, and a line's format: `text`, or the members of a JSON object; with neither, Envoy's own."""

    path: str
    text: str | None = None
    members: tuple[tuple[str, str], ...] = ()


class CheckAnsweredPlan(NamedTuple):
    """A health check that the proxy answers itself: 200 while it takes requests. It comes from `cluster`'s checks."""

    cluster: str
    path: str


class HttpChainPlan(NamedTuple):
    """HTTP on one destination port, routed by the named route configuration. `shared`: other TCP comes there too.

    `either`: of the port's connections those with TLS, or (without a `tls`) the others. `checks` are not routed.
    """

    port: int
    stat_prefix: str
    routes: str
    access_log: AccessLogPlan | None = None
    shared: bool = False
    tls: TlsPlan | None = None
    either: bool = False
    checks: tuple[CheckAnsweredPlan, ...] = ()


class TcpChainPlan(NamedTuple):
    """Plain forwarding to clusters by weight (all above 0), by destination port, server name or for any address.

    `either`: of the port's connections those with TLS, or (without a `tls`) the others.
    """

    targets: tuple[tuple[str, int], ...]
    port: int | None = None
    server_names: tuple[str, ...] = ()
    anywhere: bool = False
    stat_prefix: str = "egress"
    idle_timeout_ms: int | None = None
    access_log: AccessLogPlan | None = None
    tls: TlsPlan | None = None
    either: bool = False


class ListenerPlan(NamedTuple):
    """`redirected`: connections arrive by iptables and their original destination is restored first.

    `v6`: it is bound to any IPv6 address, otherwise to any IPv4 address.
    `shared_ports` take HTTP and other TCP side by side: there the first bytes of a connection tell which it is.
    """

    name: str
    port: int
    inbound: bool
    redirected: bool
    chains: tuple[HttpChainPlan | TcpChainPlan, ...]
    shared_ports: tuple[int, ...] = ()
    v6: bool = False


Plan = ClusterPlan | AssignmentPlan | RoutesPlan | ListenerPlan | IdentityPlan | TrustPlan
