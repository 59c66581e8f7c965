"""A cluster plan to Envoy's Cluster message."""

from __future__ import annotations

from projector.envoy.defaults import NO_LIMIT
from projector.envoy.messages import address, ads_source, duration, packed, stats_metadata
from projector.envoy.plans import ClusterPlan, Discovery, HealthCheckPlan, OutlierPlan, PoolPlan
from projector.envoy.protos import cluster, core, endpoint, envoy_type, protobuf, upstream_http
from projector.envoy.render_tls import client_socket

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def cluster_message(plan: ClusterPlan) -> cluster.Cluster:
    original_destination = plan.discovery is Discovery.ORIGINAL_DST
    registry = plan.discovery is Discovery.EDS
    policies = cluster.ClusterLbPolicy
    return cluster.Cluster(
        name=plan.name,
        type=cluster.ClusterDiscoveryType[plan.discovery.value],
        connect_timeout=duration(plan.connect_timeout_ms),
        lb_policy=policies.CLUSTER_PROVIDED if original_destination else policies.ROUND_ROBIN,
        circuit_breakers=_circuit_breakers(plan.pool),
        dns_lookup_family=cluster.ClusterDnsLookupFamily[plan.family.value],
        eds_cluster_config=_from_registry(plan.name) if registry else None,
        load_assignment=None if original_destination or registry else _load_assignment(plan),
        typed_extension_protocol_options=_http2() if plan.http2 else {},
        health_checks=[_health_check(plan.health_check)] if plan.health_check else [],
        # Who has left the registry gets nothing more, whatever the last health check said.
        ignore_health_on_host_removal=registry,
        outlier_detection=_outlier_detection(plan.outlier) if plan.outlier else None,
        metadata=None if plan.tags is None else stats_metadata(plan.tags),
        transport_socket=client_socket(plan.tls) if plan.tls else None,
    )


def _from_registry(name: str) -> cluster.ClusterEdsClusterConfig:
    # No limit on the first fetch: a changed cluster serves as it was until it has its endpoints.
    return cluster.ClusterEdsClusterConfig(eds_config=ads_source(), service_name=name)


def _load_assignment(plan: ClusterPlan) -> endpoint.ClusterLoadAssignment:
    assignment = endpoint.ClusterLoadAssignment(cluster_name=plan.name)
    if plan.address is not None:
        host = endpoint.LbEndpoint(endpoint=endpoint.Endpoint(address=address(plan.address, plan.port)))
        assignment.endpoints.append(endpoint.LocalityLbEndpoints(lb_endpoints=[host]))
    return assignment


def _circuit_breakers(pool: PoolPlan) -> cluster.CircuitBreakers:
    """Only the default priority's, as App Mesh did; Envoy's own 1024 would cap an untouched mesh."""

    def limit(value: int | None) -> int:
        return NO_LIMIT if value is None else value

    return cluster.CircuitBreakers(
        thresholds=[
            cluster.CircuitBreakersThresholds(
                max_connections=limit(pool.connections),
                max_pending_requests=limit(pool.pending),
                max_requests=limit(pool.requests),
                max_retries=NO_LIMIT,
            )
        ]
    )


def _http2() -> dict[str, protobuf.Any]:
    explicit = upstream_http.HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=core.Http2ProtocolOptions())
    return {_HTTP_OPTIONS: packed(upstream_http.HttpProtocolOptions(explicit_http_config=explicit))}


def _health_check(plan: HealthCheckPlan) -> core.HealthCheck:
    check = core.HealthCheck(
        timeout=duration(plan.timeout_ms),
        interval=duration(plan.interval_ms),
        no_traffic_interval=None if plan.idle_interval_ms is None else duration(plan.idle_interval_ms),
        # A gateway that asks itself: one connection for all checks would go on asking a listener that was replaced.
        reuse_connection=None if plan.idle_interval_ms is None else False,
        healthy_threshold=plan.healthy,
        unhealthy_threshold=plan.unhealthy,
        alt_port=plan.port,
    )
    if plan.protocol == "tcp":
        check.tcp_health_check = core.HealthCheckTcpHealthCheck()
    elif plan.protocol == "grpc":
        check.grpc_health_check = core.HealthCheckGrpcHealthCheck()
    else:
        codec = envoy_type.CodecClientType.HTTP2 if plan.protocol == "http2" else envoy_type.CodecClientType.HTTP1
        check.http_health_check = core.HealthCheckHttpHealthCheck(path=plan.path, codec_client_type=codec)
    return check


def _outlier_detection(plan: OutlierPlan) -> cluster.OutlierDetection:
    """Server errors alone eject: Envoy's success-rate and gateway-error detectors were never App Mesh's."""
    return cluster.OutlierDetection(
        consecutive_5xx=plan.max_server_errors,
        interval=duration(plan.interval_ms),
        base_ejection_time=duration(plan.base_ejection_ms),
        max_ejection_percent=plan.max_ejection_percent,
        enforcing_consecutive_5xx=100,
        enforcing_success_rate=0,
        always_eject_one_host=True,
    )
