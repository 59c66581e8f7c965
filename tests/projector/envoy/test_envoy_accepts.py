"""A real Envoy takes every compiled resource, and requests go where the specs say."""

from __future__ import annotations

import collections
import http.client
import http.server
import json
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from projector.snapshot import TYPE_CLUSTER, TYPE_ENDPOINT, TYPE_LISTENER, TYPE_ROUTE, NodeSnapshot
from tests.conditions import eventually
from tests.envoy_process import AdsServer, Envoy, find_envoy, run_ads_envoy
from tests.netns import Namespace, available
from tests.projector.envoy.meshes import (
    Log,
    by_node,
    by_router,
    canary,
    compiled,
    gateway,
    gateway_id,
    gateway_route,
    key,
    listener,
    node,
    node_id,
    route,
    router,
)
from tests.projector.envoy.readable import of_type
from tests.projector.envoy.test_golden import CASES, INSTANCES

netns = pytest.mark.netns
needs_namespaces = pytest.mark.skipif(not available(), reason="needs root and `ip` for network namespaces")


def inlined(value: Any, routes: dict[str, dict[str, Any]]) -> Any:
    """`value` with every RDS reference replaced by the route configuration itself, for a bootstrap without ADS."""
    if isinstance(value, list):
        return [inlined(item, routes) for item in value]
    if not isinstance(value, dict):
        return value
    found = {name: inlined(item, routes) for name, item in value.items() if name != "rds"}
    if "rds" in value:
        found["routeConfig"] = {**routes[value["rds"]["routeConfigName"]], "validateClusters": True}
    return found


def static_bootstrap(snapshot: NodeSnapshot) -> dict[str, Any]:
    routes = of_type(snapshot, TYPE_ROUTE)
    listeners = inlined(list(of_type(snapshot, TYPE_LISTENER).values()), routes)
    clusters = list(of_type(snapshot, TYPE_CLUSTER).values())
    for name, assignment in of_type(snapshot, TYPE_ENDPOINT).items():
        (found,) = (index for index, cluster in enumerate(clusters) if cluster["name"] == name)
        without = {member: value for member, value in clusters[found].items() if member != "edsClusterConfig"}
        clusters[found] = {**without, "type": "STATIC", "loadAssignment": assignment}
    return {"static_resources": {"listeners": listeners, "clusters": clusters}}


@pytest.mark.parametrize("name", CASES)
def test_envoy_validates_every_golden_node_with_every_cluster_present(name: str, tmp_path: Path) -> None:
    mesh, of = CASES[name]
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps(static_bootstrap(compiled(mesh(), of, registry=INSTANCES))))
    done = subprocess.run(
        [find_envoy(), "--mode", "validate", "--config-path", str(path), "--log-level", "error"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


class Upstream(http.server.BaseHTTPRequestHandler):
    """Answers with its own name, and what it was asked."""

    def do_GET(self) -> None:
        body = json.dumps(
            {
                "who": self.server.who,  # type: ignore[attr-defined]
                "path": self.path,
                "host": self.headers["host"],
                "service": self.headers["x-app-mesh-virtual-service"],
            }
        ).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_GET  # noqa: N815 - as http.server wants them named

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def upstream(who: str, namespace: Namespace) -> Iterator[int]:
    """An HTTP server on 127.0.0.1, reachable at the same port inside the namespace."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    server.who = who  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    namespace.carry(server.server_port)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def get(port: int, path: str, host: str = "front.example") -> tuple[int, dict[str, Any], dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path, headers={"host": host, "x-app-mesh-virtual-service": "spoofed"})
        answer = connection.getresponse()
        body = answer.read()
        return answer.status, json.loads(body) if body.startswith(b"{") else {}, dict(answer.getheaders())
    finally:
        connection.close()


Push = Callable[[Log], None]


@contextmanager
def running(
    namespace: Namespace, snapshot: NodeSnapshot, folder: Path, clusters: Sequence[dict[str, Any]] = ()
) -> Iterator[tuple[Envoy, AdsServer]]:
    envoy, server = run_ads_envoy(namespace, snapshot, folder, clusters)
    try:
        yield envoy, server
        assert server.refused == []
        rejected = envoy.stats("update_rejected")
        assert rejected
        assert not any(rejected.values())
    finally:
        envoy.stop()
        server.stop()


def shared(log: Log, server: AdsServer) -> None:
    """Push the gateway's newest snapshot and wait until Envoy acknowledged it."""
    server.serve(compiled(log, gateway_id()))
    eventually(server.settled, what="the Envoy's acknowledgement")


@netns
@needs_namespaces
def test_a_gateway_routes_real_requests_by_weight_prefix_and_host_name(tmp_path: Path) -> None:
    with (
        Namespace("meshlog-vg") as namespace,
        upstream("v1", namespace) as one,
        upstream("v2", namespace) as two,
    ):
        log = canary()
        for name, port in (("cart-v1", one), ("cart-v2", two), ("stock", one)):
            log.update(key("virtualNode", name), node(listener(port), host="127.0.0.1"))
        keep = {"hostname": {"defaultTargetHostname": "DISABLED"}}
        value = {"prefix": {"value": "/v1/"}}
        log.create(key("gatewayRoute", "kept", "edge"), gateway_route("cart.shop.local", {"prefix": "/kept"}, keep))
        log.create(key("gatewayRoute", "stock", "edge"), gateway_route("stock.shop.local", {"prefix": "/stock"}, value))
        log.create(key("virtualService", "empty.shop.local"), {})
        log.create(key("gatewayRoute", "empty", "edge"), gateway_route("empty.shop.local", {"prefix": "/empty"}))
        with running(namespace, compiled(log, gateway_id()), tmp_path) as (_, server):
            port = namespace.expose(8088)
            seen = collections.Counter(get(port, "/cart/x")[1]["who"] for _ in range(300))
            # 10 % of 300 is 30, with a standard deviation of 5.2: this is five of them either way.
            assert 4 <= seen["v2"] <= 56
            assert seen["v1"] + seen["v2"] == 300

            assert get(port, "/cart/x?y=1")[1] | {"who": ""} == {
                "who": "",
                "path": "/x?y=1",
                "host": "cart.shop.local",
                "service": "spoofed",
            }
            assert get(port, "/cart")[1]["path"] == "/"
            status, body, headers = get(port, "/kept/x", host="kept.example")
            assert (status, body["path"], body["host"], body["service"]) == (
                200,
                "/x",
                "kept.example",
                "cart.shop.local",
            )
            assert "x-app-mesh-virtual-service" not in headers
            assert get(port, "/stock/a")[1]["path"] == "/v1/a"
            assert get(port, "/empty/a")[0] == 404
            assert get(port, "/nowhere")[0] == 404

            log.update(key("route", "all", "cart"), route({"cart-v1": 0, "cart-v2": 100}))
            shared(log, server)
            assert {get(port, "/cart/x")[1]["who"] for _ in range(30)} == {"v2"}

            log.update(key("virtualNode", "cart-v2"), {})
            shared(log, server)
            assert get(port, "/cart/x")[0] == 503
            assert get(port, "/stock/a")[0] == 200


@netns
@needs_namespaces
def test_a_gateway_passes_its_own_health_check_and_keeps_no_request_from_its_service(tmp_path: Path) -> None:
    check = {
        "protocol": "http", "path": "/x", "healthyThreshold": 2, "unhealthyThreshold": 2,
        "intervalMillis": 5000, "timeoutMillis": 2000,
    }  # fmt: skip
    with Namespace("meshlog-vgh") as namespace, upstream("v1", namespace) as one:
        log = canary()
        for name in ("cart-v1", "cart-v2", "stock"):
            log.update(key("virtualNode", name), node(listener(one), host="127.0.0.1"))
        log.update(key("virtualGateway", "edge"), gateway(listener(8088, healthCheck=check)))
        with running(namespace, compiled(log, gateway_id()), tmp_path) as (envoy, _):
            port = namespace.expose(8088)
            stat = "self_redirect_http_15001.health_check.success"

            def passed() -> bool:
                # The service's own `/x`; and a cluster without traffic is hardly ever checked.
                assert get(port, "/cart/x")[1]["path"] == "/x"
                return any(envoy.stats(stat).values())

            eventually(passed, what="the gateway's health check")
            assert envoy.stats("self_redirect_http_15001.membership_healthy") != {}


def odd() -> Log:
    """What people may write, or want to break: everything here must be taken by Envoy or held back."""
    log = canary(
        (key("virtualService", "a" * 250), by_router("long")),
        (key("virtualRouter", "long"), router(8080, 65535)),
        (key("virtualNode", "ünïcode ✓"), node(listener(1, "grpc"), listener(65535), host="h" * 300 + ".example")),
        (key("route", "r" * 250, "long"), route({"ünïcode ✓": 100}, {"prefix": "/%2e%2e/" + "p" * 200, "port": 65535})),
        (key("virtualService", "ünïcode.shop.local"), by_node("ünïcode ✓")),
        (key("virtualService", "line\nbreak"), by_node("stock")),
        (key("virtualService", "with space"), by_node("stock")),
        (key("virtualService", "*"), by_node("stock")),
        (key("virtualService", "STOCK.shop.local"), by_node("stock")),
        (key("virtualNode", "literal6"), node(listener(80), host="::1", ipPreference="IPv6_ONLY")),
        (key("virtualService", "literal6"), by_node("literal6")),
        (key("virtualNode", "literal4"), node(listener(80), host="127.0.0.1", responseType="ENDPOINTS")),
        (key("virtualService", "literal4"), by_node("literal4")),
        (key("virtualRouter", "none"), router()),
        (key("route", "zero", "none"), route({"stock": 0})),
        (key("virtualService", "zero"), by_router("none")),
        (key("virtualNode", "broken"), {"listeners": [listener(80)]}),
        (key("virtualService", "broken"), by_node("broken")),
    )
    for index, name in enumerate(
        (
            "a" * 250,
            "ünïcode.shop.local",
            "line\nbreak",
            "with space",
            "*",
            "STOCK.shop.local",
            "literal6",
            "literal4",
            "zero",
            "broken",
        )
    ):
        log.create(key("gatewayRoute", f"odd{index}", "edge"), gateway_route(name, {"prefix": f"/odd{index}"}))
    endless = {"unit": "s", "value": 10**15}
    policy = {"maxRetries": 10**18, "perRetryTimeout": endless, "httpRetryEvents": ["server-error"]}
    forever = {"perRequest": endless, "idle": {"unit": "ms", "value": 0}}
    log.update(key("route", "all", "cart"), route({"cart-v1": 1}, retryPolicy=policy, timeout=forever))
    pool = {"http": {"maxConnections": 10**15, "maxPendingRequests": 1}}
    log.update(key("virtualGateway", "edge"), gateway(listener(8088, connectionPool=pool), listener(8089, "grpc")))
    names = tuple(key.name for key in sorted(log.state.resources) if key.kind == "virtualService")
    log.update(key("virtualNode", "stock"), node(listener(8080), backends=(*names, "gone")))
    log.update(key("mesh", "shop"), {"egressFilter": {"type": "ALLOW_ALL"}})
    return log


@netns
@needs_namespaces
@pytest.mark.parametrize(
    "of", [gateway_id(), node_id("stock"), node_id("ünïcode ✓")], ids=["gateway", "caller", "node"]
)
def test_envoy_takes_odd_meshes_live(of: Any, tmp_path: Path) -> None:
    with Namespace("meshlog-odd") as namespace:
        with running(namespace, compiled(odd(), of), tmp_path) as (envoy, server):
            wanted = set(of_type(compiled(odd(), of), TYPE_LISTENER))
            dump = envoy.config_dump()["configs"]
            live = next(each for each in dump if each["@type"].endswith("ListenersConfigDump"))["dynamic_listeners"]
            assert {each["name"] for each in live if "active_state" in each} == wanted
            assert server.acked


@netns
@needs_namespaces
def test_a_dual_stack_sidecar_with_every_feature_comes_up_live(tmp_path: Path) -> None:
    mesh, of = CASES["sidecar-busy"]
    with Namespace("meshlog-vn") as namespace:
        with running(namespace, compiled(mesh(), of), tmp_path) as (envoy, _):
            text = envoy.admin("/listeners")
            assert "lds_ingress_0.0.0.0_15000::0.0.0.0:15000" in text
            assert "[::]:15001" in text
