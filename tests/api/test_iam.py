"""`/meshlog/v1/iam` and access keys: what delegation allows, what it does not, and when a key was last used."""

from __future__ import annotations

import json
from typing import Any

from mesh.events import ACCESS_KEYS_USED
from tests.api.canary import MESHLOG, get, post
from tests.api.conftest import ACCOUNT, ADMIN, Cloud, Server
from tests.api.signing import Reply, Signing, ask

IAM, KEYS = "/meshlog/v1/iam", "/meshlog/v1/access-keys"
USER = f"arn:aws:iam::{ACCOUNT}:user"
SELF_SERVICE = {
    "Version": "2012-10-17",
    "Statement": {
        "Effect": "Allow",
        "Action": ["iam:*AccessKey*", "iam:GetUser"],
        "Resource": f"{USER}/${{aws:username}}",
    },
}


async def done(cloud: Cloud, path: str, **body: Any) -> Any:
    reply = await post(cloud, path, **body)
    assert reply.status == 200, reply
    return reply.document


async def key_of(cloud: Cloud, user: str, **body: Any) -> Signing:
    made = await done(cloud, KEYS, user=user, **body)
    return Signing(key=(made["access_key_id"], made["secret_access_key"]), service="meshlog")


async def by(server: Server, signing: Signing, path: str, **body: Any) -> Reply:
    return await ask(server, "POST", path, body, signing)


async def test_who_may_look_after_their_own_keys_touches_no_others(cloud: Cloud) -> None:
    ann = await key_of(cloud, "ann")
    await done(cloud, f"{IAM}/users/policies", user="ann", name="self", document=SELF_SERVICE)
    server = cloud.server
    second = await by(server, ann, KEYS, user="ann")
    assert second.status == 200
    assert (await by(server, ann, KEYS, user="bob")).code == "ForbiddenException"
    assert (await by(server, ann, KEYS, user="ann", admin=True)).code == "ForbiddenException"
    key_id = second.document["access_key_id"]
    assert (await by(server, ann, f"{KEYS}/delete", access_key_id=key_id)).code == "ForbiddenException", "of no user"
    assert (await by(server, ann, f"{KEYS}/delete", access_key_id=ADMIN.access_key_id, user="ann")).status == 404
    assert (await by(server, ann, f"{KEYS}/delete", access_key_id=key_id, user="ann")).status == 200
    mine = await ask(server, "GET", f"{KEYS}?user=ann", b"", ann)
    assert [each["principal"] for each in mine.document["access_keys"]] == [f"{USER}/ann"]
    assert (await ask(server, "GET", KEYS, b"", ann)).code == "ForbiddenException"


async def test_an_admin_key_is_an_admins_to_touch(cloud: Cloud) -> None:
    ann = await key_of(cloud, "ann")
    await done(cloud, f"{IAM}/users/attach", user="ann", policy="AdministratorAccess")
    root = await key_of(cloud, "boss", admin=True)
    assert root.key is not None
    for path in ("disable", "enable", "delete"):
        refused = await by(cloud.server, ann, f"{KEYS}/{path}", access_key_id=root.key[0])
        assert (refused.code, "admin key" in refused.document["message"]) == ("ForbiddenException", True)
    assert (await by(cloud.server, ann, KEYS, user="eve", admin=True)).code == "ForbiddenException"
    assert (await by(cloud.server, root, f"{KEYS}/disable", access_key_id=root.key[0])).status == 200


async def test_attaching_can_be_delegated_for_some_policies_alone(cloud: Cloud) -> None:
    ann = await key_of(cloud, "ann")
    await done(cloud, f"{IAM}/users", user="bob")
    only = {"ArnEquals": {"iam:PolicyARN": "arn:aws:iam::aws:policy/AWSAppMeshReadOnly"}}
    statement = {"Effect": "Allow", "Action": "iam:AttachUserPolicy", "Resource": "*", "Condition": only}
    await done(cloud, f"{IAM}/users/policies", user="ann", name="p", document=json.dumps({"Statement": statement}))
    path = f"{IAM}/users/attach"
    assert (await by(cloud.server, ann, path, user="bob", policy="AWSAppMeshReadOnly")).status == 200
    assert (await by(cloud.server, ann, path, user="bob", policy="AdministratorAccess")).code == "ForbiddenException"


async def test_names_may_be_arns_of_the_own_account(cloud: Cloud) -> None:
    made = await done(cloud, f"{IAM}/users", user=f"{USER}/ann")
    assert (made["arn"], made["name"]) == (f"{USER}/ann", "ann")
    theirs = await post(cloud, f"{IAM}/users", user="arn:aws:iam::999999999999:user/ann")
    assert (theirs.status, theirs.code) == (404, "NotFoundException")
    wrong = await post(cloud, f"{IAM}/users", user="a/b")
    assert (wrong.status, wrong.code) == (400, "BadRequestException")
    twice = await post(cloud, f"{IAM}/users", user="ann")
    assert (twice.status, twice.document["message"]) == (409, "User with name ann already exists.")
    both = await post(cloud, f"{IAM}/simulate", user="ann", role="x", action="a:B")
    assert both.status == 400


async def test_documents_are_kept_as_they_came(cloud: Cloud) -> None:
    text = '{"Version": "2012-10-17",\n "Statement": {"Effect":"Allow", "Action":"a:B", "Resource":"*"}}\n'
    await done(cloud, f"{IAM}/policies", policy="p", document=text)
    assert (await get(cloud, f"{IAM}/policies/show?policy=p"))["document"] == text
    refused = await post(cloud, f"{IAM}/policies", policy="p", document=text, create=True)
    assert refused.status == 409


async def test_what_no_log_can_hold_is_refused(cloud: Cloud) -> None:
    statement = {"Effect": "Allow", "Action": "a:B", "Resource": "arn:aws:x:::\ud800"}
    for document in ({"Statement": statement}, json.dumps({"Statement": statement}, ensure_ascii=False), "\ud800"):
        refused = await post(cloud, f"{IAM}/policies", policy="p", document=document)
        assert (refused.status, refused.code) == (400, "BadRequestException"), refused
    kept = json.dumps({"Statement": statement})
    assert (await post(cloud, f"{IAM}/policies", policy="p", document=kept)).status == 200, "an escape is plain text"


async def test_a_repeated_call_is_one_event(cloud: Cloud) -> None:
    first = await done(cloud, f"{IAM}/users", user="ann", clientToken="once")
    assert await done(cloud, f"{IAM}/users", user="ann", clientToken="once") == first
    assert [record.type for record in await cloud.records()] == ["LevelRaised", "PrincipalCreated"]


async def test_the_last_use_of_a_key_is_told_at_once_and_put_on_record_once_an_hour(pair: Cloud) -> None:
    ann = await key_of(pair, "ann")
    assert ann.key is not None
    server, use = pair.servers[1], pair.servers[1].app.state.key_use

    async def told(asked: Server) -> dict[str, str | None]:
        keys = (await ask(asked, "GET", KEYS, b"", MESHLOG)).document["access_keys"]
        return {key["access_key_id"]: key["last_used"] for key in keys}

    assert (await told(server))[ann.key[0]] is None
    await ask(server, "GET", "/meshlog/v1/status", b"", ann)
    assert (
        await ask(server, "GET", "/meshlog/v1/status", b"", Signing(key=(ADMIN.access_key_id, "guess")))
    ).status == 403
    seen = (await told(server))[ann.key[0]]
    assert seen is not None
    assert seen.endswith(":00:00.000000Z"), "an hour, and nothing finer"
    assert (await told(pair.servers[0]))[ann.key[0]] is None, "until it is on record"
    before = len(await pair.records())
    await use.record()
    await use.record()
    assert (await told(pair.servers[0]))[ann.key[0]] == seen
    (event,) = (await pair.records())[before:]
    assert event.data is not None
    assert (event.type, sorted(event.data["keys"])) == (ACCESS_KEYS_USED, sorted([ann.key[0], ADMIN.access_key_id]))
    await pair.servers[0].app.state.key_use.record()
    assert len(await pair.records()) == before + 1, "another server saw the admin's key too, in the same hour"


async def test_while_an_older_build_runs_nothing_of_this_can_be_changed(cloud: Cloud) -> None:
    cloud.server.members.append({"role": "projector", "id": "old", "zone": "b", "level": 1})
    refused = await post(cloud, f"{IAM}/users", user="ann")
    assert (refused.status, refused.code) == (409, "ConflictException")
    assert "CreateUser needs a cluster of level 2, and this one is of level 1" in refused.document["message"]
    assert (await done(cloud, KEYS, user="boss", admin=True))["admin"], "what older builds understand goes on"
    assert [record.type for record in await cloud.records()] == ["AccessKeyCreated"]
    cloud.server.members.clear()
    await done(cloud, f"{IAM}/users", user="ann")
    await done(cloud, f"{IAM}/users", user="bob")
    assert [record.type for record in await cloud.records()][1:] == [
        "LevelRaised", "PrincipalCreated", "PrincipalCreated",
    ]  # fmt: skip
