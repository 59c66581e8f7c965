"""`/meshlog/v1/`: what was at a moment, what differs between two, and a mesh taken back to one."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from api import changes as api_changes
from api.commands import Origin
from mesh.commands import Command, Create, idempotency_token
from mesh.frozen import thaw
from mesh.kinds import ResourceKey, mesh_key
from tests.api.canary import MESHLOG, NAMES, get, make_canary, post, route
from tests.api.conftest import ACCOUNT, ADMIN, Cloud, call
from tests.api.signing import ask

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


@pytest.mark.parametrize("name", [DIFF, f"{DIFF}/xds", RESOURCES])
async def test_what_is_asked_wrongly_is_named(canary: Cloud, name: str) -> None:
    wrong = {
        DIFF: ["", "from=x", "from=99", "from=1&to=2026-01-01", "from=1&x=y"],
        f"{DIFF}/xds": ["from=1", "node=mesh/m/virtualNode/v1", "from=1&node=what"],
        RESOURCES: ["kind=vn", "kind=virtualNode", "kind=mesh&at=9999-01-01T00:00Z", "mesh=m&at=1.2.3"],
    }
    for query in wrong[name]:
        reply = await ask(canary.server, "GET", f"{name}?{query}", b"", MESHLOG)
        assert (reply.status, reply.code) == (400, "BadRequestException"), query


async def test_the_diff_of_a_mesh_that_never_was_is_an_error_and_not_no_difference(canary: Cloud) -> None:
    reply = await ask(canary.server, "GET", f"{DIFF}?from=0&mesh=typo", b"", MESHLOG)
    assert (reply.status, reply.code) == (404, "NotFoundException")
    assert "Mesh with name typo is there neither after 1.0 nor after 1.8" in reply.document["message"]


async def test_a_long_diff_comes_in_pages(canary: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_changes, "DIFF_PAGE_MAX", 2)
    paths: list[str] = []
    page = await get(canary, f"{DIFF}?from=0")
    paths += [change["resource"] for change in page["changes"]]
    while page["next"]:
        page = await get(canary, f"{DIFF}?from=0&after={page['next']}")
        assert len(page["changes"]) <= 2
        paths += [change["resource"] for change in page["changes"]]
    assert paths == sorted(paths)
    assert len(paths) == 6
    listed: list[str] = []
    after: Any = ""
    while after is not None:
        page = await get(canary, f"{RESOURCES}?mesh=m&at=1.8&after={after}")
        listed += [resource["metadata"]["arn"].rpartition(":")[2] for resource in page["resources"]]
        after = page["next"]
    assert listed == [path for path in paths if path != "mesh/other"]


async def test_who_was_shown_something_else_is_told_to_look_again(canary: Cloud) -> None:
    plan = (await post(canary, ROLLBACK, mesh="m", to=6, dry_run=True)).document
    await canary.server.call("create_mesh", meshName="elsewhere")
    await canary.server.call("update_route", **NAMES, spec=route(5, 5))
    reply = await post(canary, ROLLBACK, mesh="m", to=6, seen=plan["seen"])
    assert (reply.status, reply.code) == (409, "ConflictException")
    assert "mesh m was changed at 1.10" in reply.document["message"]
    plan = (await post(canary, ROLLBACK, mesh="m", to=6, dry_run=True)).document
    assert (await post(canary, ROLLBACK, mesh="m", to=6, seen=plan["seen"])).document["position"] == 11


async def test_before_an_event_and_named_resources(canary: Cloud) -> None:
    await canary.server.call("update_virtual_node", meshName="m", virtualNodeName="v1", spec={"backends": []})
    reply = await post(canary, ROLLBACK, mesh="m", before=7, only=["route/r/all"])
    assert [change["resource"] for change in reply.document["changes"]] == ["mesh/m/virtualRouter/r/route/all"]
    assert reply.document["to"]["position"] == 6
    record = (await canary.records())[-1]
    assert record.data is not None
    assert record.data["only"] == [[ACCOUNT, "m", "route", "r", "all"]]
    both = await post(canary, ROLLBACK, mesh="m", before=7, to=6)
    assert (both.status, "before" in both.document["message"]) == (400, True)


async def test_hundreds_of_large_resources_go_back_at_once(cloud: Cloud) -> None:
    """500 resources of 2 KiB that do not compress: several times what a frame holds."""
    random_text = random.Random(5)  # noqa: S311 - of a test
    keys = [ResourceKey(ACCOUNT, "m", "virtualNode", "", f"n{number}") for number in range(500)]

    def spec(number: int) -> dict[str, Any]:
        attributes = [{"key": f"k{n}", "value": random_text.randbytes(480).hex()} for n in range(2)]
        instance = {"namespaceName": "ns", "serviceName": f"s{number}", "attributes": attributes}
        return {"serviceDiscovery": {"awsCloudMap": instance}}

    old = {key: spec(number) for number, key in enumerate(keys)}
    assert min(len(json.dumps(each)) for each in old.values()) >= 2_000
    assert (await post(cloud, "/meshlog/v1/quotas", code="L-E043DFB4", value=len(keys))).status == 200
    await submit(cloud, Create(mesh_key(ACCOUNT, "m"), {}), "mesh")
    empty = cloud.server.replica.state.position.position
    for first in range(0, len(keys), 100):
        some = enumerate(keys[first : first + 100], start=first)
        await asyncio.gather(*(submit(cloud, Create(key, old[key]), f"t{number}") for number, key in some))
    gone = await post(cloud, ROLLBACK, mesh="m", to=empty)
    assert (gone.status, len(cloud.server.replica.state.resources)) == (200, 1)
    assert not any(name.startswith("blob/") for name in cloud.store.entries)
    reply = await post(cloud, ROLLBACK, mesh="m", before=gone.document["position"])
    assert reply.status == 200, reply.document
    assert len(reply.document["changes"]) == len(keys)
    assert any(name.startswith("blob/") for name in cloud.store.entries)
    state = cloud.server.replica.state
    assert {key: thaw(state.resources[key].spec) for key in keys} == old
    assert len((await post(cloud, ROLLBACK, mesh="m", to=empty, dry_run=True)).document["changes"]) == len(keys)


async def submit(cloud: Cloud, command: Command, token: str) -> None:
    mark = idempotency_token(ACCOUNT, ADMIN.principal, "Test", token, {})
    origin = Origin(ACCOUNT, ADMIN.principal, "", token, "Test", mark)
    await cloud.server.app.state.commands.submit(command, origin)
