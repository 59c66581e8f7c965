"""`/meshlog/v1/events`: who did what and when, filtered, a page at a time, in either order."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path
from typing import Any

import pytest

from api import history as api_history
from mesh.errors import NoQuorum
from tests.api.canary import MESHLOG, get, make_canary, route
from tests.api.conftest import ACCOUNT, ADMIN, Cloud, running
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


async def test_the_newest_first_page_by_page(canary: Cloud) -> None:
    seen: list[int] = []
    query = f"{EVENTS}?order=newest&limit=3"
    page = await get(canary, query)
    seen += [event["position"] for event in page["events"]]
    while page["next"]:
        page = await get(canary, f"{query}&before={page['next']}")
        seen += [event["position"] for event in page["events"]]
    assert seen == list(range(8, 0, -1))


async def test_a_page_says_how_far_it_looked(canary: Cloud) -> None:
    page = await get(canary, f"{EVENTS}?type=ResourceDeleted")
    assert (page["events"], page["next"], page["reached"], page["head"]) == ([], None, "1.8", "1.8")


async def test_a_filter_that_leaves_little_costs_no_more_than_one_that_leaves_all(
    canary: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_history, "EVENTS_SCAN_MAX", 3)
    page = await get(canary, f"{EVENTS}?name=v2")
    assert (page["events"], page["next"]) == ([], "1.3"), "cut short, and where to go on"
    page = await get(canary, f"{EVENTS}?name=v2&after={page['next']}")
    assert [event["position"] for event in page["events"]] == [4]


async def test_an_answer_can_wait_for_the_next_event(canary: Cloud) -> None:
    waiting = asyncio.ensure_future(get(canary, f"{EVENTS}?after=8&wait_s=20"))
    await asyncio.sleep(0)
    await canary.server.call("create_mesh", meshName="late")
    page = await waiting
    assert [event["resource"] for event in page["events"]] == ["mesh/late"]
    assert page["reached"] == "1.9"
    nothing = await get(canary, f"{EVENTS}?after=9&wait_s=0.05")
    assert (nothing["events"], nothing["reached"]) == ([], "1.9")


BAD_FILTERS = [
    "since=soon", "since=2026-11-22T10:42", "until=1.x", "kind=cat", "type=Nothing", "order=best", "wait_s=-1",
    "wait_s=x", "colour=red", "before=99",
]  # fmt: skip


async def test_a_bad_filter_is_named(canary: Cloud) -> None:
    for query in BAD_FILTERS:
        reply = await ask(canary.server, "GET", f"{EVENTS}?{query}", b"", MESHLOG)
        assert (reply.status, reply.code) == (400, "BadRequestException"), query
        assert query.partition("=")[0] in reply.document["message"]


async def test_another_accounts_events_are_not_told(canary: Cloud) -> None:
    reply = await ask(canary.server, "GET", f"{EVENTS}?account=999999999999", b"", MESHLOG)
    assert (reply.status, reply.code) == (403, "ForbiddenException")
