"""What AWS's own walkthroughs of App Mesh set up and show, end to end: their specifications' shapes, our names."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import grpc
import pytest

from tests.netns import splice
from tests.projector.envoy.test_tls_live import CALLER, named
from tests.traffic.namespaces import EXTERNAL_V4, VIRTUAL_V4, VIRTUAL_V6
from tests.traffic.proofs.registry import NAMESPACE, at, registered
from tests.traffic.proofs.routes import Ask, seen_by, two_nodes
from tests.traffic.specs import (
    gateway,
    gateway_route,
    listener,
    millis,
    node,
    route,
    router,
    seconds,
    service,
)
from tests.traffic.world import World, available, key

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(not available(), reason="needs root, `ip`, `iptables` and `setpriv` for pods"),
]

COLOR = "color.howto.local"
PING = {
    "path": "/ping",
    "healthyThreshold": 2,
    "unhealthyThreshold": 2,
    "timeoutMillis": 2000,
    "intervalMillis": 5000,
}


@contextmanager
def from_pod(world: World, pod: str, port: int = 8080) -> Iterator[int]:
    """A port of this host whose connections the application of `pod` opens."""
    entrance = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                accepted, _ = entrance.accept()
            except OSError:
                return
            outward = world.connect(pod, port, VIRTUAL_V4)
            outward.settimeout(None)
            threading.Thread(target=splice, args=(accepted, outward), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    with closing(entrance):
        yield int(entrance.getsockname()[1])
        entrance.shutdown(socket.SHUT_RDWR)


def test_http2(world: World) -> None:
    world.mesh(
        node("front", listener(8080, "http2"), host="client.howto.local", backends=[COLOR]),
        *two_nodes(world, "http2"),
        router("color", listener(8080, "http2")),
        route("color", {"red": 1, "blue": 1}, kind="http2"),
        service(COLOR, router="color"),
    )
    found = [world.ask2(COLOR).saw for _ in range(24)]
    assert {saw["app"] for saw in found} == {"red", "blue"}
    assert {saw["version"] for saw in found} == {"HTTP/2"}
    world.update(route("color", {"red": 0, "blue": 1}, kind="http2"))
    assert {world.ask2(COLOR).saw["app"] for _ in range(12)} == {"blue"}


def test_grpc_with_its_own_client(world: World) -> None:
    retry = {"grpcRetryEvents": ["internal"], "maxRetries": 3, "perRetryTimeout": seconds(2)}
    get = {"serviceName": "color.ColorService", "methodName": "GetColor"}
    world.mesh(
        node("front", listener(8080, "grpc"), host="client.howto.local", backends=[COLOR]),
        *two_nodes(world, "grpc"),
        router("color", listener(8080, "grpc")),
        route("color", {"red": 100}, get, kind="grpc"),
        service(COLOR, router="color"),
    )
    options = [("grpc.default_authority", COLOR)]
    with from_pod(world, "front") as port, grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        call: Any = channel.unary_unary("/color.ColorService/GetColor")
        other: Any = channel.unary_unary("/color.ColorService/SetColor")
        assert json.loads(call(b""))["app"] == "red"
        with pytest.raises(grpc.RpcError) as refused:
            other(b"")
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED, "no route for that method"
        world.update(route("color", {"red": 100}, {"serviceName": "color.ColorService"}, kind="grpc"))
        assert json.loads(other(b""))["app"] == "red"
        world.update(
            route("color", {"red": 100}, {"serviceName": "color.ColorService"}, kind="grpc", retryPolicy=retry)
        )
        name = world.fresh("flaky")
        flaky = json.dumps({"key": name, "times": 2, "grpc_status": 13})
        assert json.loads(call(b"", metadata=(("x-do", flaky),)))["app"] == "red"
        assert world.apps["red"].asked[name] == 3
        talk: Any = channel.stream_stream("/color.ColorService/TalkStream")
        assert list(talk(iter([b"one", b"two", b"three"]))) == [b"one", b"two", b"three"]


def test_retries(world: World) -> None:
    policy = {"maxRetries": 2, "perRetryTimeout": seconds(15), "httpRetryEvents": ["server-error"]}
    flaky = {"times": 2, "status": 500}
    never = {"maxRetries": 0, "perRetryTimeout": millis(15), "httpRetryEvents": ["server-error"]}
    for retry, status in ((never, 500), (policy, 200)):
        world.mesh(
            node("front", backends=[COLOR]),
            *two_nodes(world, "http"),
            router("color"),
            route("color", "blue", retryPolicy=retry, priority=1),
            service(COLOR, router="color"),
        )
        assert world.ask(COLOR, do={**flaky, "key": world.fresh("flaky")}).status == status


def test_header_matching(world: World) -> None:
    def having(**match: object) -> dict[str, object]:
        return {"prefix": "/", "headers": [{"name": "color", **match}]}

    world.mesh(
        node("front", backends=[COLOR]),
        *two_nodes(world, "http"),
        node("ext", listener(), host=world.host("ext1")),
        router("color"),
        route("color", "blue", having(match={"prefix": "bl"}), name="blue", priority=1),
        route("color", "ext", having(match={"regex": "gr(e|a)y"}), name="grey", priority=2),
        route("color", "red", name="rest", priority=3),
        service(COLOR, router="color"),
    )
    expected = {"blue": "blue", "black": "blue", "grey": "outside", "gray": "outside", "red": "red"}
    assert {color: world.ask(COLOR, headers={"color": color}).app for color in expected} == expected
    assert world.ask(COLOR).app == "red"


def test_an_ingress_gateway_with_prefixes_and_its_own_tls_to_backends(world: World) -> None:
    edge = world.pods["edge"].v4
    world.mesh(
        *two_nodes(world, "http"),
        service("color-1", node="red"),
        router("color"),
        route("color", {"red": 1, "blue": 1}),
        service("color-2", router="color"),
        gateway_route("color-1", {"prefix": "/color1"}, name="one"),
        gateway_route("color-2", {"prefix": "/color2"}, name="two"),
    )
    assert {world.ask("lb.example", "/color1/tell", pod="outside", port=8088, to=edge).app for _ in range(6)} == {"red"}
    answers = [world.ask("lb.example", "/color2/tell", pod="outside", port=8088, to=edge) for _ in range(24)]
    assert {answer.app for answer in answers} == {"red", "blue"}
    assert {answer.saw["path"] for answer in answers} == {"/tell"}
    assert world.ask("lb.example", "/color3", pod="outside", port=8088, to=edge).status == 404


def test_mutual_tls_from_the_gateway_to_a_node(world: World) -> None:
    edge, files = world.pods["edge"].v4, world.certificates
    server = {
        "mode": "STRICT",
        "certificate": files.files("server"),
        "validation": {**files.trust("ours"), **named(CALLER)},
    }
    for who, status in (("caller", 200), ("stranger", 503)):
        client = {"tls": {"validation": files.trust("ours"), "certificate": files.files(who)}}
        world.mesh(
            node("red", listener(8080, tls=server), host=world.tls_host),
            service(COLOR, node="red"),
            gateway(backendDefaults={"clientPolicy": client}),
            gateway_route(COLOR, {"prefix": "/color"}),
        )
        assert world.ask("lb.example", "/color", pod="outside", port=8088, to=edge).status == status


def test_timeouts_beyond_fifteen_seconds_need_both_sides(world: World) -> None:
    twenty = {"perRequest": seconds(20)}
    names = ("neither", "route", "listener", "both")
    declared = [node("front", backends=names)]
    for name in names:
        own = {"timeout": {"http": twenty}} if name in ("listener", "both") else {}
        target = "red" if own else "blue"
        declared += [
            node(target, listener(8080, **own), host=world.host(target)),  # type: ignore[arg-type]
            router(name),
            route(name, target, **({"timeout": twenty} if name in ("route", "both") else {})),  # type: ignore[arg-type]
            service(name, router=name),
        ]
    world.mesh(*declared)
    with ThreadPoolExecutor(len(names)) as pool:
        statuses = list(pool.map(lambda name: world.ask(name, do={"delay_s": 16.5}).status, names))
    assert dict(zip(names, statuses, strict=True)) == {"neither": 504, "route": 504, "listener": 504, "both": 200}


def test_outlier_detection_of_servers_in_cloud_map(world: World) -> None:
    family = {"ECS_TASK_DEFINITION_FAMILY": "color"}
    good, bad = EXTERNAL_V4[:3], EXTERNAL_V4[3]
    name = registered(world, *(at(address, **family) for address in (*good, bad)), at(EXTERNAL_V4[5]))
    detection = {
        "maxServerErrors": 5,
        "maxEjectionPercent": 100,
        "interval": seconds(30),
        "baseEjectionDuration": seconds(10),
    }
    color = {
        "listeners": [listener(8080, healthCheck={"protocol": "http", **PING}, outlierDetection=detection)],
        "serviceDiscovery": {
            "awsCloudMap": {
                "namespaceName": NAMESPACE,
                "serviceName": name,
                "attributes": [{"key": "ECS_TASK_DEFINITION_FAMILY", "value": "color"}],
            }
        },
    }
    world.mesh(node("front", backends=[COLOR]), (key("virtualNode", "color"), color), service(COLOR, node="color"))
    assert {world.ask(COLOR).saw["at"] for _ in range(16)} == {*good, bad}
    faulty = {"status": 500, "at": bad}
    statuses = [world.ask(COLOR, do=faulty).status for _ in range(60)]
    assert statuses.count(500) == 5
    assert {world.ask(COLOR).saw["at"] for _ in range(16)} == set(good)


def test_circuit_breakers(world: World) -> None:
    pool = {"http": {"maxConnections": 100, "maxPendingRequests": 10000}}
    limited: dict[str, Any] = {"connectionPool": {"http2": {"maxRequests": 10}}}
    world.mesh(
        node("red", listener(8080, "http2", **limited), host=world.host("red")),
        service(COLOR, node="red"),
        gateway(listener(8088, connectionPool=pool)),
        gateway_route(COLOR, {"prefix": "/color"}),
    )
    held = world.fresh("held")

    def ask(_: int) -> int:
        return world.ask("any", "/color", pod="outside", port=8088, to=world.pods["edge"].v4, do={"hold": held}).status

    with ThreadPoolExecutor(14) as callers:
        asked = [callers.submit(ask, number) for number in range(14)]
        try:
            world.eventually(lambda: sum(each.done() for each in asked) == 4, "four requests over the limit")
        finally:
            world.apps["red"].release(held)
        assert sorted(each.result() for each in asked) == [200] * 10 + [503] * 4


def test_multiple_listeners_from_gateway_to_node(world: World) -> None:
    edge = world.pods["edge"].v4
    both = (listener(8080), listener(8081))
    world.mesh(
        node("red", *both, host=world.host("red")),
        router("color", *both),
        service(COLOR, router="color"),
        *(
            route(
                "color",
                [{"virtualNode": "red", "weight": 100, "port": port}],
                {"prefix": "/", "port": port},
                name=f"route-{port}",
            )
            for port in (8080, 8081)
        ),
        gateway(listener(8088), listener(8089)),
        gateway_route(COLOR, {"prefix": "/", "port": 8088}, name="a", port=8080),
        gateway_route(COLOR, {"prefix": "/", "port": 8089}, name="b", port=8081),
    )
    assert world.ask("any", pod="outside", port=8088, to=edge).saw["port"] == 8080
    saw = world.ask("any", pod="outside", port=8089, to=edge).saw
    assert (saw["port"], saw["authority"]) == (8081, COLOR)


def test_ipv6(world: World) -> None:
    world.mesh(
        node("front", backends=[COLOR]),
        node("red", listener(), host=world.host("red-dual")),
        service(COLOR, node="red"),
        gateway_route(COLOR),
        spec={"serviceDiscovery": {"ipPreference": "IPv6_ONLY"}},
    )
    saw = world.ask(COLOR, to=VIRTUAL_V6).saw
    assert (saw["app"], saw["at"]) == ("red", "::1")
    assert world.ask("any", pod="outside", port=8088, to=world.pods["edge"].v6).app == "red"
    assert seen_by(world, "http", Ask(host=COLOR), to=VIRTUAL_V4) == "red"


def test_a_websocket_through_gateway_and_sidecar(world: World) -> None:
    world.mesh(*two_nodes(world, "http"), service(COLOR, node="red"), gateway_route(COLOR, {"prefix": "/chat"}))
    asked_for = base64.b64encode(b"0123456789abcdef").decode()
    head = (
        f"GET /chat HTTP/1.1\r\nhost: any\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
        f"sec-websocket-version: 13\r\nsec-websocket-key: {asked_for}\r\n\r\n"
    )
    with world.connect("outside", 8088, world.pods["edge"].v4) as connection:
        connection.sendall(head.encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 101")
        connection.sendall(b"\x81\x85mask-frame")
        assert connection.recv(100) == b"\x81\x85mask-frame"
