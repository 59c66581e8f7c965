"""Health checks: what a server must answer, how soon, and how often before it counts.

Of two servers one is unwell: where half of all are healthy, Envoy goes on without the others. Envoy's intervals begin
at five seconds, so each proof here takes a few of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.traffic.fields import proves
from tests.traffic.namespaces import EXTERNAL_V4
from tests.traffic.proofs.discovery import addresses
from tests.traffic.proofs.pools import NO_RETRY
from tests.traffic.proofs.routes import two_nodes
from tests.traffic.specs import gateway, gateway_route, listener, node, route, router, service
from tests.traffic.world import Declared, World

WELL, UNWELL = EXTERNAL_V4[0], EXTERNAL_V4[4]
SEVERAL_INTERVALS_S = 25.0
SPARE_PORT = 8085
OFTEN = {"intervalMillis": 5000, "timeoutMillis": 2000, "healthyThreshold": 2, "unhealthyThreshold": 2}


def checked(
    world: World, port: int = 8080, protocol: str = "http", check: dict[str, Any] | None = None, label: str = ""
) -> Declared:
    """The node of two servers without sidecars, checked like this (None: not at all).

    With a `label` their host name stays the same from mesh to mesh.
    """
    given = {"protocol": protocol, "path": "/ping", **OFTEN}
    members: dict[str, Any] = {} if check is None else {"healthCheck": {**given, **check}}
    world.dns.set("checked", WELL, UNWELL)
    host = f"checked.{label}.mesh.test" if label else world.host("checked")
    return node("store", listener(port, protocol, **members), host=host, dns={"responseType": "ENDPOINTS"})


def behind(store: Declared, port: int = 8080, protocol: str = "http") -> list[Declared]:
    """Front calls the node."""
    kept: dict[str, Any] = {"retryPolicy": NO_RETRY}
    return [
        node("front", backends=["orders"]),
        store,
        router("orders", listener(port, protocol)),
        route("orders", "store", kind=protocol, **kept),
        service("orders", router="orders"),
    ]


@proves("virtualNode.listeners[].healthCheck.path")
def a_server_that_is_unwell_gets_nothing(world: World) -> None:
    world.apps["outside"].unwell = {UNWELL}
    try:
        world.mesh(*behind(checked(world, check={})))
        assert addresses(world) == {WELL}
        world.mesh(*behind(checked(world)))
        assert addresses(world) == {WELL, UNWELL}, "who does not ask is not told"
    finally:
        world.apps["outside"].unwell = set()


@proves("virtualNode.listeners[].healthCheck.protocol")
def a_check_of_grpc_asks_its_health_service(world: World) -> None:
    world.apps["outside"].unwell = {UNWELL}
    try:
        world.mesh(*behind(checked(world, protocol="grpc", check={"path": "/"}), protocol="grpc"))
        assert {str(world.call("orders").saw.get("at", "")) for _ in range(12)} == {WELL}
    finally:
        world.apps["outside"].unwell = set()


@proves("virtualNode.listeners[].healthCheck.protocol")
def a_check_of_http2_speaks_it(world: World) -> None:
    before = world.apps["outside"].asked["HTTP/2 /ping/two"]
    world.mesh(*behind(checked(world, protocol="http2", check={"path": "/ping/two"}), protocol="http2"))
    world.eventually(lambda: world.apps["outside"].asked["HTTP/2 /ping/two"] > before, "a check in HTTP/2")


@proves("virtualNode.listeners[].healthCheck.timeoutMillis")
def a_check_that_takes_too_long_has_failed(world: World) -> None:
    app = world.apps["outside"]
    app.slow[UNWELL] = 4.0
    before = app.answered["/ping/slow"]
    try:
        world.mesh(*behind(checked(world, check={"path": "/ping/slow"})))
        world.eventually(lambda: app.answered["/ping/slow"] >= before + 2, "both servers' late answers")
        assert addresses(world) == {WELL}
    finally:
        app.slow.clear()


@proves("virtualNode.listeners[].healthCheck.intervalMillis", patience_s=SEVERAL_INTERVALS_S)
def checks_are_repeated(world: World) -> None:
    app = world.apps["outside"]
    # A cluster that nobody uses is checked once a minute, as Envoy has it, so there is traffic before there are checks.
    world.mesh(*behind(checked(world, label="always")))
    assert addresses(world) == {WELL, UNWELL}
    before = app.asked["/ping/often"]
    world.update(checked(world, check={"path": "/ping/often"}, label="always"))
    addresses(world, 4)
    world.eventually(lambda: app.asked["/ping/often"] >= before + 6, "three checks of each server")


@proves(
    "virtualNode.listeners[].healthCheck.unhealthyThreshold",
    "virtualNode.listeners[].healthCheck.healthyThreshold",
    patience_s=SEVERAL_INTERVALS_S,
)
def so_many_checks_change_a_servers_health(world: World) -> None:
    app = world.apps["outside"]
    app.open(SPARE_PORT, hosts=(WELL, UNWELL))
    try:
        world.mesh(*behind(checked(world, SPARE_PORT, label="threshold"), SPARE_PORT))

        def found() -> set[str]:
            answers = [world.ask("orders", port=SPARE_PORT) for _ in range(8)]
            return {str(answer.saw.get("at", answer.status)) for answer in answers}

        assert found() == {WELL, UNWELL}
        # Only a cluster that had traffic is checked this often: see above.
        world.update(checked(world, SPARE_PORT, check={}, label="threshold"))
        assert found() == {WELL, UNWELL}
        app.shut(SPARE_PORT, UNWELL)
        world.eventually(lambda: found() == {WELL}, "the end of requests to a server that fails its checks")
        app.open(SPARE_PORT, hosts=(UNWELL,))
        world.eventually(lambda: found() == {WELL, UNWELL}, "the return of the server")
    finally:
        app.shut(SPARE_PORT)


# --- a gateway asks itself: nobody else in the mesh sends it requests


def self_checking(world: World, protocol: str = "http", **check: Any) -> Path:
    """A gateway that is checked like this; its access log."""
    path = world.folder / f"{world.fresh('checks')}.log"
    form = {"text": "%REQ(:PATH)% %PROTOCOL% %RESPONSE_CODE%\n"}
    logging = {"accessLog": {"file": {"path": str(path), "format": form}}}
    given = {"protocol": protocol, "path": "/alive", **OFTEN, **check}
    world.mesh(
        *two_nodes(world, protocol),
        service("orders", node="red"),
        gateway(listener(8088, protocol, healthCheck=given), logging=logging),
        gateway_route("orders", kind=protocol),
    )
    return path


def lines(path: Path, wanted: str) -> int:
    return path.read_text().splitlines().count(wanted) if path.exists() else 0


CHECKS = "virtualGateway.listeners[].healthCheck"


@proves(f"{CHECKS}.path")
def a_gateways_check_has_its_path(world: World) -> None:
    path = self_checking(world)
    world.eventually(lambda: lines(path, "/alive HTTP/1.1 200"), "a check in the access log")


@proves(f"{CHECKS}.protocol")
def a_gateways_check_has_its_protocol(world: World) -> None:
    path = self_checking(world, "http2")
    world.eventually(lambda: lines(path, "/alive HTTP/2 200"), "a check in the access log")


@proves(f"{CHECKS}.intervalMillis", patience_s=SEVERAL_INTERVALS_S)
def a_gateways_checks_are_repeated(world: World) -> None:
    path = self_checking(world)
    world.eventually(lambda: lines(path, "/alive HTTP/1.1 200") >= 3, "three checks in the access log")


@proves(f"{CHECKS}.healthyThreshold", patience_s=SEVERAL_INTERVALS_S)
def a_gateway_that_was_told_to_fail_is_healthy_again_after_some_checks(world: World) -> None:
    self_checking(world)
    edge = world.proxies["edge"]

    def healthy() -> int:
        (found,) = edge.stats("self_redirect_http_15001.membership_healthy").values()
        return found

    world.eventually(lambda: healthy() == 1, "its first check")
    try:
        edge.admin("/healthcheck/fail", "POST")
        world.eventually(lambda: healthy() == 0, "a failed check")
    finally:
        edge.admin("/healthcheck/ok", "POST")
    world.eventually(lambda: healthy() == 1, "checks that succeed again")
