"""Failing over: a caller notices nothing where that is safe, and is told where it is not. Nothing is done twice."""

from __future__ import annotations

import asyncio
import http.client
import json
from typing import Any, NamedTuple

import pytest

from tests.conditions import await_until
from tests.connect.servers import Endpoint, Stub, connected, stubs

MESHES = "/v20190125/meshes"
TOKEN: dict[str, object] = {"meshName": "m", "clientToken": "t"}
NO_TOKEN: dict[str, object] = {"meshName": "m"}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    document: Any


async def ask(
    endpoint: Endpoint, method: str, target: str, body: object = None, headers: dict[str, str] | None = None
) -> Answer:
    def exchange() -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=20)
        try:
            connection.request(method, target, None if body is None else json.dumps(body), headers or {})
            got = connection.getresponse()
            names = {name.lower(): value for name, value in got.getheaders()}
            return Answer(got.status, names, json.loads(got.read() or b"null"))
        finally:
            connection.close()

    return await asyncio.to_thread(exchange)


async def test_a_request_is_passed_on_and_its_answer_back() -> None:
    async with stubs(1) as (only,), connected([only.url]) as endpoint:
        only.behave = lambda _: (409, {"__type": "ConflictException", "message": "β"})
        answer = await ask(endpoint, "PUT", MESHES + "?a=%2f", TOKEN, {"Authorization": "AWS4 theirs", "x-odd": "é"})
        assert (answer.status, answer.document["message"]) == (409, "β")
        assert answer.headers["x-amzn-requestid"] == str(only.port)
        (seen,) = only.seen
        assert (seen.method, seen.target, json.loads(seen.body)) == ("PUT", MESHES + "?a=%2f", TOKEN)
        assert seen.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=MLOGAAAABBBBCCCCDDDD/")
        assert seen.headers["x-odd"] == "é"


async def test_connections_are_kept_and_one_that_was_closed_is_not_used() -> None:
    async with stubs(1) as (only,), connected([only.url]) as endpoint:
        for _ in range(3):
            assert (await ask(endpoint, "GET", MESHES)).status == 200
        assert only.connections == 1
        await only.stop()
        await only.start()
        assert (await ask(endpoint, "DELETE", MESHES + "/m")).status == 200
        assert only.connections == 2


@pytest.mark.parametrize("outcome", ["reset", "half"])
@pytest.mark.parametrize(
    ("method", "target", "body"), [("GET", MESHES, None), ("PUT", MESHES, TOKEN), ("POST", "/", None)]
)
async def test_what_may_be_sent_twice_goes_to_the_next_server(
    outcome: str, method: str, target: str, body: object
) -> None:
    async with stubs(2) as (first, second), connected([first.url, second.url]) as endpoint:
        first.behave = lambda _: outcome
        assert (await ask(endpoint, method, target, body)).status == 200
        assert (len(first.seen), len(second.seen)) == (1, 1)
        assert first.seen[0].body == second.seen[0].body, "under the same token"
        assert (await ask(endpoint, method, target, body)).status == 200
        assert len(first.seen) == 1, "a server that failed is asked last"
        assert [first.url in line for line in endpoint.said] == [True]


@pytest.mark.parametrize("outcome", ["reset", "half"])
@pytest.mark.parametrize(
    ("method", "target", "body"),
    [("DELETE", MESHES + "/m", None), ("PUT", MESHES, NO_TOKEN), ("PUT", "/v20190125/tag?resourceArn=a", {"tags": []})],
)
async def test_a_write_without_a_token_is_not_sent_twice(outcome: str, method: str, target: str, body: object) -> None:
    async with stubs(2) as (first, second), connected([first.url, second.url]) as endpoint:
        first.behave = lambda _: outcome
        answer = await ask(endpoint, method, target, body)
        assert (answer.status, answer.document["__type"]) == (503, "ServiceUnavailableException")
        assert "Whether it was carried out is not known" in answer.document["message"]
        assert (len(first.seen), len(second.seen)) == (1, 0)


@pytest.mark.parametrize(("method", "body"), [("GET", None), ("DELETE", None), ("PUT", NO_TOKEN), ("PUT", TOKEN)])
async def test_where_nobody_listens_nothing_was_sent_and_the_next_is_asked(method: str, body: object) -> None:
    async with stubs(2) as (first, second), connected([first.url, second.url]) as endpoint:
        await first.stop()
        assert (await ask(endpoint, method, MESHES, body)).status == 200
        assert (len(first.seen), len(second.seen)) == (0, 1)


@pytest.mark.parametrize(("method", "body", "asked"), [("GET", None, 1), ("PUT", TOKEN, 1), ("PUT", NO_TOKEN, 0)])
async def test_a_server_that_is_not_able_sends_what_is_safe_to_the_next(method: str, body: object, asked: int) -> None:
    async with stubs(2) as (first, second), connected([first.url, second.url]) as endpoint:
        first.behave = lambda _: (503, {"__type": "ServiceUnavailableException", "message": "no quorum"})
        answer = await ask(endpoint, method, MESHES, body)
        assert answer.status == (200 if asked else 503)
        assert len(second.seen) == asked
        second.behave = first.behave
        answer = await ask(endpoint, method, MESHES, body)
        assert (answer.status, answer.document["message"]) == (503, "no quorum"), "the servers' own words"


async def test_with_no_server_at_all_it_is_tried_for_a_while() -> None:
    async with stubs(2) as (first, second), connected([first.url, second.url], nobody_s=0.5) as endpoint:
        await first.stop()
        await second.stop()
        answer = await ask(endpoint, "PUT", MESHES, NO_TOKEN)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert first.url in answer.document["message"]
        assert second.url in answer.document["message"]
        late = asyncio.ensure_future(ask(endpoint, "PUT", MESHES, NO_TOKEN))
        await asyncio.wait([late], timeout=0.3)
        await second.start()
        assert (await late).status == 200, "a server that comes back in time"


async def test_a_server_that_hangs_is_left_by_what_is_under_way_too() -> None:
    often: Any = {"probe_s": 0.2, "probe_every_s": 0.1}
    async with stubs(2) as (first, second), connected([first.url, second.url], probing=True, **often) as endpoint:
        first.behave = lambda _: "hang"
        read = asyncio.ensure_future(ask(endpoint, "GET", MESHES))
        await await_until(lambda: len(first.seen) == 1)
        first.probes = "hang"
        assert (await asyncio.wait_for(read, 5)).status == 200
        assert len(second.seen) == 1
        assert (await ask(endpoint, "DELETE", MESHES + "/m")).status == 200
        assert len(first.seen) == 1, "who hangs is asked last"
        first.probes, first.behave = (200, {}), second.behave
        await await_until(lambda: any("answers again" in line for line in endpoint.said))
        assert (await ask(endpoint, "GET", MESHES)).headers["x-amzn-requestid"] == str(first.port)


async def test_a_write_without_a_token_waits_for_its_own_server() -> None:
    async with stubs(2) as (first, second), connected([first.url, second.url], attempt_s=0.3) as endpoint:
        first.behave = lambda _: "hang"
        answer = await ask(endpoint, "DELETE", MESHES + "/m")
        assert answer.status == 503
        assert "no answer in time" in answer.document["message"]
        assert second.seen == []


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"Host": "evil.example:7410"}, "loopback"),
        ({"Host": "10.0.0.1"}, "loopback"),
        ({"Host": "localhost.evil.example"}, "loopback"),
        ({"Origin": "https://evil.example"}, "web page"),
    ],
)
async def test_no_web_page_and_no_other_name_is_answered(headers: dict[str, str], said: str) -> None:
    async with stubs(1) as (only,), connected([only.url]) as endpoint:
        answer = await ask(endpoint, "PUT", MESHES, TOKEN, headers)
        assert (answer.status, answer.document["__type"]) == (403, "ForbiddenException")
        assert said in answer.document["message"]
        assert only.seen == []
    async with stubs(1) as (only,), connected([only.url], allow_remote=True) as endpoint:
        assert (await ask(endpoint, "PUT", MESHES, TOKEN, headers)).status == 200


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:7410", "[::1]:7410", "a.localhost:1", "127.8.8.8"])
async def test_every_name_of_this_machine_is_answered(host: str) -> None:
    async with stubs(1) as (only,), connected([only.url]) as endpoint:
        assert (await ask(endpoint, "GET", MESHES, None, {"Host": host})).status == 200


async def test_many_callers_at_once() -> None:
    async with stubs(3) as servers, connected([server.url for server in servers]) as endpoint:
        killed: Stub = servers[0]
        calls = [asyncio.ensure_future(ask(endpoint, "PUT", MESHES, TOKEN)) for _ in range(60)]
        await await_until(lambda: len(killed.seen) > 10)
        await killed.stop()
        assert {(await call).status for call in calls} == {200}
