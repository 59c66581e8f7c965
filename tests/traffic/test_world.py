"""The world itself, and one request of each kind from an application through two sidecars to another."""

from __future__ import annotations

import pytest

from tests.traffic import fields
from tests.traffic.proofs import every  # noqa: F401
from tests.traffic.specs import gateway_route, listener, node, route, router, service
from tests.traffic.world import World, available

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(not available(), reason="needs root, `ip`, `iptables` and `setpriv` for pods"),
]


def test_requests_of_every_protocol_go_from_application_to_application(world: World) -> None:
    world.mesh(
        node("front", backends=["web", "api", "rpc", "tcp", "first"]),
        *(
            node(f"{name}-node", listener(port, protocol), host=world.host("ext1"))
            for name, port, protocol in EXTERNALS
        ),
        node("red", listener(8080), host=world.host("red")),
        router("web"),
        route("web", "red"),
        service("web", router="web"),
        *(service(name, node=f"{name}-node") for name, _, _ in EXTERNALS),
        gateway_route("web", {"prefix": "/web"}),
    )
    saw = world.ask("web", "/a?b=1").saw
    assert (saw["app"], saw["at"], saw["path"], saw["authority"]) == ("red", "127.0.0.1", "/a?b=1", "web")
    assert world.ask2("api", port=8081).saw["version"] == "HTTP/2"
    assert world.call("rpc", port=8082).grpc_status == 0
    with world.connect("front", 8083) as connection:
        connection.sendall(b"hello\n")
        assert connection.recv(100) == b"outside: hello\n"
    with world.connect("front", 9000) as connection:
        assert connection.recv(100) == b"welcome to outside\n"
    answer = world.ask("shop.example", "/web/a", pod="outside", port=8088, to=world.pods["edge"].v4)
    assert (answer.app, answer.saw["path"], answer.saw["authority"]) == ("red", "/a", "web")
    assert world.ask("web", port=8085).status == 0, "nothing of the mesh is on that port"


EXTERNALS = (("api", 8081, "http2"), ("rpc", 8082, "grpc"), ("tcp", 8083, "tcp"), ("first", 9000, "tcp"))


def test_every_field_of_the_model_has_a_proof_or_a_reason() -> None:
    assert len(fields.FIELDS) > 250
    assert fields.covered() | set(fields.NO_EFFECT) == set(fields.FIELDS)
    assert fields.covered().isdisjoint(fields.NO_EFFECT)
