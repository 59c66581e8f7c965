"""What an Envoy tells of itself: statistics and traces, as parts of its bootstrap. Settings in, documents out.

Tags, names and defaults are those of App Mesh's Envoy image, which dashboards and alarms were made for. The admin port
stays on loopback, since whoever reaches it may stop the Envoy: Prometheus gets a listener of its own with nothing but
statistics behind it. Nothing here reads a file, the environment, or asks a name server.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass, fields, replace

from identity.node_id import NodeId
from mesh.errors import SettingsError
from mesh.kinds import VIRTUAL_NODE
from proxy.bootstrap import Document
from runtime.settings import split_address

OFF = "none"
"""Said of a sink or of tracing: off, whatever the environment says."""
LOOPBACK, ANY_V4, ANY_V6 = "127.0.0.1", "0.0.0.0", "::"  # noqa: S104 (statistics alone are behind it)
STATSD_PORT = 8125
PROMETHEUS_PORT = 9902
"""Where the agent in App Mesh's image served `/stats/prometheus`."""
TRACERS = {"xray": 2000, "datadog": 8126, "jaeger": 9411, "zipkin": 9411, "opentelemetry": 4317}
"""Each way to trace and its collector's usual port."""
SDS_CLUSTER = "static_cluster_sds_unix_socket"
"""What App Mesh's listeners and client policies with SDS name."""
XRAY_RATE = 0.05
FLUSH_MIN_S, FLUSH_MAX_S = 0.001, 300.0
"""Envoy takes an interval from the first to under the second."""

_API = "type.googleapis.com/envoy"
_INGRESS = r"^(?:listener\..+?\.)?(?:http|tcp)\.ingress\."
_LISTENER_TAGS = (
    ("appmesh.listener_protocol", rf"{_INGRESS}((\w+?)\.)[0-9]+?\.(.+?)$"),
    ("appmesh.listener_port", rf"{_INGRESS}\w+?\.(([0-9]+?)\.)(.+?)$"),
    ("envoy_rds_route_config", rf"{_INGRESS}\w+?\.[0-9]+?\.rds\.((.*?)\.)(.+?)$"),
)
"""The stat prefix of a resource with several listeners is `ingress.<protocol>.<port>`: the image took it apart, whether
or not the tags of the mesh were on. Its regexes began with `.*?`, which makes Envoy try every two characters of every
statistic's name: with names of 255 characters, minutes of start. These begin where such a name does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What was said, by flags or by the environment, as texts; None was not said.

    Addresses are `HOST`, `HOST:PORT`, or for `dogstatsd` also `unix:/path`; `prometheus` may be a port alone.
    """

    admin_port: int | None = None
    admin_log: str | None = None
    cluster: str | None = None
    """What the Envoy calls itself beside its node id, and what Zipkin's traces are named by."""
    statsd: str | None = None
    dogstatsd: str | None = None
    prometheus: str | None = None
    stats_tags: bool | None = None
    flush_interval_s: float | None = None
    tracing: str | None = None
    tracing_address: str | None = None
    tracing_rate: float | None = None
    """The share of requests traced: 0.05 for X-Ray, all for others."""
    tracing_rules: str | None = None
    """X-Ray alone: a file of sampling rules where the Envoy runs."""
    tracing_service: str | None = None
    tracing_format: str | None = None
    """Zipkin and Jaeger: `proto` or `json`."""
    sds_socket: str | None = None
    outlier_log: str | None = None
    fetch_timeout_s: int | None = None
    files: tuple[Document, ...] | None = None
    """Parts that somebody wrote by hand; where one has a `stats_config`, it stands in the place of ours."""

    def over(self, other: Settings) -> Settings:
        """These, and the other's where nothing was said here."""
        said = {one.name: getattr(self, one.name) for one in fields(self)}
        return replace(other, **{name: value for name, value in said.items() if value is not None})


def parts(settings: Settings, node: NodeId, admin_port: int) -> list[Document]:
    """What `settings` add to the bootstrap of `node`. SettingsError for what no Envoy would take."""
    found = [
        _identity(settings),
        _stats(settings, node),
        *_sinks(settings),
        _prometheus(settings, admin_port),
        _tracing(settings, node),
        _rest(settings),
    ]
    return [*(part for part in found if part), *(settings.files or ())]


def _identity(settings: Settings) -> Document:
    return {} if settings.cluster is None else {"node": {"cluster": settings.cluster}}


def _stats(settings: Settings, node: NodeId) -> Document:
    part: Document = {}
    if not any("stats_config" in file for file in settings.files or ()):
        kind = "virtual_node" if node.kind == VIRTUAL_NODE.name else "virtual_gateway"
        fixed = [("appmesh.mesh", node.mesh), (f"appmesh.{kind}", node.name)] if settings.stats_tags else []
        tags = [{"tag_name": name, "fixed_value": value} for name, value in fixed]
        tags += [{"tag_name": name, "regex": regex} for name, regex in _LISTENER_TAGS]
        part["stats_config"] = {"stats_tags": tags}
    interval_s = settings.flush_interval_s
    if interval_s is not None:
        if not FLUSH_MIN_S <= interval_s < FLUSH_MAX_S:
            raise SettingsError(
                f"statistics cannot be flushed every {interval_s:g} s: Envoy takes 1 ms to under 5 minutes"
            )
        part["stats_flush_interval"] = f"{interval_s:.9f}".rstrip("0").rstrip(".") + "s"
    return part


def _sinks(settings: Settings) -> list[Document]:
    sinks = []
    for name, message, text in (
        ("statsd", "StatsdSink", settings.statsd),
        ("dog_statsd", "DogStatsdSink", settings.dogstatsd),
    ):
        if text is None or text == OFF:
            continue
        path = text.removeprefix("unix:")
        if path != text and name == "statsd":
            raise SettingsError(f"StatsD cannot be at '{text}': Envoy sends it over UDP, DogStatsD alone over a socket")
        where = _pipe(path) if path != text else _literal(text, STATSD_PORT, "StatsD", "UDP")
        config = {"@type": f"{_API}.config.metrics.v3.{message}", "address": where}
        sinks.append({"stats_sinks": [{"name": f"envoy.stat_sinks.{name}", "typed_config": config}]})
    return sinks


def _prometheus(settings: Settings, admin_port: int) -> Document:
    text = settings.prometheus
    if text is None or text == OFF:
        return {}
    address = _literal(f"{ANY_V4}:{text}" if text.isdigit() else text, PROMETHEUS_PORT, "Prometheus")
    socket = address["socket_address"]
    if socket["address"] == ANY_V6:
        socket["ipv4_compat"] = True
    if socket["port_value"] == admin_port:
        raise SettingsError(
            f"Prometheus and the admin port cannot both be {admin_port}: move one, for example --admin-port 19901"
        )
    get = {"name": ":method", "string_match": {"exact": "GET"}}
    asked = {"name": "format", "string_match": {"exact": "prometheus"}}
    matches: list[Document] = [{"path": "/stats/prometheus"}, {"path": "/stats", "query_parameters": [asked]}]
    routes = [{"match": match | {"headers": [get]}, "route": {"cluster": "meshlog_admin"}} for match in matches]
    router = {"@type": f"{_API}.extensions.filters.http.router.v3.Router"}
    manager = {
        "@type": f"{_API}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "meshlog_prometheus",
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
        "route_config": {"virtual_hosts": [{"name": "statistics", "domains": ["*"], "routes": routes}]},
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    listener = {"name": "meshlog_prometheus", "address": address, "filter_chains": [chain]}
    admin = _cluster("meshlog_admin", _socket(LOOPBACK, admin_port))
    return {"static_resources": {"listeners": [listener], "clusters": [admin]}}


def _tracing(settings: Settings, node: NodeId) -> Document:
    kind = settings.tracing
    if kind == OFF:
        return {}
    _check_tracing(settings)
    if kind is None:
        return {}
    rate = settings.tracing_rate
    text = settings.tracing_address or LOOPBACK
    if kind == "xray":
        return _xray(settings, node, text)
    host, port = _host_port(text, TRACERS[kind], "the collector")
    cluster = "datadog_agent" if kind == "datadog" else kind
    service = settings.tracing_service
    config: Document
    if kind == "datadog":
        config = {
            "@type": f"{_API}.config.trace.v3.DatadogConfig",
            "collector_cluster": cluster,
            "service_name": service or f"envoy-{node.mesh}/{node.name}",
        }
    elif kind == "opentelemetry":
        config = {
            "@type": f"{_API}.config.trace.v3.OpenTelemetryConfig",
            "grpc_service": {"envoy_grpc": {"cluster_name": cluster}, "timeout": "1s"},
            "service_name": service or f"{node.mesh}/{node.name}",
        }
    else:
        config = {
            "@type": f"{_API}.config.trace.v3.ZipkinConfig",
            "collector_cluster": cluster,
            "collector_endpoint": "/api/v2/spans",
            "collector_endpoint_version": "HTTP_JSON" if settings.tracing_format == "json" else "HTTP_PROTO",
            "shared_span_context": False,
        }
        kind = "zipkin"
    collector = _cluster(cluster, _socket(host, port), http2=kind == "opentelemetry")
    part = _tracer(kind, config) | {"static_resources": {"clusters": [collector]}}
    if rate is not None:
        # Each listener asks the runtime by this name before it goes by its own configuration, which says: all.
        share = {"numerator": round(rate * 1_000_000), "denominator": "MILLION"}
        layer = {"name": "tracing", "static_layer": {"tracing.random_sampling": share}}
        part["layered_runtime"] = {"layers": [layer]}
    return part


def _check_tracing(settings: Settings) -> None:
    """SettingsError for what is said of tracing and cannot be, or would be passed over in silence."""
    kind, rate, zipkin = settings.tracing, settings.tracing_rate, settings.tracing in ("zipkin", "jaeger")
    said = [settings.tracing_address, rate, settings.tracing_rules, settings.tracing_service, settings.tracing_format]
    if kind is None and any(one is not None for one in said):
        raise SettingsError("how to trace is said, and not by what: give --tracing too")
    if kind is not None and kind not in TRACERS:
        raise SettingsError(f"tracing '{kind}' is unknown: write one of {', '.join(TRACERS)}, or {OFF}")
    if rate is not None and not 0 <= rate <= 1:
        raise SettingsError(f"a share of {rate:g} of the requests cannot be traced: write a number from 0 to 1")
    if settings.tracing_rules is not None and kind != "xray":
        raise SettingsError("sampling rules are X-Ray's: give --tracing-rate instead")
    if settings.tracing_format is not None and not zipkin:
        raise SettingsError("a format of traces is Zipkin's to choose: leave --tracing-format out")
    if settings.tracing_service is not None and zipkin:
        raise SettingsError("a Zipkin trace is named by the Envoy's cluster: give --service-cluster instead")


def _xray(settings: Settings, node: NodeId, text: str) -> Document:
    """X-Ray samples by rules of its own: `tracing_rate` becomes a manifest with one, as in App Mesh's image."""
    # The name is App Mesh's for gateways too: X-Ray shows no other.
    owner = {"app_mesh": {"mesh_name": node.mesh, "virtual_node_name": node.name}}
    config: Document = {
        "@type": f"{_API}.config.trace.v3.XRayConfig",
        "daemon_endpoint": _literal(text, TRACERS["xray"], "the X-Ray daemon", "UDP")["socket_address"],
        "segment_name": settings.tracing_service or f"{node.mesh}/{node.name}",
        "segment_fields": {"origin": "AWS::AppMesh::Proxy", "aws": owner},
    }
    if settings.tracing_rules is not None:
        config["sampling_rule_manifest"] = {"filename": settings.tracing_rules}
    elif settings.tracing_rate is not None and settings.tracing_rate != XRAY_RATE:
        default = {"fixed_target": 1, "rate": settings.tracing_rate}
        manifest = json.dumps({"version": 2, "default": default, "rules": []})
        config["sampling_rule_manifest"] = {"inline_string": manifest}
    return _tracer("xray", config)


def _tracer(kind: str, config: Document) -> Document:
    return {"tracing": {"http": {"name": f"envoy.tracers.{kind}", "typed_config": config}}}


def _rest(settings: Settings) -> Document:
    part: Document = {}
    if settings.admin_log is not None:
        file = {"@type": f"{_API}.extensions.access_loggers.file.v3.FileAccessLog", "path": settings.admin_log}
        part["admin"] = {"access_log": [{"name": "envoy.access_loggers.file", "typed_config": file}]}
    if settings.outlier_log is not None:
        part["cluster_manager"] = {"outlier_detection": {"event_log_path": settings.outlier_log}}
    if settings.fetch_timeout_s is not None:
        limit = {"initial_fetch_timeout": f"{settings.fetch_timeout_s}s"}
        part["dynamic_resources"] = {"cds_config": limit, "lds_config": dict(limit)}
    if settings.sds_socket is not None:
        cluster = _cluster(SDS_CLUSTER, _pipe(settings.sds_socket), http2=True)
        part["static_resources"] = {"clusters": [cluster]}
    return part


def _cluster(name: str, address: Document, http2: bool = False) -> Document:
    cluster: Document = {
        "name": name,
        "type": "STATIC" if "pipe" in address or _is_ip(address["socket_address"]["address"]) else "STRICT_DNS",
        "connect_timeout": "1s",
        # What listens on localhost often listens on IPv4 alone.
        "dns_lookup_family": "V4_PREFERRED",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    if http2:
        options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        typed = {"@type": f"type.googleapis.com/{options}", "explicit_http_config": {"http2_protocol_options": {}}}
        cluster["typed_extension_protocol_options"] = {options: typed}
    return cluster


def _pipe(path: str) -> Document:
    if not path.startswith("/"):
        raise SettingsError(f"'{path}' is not a socket's absolute path: write for example unix:/var/run/datadog.sock")
    return {"pipe": {"path": path}}


def _socket(host: str, port: int) -> Document:
    return {"socket_address": {"address": host, "port_value": port}}


def _literal(text: str, port: int, what: str, protocol: str = "TCP") -> Document:
    """A socket of an address that Envoy does not look up."""
    host, port = _host_port(text, port, what)
    if not _is_ip(host):
        raise SettingsError(f"{what} cannot be at '{host}': Envoy looks up no name for it, write an IP address")
    address = _socket(host, port)
    if protocol != "TCP":
        address["socket_address"]["protocol"] = protocol
    return address


def _host_port(text: str, port: int, what: str) -> tuple[str, int]:
    host, port = (text, port) if _is_ip(text) or ":" not in text else split_address(text, what)
    if not host or port == 0:
        raise SettingsError(
            f"'{text}' does not say where {what} is: write for example {LOOPBACK}:{port or STATSD_PORT}"
        )
    return host, port


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
