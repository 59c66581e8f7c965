"""`/meshlog/v1/events`: who did what and when, filtered, a page at a time, in either order."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path
from typing import Any

import pytest

from mesh.errors import NoQuorum
from tests.api.canary import MESHLOG, NAMES, get, make_canary, post, route
from tests.api.conftest import ACCOUNT, ADMIN, Cloud, call, running
from tests.api.signing import ask

EVENTS = "/meshlog/v1/events"


@pytest.fixture
async def canary(cloud: Cloud) -> Cloud:
    return await make_canary(cloud)


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
