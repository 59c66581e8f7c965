"""A listener plan to Envoy's Listener message."""

from __future__ import annotations

from projector.envoy import names
from projector.envoy.defaults import SNIFF_TIMEOUT_MS
from projector.envoy.messages import address, ads_source, duration, packed, stats_metadata
from projector.envoy.plans import (
    AccessLogPlan,
    CheckAnsweredPlan,
    HeaderPlan,
    HttpChainPlan,
    ListenerPlan,
    TcpChainPlan,
    TextPlan,
)
from projector.envoy.protos import (
    accesslog,
    core,
    envoy_type,
    file_access_log,
    hcm,
    health_check_filter,
    http_inspector,
    listener,
    original_dst,
    protobuf,
    router_filter,
    tcp_proxy,
    tls_inspector,
)
from projector.envoy.render_match import header_message
from projector.envoy.render_tls import server_socket

_HTTP_SPOKEN = ("http/1.0", "http/1.1", "h2c")
"""What the HTTP inspector calls what it sees."""


def listener_message(plan: ListenerPlan) -> listener.Listener:
    direction = core.TrafficDirection.INBOUND if plan.inbound else core.TrafficDirection.OUTBOUND
    # A server that speaks first leaves nothing to look at: its connection is then plain TCP, and goes on.
    sniffed = bool(plan.shared_ports) or any(isinstance(chain, TcpChainPlan) and chain.either for chain in plan.chains)
    return listener.Listener(
        # Two proxies in one network namespace must clash loudly, not share the port in silence.
        enable_reuse_port=False,
        name=plan.name,
        address=address(names.ANY_V6 if plan.v6 else names.ANY_V4, plan.port),
        filter_chains=[_chain(chain, plan.v6) for chain in plan.chains],
        listener_filters=_listener_filters(plan),
        listener_filters_timeout=duration(SNIFF_TIMEOUT_MS) if sniffed else None,
        continue_on_listener_filters_timeout=sniffed,
        metadata=stats_metadata(()),
        traffic_direction=direction,
    )


def _listener_filters(plan: ListenerPlan) -> list[listener.ListenerFilter]:
    filters = []
    if plan.redirected:
        restore = listener.ListenerFilter(
            name="envoy.filters.listener.original_dst", typed_config=packed(original_dst.OriginalDst())
        )
        filters.append(restore)
    inspect = listener.ListenerFilter(
        name="envoy.filters.listener.tls_inspector", typed_config=packed(tls_inspector.TlsInspector())
    )
    if plan.redirected:
        # Where no chain asks what a hello says, waiting for one would hold up servers that speak first.
        asking = (chain.port for chain in plan.chains if chain.either or _server_names(chain))
        inspect.filter_disabled = _but_on(tuple(sorted({port for port in asking if port is not None})))
    filters.append(inspect)
    if plan.shared_ports:
        sniff = listener.ListenerFilter(
            name="envoy.filters.listener.http_inspector",
            typed_config=packed(http_inspector.HttpInspector()),
            filter_disabled=_but_on(plan.shared_ports),
        )
        filters.append(sniff)
    return filters


def _server_names(chain: HttpChainPlan | TcpChainPlan) -> tuple[str, ...]:
    return chain.server_names if isinstance(chain, TcpChainPlan) else ()


def _but_on(ports: tuple[int, ...]) -> listener.ListenerFilterChainMatchPredicate:
    """Off, but for connections to these ports."""
    predicate = listener.ListenerFilterChainMatchPredicate
    on = [predicate(destination_port_range=envoy_type.Int32Range(start=port, end=port + 1)) for port in ports]
    if not on:
        return predicate(any_match=True)
    either = on[0] if len(on) == 1 else predicate(or_match=listener.ListenerFilterChainMatchPredicateMatchSet(rules=on))
    return predicate(not_match=either)


def _chain(plan: HttpChainPlan | TcpChainPlan, v6: bool) -> listener.FilterChain:
    return listener.FilterChain(
        filter_chain_match=_match(plan, v6),
        filters=[_http_filter(plan) if isinstance(plan, HttpChainPlan) else _tcp_filter(plan)],
        transport_socket=server_socket(plan.tls) if plan.tls else None,
    )


def _match(plan: HttpChainPlan | TcpChainPlan, v6: bool) -> listener.FilterChainMatch:
    match = listener.FilterChainMatch(destination_port=plan.port)
    if plan.either:
        match.transport_protocol = "tls" if plan.tls else "raw_buffer"
    if isinstance(plan, HttpChainPlan):
        match.application_protocols = list(_HTTP_SPOKEN) if plan.shared else []
    else:
        match.server_names = list(plan.server_names)
        anywhere = core.CidrRange(address_prefix=names.ANY_V6 if v6 else names.ANY_V4, prefix_len=0)
        match.prefix_ranges = [anywhere] if plan.anywhere else []
    return match


def _tcp_filter(plan: TcpChainPlan) -> listener.Filter:
    proxy = tcp_proxy.TcpProxy(
        stat_prefix=plan.stat_prefix,
        idle_timeout=None if plan.idle_timeout_ms is None else duration(plan.idle_timeout_ms),
        access_log=[] if plan.access_log is None else [_access_log(plan.access_log)],
    )
    if len(plan.targets) == 1:
        proxy.cluster = plan.targets[0][0]
    else:
        weights = [tcp_proxy.TcpProxyWeightedClusterClusterWeight(name=name, weight=n) for name, n in plan.targets]
        proxy.weighted_clusters = tcp_proxy.TcpProxyWeightedCluster(clusters=weights)
    return listener.Filter(name="envoy.filters.network.tcp_proxy", typed_config=packed(proxy))


def _http_filter(plan: HttpChainPlan) -> listener.Filter:
    # No limit on the first fetch: the listener waits for its routes. With one it would open without any and answer 404.
    router = hcm.HttpFilter(name="envoy.filters.http.router", typed_config=packed(router_filter.Router()))
    checks = [_check_filter(check) for check in plan.checks]
    manager = hcm.HttpConnectionManager(
        stat_prefix=plan.stat_prefix,
        rds=hcm.Rds(config_source=ads_source(), route_config_name=plan.routes),
        http_filters=[*checks, router],
        tracing=hcm.HttpConnectionManagerTracing(),
        access_log=[] if plan.access_log is None else [_access_log(plan.access_log)],
        upgrade_configs=[hcm.HttpConnectionManagerUpgradeConfig(upgrade_type="websocket", enabled=True)],
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action=hcm.HttpConnectionManagerPathWithEscapedSlashesAction.KEEP_UNCHANGED,
    )
    return listener.Filter(name="envoy.filters.network.http_connection_manager", typed_config=packed(manager))


def _check_filter(plan: CheckAnsweredPlan) -> hcm.HttpFilter:
    # Envoy's checks call the host what the cluster is called, which no request of anybody else does.
    ours = (
        HeaderPlan(":path", TextPlan("exact", plan.path)),
        HeaderPlan(":authority", TextPlan("exact", plan.cluster)),
    )
    answered = health_check_filter.HealthCheck(
        pass_through_mode=False, headers=[header_message(header) for header in ours]
    )
    return hcm.HttpFilter(name="envoy.filters.http.health_check", typed_config=packed(answered))


def _access_log(plan: AccessLogPlan) -> accesslog.AccessLog:
    log = file_access_log.FileAccessLog(path=plan.path)
    if plan.text is not None:
        log.log_format = core.SubstitutionFormatString(text_format_source=core.DataSource(inline_string=plan.text))
    elif plan.members:
        fields = {name: protobuf.Value(string_value=value) for name, value in sorted(plan.members)}
        log.log_format = core.SubstitutionFormatString(json_format=protobuf.Struct(fields=fields))
    return accesslog.AccessLog(name="envoy.access_loggers.file", typed_config=packed(log))
