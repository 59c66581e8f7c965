"""Access logs: where a proxy writes a line for each request, and what stands in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.traffic.fields import proves
from tests.traffic.proofs.routes import shop, two_nodes
from tests.traffic.specs import gateway, gateway_route, listener, node, route, service
from tests.traffic.world import World

SIDES = ("virtualNode", "virtualGateway")


def logged(world: World, side: str, form: dict[str, Any] | None = None) -> str:
    """The line of one request for /logged."""
    path = world.folder / f"{world.fresh('access')}.log"
    file: dict[str, Any] = {"path": str(path), **({"format": form} if form else {})}
    logging: dict[str, Any] = {"logging": {"accessLog": {"file": file}}}
    if side == "virtualNode":
        world.mesh(
            *shop(world, route("orders", "red")),
            node("red", listener(8080), host=world.host("red"), **logging),
        )
        assert world.ask("orders", "/logged").app == "red"
    else:
        # The second pass writes a line, too.
        world.mesh(
            *two_nodes(world, "http"),
            service("orders", node="red"),
            gateway(**logging),
            gateway_route("orders", {"prefix": "/"}),
        )
        assert world.ask("any", "/logged", pod="outside", port=8088, to=world.pods["edge"].v4).app == "red"
    return world.eventually(lambda: _first_line(path), "a line in the access log")


def _first_line(path: Path) -> str:
    lines = path.read_text().splitlines() if path.exists() else []
    return lines[0] if lines else ""


@proves("{side}.logging.accessLog.file.path", side=SIDES)
def a_log_is_written_to_its_file(world: World, side: str) -> None:
    assert '"GET /logged HTTP/1.1" 200' in logged(world, side)


@proves("{side}.logging.accessLog.file.format.text", side=SIDES)
def a_line_has_the_text_that_is_asked_for(world: World, side: str) -> None:
    assert logged(world, side, {"text": "%REQ(:METHOD)% of %REQ(:PATH)%: %RESPONSE_CODE%\n"}) == "GET of /logged: 200"


@proves(
    "{side}.logging.accessLog.file.format.json[].key", "{side}.logging.accessLog.file.format.json[].value", side=SIDES
)
def a_line_is_the_object_that_is_asked_for(world: World, side: str) -> None:
    form = {"json": [{"key": "path", "value": "%REQ(:PATH)%"}, {"key": "status", "value": "%RESPONSE_CODE%"}]}
    line = json.loads(logged(world, side, form))
    assert (line["path"], str(line["status"])) == ("/logged", "200")
