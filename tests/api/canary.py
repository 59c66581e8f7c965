"""A mesh with a route that was changed, and how tests ask `/meshlog/v1/` about it."""

from __future__ import annotations

from typing import Any

from tests.api.conftest import Cloud, call
from tests.api.signing import Reply, Signing, ask

MESHLOG = Signing(service="meshlog")
NAMES = {"meshName": "m", "virtualRouterName": "r", "routeName": "all"}


async def post(cloud: Cloud, path: str, **body: Any) -> Reply:
    return await ask(cloud.server, "POST", path, body, MESHLOG)


async def get(cloud: Cloud, target: str) -> Any:
    reply = await ask(cloud.server, "GET", target, b"", MESHLOG)
    assert reply.status == 200, reply
    return reply.document


async def make_canary(cloud: Cloud) -> Cloud:
    """Positions: 1 the admin key, 2 mesh m, 3 and 4 its nodes, 5 its router, 6 the route (90/10), 7 the route (0/100),
    8 mesh other."""
    client = cloud.server.client()
    await call(client, "create_mesh", meshName="m")
    for name in ("v1", "v2"):
        await call(client, "create_virtual_node", meshName="m", virtualNodeName=name, spec={})
    await call(client, "create_virtual_router", meshName="m", virtualRouterName="r", spec={})
    await call(client, "create_route", **NAMES, spec=route(90, 10))
    await call(client, "update_route", **NAMES, spec=route(0, 100))
    await call(client, "create_mesh", meshName="other")
    return cloud


def route(first: int, second: int) -> dict[str, Any]:
    targets = [{"virtualNode": "v1", "weight": first}, {"virtualNode": "v2", "weight": second}]
    return {"httpRoute": {"match": {"prefix": "/"}, "action": {"weightedTargets": targets}}}
