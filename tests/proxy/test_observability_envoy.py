"""A real Envoy takes each way to tell of itself, in the bootstrap that the command makes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cluster import pki
from identity.node_id import parse_node_id
from proxy import bootstrap, observability
from proxy.observability import Settings
from proxy.parts import merge
from runtime.clock import SystemClock, SystemEntropy
from runtime.settings import Endpoint
from tests.envoy_process import find_envoy

NODE = "mesh/shop/virtualNode/cart"
AUTHORITY = pki.create_authority(pki.ROLES_ROOT, SystemClock().now_us(), SystemEntropy())


def made(**said: Any) -> bootstrap.Document:
    document = bootstrap.build(
        node_id=NODE,
        frontends=[Endpoint("z1", "10.0.0.1:7412")],
        tls_context=bootstrap.verifying_tls(AUTHORITY.certificate_pem.decode()),
    )
    node = parse_node_id(NODE, "123456789012")
    return merge(document, *observability.parts(Settings(**said), node, bootstrap.ADMIN_PORT))


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(
            {
                "tracing": "xray", "tracing_rate": 0.5, "statsd": "127.0.0.1", "dogstatsd": "[::1]:8125",
                "stats_tags": True, "prometheus": "[::]:9902", "flush_interval_s": 0.5, "admin_log": "/dev/null",
                "outlier_log": "/dev/null", "sds_socket": "/run/sds.sock", "fetch_timeout_s": 30, "cluster": "web",
            },
            id="xray and every sink",
        ),
        pytest.param({"tracing": "datadog", "dogstatsd": "unix:/run/dd.sock", "prometheus": "9902"}, id="datadog"),
        pytest.param({"tracing": "jaeger", "tracing_address": "jaeger.local", "tracing_rate": 0.25}, id="jaeger"),
        pytest.param({"tracing": "zipkin", "tracing_format": "json"}, id="zipkin"),
        pytest.param({"tracing": "opentelemetry", "tracing_address": "otel.local:4317"}, id="opentelemetry"),
    ],
)  # fmt: skip
def test_envoy_takes_it(said: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps(made(**said)))
    done = subprocess.run(
        [find_envoy(), "--mode", "validate", "--config-path", str(path), "--log-level", "error"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
