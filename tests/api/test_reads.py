"""Reads under `/meshlog/v1/` as they are asked for: confirmed, as it is at hand, not before a position."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.api.conftest import Cloud, running
from tests.api.signing import ask

PREFIX = "/meshlog/v1/"
STALE = ("resources?kind=mesh", "events", "quotas", "shares", "accounts", "access-keys", "iam/users", "iam/policies")
PAST = ("diff?from=0", "audit", "keys", "status")


@pytest.fixture
async def alone(tmp_path: Path) -> AsyncIterator[Cloud]:
    """A server that has a mesh, and has lost its store."""
    async with running(tmp_path, read_s=0.3) as cloud:
        await cloud.server.call("create_mesh", meshName="m")
        await cloud.server.call("list_meshes")
        cloud.store.reachable = False
        yield cloud


async def test_a_stale_read_needs_nobody_and_tells_its_age(alone: Cloud) -> None:
    for target in STALE:
        join = "&" if "?" in target else "?"
        strong = await ask(alone.server, "GET", PREFIX + target)
        assert (strong.status, strong.code) == (503, "ServiceUnavailableException"), target
        stale = await ask(alone.server, "GET", f"{PREFIX}{target}{join}consistency=stale")
        assert stale.status == 200, target
        assert stale.document["position"] == stale.headers["x-meshlog-position"]
        assert 0 <= stale.document["age_s"] < 60
    meshes = await ask(alone.server, "GET", f"{PREFIX}resources?kind=mesh&consistency=stale")
    assert [each["meshName"] for each in meshes.document["resources"]] == ["m"]


async def test_a_strong_read_has_no_age(cloud: Cloud) -> None:
    reply = await ask(cloud.server, "GET", f"{PREFIX}resources?kind=mesh&consistency=strong")
    assert reply.document.keys() == {"at", "resources", "next"}


async def test_a_stale_read_by_name_does_not_look_up_who_changed_it(alone: Cloud) -> None:
    reply = await ask(alone.server, "GET", f"{PREFIX}resources?kind=mesh&name=m&consistency=stale")
    assert reply.document["resources"][0]["last_change"].keys() == {"position", "epoch"}


async def test_min_position_lets_a_stale_reader_see_its_own_write_at_another_server(pair: Cloud) -> None:
    one, two = pair.servers
    for number in range(5):
        made = await one.call("create_mesh", meshName=f"m{number}")
        at = made["ResponseMetadata"]["HTTPHeaders"]["x-meshlog-position"]
        target = f"{PREFIX}resources?kind=mesh&name=m{number}&consistency=stale&min_position={at}"
        reply = await ask(two, "GET", target)
        assert reply.status == 200, reply.body


async def test_min_position_waits_for_what_is_not_written_yet(cloud: Cloud) -> None:
    epoch, position = cloud.server.replica.state.position
    target = f"{PREFIX}events?min_position={epoch}.{position + 2}"
    waiting = asyncio.create_task(ask(cloud.server, "GET", target))
    await cloud.server.call("create_mesh", meshName="one")
    assert not waiting.done()
    await cloud.server.call("create_mesh", meshName="two")
    reply = await waiting
    assert reply.status == 200
    assert [event["mesh"] for event in reply.document["events"]][-2:] == ["one", "two"]


async def test_min_position_that_does_not_come_in_time_is_a_503_that_says_where_it_is(tmp_path: Path) -> None:

    async with running(tmp_path, read_s=0.3) as cloud:
        here = cloud.server.replica.state.position
        for consistency in ("strong", "stale"):
            target = f"{PREFIX}resources?kind=mesh&consistency={consistency}&min_position={here.position + 9}"
            reply = await ask(cloud.server, "GET", target)
            assert (reply.status, reply.code) == (503, "ServiceUnavailableException")
            assert str(here) in reply.document["message"]
            assert reply.headers["retry-after"]


@pytest.mark.parametrize("target", [*STALE, *PAST])
async def test_every_read_takes_min_position(cloud: Cloud, target: str) -> None:
    join = "&" if "?" in target else "?"
    here = cloud.server.replica.state.position
    reply = await ask(cloud.server, "GET", f"{PREFIX}{target}{join}min_position={here}")
    assert reply.status == 200, reply.body
    for wrong in ("soon", "1.", "-1", "1.2.3", "9" * 5000):
        reply = await ask(cloud.server, "GET", f"{PREFIX}{target}{join}min_position={wrong}")
        assert (reply.status, reply.code) == (400, "BadRequestException")
        assert reply.document["message"].startswith("min_position: ")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("resources?kind=mesh&consistency=eventual", "consistency: 'eventual' is none of strong, stale"),
        ("resources?kind=mesh&consistency=stale&at=0", "consistency: stale tells of the present alone"),
        ("keys?consistency=stale", "consistency: is not a known member of this query"),
        ("diff?from=0&consistency=stale", "consistency: is not a known member of this query"),
    ],
)
async def test_what_cannot_be_stale_says_so(cloud: Cloud, query: str, message: str) -> None:
    reply = await ask(cloud.server, "GET", PREFIX + query)
    assert reply.status == 400
    assert reply.document["message"].startswith(message)
