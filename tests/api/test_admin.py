"""`/meshlog/v1/`: proxy certificates and status."""

from __future__ import annotations

import datetime

import pytest

from tests.api.canary import get, make_canary, post
from tests.api.conftest import ACCOUNT, Cloud

IDENTITY = "/meshlog/v1/proxies/identity"
CSR = "-----BEGIN CERTIFICATE REQUEST-----"


@pytest.fixture
async def canary(cloud: Cloud) -> Cloud:
    return await make_canary(cloud)


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
    (member,) = status.pop("members")
    assert (member["role"], member["id"], member["zone"]) == ("api", "api-0", "a")
    assert status == {**expected, "reason": ""}


async def test_status_answers_without_a_quorum(canary: Cloud) -> None:
    canary.store.reachable = False
    status = await get(canary, "/meshlog/v1/status")
    assert (status["position"], "members" in status) == (8, False)
