"""What an Envoy is told to tell of itself: App Mesh's names and defaults, and what is refused."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from identity.node_id import NodeId
from mesh.errors import SettingsError
from projector.envoy import names
from proxy import observability
from proxy.bootstrap import Document
from proxy.observability import Settings
from proxy.parts import merge, snake_keys

CART = NodeId("123456789012", "shop", "virtualNode", "cart")
EDGE = NodeId("123456789012", "shop", "virtualGateway", "edge")


def told(node: NodeId = CART, **said: Any) -> Document:
    return merge({}, *observability.parts(Settings(**said), node, 9901))


def tags(document: Document) -> dict[str, str]:
    return {tag["tag_name"]: tag.get("fixed_value", "") for tag in document["stats_config"]["stats_tags"]}


def tracer(**said: Any) -> tuple[str, dict[str, Any]]:
    http = told(**said)["tracing"]["http"]
    return http["name"], http["typed_config"]


def test_silence_is_app_mesh_s_own_default_no_sink_no_traces_and_listener_tags() -> None:
    document = told()
    assert set(document) == {"stats_config"}
    assert set(tags(document)) == {"appmesh.listener_protocol", "appmesh.listener_port", "envoy_rds_route_config"}


def test_tags_name_the_mesh_and_the_node_or_gateway() -> None:
    assert tags(told(stats_tags=True)).items() >= {"appmesh.mesh": "shop", "appmesh.virtual_node": "cart"}.items()
    assert (
        tags(told(EDGE, stats_tags=True)).items() >= {"appmesh.mesh": "shop", "appmesh.virtual_gateway": "edge"}.items()
    )


@pytest.mark.parametrize("protocol", ["http", "http2", "grpc", "tcp"])
@pytest.mark.parametrize("scope", ["http", "tcp", "listener.0.0.0.0_15000.http", "listener.[__]_15000.http"])
def test_the_listener_tags_take_our_stat_prefixes_apart(protocol: str, scope: str) -> None:
    prefix = names.stat_prefix(names.INGRESS, protocol, 5555, several=True)
    stat = f"{scope}.{prefix}.downstream_rq_2xx"
    regexes = {tag["tag_name"]: tag.get("regex", "") for tag in told()["stats_config"]["stats_tags"]}
    found = {name: match[2] for name, regex in regexes.items() if (match := re.match(regex, stat))}
    assert found == {"appmesh.listener_protocol": protocol, "appmesh.listener_port": "5555"}
    alone = f"{scope}.{names.stat_prefix(names.INGRESS, protocol, 5555, several=False)}.downstream_rq_2xx"
    assert not any(re.match(regex, alone) for regex in regexes.values())


def test_the_listener_tags_look_nowhere_but_where_a_statistics_name_begins() -> None:
    # Envoy tries each on every name, of which some have two of 255 characters in them.
    regexes = [tag["regex"] for tag in told()["stats_config"]["stats_tags"] if "regex" in tag]
    assert all(regex.startswith("^") for regex in regexes)
    assert not any(re.search(regex, "cluster.cds_ingress.http.8080.rds.x.y") for regex in regexes)


def test_sinks_and_where_they_are() -> None:
    (statsd, dog) = told(statsd="10.0.0.9", dogstatsd="[::1]:9125")["stats_sinks"]
    assert (statsd["name"], dog["name"]) == ("envoy.stat_sinks.statsd", "envoy.stat_sinks.dog_statsd")
    socket = {"address": "10.0.0.9", "port_value": 8125, "protocol": "UDP"}
    assert statsd["typed_config"]["address"]["socket_address"] == socket
    assert dog["typed_config"]["address"]["socket_address"]["address"] == "::1"
    (only,) = told(dogstatsd="unix:/run/dd.sock")["stats_sinks"]
    assert only["typed_config"]["address"] == {"pipe": {"path": "/run/dd.sock"}}
    assert "stats_sinks" not in told(statsd="none", dogstatsd="none")
    assert told(flush_interval_s=0.25)["stats_flush_interval"] == "0.25s"


def test_prometheus_reaches_statistics_and_nothing_else_of_the_admin_port() -> None:
    resources = told(prometheus="9902")["static_resources"]
    (listener,), (cluster,) = resources["listeners"], resources["clusters"]
    assert listener["address"]["socket_address"] == {"address": "0.0.0.0", "port_value": 9902}
    (chain,) = listener["filter_chains"]
    (host,) = chain["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]
    assert [route["match"]["path"] for route in host["routes"]] == ["/stats/prometheus", "/stats"]
    assert all(route["match"]["headers"] for route in host["routes"])
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert endpoint["endpoint"]["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 9901}


def test_x_ray_samples_by_its_own_rules() -> None:
    name, config = tracer(tracing="xray")
    assert name == "envoy.tracers.xray"
    assert config["daemon_endpoint"] == {"address": "127.0.0.1", "port_value": 2000, "protocol": "UDP"}
    assert config["segment_name"] == "shop/cart"
    assert config["segment_fields"]["origin"] == "AWS::AppMesh::Proxy"
    assert config["segment_fields"]["aws"] == {"app_mesh": {"mesh_name": "shop", "virtual_node_name": "cart"}}
    assert "sampling_rule_manifest" not in config
    _, config = tracer(tracing="xray", tracing_rate=0.5)
    assert json.loads(config["sampling_rule_manifest"]["inline_string"])["default"] == {"fixed_target": 1, "rate": 0.5}


@pytest.mark.parametrize(
    ("kind", "cluster", "port", "name"),
    [
        ("datadog", "datadog_agent", 8126, "envoy-shop/cart"),
        ("jaeger", "jaeger", 9411, None),
        ("zipkin", "zipkin", 9411, None),
        ("opentelemetry", "opentelemetry", 4317, "shop/cart"),
    ],
)
def test_collectors_are_clusters_with_app_mesh_s_names(kind: str, cluster: str, port: int, name: str | None) -> None:
    document = told(tracing=kind, tracing_address="collector.local", tracing_rate=0.25)
    (made,) = document["static_resources"]["clusters"]
    assert (made["name"], made["type"]) == (cluster, "STRICT_DNS")
    (endpoint,) = made["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert endpoint["endpoint"]["address"]["socket_address"] == {"address": "collector.local", "port_value": port}
    assert document["tracing"]["http"]["typed_config"].get("service_name") == name
    (layer,) = document["layered_runtime"]["layers"]
    share = layer["static_layer"]["tracing.random_sampling"]
    assert share == {"numerator": 250_000, "denominator": "MILLION"}


def test_a_trace_is_named_as_it_was_said() -> None:
    assert tracer(tracing="xray", tracing_service="front")[1]["segment_name"] == "front"
    assert tracer(tracing="datadog", tracing_service="front")[1]["service_name"] == "front"
    assert tracer(tracing="opentelemetry", tracing_service="front")[1]["service_name"] == "front"
    assert told(tracing="zipkin", cluster="front")["node"] == {"cluster": "front"}


@pytest.mark.parametrize(("form", "sent"), [(None, "HTTP_PROTO"), ("proto", "HTTP_PROTO"), ("json", "HTTP_JSON")])
def test_zipkin_s_format(form: str | None, sent: str) -> None:
    assert tracer(tracing="jaeger", tracing_format=form)[1]["collector_endpoint_version"] == sent


def test_certificates_by_sds_come_from_the_cluster_that_app_mesh_s_listeners_name() -> None:
    (cluster,) = told(sds_socket="/run/sds.sock")["static_resources"]["clusters"]
    assert cluster["name"] == "static_cluster_sds_unix_socket"
    assert "http2_protocol_options" in str(cluster), "SDS is gRPC"
    (collector,) = told(tracing="opentelemetry")["static_resources"]["clusters"]
    assert "http2_protocol_options" in str(collector), "OTLP is gRPC"


def test_a_stats_config_by_hand_stands_in_the_place_of_ours() -> None:
    by_hand = {"stats_config": {"stats_tags": [{"tag_name": "mine", "fixed_value": "x"}]}}
    assert tags(told(stats_tags=True, files=(by_hand,))) == {"mine": "x"}


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"statsd": "agent.local:8125"}, "IP address"),
        ({"statsd": "unix:/run/statsd.sock"}, "UDP"),
        ({"dogstatsd": "unix:dd.sock"}, "absolute"),
        ({"dogstatsd": "127.0.0.1:x"}, "host:port"),
        ({"prometheus": "9901"}, "admin port"),
        ({"prometheus": "0"}, "does not say where"),
        ({"tracing": "lightstep"}, "unknown"),
        ({"tracing": "xray", "tracing_address": "daemon:2000"}, "IP address"),
        ({"tracing": "jaeger", "tracing_rate": 1.5}, "0 to 1"),
        ({"tracing": "jaeger", "tracing_service": "x"}, "--service-cluster"),
        ({"tracing": "datadog", "tracing_rules": "/rules.json"}, "X-Ray's"),
        ({"tracing": "xray", "tracing_format": "json"}, "Zipkin's"),
        ({"tracing_rate": 0.5}, "give --tracing too"),
        ({"flush_interval_s": 300.0}, "under 5 minutes"),
        ({"sds_socket": "sds.sock"}, "absolute"),
    ],
)
def test_what_no_envoy_takes_is_refused(said: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        told(**said)


def test_parts_are_laid_over_a_bootstrap_and_change_none_of_it() -> None:
    base = {"a": {"b": 1, "list": [1]}, "c": 2}
    assert merge(base, {"a": {"b": 3, "list": [2]}}, {"d": 4}) == {"a": {"b": 3, "list": [1, 2]}, "c": 2, "d": 4}
    assert base == {"a": {"b": 1, "list": [1]}, "c": 2}
    assert snake_keys({"statsSinks": [{"typedConfig": 1}], "tracing": 2}) == {
        "stats_sinks": [{"typedConfig": 1}],
        "tracing": 2,
    }
