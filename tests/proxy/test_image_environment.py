"""The variables of App Mesh's Envoy image mean what they meant there, and flags come before them."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.errors import SettingsError
from proxy import image_environment
from proxy.observability import Settings

FILES = {
    "/tracing.yaml": "tracing: {http: {name: envoy.tracers.mine}}\n",
    "/stats.yaml": "statsConfig: {stats_tags: []}\n",
    "/sinks.yaml": "statsSinks: [{name: mine}]\n",
    "/clusters.yaml": "static_resources: {clusters: [{name: mine}]}\n",
    "/broken.yaml": "a: [",
    "/list.yaml": "[1]\n",
}


def load(path: str) -> str:
    if path not in FILES:
        raise FileNotFoundError(2, "No such file or directory")
    return FILES[path]


def read(flags: Settings | None = None, /, **environment: str) -> Settings:
    return image_environment.read(environment, flags or Settings(), load)


def test_an_empty_environment_says_nothing() -> None:
    assert read() == Settings(files=())
    assert read(
        ENABLE_ENVOY_XRAY_TRACING=" ", STATSD_PORT="8125", DATADOG_TRACER_PORT="1", XRAY_SAMPLING_RATE="1"
    ) == Settings(files=())


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"ENVOY_ADMIN_ACCESS_PORT": "19901"}, {"admin_port": 19901}),
        ({"ENVOY_ADMIN_ACCESS_LOG_FILE": "/tmp/a.log"}, {"admin_log": "/tmp/a.log"}),
        ({"APPMESH_RESOURCE_CLUSTER": "web", "APPMESH_VIRTUAL_NODE_CLUSTER": "x"}, {"cluster": "web"}),
        ({"ENABLE_ENVOY_STATS_TAGS": "1"}, {"stats_tags": True}),
        ({"ENABLE_ENVOY_STATS_TAGS": "false"}, {"stats_tags": False}),
        ({"ENVOY_STATS_FLUSH_INTERVAL": "5000ms"}, {"flush_interval_s": 5.0}),
        ({"ENVOY_STATS_FLUSH_INTERVAL": "1m0.5s"}, {"flush_interval_s": 60.5}),
        ({"ENABLE_ENVOY_DOG_STATSD": "1"}, {"dogstatsd": "127.0.0.1:8125"}),
        (
            {"ENABLE_ENVOY_DOG_STATSD": "true", "STATSD_ADDRESS": "10.0.0.9", "STATSD_PORT": "9125"},
            {"dogstatsd": "10.0.0.9:9125"},
        ),
        ({"ENABLE_ENVOY_DOG_STATSD": "1", "STATSD_ADDRESS": "fd00::9"}, {"dogstatsd": "[fd00::9]:8125"}),
        (
            {"ENABLE_ENVOY_DOG_STATSD": "1", "STATSD_SOCKET_PATH": "/run/dd.sock", "STATSD_ADDRESS": "10.0.0.9"},
            {"dogstatsd": "unix:/run/dd.sock"},
        ),
        ({"ENABLE_ENVOY_XRAY_TRACING": "1"}, {"tracing": "xray", "tracing_address": "127.0.0.1:2000"}),
        (
            {"ENABLE_ENVOY_XRAY_TRACING": "1", "XRAY_DAEMON_PORT": "2001", "XRAY_SAMPLING_RATE": "0.25"},
            {"tracing": "xray", "tracing_address": "127.0.0.1:2001", "tracing_rate": 0.25},
        ),
        (
            {"ENABLE_ENVOY_XRAY_TRACING": "1", "XRAY_SAMPLING_RATE": ".05", "XRAY_SEGMENT_NAME": "s"},
            {"tracing": "xray", "tracing_address": "127.0.0.1:2000", "tracing_service": "s"},
        ),
        (
            {"ENABLE_ENVOY_XRAY_TRACING": "1", "AWS_XRAY_DAEMON_ADDRESS": "tcp:10.0.0.8:1 udp:10.0.0.9:2"},
            {"tracing": "xray", "tracing_address": "10.0.0.9:2"},
        ),
        (
            {"ENABLE_ENVOY_XRAY_TRACING": "1", "XRAY_SAMPLING_RULE_MANIFEST": "/rules.json"},
            {"tracing": "xray", "tracing_address": "127.0.0.1:2000", "tracing_rules": "/rules.json"},
        ),
        (
            {"ENABLE_ENVOY_DATADOG_TRACING": "1", "DATADOG_TRACER_ADDRESS": "dd.local", "DD_SERVICE": "web"},
            {"tracing": "datadog", "tracing_address": "dd.local:8126", "tracing_service": "web"},
        ),
        (
            {"ENABLE_ENVOY_JAEGER_TRACING": "1", "JAEGER_TRACER_PORT": "9412", "JAEGER_TRACER_VERSION": "JSON"},
            {"tracing": "jaeger", "tracing_address": "127.0.0.1:9412", "tracing_format": "json"},
        ),
        ({"APPMESH_SDS_SOCKET_PATH": "/run/sds.sock"}, {"sds_socket": "/run/sds.sock"}),
        ({"ENVOY_OUTLIER_DETECTION_EVENT_LOG_PATH": "/dev/stdout"}, {"outlier_log": "/dev/stdout"}),
        ({"ENVOY_INITIAL_FETCH_TIMEOUT": "30"}, {"fetch_timeout_s": 30}),
        ({"APPNET_AGENT_ADMIN_MODE": "tcp"}, {"prometheus": "9902"}),
        (
            {"APPNET_AGENT_ADMIN_MODE": "tcp", "APPNET_AGENT_HTTP_PORT": "9", "APPNET_AGENT_HTTP_BIND_ADDRESS": "[::]"},
            {"prometheus": "[::]:9"},
        ),
        ({"APPNET_AGENT_ADMIN_MODE": "uds"}, {}),
        (
            {"ENVOY_RESOURCES_CONFIG_FILE": "/clusters.yaml"},
            {"files": ({"static_resources": {"clusters": [{"name": "mine"}]}},)},
        ),
    ],
)  # fmt: skip
def test_each_variable(environment: dict[str, str], said: dict[str, Any]) -> None:
    expected = {"files": ()} | ({"tracing_format": "proto"} if "jaeger" in said.values() else {}) | said
    assert read(**environment) == Settings(**expected)


def test_flags_come_before_the_environment() -> None:
    environment = {
        "ENABLE_ENVOY_XRAY_TRACING": "1", "XRAY_SAMPLING_RATE": "0.5", "XRAY_SAMPLING_RULE_MANIFEST": "/rules.json",
        "ENABLE_ENVOY_STATS_TAGS": "1", "ENABLE_ENVOY_DOG_STATSD": "1", "ENVOY_ADMIN_ACCESS_PORT": "19901",
        "JAEGER_TRACER_ADDRESS": "jaeger.local",
    }  # fmt: skip
    read_all = read(Settings(tracing="zipkin", stats_tags=False, dogstatsd="none", admin_port=1), **environment)
    assert (read_all.tracing, read_all.stats_tags, read_all.dogstatsd, read_all.admin_port) == (
        "zipkin",
        False,
        "none",
        1,
    )
    assert read_all.tracing_address == "jaeger.local:9411", "what the environment says of the tracer that was chosen"
    rated = read(Settings(tracing_rate=0.0), **environment)
    assert (rated.tracing, rated.tracing_rate, rated.tracing_rules) == ("xray", 0.0, None)
    assert read(Settings(tracing="none"), **environment).tracing == "none"


def test_files_stand_in_the_place_of_what_is_switched_on() -> None:
    said = read(ENVOY_TRACING_CFG_FILE="/tracing.yaml", ENABLE_ENVOY_XRAY_TRACING="1")
    assert (said.tracing, said.files) == (None, ({"tracing": {"http": {"name": "envoy.tracers.mine"}}},))
    said = read(ENVOY_STATS_SINKS_CFG_FILE="/sinks.yaml", ENABLE_ENVOY_DOG_STATSD="1")
    assert (said.dogstatsd, said.files) == (None, ({"stats_sinks": [{"name": "mine"}]},))
    assert read(Settings(tracing="xray"), ENVOY_TRACING_CFG_FILE="/tracing.yaml").files == ()
    assert read(Settings(stats_tags=True), ENVOY_STATS_CONFIG_FILE="/stats.yaml").files == ()


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"ENABLE_ENVOY_XRAY_TRACING": "goahead"}, "ENABLE_ENVOY_XRAY_TRACING 'goahead'"),
        (
            {"ENABLE_ENVOY_XRAY_TRACING": "1", "ENABLE_ENVOY_JAEGER_TRACING": "1"},
            "ENABLE_ENVOY_XRAY_TRACING and ENABLE_ENVOY_JAEGER_TRACING are both on",
        ),
        ({"ENABLE_ENVOY_XRAY_TRACING": "1", "XRAY_SAMPLING_RATE": "1.5"}, "XRAY_SAMPLING_RATE '1.5'"),
        ({"ENABLE_ENVOY_XRAY_TRACING": "1", "XRAY_SAMPLING_RATE": "nan"}, "XRAY_SAMPLING_RATE 'nan'"),
        ({"ENVOY_ADMIN_ACCESS_PORT": "99999"}, "ENVOY_ADMIN_ACCESS_PORT '99999'"),
        ({"ENVOY_STATS_FLUSH_INTERVAL": "5"}, "ENVOY_STATS_FLUSH_INTERVAL '5'"),
        ({"ENVOY_TRACING_CFG_FILE": "/absent.yaml"}, "cannot be read"),
        ({"ENVOY_TRACING_CFG_FILE": "/broken.yaml"}, "not YAML"),
        ({"ENVOY_TRACING_CFG_FILE": "/list.yaml"}, "not a part of a bootstrap"),
        ({"ENVOY_STATS_SINKS_CFG_FILE": "/clusters.yaml"}, "no stats_sinks"),
        (
            {"ENVOY_RESOURCES_CONFIG_FILE": "/tracing.yaml", "ENABLE_ENVOY_XRAY_TRACING": "1"},
            "tracing is set up more than once, by ENVOY_RESOURCES_CONFIG_FILE and xray",
        ),
        (
            {"ENVOY_RESOURCES_CONFIG_FILE": "/stats.yaml", "ENVOY_STATS_CONFIG_FILE": "/stats.yaml"},
            "stats_config is set up more than once, by ENVOY_STATS_CONFIG_FILE and ENVOY_RESOURCES_CONFIG_FILE",
        ),
    ],
)
def test_what_cannot_be_names_its_variable(environment: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        read(**environment)


def test_variables_that_no_bootstrap_can_follow_are_told() -> None:
    (sentence,) = image_environment.unused({"ENVOY_LOG_LEVEL": "debug", "AWS_REGION": "eu-north-1"})
    assert sentence == "ENVOY_LOG_LEVEL is not in a bootstrap: start Envoy with --log-level"
