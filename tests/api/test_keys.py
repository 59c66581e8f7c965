"""Keys over HTTP: what is told, what is done, what is refused, and that it is on record; no key ever in an answer."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from eventlog.keys.file import add_keys, draw_kek, read_key_file
from eventlog.records import KeyClass
from tests.api.conftest import ADMIN, Cloud, Server, running
from tests.api.signing import Reply, Signing, ask
from tests.eventlog.keys.houses import ENTROPY


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    async with running(tmp_path) as cloud:
        yield cloud


@pytest.fixture
def server(cloud: Cloud) -> Server:
    return cloud.server


async def post(server: Server, name: str, body: dict[str, Any]) -> Reply:
    return await ask(server, "POST", f"/meshlog/v1/keys/{name}", body, Signing())


async def status(server: Server) -> dict[str, Any]:
    reply = await ask(server, "GET", "/meshlog/v1/keys", b"", Signing())
    assert reply.status == 200
    return dict(reply.document)


async def test_status_tells_each_key_and_nothing_that_opens_it(server: Server, tmp_path: Path) -> None:
    found = await status(server)
    assert sorted(key["class"] for key in found["data_keys"]) == ["config", "secrets", "signing"]
    assert all(key["sealing"] and key["problem"] is None for key in found["data_keys"])
    assert {(kek["class"], kek["data_keys"], kek["current"]) for kek in found["key_encryption_keys"]} == {
        ("config", 1, True),
        ("secrets", 2, True),
    }
    assert [(row["class"], row["wraps"], row["reachable"]) for row in found["providers"]][:2] == [
        ("config", True, True),
        ("secrets", True, True),
    ]
    assert found["to_do"] == []
    told = str(found)
    for key_class in (KeyClass.CONFIG, KeyClass.SECRETS):
        for material in read_key_file(tmp_path / key_class, key_class).values():
            assert base64.b64encode(material).decode() not in told
            assert material.hex() not in told
    for key in server.keyring.loaded.values():
        assert key.material.hex() not in told


async def test_rotating_draws_a_key_of_each_class_that_seals_its_own_record(cloud: Cloud, server: Server) -> None:
    before = await status(server)
    reply = await post(server, "rotate", {})
    assert reply.status == 200
    after = await status(server)
    drawn = {key["id"] for key in after["data_keys"]} - {key["id"] for key in before["data_keys"]}
    assert set(reply.document["drawn"]) == drawn == {key["id"] for key in after["data_keys"] if key["sealing"]}
    record = (await cloud.records())[-1]
    assert (record.type, record.actor, set(record.data["keys"] if record.data else ())) == (
        "DataKeysDrawn",
        ADMIN.principal,
        drawn,
    )
    assert server.keyring.newest(KeyClass.CONFIG).key_id in drawn


async def test_one_class_alone(server: Server) -> None:
    reply = await post(server, "rotate", {"class": "secrets"})
    assert [key_id.partition("-")[0] for key_id in reply.document["drawn"]] == ["secrets"]
    for body, said in (({"class": "other"}, "signing or all"), ({"clas": "config"}, "not a known field")):
        refused = await post(server, "rotate", body)
        assert (refused.status, said in refused.document["message"]) == (400, True)


async def test_re_wrapping_to_a_key_of_the_file_makes_it_the_first_and_is_on_record(
    cloud: Cloud, server: Server, tmp_path: Path
) -> None:
    kek_id, material = draw_kek(ENTROPY)
    add_keys(tmp_path / "secrets", KeyClass.SECRETS, {kek_id: material})
    reply = await post(server, "rewrap", {"class": "secrets", "to": kek_id})
    assert {done["kek"] for done in reply.document["rewrapped"]} == {kek_id}
    assert len(reply.document["rewrapped"]) == 2, "secrets, and what signs"
    assert next(iter(read_key_file(tmp_path / "secrets", KeyClass.SECRETS))) == kek_id
    record = (await cloud.records())[-1]
    assert (record.type, record.data and record.data["kek"]) == ("DataKeysRewrapped", kek_id)
    again = await post(server, "rewrap", {"class": "secrets", "to": kek_id})
    assert (again.document["rewrapped"], len(again.document["left"])) == ([], 2)
    assert len([one for one in await cloud.records() if one.type == "DataKeysRewrapped"]) == 1
    (unused,) = [text for text in (await status(server))["to_do"] if "wraps nothing any more" in text]
    assert "class 'secrets'" in unused


async def test_a_key_that_no_server_has_is_refused_with_those_that_there_are(server: Server) -> None:
    refused = await post(server, "rewrap", {"class": "config", "to": "kek-nobody"})
    assert refused.status == 400
    assert "kek-nobody" in refused.document["message"]
    assert "keys import" in refused.document["message"]


async def test_a_key_that_a_live_member_lacks_wraps_nothing_unless_forced(server: Server, tmp_path: Path) -> None:
    server.members.append({"role": "projector", "id": "projector-b", "zone": "b", "keks": ["config:file:other"]})
    server.members.append({"role": "frontend", "id": "frontend-b", "zone": "b", "keks": []})
    server.members.append({"role": "projector", "id": "projector-old", "zone": "b"})
    refused = await post(server, "rewrap", {"class": "config"})
    assert refused.status == 409
    assert "projector-b, projector-old cannot unwrap" in refused.document["message"]
    both = await post(server, "rewrap", {})
    assert both.status == 409, "of two classes neither"
    assert (await post(server, "rewrap", {"class": "secrets"})).status == 200, "projectors need none of these"
    assert (await post(server, "rewrap", {"class": "config", "force": True})).status == 200
    (warned,) = (await status(server))["to_do"]
    assert warned.startswith("projector-b, projector-old cannot unwrap with")
