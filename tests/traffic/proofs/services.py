"""Who is reached: nodes, their listeners, routers, services, backends, gateways' listeners, egress."""

from __future__ import annotations

import ssl

from tests.traffic.fields import proves
from tests.traffic.namespaces import EXTERNAL_V4
from tests.traffic.proofs.routes import ALL, Ask, seen_by, shop, two_nodes
from tests.traffic.specs import gateway, gateway_route, listener, node, route, router, service
from tests.traffic.world import MESH, World, key


@proves("virtualNode.serviceDiscovery.dns.hostname", "virtualNode.backends[].virtualService.virtualServiceName")
def a_backend_is_found_by_its_nodes_host_name(world: World) -> None:
    world.mesh(*shop(world, route("orders", "red")))
    assert world.ask("orders").app == "red"
    assert world.ask("orders:8080").app == "red"
    assert world.ask("another").status == 404


@proves("virtualService.provider.virtualNode.virtualNodeName")
def a_service_of_a_node(world: World) -> None:
    world.mesh(node("front", backends=["b"]), *two_nodes(world, "http"), service("b", node="blue"))
    assert world.ask("b").app == "blue"


@proves("virtualService.provider.virtualRouter.virtualRouterName")
def a_service_of_a_router(world: World) -> None:
    world.mesh(*shop(world, route("orders", "blue")))
    assert world.ask("orders").app == "blue"


@proves("virtualRouter.listeners[].portMapping.port")
def a_service_is_spoken_to_on_its_routers_port(world: World) -> None:
    world.mesh(
        node("front", backends=["orders"]),
        *two_nodes(world, "http"),
        router("orders", listener(8083)),
        route("orders", "red"),
        service("orders", router="orders"),
    )
    saw = world.ask("orders", port=8083).saw
    assert (saw["app"], saw["port"]) == ("red", 8080)
    assert world.ask("orders", port=8080).status == 0


@proves("virtualRouter.listeners[].portMapping.protocol", "virtualNode.listeners[].portMapping.protocol")
def a_service_of_plain_tcp(world: World) -> None:
    world.mesh(*shop(world, route("orders", "red", kind="tcp"), kind="tcp"))
    with world.connect("front") as connection:
        connection.sendall(b"hello\n")
        assert connection.recv(100) == b"red: hello\n"


@proves("virtualNode.listeners[].portMapping.port", "virtualNode.listeners[].portMapping.protocol")
def a_listener_has_the_applications_port_and_protocol(world: World) -> None:
    world.mesh(
        node("front", backends=["one", "two"]),
        node("red", listener(8081), host=world.host("red")),
        node("blue", listener(8082, "http2"), host=world.host("blue")),
        service("one", node="red"),
        service("two", node="blue"),
    )
    saw = world.ask("one", port=8081).saw
    assert (saw["app"], saw["port"], saw["version"]) == ("red", 8081, "HTTP/1.1")
    saw = world.ask("two", port=8082).saw
    assert (saw["app"], saw["port"], saw["version"]) == ("blue", 8082, "HTTP/2")


@proves("virtualNode.listeners[].portMapping.protocol")
def grpc_reaches_the_application_with_its_trailers(world: World) -> None:
    world.mesh(*shop(world, route("orders", "red", kind="grpc"), kind="grpc"))
    reply = world.call("orders", do={"grpc_status": 5})
    assert reply.grpc_status == 5
    with world.http2() as client:
        stream = client.start("orders", "/a.B/TalkStream", "POST", [("content-type", "application/grpc")], ends=False)
        for number in range(3):
            word = bytes([0, 0, 0, 0, 1, 65 + number])
            client.send(stream, word)
            client.read(stream, lambda reply, word=word: reply.data.endswith(word))  # type: ignore[misc]
        client.end(stream)
        assert client.read(stream).grpc_status == 0


@proves(
    "route.tcpRoute.action.weightedTargets[].virtualNode",
    "route.tcpRoute.action.weightedTargets[].weight",
)
def tcp_goes_to_targets_that_have_weight(world: World) -> None:
    world.mesh(*shop(world, route("orders", {"red": 0, "blue": 1}, kind="tcp"), kind="tcp"))
    for _ in range(20):
        with world.connect("front") as connection:
            connection.sendall(b"x\n")
            assert connection.recv(100) == b"blue: x\n"


@proves("route.tcpRoute.action.weightedTargets[].port")
def tcp_goes_to_the_targets_port(world: World) -> None:
    target = [{"virtualNode": "red", "weight": 1, "port": 9000}]
    world.mesh(
        *shop(world, route("orders", target, kind="tcp"), kind="tcp"),
        node("red", listener(8080, "tcp"), listener(9000, "tcp"), host=world.host("red")),
    )
    with world.connect("front") as connection:
        assert connection.recv(100) == b"welcome to red\n"


@proves("route.tcpRoute.match.port")
def a_tcp_route_of_one_port(world: World) -> None:
    world.mesh(
        node("front", backends=["orders"]),
        *two_nodes(world, "tcp"),
        router("orders", listener(8081, "tcp"), listener(8082, "tcp")),
        service("orders", router="orders"),
        route("orders", "red", {"port": 8081}, name="a", kind="tcp"),
        route("orders", "blue", {"port": 8082}, name="b", kind="tcp"),
    )
    for port, app in ((8081, b"red"), (8082, b"blue")):
        with world.connect("front", port) as connection:
            connection.sendall(b"x\n")
            assert connection.recv(100) == app + b": x\n"


@proves("virtualGateway.listeners[].portMapping.port", "gatewayRoute.httpRoute.match.port")
def a_gateway_of_several_ports(world: World) -> None:
    edge = world.pods["edge"].v4
    world.mesh(
        *two_nodes(world, "http"),
        service("red-service", node="red"),
        service("blue-service", node="blue"),
        gateway(listener(8088), listener(8089)),
        gateway_route("red-service", {"prefix": "/", "port": 8088}, name="a"),
        gateway_route("blue-service", {"prefix": "/", "port": 8089}, name="b"),
    )
    assert world.ask("any", pod="outside", port=8088, to=edge).app == "red"
    assert world.ask("any", pod="outside", port=8089, to=edge).app == "blue"


@proves("gatewayRoute.{kind}Route.match.port", kind=("http2", "grpc"))
def a_gateway_route_of_one_port(world: World, kind: str) -> None:
    where = {"pod": "outside", "to": world.pods["edge"].v4}
    match = {} if kind == "grpc" else {"prefix": "/"}
    world.mesh(
        *two_nodes(world, kind),
        service("red-service", node="red"),
        service("blue-service", node="blue"),
        gateway(listener(8088, kind), listener(8089, kind)),
        gateway_route("red-service", {**match, "port": 8088}, name="a", kind=kind),
        gateway_route("blue-service", {**match, "port": 8089}, name="b", kind=kind),
    )
    assert seen_by(world, kind, Ask("/a.B/C"), port=8088, **where) == "red"
    assert seen_by(world, kind, Ask("/a.B/C"), port=8089, **where) == "blue"


@proves("gatewayRoute.{kind}Route.action.target.port", kind=ALL)
def a_gateway_routes_target_has_a_port(world: World, kind: str) -> None:
    match = {} if kind == "grpc" else {"prefix": "/"}
    world.mesh(
        *two_nodes(world, kind),
        router("orders", listener(8080, kind), listener(8081, kind)),
        service("orders", router="orders"),
        route("orders", "red", {**match, "port": 8080}, name="a", kind=kind),
        route("orders", "blue", {**match, "port": 8081}, name="b", kind=kind),
        gateway(listener(8088, kind)),
        gateway_route("orders", kind=kind, port=8081),
    )
    assert seen_by(world, kind, Ask("/a.B/C"), pod="outside", port=8088, to=world.pods["edge"].v4) == "blue"


@proves(
    "virtualGateway.listeners[].portMapping.protocol",
    "gatewayRoute.grpcRoute.action.target.virtualService.virtualServiceName",
)
def a_gateway_of_grpc_keeps_trailers(world: World) -> None:
    world.mesh(
        *two_nodes(world, "grpc"),
        service("orders", node="red"),
        gateway(listener(8088, "grpc")),
        gateway_route("orders", kind="grpc"),
    )
    reply = world.call("any", pod="outside", port=8088, to=world.pods["edge"].v4)
    assert (reply.grpc_status, reply.saw["app"]) == (0, "red")


@proves("gatewayRoute.{kind}Route.action.target.virtualService.virtualServiceName", kind=("http", "http2"))
def a_gateway_route_goes_to_its_service(world: World, kind: str) -> None:
    world.mesh(
        *two_nodes(world, kind),
        service("orders", node="blue"),
        gateway(listener(8088, kind)),
        gateway_route("orders", kind=kind),
    )
    assert seen_by(world, kind, Ask(), pod="outside", port=8088, to=world.pods["edge"].v4) == "blue"


@proves("mesh.egressFilter.type")
def what_is_outside_the_mesh_is_reached_where_all_is_allowed(world: World) -> None:
    amazon, other = "sqs.eu-central-1.amazonaws.com", "elsewhere.example"
    for kind, reached in (("DROP_ALL", False), ("ALLOW_ALL", True), ("DROP_ALL", False)):
        world.mesh(node("front"), spec={"egressFilter": {"type": kind}})
        answer = world.ask("elsewhere", to=EXTERNAL_V4[0], port=8083)
        assert (answer.status, answer.saw.get("at")) == ((200, EXTERNAL_V4[0]) if reached else (0, None))
        assert over_tls(world, amazon) == "outside: hello\n"
        assert over_tls(world, other) == ("outside: hello\n" if reached else "")


@proves()
def a_change_of_the_egress_filter_reaches_what_runs(world: World) -> None:
    world.mesh(node("front"))
    assert world.ask("elsewhere", to=EXTERNAL_V4[0], port=8083).status == 0
    world.update((key("mesh", MESH), {"egressFilter": {"type": "ALLOW_ALL"}}))
    assert world.ask("elsewhere", to=EXTERNAL_V4[0], port=8083).status == 200
    world.update((key("mesh", MESH), {}))
    assert world.ask("elsewhere", to=EXTERNAL_V4[0], port=8083).status == 0


def over_tls(world: World, host: str) -> str:
    """What the server of TLS outside answers to a client that asks for `host`; '' where it is not reached."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with world.connect("front", 443, EXTERNAL_V4[1]) as plain:
            with context.wrap_socket(plain, server_hostname=host) as connection:
                connection.sendall(b"hello\n")
                return connection.recv(100).decode()
    except OSError:
        return ""
