"""`/meshlog/v1/access-keys`: made once, listed without secrets, disabled for good; the last admin key never."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.canary import MESHLOG, get, post
from tests.api.conftest import ACCOUNT, ADMIN, Cloud
from tests.api.signing import Signing, ask
from tests.conditions import await_until

KEYS = "/meshlog/v1/access-keys"
DISABLE = f"{KEYS}/disable"


async def make(cloud: Cloud, **body: Any) -> Any:
    reply = await post(cloud, KEYS, user="ann", **body)
    assert reply.status == 200, reply
    return reply.document


async def test_a_new_key_signs_at_once(cloud: Cloud) -> None:
    made = await make(cloud, admin=True)
    key = (made["access_key_id"], made["secret_access_key"])
    assert (await ask(cloud.server, "GET", KEYS, b"", Signing(key=key, service="meshlog"))).status == 200
    assert (made["principal"], made["account"], made["disabled"]) == (f"arn:aws:iam::{ACCOUNT}:user/ann", ACCOUNT, None)


async def test_a_repeated_call_gets_the_first_ones_key(pair: Cloud) -> None:
    first = await make(pair, admin=False, clientToken="once")
    again = await ask(pair.servers[1], "POST", KEYS, {"user": "ann", "admin": False, "clientToken": "once"}, MESHLOG)
    assert again.document == first
    made = ["LevelRaised", "PrincipalCreated", "AccessKeyCreated"]
    assert [record.type for record in await pair.records()] == made, "the first user of a cluster, once"
    other = await post(pair, KEYS, user="bob", clientToken="once")
    assert (other.status, other.code) == (409, "ConflictException")


async def test_secrets_are_sealed_in_their_class_and_told_once(cloud: Cloud, capfd: pytest.CaptureFixture[str]) -> None:
    made = await make(cloud)
    secret = made["secret_access_key"].encode()
    *_, record = await cloud.records()
    assert record.key_class == "secrets"
    for target in (KEYS, "/meshlog/v1/events", "/meshlog/v1/events?consistency=stale"):
        assert secret not in (await ask(cloud.server, "GET", target, b"", MESHLOG)).body
    assert secret not in b"".join(entry.value for entry in cloud.store.frames.values())
    printed = capfd.readouterr()
    assert secret.decode() not in printed.out + printed.err


async def test_a_disabled_key_is_refused_on_every_server_once_it_folded_that(pair: Cloud) -> None:
    made = await make(pair, admin=True)
    signing = Signing(key=(made["access_key_id"], made["secret_access_key"]), service="meshlog")
    reply = await post(pair, DISABLE, access_key_id=made["access_key_id"])
    assert reply.document["disabled"] is not None
    position = pair.servers[0].replica.position
    refused = await ask(pair.servers[0], "GET", KEYS, b"", signing)
    assert (refused.status, refused.code) == (403, "InvalidClientTokenId")
    await await_until(lambda: pair.servers[1].replica.position >= position, what="the other server folded it")
    assert (await ask(pair.servers[1], "GET", KEYS, b"", signing)).status == 403
    listed = {key["access_key_id"]: key["disabled"] for key in (await get(pair, KEYS))["access_keys"]}
    assert listed == {ADMIN.access_key_id: None, made["access_key_id"]: reply.document["disabled"]}


async def test_the_last_admin_key_stays(cloud: Cloud) -> None:
    await make(cloud, admin=False)
    reply = await post(cloud, DISABLE, access_key_id=ADMIN.access_key_id)
    assert (reply.status, reply.code) == (409, "ConflictException")
    assert "iam key create --admin" in reply.document["message"]
    assert (await ask(cloud.server, "GET", KEYS, b"", MESHLOG)).status == 200


async def test_disabling_twice_is_one_event(cloud: Cloud) -> None:
    made = await make(cloud, admin=True)
    await post(cloud, DISABLE, access_key_id=made["access_key_id"])
    again = await post(cloud, DISABLE, access_key_id=made["access_key_id"])
    assert again.status == 200, "it is that already"
    assert [record.type for record in await cloud.records()] == ["AccessKeyCreated", "AccessKeyDisabled"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (KEYS, {}, 400),
        (KEYS, {"user": "a b"}, 400),
        (KEYS, {"user": "x" * 65}, 400),
        (KEYS, {"user": "ann", "admin": "yes"}, 400),
        (KEYS, {"user": "ann", "secret": "mine"}, 400),
        (DISABLE, {}, 400),
        (DISABLE, {"access_key_id": "NOBODYS"}, 404),
    ],
)
async def test_what_cannot_be_is_said(cloud: Cloud, path: str, body: dict[str, Any], status: int) -> None:
    assert (await post(cloud, path, **body)).status == status
    assert await cloud.records() == []
