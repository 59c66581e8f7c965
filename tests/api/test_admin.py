"""`/meshlog/v1/`: the history as documents, rollback by preview and for real, proxy certificates, status."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from mesh.errors import NoQuorum
from tests.api.conftest import ACCOUNT, ADMIN, Cloud, call, running
from tests.api.signing import Reply, Signing, ask

MESHLOG = Signing(service="meshlog")
EVENTS = "/meshlog/v1/events"
ROLLBACK = "/meshlog/v1/rollback"
IDENTITY = "/meshlog/v1/proxies/identity"
CSR = "-----BEGIN CERTIFICATE REQUEST-----"


async def post(cloud: Cloud, path: str, **body: Any) -> Reply:
    return await ask(cloud.server, "POST", path, body, MESHLOG)


async def get(cloud: Cloud, target: str) -> Any:
    reply = await ask(cloud.server, "GET", target, b"", MESHLOG)
    assert reply.status == 200, reply
    return reply.document


@pytest.fixture
async def canary(cloud: Cloud) -> Cloud:
    """Positions: 1 the admin key, 2 mesh m, 3 and 4 its nodes, 5 its router, 6 the route (90/10), 7 the route (0/100),
    8 mesh other."""
    client = cloud.server.client()
    await call(client, "create_mesh", meshName="m")
    for name in ("v1", "v2"):
        await call(client, "create_virtual_node", meshName="m", virtualNodeName=name, spec={})
    await call(client, "create_virtual_router", meshName="m", virtualRouterName="r", spec={})
    names = {"meshName": "m", "virtualRouterName": "r", "routeName": "all"}
    await call(client, "create_route", **names, spec=route(90, 10))
    await call(client, "update_route", **names, spec=route(0, 100))
    await call(client, "create_mesh", meshName="other")
    return cloud


def route(first: int, second: int) -> dict[str, Any]:
    targets = [{"virtualNode": "v1", "weight": first}, {"virtualNode": "v2", "weight": second}]
    return {"httpRoute": {"match": {"prefix": "/"}, "action": {"weightedTargets": targets}}}


async def test_events_tell_who_did_what_when_oldest_first(canary: Cloud) -> None:
    events = (await get(canary, EVENTS))["events"]
    assert [event["position"] for event in events] == list(range(1, 9))
    event = events[6]
    assert (event["epoch"], event["type"], event["mesh"]) == (1, "ResourceUpdated", "m")
    assert event["resource"] == "mesh/m/virtualRouter/r/route/all"
    assert (event["actor"], event["account"], event["source_ip"]) == (ADMIN.principal, ACCOUNT, "127.0.0.1")
    assert event["data"]["spec"] == route(0, 100)
    at = datetime.datetime.fromisoformat(event["time"])
    assert at.tzinfo is not None
    assert abs((datetime.datetime.now(datetime.UTC) - at).total_seconds()) < 60
    assert event["request_id"]
    assert event["summary"] == "mesh/m/virtualRouter/r/route/all updated"


async def test_events_never_show_a_secret(canary: Cloud) -> None:
    reply = await ask(canary.server, "GET", EVENTS, b"", MESHLOG)
    assert ADMIN.secret.encode() not in reply.body
    first = reply.document["events"][0]
    assert (first["type"], first["data"]["access_key_id"]) == ("AccessKeyCreated", ADMIN.access_key_id)
    assert first["data"]["secret"] == "(secret)"


async def test_events_of_one_mesh_page_by_page(canary: Cloud) -> None:
    seen: list[int] = []
    after = "0"
    pages = 0
    while after:
        page = await get(canary, f"{EVENTS}?mesh=m&limit=4&after={after}")
        seen += [event["position"] for event in page["events"]]
        after, pages = page["next"], pages + 1
    assert (seen, pages) == ([2, 3, 4, 5, 6, 7], 2)
    assert [event["position"] for event in (await get(canary, f"{EVENTS}?after=1.6"))["events"]] == [7, 8]


BAD_WINDOWS = ["after=x", "after=-1", "after=99", "after=1.1.1", "limit=0", "limit=1001", "limit=x"]


async def test_a_bad_window_is_named(canary: Cloud) -> None:
    for query in BAD_WINDOWS:
        reply = await ask(canary.server, "GET", f"{EVENTS}?{query}", b"", MESHLOG)
        assert (reply.status, reply.code) == (400, "BadRequestException"), query
        assert query.partition("=")[0] in reply.document["message"]


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
            }
        ],
        "refused": [],
    }
    assert len(await canary.records()) == 7


@pytest.mark.parametrize("to", [6, "6", "1.6"])
async def test_a_rollback_brings_back_the_state_after_the_position(canary: Cloud, to: int | str) -> None:
    preview = (await post(canary, ROLLBACK, mesh="m", to=to, dry_run=True)).document
    reply = await post(canary, ROLLBACK, mesh="m", to=to, clientToken="once")
    assert reply.document == {**preview, "position": 9}
    assert reply.headers["x-meshlog-position"] == "1.9"
    names = {"meshName": "m", "virtualRouterName": "r", "routeName": "all"}
    found = (await canary.server.call("describe_route", **names))["route"]
    assert (found["spec"], found["metadata"]["version"]) == (route(90, 10), 3)
    assert (await post(canary, ROLLBACK, mesh="m", to=to, clientToken="once")).document == reply.document
    assert len(await canary.records()) == 8
    event = (await get(canary, f"{EVENTS}?mesh=m&after=8"))["events"][0]
    assert (event["type"], event["data"]["to"], event["resource"]) == ("MeshRolledBack", [1, 6], "mesh/m")


async def test_a_rollback_can_be_rolled_back(canary: Cloud) -> None:
    await post(canary, ROLLBACK, mesh="m", to=5)
    reply = await post(canary, ROLLBACK, mesh="m", to=8)
    assert [change["change"] for change in reply.document["changes"]] == ["created"]
    names = {"meshName": "m", "virtualRouterName": "r", "routeName": "all"}
    assert (await canary.server.call("describe_route", **names))["route"]["spec"] == route(0, 100)


async def test_a_rollback_to_what_is_writes_nothing(canary: Cloud) -> None:
    reply = await post(canary, ROLLBACK, mesh="m", to=7)
    assert reply.document == {"position": None, "changes": [], "refused": []}
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
    names = {"meshName": "m", "virtualRouterName": "r", "routeName": "all"}
    await call(client, "delete_route", **names)
    await call(client, "create_route", **names, spec=route(1, 1))
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


async def test_a_proxy_identity_is_signed_recorded_and_told_where_to_dial(canary: Cloud) -> None:
    reply = await post(canary, IDENTITY, node="mesh/m/virtualNode/v1", csr_pem=CSR)
    assert reply.status == 200, reply
    document = reply.document
    assert document["node"] == f"mesh/m@{ACCOUNT}/virtualNode/v1"
    assert document["certificate_pem"] == f"certificate of mesh/m@{ACCOUNT}/virtualNode/v1"
    assert document["chain"].startswith(document["certificate_pem"])
    assert document["ca"] == "the root"
    assert datetime.datetime.fromisoformat(document["not_after"]) > datetime.datetime.now(datetime.UTC)
    assert [endpoint["zone"] for endpoint in document["xds"]] == ["a", "b"]
    record = (await canary.records())[-1]
    assert (record.type, record.data and record.data["serial"]) == ("ProxyIdentityIssued", "0a1b")


BAD_IDENTITIES = [
    ("mesh/m/virtualNode/nobody", CSR, 404, "nobody"),
    ("mesh/m/virtualRouter/r", CSR, 400, "virtualRouter"),
    ("mesh/m@999999999999/virtualNode/v1", CSR, 403, "999999999999"),
    ("mesh/m/virtualNode/v1", "nonsense", 400, "csr_pem"),
]


async def test_a_bad_proxy_identity_is_named(canary: Cloud) -> None:
    for node, csr, status, named in BAD_IDENTITIES:
        reply = await post(canary, IDENTITY, node=node, csr_pem=csr)
        assert reply.status == status, (node, reply)
        assert named in reply.document["message"]
    assert len(await canary.records()) == 7


async def test_status(canary: Cloud) -> None:
    status = await get(canary, "/meshlog/v1/status")
    assert len(status.pop("state_hash")) == 64
    expected = {"role": "api", "id": "api-0", "zone": "a", "epoch": 1, "position": 8, "level": 1, "ready": True}
    assert status == {**expected, "reason": "", "members": [{"role": "api", "id": "api-0", "zone": "a"}]}


async def test_history_that_cannot_be_read_is_unavailable_and_does_not_hang(tmp_path: Path) -> None:
    async with running(tmp_path, read_s=0.3) as cloud:
        await cloud.server.call("create_mesh", meshName="m")

        frames = cloud.server.driver.read_frames

        async def cut_off(*arguments: Any, **named: Any) -> Any:
            raise NoQuorum("The store does not answer")

        cloud.server.driver.read_frames = cut_off  # type: ignore[method-assign]
        reply = await ask(cloud.server, "GET", EVENTS, b"", MESHLOG)
        assert (reply.status, reply.code) == (503, "ServiceUnavailableException")
        cloud.server.driver.read_frames = frames  # type: ignore[method-assign]
        assert len((await get(cloud, EVENTS))["events"]) == 2


async def test_status_answers_without_a_quorum(canary: Cloud) -> None:
    canary.store.reachable = False
    status = await get(canary, "/meshlog/v1/status")
    assert (status["position"], "members" in status) == (8, False)
