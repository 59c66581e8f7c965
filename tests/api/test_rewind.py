"""`/meshlog/v1/`: what was at a moment, what differs between two, and a mesh taken back to one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.canary import NAMES, get, make_canary, post, route
from tests.api.conftest import ADMIN, Cloud, call

EVENTS = "/meshlog/v1/events"
ROLLBACK = "/meshlog/v1/rollback"
RESOURCES = "/meshlog/v1/resources"
DIFF = "/meshlog/v1/diff"


@pytest.fixture
async def canary(cloud: Cloud) -> Cloud:
    return await make_canary(cloud)


async def time_at(cloud: Cloud, position: int) -> str:
    event = (await get(cloud, f"{EVENTS}?after={position - 1}&limit=1"))["events"][0]
    time: str = event["time"]
    return time


async def test_a_rollback_shown_first_changes_nothing(canary: Cloud) -> None:
    reply = await post(canary, ROLLBACK, mesh="m", to=6, dry_run=True)
    assert reply.document == {
        "position": None,
        "changes": [
            {
                "resource": "mesh/m/virtualRouter/r/route/all",
                "change": "updated",
                "before": {"version": 2, "spec": route(0, 100), "tags": {}},
                "after": {"version": 3, "spec": route(90, 10), "tags": {}},
                "last_change": {
                    "position": 7, "epoch": 1, "time": await time_at(canary, 7), "type": "ResourceUpdated",
                    "actor": ADMIN.principal,
                },
            }
        ],
        "to": {"position": 6, "epoch": 1, "time": await time_at(canary, 6)},
        "seen": "1.8",
        "refused": [],
        "needs": [],
    }  # fmt: skip
    assert len(await canary.records()) == 7


@pytest.mark.parametrize("to", [6, "6", "1.6"])
async def test_a_rollback_brings_back_the_state_after_the_position(canary: Cloud, to: int | str) -> None:
    preview = (await post(canary, ROLLBACK, mesh="m", to=to, dry_run=True)).document
    reply = await post(canary, ROLLBACK, mesh="m", to=to, clientToken="once")
    assert preview.pop("seen") == "1.8"
    assert reply.document == {**preview, "position": 9}
    assert reply.headers["x-meshlog-position"] == "1.9"
    found = (await canary.server.call("describe_route", **NAMES))["route"]
    assert (found["spec"], found["metadata"]["version"]) == (route(90, 10), 3)
    assert (await post(canary, ROLLBACK, mesh="m", to=to, clientToken="once")).document == reply.document
    assert len(await canary.records()) == 8
    event = (await get(canary, f"{EVENTS}?mesh=m&after=8"))["events"][0]
    assert (event["type"], event["data"]["to"], event["resource"]) == ("MeshRolledBack", [1, 6], "mesh/m")


async def test_a_rollback_can_be_rolled_back(canary: Cloud) -> None:
    await post(canary, ROLLBACK, mesh="m", to=5)
    reply = await post(canary, ROLLBACK, mesh="m", to=8)
    assert [change["change"] for change in reply.document["changes"]] == ["created"]
    assert (await canary.server.call("describe_route", **NAMES))["route"]["spec"] == route(0, 100)


async def test_a_rollback_to_what_is_writes_nothing(canary: Cloud) -> None:
    reply = await post(canary, ROLLBACK, mesh="m", to=7)
    assert (reply.document["position"], reply.document["changes"]) == (None, [])
    assert len(await canary.records()) == 7


async def test_a_mesh_goes_only_if_that_is_allowed(canary: Cloud) -> None:
    reply = await post(canary, ROLLBACK, mesh="m", to=1)
    assert (reply.status, reply.code) == (409, "ConflictException")
    reply = await post(canary, ROLLBACK, mesh="m", to=0, allow_mesh_deletion=True)
    assert len(reply.document["changes"]) == 5
    meshes = (await canary.server.call("list_meshes"))["meshes"]
    assert [mesh["meshName"] for mesh in meshes] == ["other"]


async def test_what_was_made_anew_since_is_listed_as_refused(canary: Cloud) -> None:
    client = canary.server.client()
    await call(client, "delete_route", **NAMES)
    await call(client, "create_route", **NAMES, spec=route(1, 1))
    preview = (await post(canary, ROLLBACK, mesh="m", to=7, dry_run=True)).document
    assert "all" in preview["refused"][0]
    assert (await post(canary, ROLLBACK, mesh="m", to=7)).status == 409


BAD_ROLLBACKS: list[tuple[dict[str, Any], str, int]] = [
    ({"mesh": "m"}, "to", 400),
    ({"mesh": "m", "to": -1}, "to", 400),
    ({"mesh": "m", "to": 99}, "to", 400),
    ({"mesh": "m", "to": "1.99"}, "to", 400),
    ({"mesh": "m", "to": "0.3"}, "to", 400),
    ({"mesh": "m", "to": "2.1"}, "to", 400),
    ({"mesh": "m", "to": "yesterday"}, "to", 400),
    ({"mesh": "m", "to": True}, "to", 400),
    ({"mesh": 3, "to": 3}, "mesh", 400),
    ({"mesh": "m", "to": 3, "force": True}, "force", 400),
    ({"mesh": "m", "to": 3, "clientToken": "a b"}, "clientToken", 400),
    ({"mesh": "none", "to": 3}, "none", 404),
    ({"mesh": "none", "to": 3, "dry_run": True}, "none", 404),
    ({"mesh": "m", "to": 3, "account": "999999999999"}, "999999999999", 403),
]


async def test_a_bad_rollback_is_named(canary: Cloud) -> None:
    for body, named, status in BAD_ROLLBACKS:
        reply = await post(canary, ROLLBACK, **body)
        assert reply.status == status, (body, reply)
        assert named in reply.document["message"]
    assert len(await canary.records()) == 7
