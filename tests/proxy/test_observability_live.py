"""What arrives where a real Envoy was told to send it: StatsD lines with tags, Prometheus' answer, and spans.

The Envoy stands for a gateway with two listeners, so that its stat prefixes are `ingress.http.<port>`. Nothing is
behind it: how requests are answered does not matter here.
"""

from __future__ import annotations

import http.client
import http.server
import json
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent import futures
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from projector.snapshot import NodeSnapshot
from proxy import image_environment, observability
from proxy.observability import Settings
from proxy.parts import merge
from tests.conditions import eventually
from tests.envoy_process import Envoy, free_port, start_envoy
from tests.projector.envoy.meshes import Log, compiled, gateway, gateway_id, key, listener
from tests.projector.envoy.test_envoy_accepts import static_bootstrap

REQUESTS = 12
SPANS_WITHIN_S = 60.0
"""Envoy's tracers send in batches, every five seconds at most."""


def shop(*ports: int) -> NodeSnapshot:
    log = Log((key("virtualGateway", "edge"), gateway(*(listener(port) for port in ports))))
    return compiled(log, gateway_id())


def without_egress(document: dict[str, Any]) -> dict[str, Any]:
    """Its listeners for the outside alone: 15001 is one for the whole host, and other Envoys are on it."""
    resources = document["static_resources"]
    outside = [one for one in resources["listeners"] if one["name"].startswith("lds_ingress")]
    return {"static_resources": {**resources, "listeners": outside}}


@contextmanager
def telling(folder: Path, settings: Settings) -> Iterator[tuple[Envoy, int]]:
    """A live Envoy that was told so, and the port of a listener of its."""
    admin_port, port, other = free_port(), free_port(), free_port()
    base = without_egress(static_bootstrap(shop(port, other))) | {
        "node": {"id": str(gateway_id()), "cluster": str(gateway_id())},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin_port}}},
    }
    document = merge(base, *observability.parts(settings, gateway_id(), admin_port))
    # `env`: it has nothing on the port that two Envoys must not share.
    with start_envoy(document, folder, admin_port, prefix=("env",)) as envoy:
        envoy.wait_live(port)
        yield envoy, port


def ask(port: int, path: str = "/", method: str = "GET") -> tuple[int, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


class Datagrams:
    """A UDP port of loopback, and the lines that came to it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self._lines: list[str] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    def lines(self) -> Sequence[str]:
        while True:
            try:
                self._lines += self._socket.recv(65536).decode().splitlines()
            except BlockingIOError:
                return self._lines

    def one_with(self, pattern: str) -> str:
        return eventually(
            lambda: next((line for line in self.lines() if re.search(pattern, line)), ""),
            SPANS_WITHIN_S,
            f"a line with {pattern}",
        )

    def close(self) -> None:
        self._socket.close()


@contextmanager
def http_collector() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """A collector of traces over HTTP: where it is, and (path, body) of what it was sent."""
    got: list[tuple[str, bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            got.append((self.path, self.body()))
            self.send_response(202)
            self.send_header("content-length", "0")
            self.end_headers()

        do_PUT = do_GET = do_POST  # noqa: N815 - as http.server wants them named

        def body(self) -> bytes:
            """As long as it says, or in chunks: Envoy's own clients send the latter."""
            if self.headers["transfer-encoding"] != "chunked":
                return self.rfile.read(int(self.headers["content-length"] or 0))
            whole = b""
            while size_bytes := int(self.rfile.readline(), 16):
                whole += self.rfile.read(size_bytes)
                self.rfile.readline()
            self.rfile.readline()
            return whole

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}", got
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def otlp_collector() -> Iterator[tuple[str, list[bytes]]]:
    got: list[bytes] = []

    def export(request: bytes, _: grpc.ServicerContext) -> bytes:
        got.append(request)
        return b""

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(export)
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", got
    finally:
        server.stop(None).wait()


def test_statistics_arrive_with_app_mesh_s_tags(tmp_path: Path) -> None:
    prometheus = free_port()
    with closing(Datagrams()) as plain, closing(Datagrams()) as tagged:
        said: dict[str, Any] = {
            "statsd": plain.address,
            "dogstatsd": tagged.address,
            "prometheus": f"127.0.0.1:{prometheus}",
        }
        with telling(tmp_path, Settings(**said, stats_tags=True, flush_interval_s=0.1)) as (_, port):
            ask(port)
            line = tagged.one_with(r"^envoy\.http\.downstream_rq_total:1\|c.*:ingress")
            tags = set(line.partition("|#")[2].split(","))
            wanted = {
                "appmesh.mesh:shop",
                "appmesh.virtual_gateway:edge",
                "appmesh.listener_protocol:http",
                f"appmesh.listener_port:{port}",
                "envoy.http_conn_manager_prefix:ingress",
            }
            assert wanted <= tags, line
            assert "#" not in plain.one_with(rf"^envoy\.http\.ingress\.http\.{port}\.downstream_rq_total:1\|c")

            for path in ("/stats/prometheus", "/stats/prometheus?usedonly", "/stats?format=prometheus"):
                status, text = ask(prometheus, path)
                (found,) = (
                    one for one in text.splitlines()
                    if one.startswith("envoy_http_downstream_rq_total{") and f'appmesh_listener_port="{port}"' in one
                )  # fmt: skip
                assert status == 200
                assert 'appmesh_virtual_gateway="edge"' in found
                assert 'envoy_http_conn_manager_prefix="ingress"' in found
            for path, method in (
                ("/stats", "GET"),
                ("/config_dump", "GET"),
                ("/quitquitquit", "POST"),
                ("/stats/prometheus", "POST"),
            ):
                assert ask(prometheus, path, method)[0] == 404, f"{method} {path} must not reach the admin port"


def test_dogstatsd_over_a_unix_socket(tmp_path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as receiver:
        path = str(tmp_path / "dd.sock")
        receiver.bind(path)
        receiver.settimeout(SPANS_WITHIN_S)
        with telling(tmp_path, Settings(dogstatsd=f"unix:{path}", flush_interval_s=0.1)):
            assert receiver.recv(65536).startswith(b"envoy.")


def test_a_segment_arrives_at_x_ray(tmp_path: Path) -> None:
    with closing(Datagrams()) as daemon:
        with telling(tmp_path, Settings(tracing="xray", tracing_address=daemon.address, tracing_rate=1.0)) as (_, port):
            ask(port, "/cart")
            segment = json.loads(daemon.one_with(r'"trace_id"'))
        assert segment["name"] == "shop/edge"
        assert segment["origin"] == "AWS::AppMesh::Proxy"
        assert segment["aws"]["app_mesh"] == {"mesh_name": "shop", "virtual_node_name": "edge"}


def test_spans_arrive_at_jaeger_or_zipkin_under_the_cluster_s_name(tmp_path: Path) -> None:
    with http_collector() as (address, got):
        said: dict[str, Any] = {
            "tracing": "jaeger",
            "tracing_address": address,
            "tracing_format": "json",
            "cluster": "edge-of-shop",
        }
        with telling(tmp_path, Settings(**said)) as (_, port):
            for _ in range(REQUESTS):
                ask(port, "/cart")
            eventually(lambda: got, SPANS_WITHIN_S, "a span")
        path, body = got[0]
        assert path == "/api/v2/spans"
        span = json.loads(body)[0]
        assert span["localEndpoint"]["serviceName"] == "edge-of-shop"
        assert span["tags"]["http.method"] == "GET"


@pytest.mark.parametrize(("said", "service"), [({}, b"envoy-shop/edge"), ({"tracing_service": "front"}, b"front")])
def test_traces_arrive_at_datadog(tmp_path: Path, said: dict[str, Any], service: bytes) -> None:
    with http_collector() as (address, got):
        with telling(tmp_path, Settings(tracing="datadog", tracing_address=address, **said)) as (_, port):
            ask(port, "/cart")
            eventually(lambda: any("/traces" in path for path, _ in got), SPANS_WITHIN_S, "a trace")
        assert any("/traces" in path and service in body for path, body in got)


def test_spans_arrive_at_an_opentelemetry_collector(tmp_path: Path) -> None:
    with otlp_collector() as (address, got):
        with telling(tmp_path, Settings(tracing="opentelemetry", tracing_address=address)) as (_, port):
            for _ in range(REQUESTS):
                ask(port, "/cart")
            eventually(lambda: got, SPANS_WITHIN_S, "an export")
        assert b"shop/edge" in got[0]


@pytest.mark.parametrize(("rate", "traced"), [(0.0, 0), (1.0, REQUESTS)])
def test_the_rate_is_the_share_of_requests_traced(tmp_path: Path, rate: float, traced: int) -> None:
    with http_collector() as (address, _):
        with telling(tmp_path, Settings(tracing="zipkin", tracing_address=address, tracing_rate=rate)) as (envoy, port):
            for _ in range(REQUESTS):
                ask(port)
            counted = envoy.stats(rf"http\.ingress\.http\.{port}\.tracing\.(random_sampling|not_traceable)")
            assert sorted(counted.values()) == [0, REQUESTS]
            assert counted[f"http.ingress.http.{port}.tracing.random_sampling"] == traced


def test_a_file_of_sinks_that_a_variable_names_reaches_the_envoy(tmp_path: Path) -> None:
    with closing(Datagrams()) as sink:
        host, _, port = sink.address.partition(":")
        address = {"socket_address": {"protocol": "UDP", "address": host, "port_value": int(port)}}
        kind = "type.googleapis.com/envoy.config.metrics.v3.StatsdSink"
        config = {"@type": kind, "address": address, "prefix": "mine"}
        file = tmp_path / "sinks.yaml"
        file.write_text(json.dumps({"statsSinks": [{"name": "envoy.stat_sinks.statsd", "typedConfig": config}]}))
        environment = {"ENVOY_STATS_SINKS_CFG_FILE": str(file), "ENVOY_STATS_FLUSH_INTERVAL": "100ms"}
        settings = image_environment.read(environment, Settings(), lambda path: Path(path).read_text())
        with telling(tmp_path, settings):
            assert sink.one_with(r"^mine\.")
