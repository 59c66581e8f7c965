"""An SDK that repeats a call whose answer was lost: what it did is done once, and it gets the first answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.api.conftest import Cloud, Server, call
from tests.api.signing import ask

FIRST, SECOND = "051f7d65-97a1-48ea-bcbe-996636554e4a", "8c0a4a5e-0000-48ea-bcbe-996636554e4a"


def sdk(server: Server, invocation: str) -> Any:
    """A client all of whose calls are repetitions of one."""
    client = server.client()

    def name(request: Any, **_: Any) -> None:
        request.headers["amz-sdk-invocation-id"] = invocation

    client.meta.events.register("before-send", name)
    return client


async def test_a_delete_that_is_repeated_elsewhere_is_the_same_delete(pair: Cloud) -> None:
    left, right = pair.servers
    await left.call("create_mesh", meshName="m")
    gone = await call(sdk(left, FIRST), "delete_mesh", meshName="m")
    again = await call(sdk(right, FIRST), "delete_mesh", meshName="m")
    assert again["mesh"] == gone["mesh"]
    assert again["mesh"]["status"]["status"] == "DELETED"
    assert len(await pair.records()) == 2
    with pytest.raises(ClientError, match="NotFoundException"):
        await call(sdk(right, SECOND), "delete_mesh", meshName="m")
    await left.call("create_mesh", meshName="m")
    await call(sdk(left, SECOND), "delete_mesh", meshName="m")
    assert len(await pair.records()) == 4, "another call is another delete"


async def test_tags_that_are_repeated_late_do_not_undo_what_came_between(pair: Cloud) -> None:
    left, right = pair.servers
    arn = (await left.call("create_mesh", meshName="m"))["mesh"]["metadata"]["arn"]
    await call(sdk(left, FIRST), "tag_resource", resourceArn=arn, tags=[{"key": "a", "value": "1"}])
    await right.call("tag_resource", resourceArn=arn, tags=[{"key": "a", "value": "2"}])
    await call(sdk(right, FIRST), "tag_resource", resourceArn=arn, tags=[{"key": "a", "value": "1"}])
    assert (await left.call("list_tags_for_resource", resourceArn=arn))["tags"] == [{"key": "a", "value": "2"}]


async def test_a_client_token_counts_before_an_invocation(pair: Cloud) -> None:
    left, right = pair.servers
    made = await call(sdk(left, FIRST), "create_mesh", meshName="m", clientToken="t")
    assert (await call(sdk(right, SECOND), "create_mesh", meshName="m", clientToken="t"))["mesh"] == made["mesh"]
    with pytest.raises(ClientError, match="ConflictException"):
        await call(sdk(right, FIRST), "create_mesh", meshName="m", clientToken="u")


async def test_two_repetitions_at_once_are_one_event(pair: Cloud) -> None:
    await pair.server.call("create_mesh", meshName="m")
    both = [call(sdk(server, FIRST), "delete_mesh", meshName="m") for server in pair.servers]
    one, two = await asyncio.gather(*both)
    assert one["mesh"] == two["mesh"]
    assert len(await pair.records()) == 2


async def test_without_an_sdk_s_id_each_request_is_its_own(pair: Cloud) -> None:
    await pair.server.call("create_mesh", meshName="m")
    path = "/v20190125/meshes/m"
    assert [(await ask(server, "DELETE", path)).status for server in pair.servers] == [200, 404]
