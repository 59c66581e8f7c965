"""Rates of principals and of addresses: who goes wild is told to wait, and nobody else notices."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

import pytest

from api.admission import Admission
from eventlog.drivers.memory import Fault
from identity.caller import Caller
from mesh.errors import NotAuthenticated, TooManyRequests
from runtime.limits import BODY_SIZE_BYTES
from runtime.settings import LimitSettings
from tests.api.conftest import ADMIN, running
from tests.api.signing import Reply, Signing, ask

MESHES = "/v20190125/meshes"
WRONG = Signing(key=(ADMIN.access_key_id, "not the secret"))
UNKNOWN = Signing(key=("AKIANOBODYHASTHISONE", "not the secret"))
NONE = Signing(key=None)


class ToldClock:
    now_s = 0.0

    def now_us(self) -> int:
        return int(self.now_s * 1e6)

    def monotonic_s(self) -> float:
        return self.now_s

    async def sleep(self, delay_s: float) -> None:
        self.now_s += delay_s


def caller(name: str, session: str = "") -> Caller:
    identity = f"arn:aws:iam::123456789012:role/{name}"
    return Caller("123456789012", f"{identity}/{session}", identity, "AKIA", False, "us-east-1")


def test_a_principal_has_a_rate_a_burst_and_is_told_when_to_come_back() -> None:
    clock = ToldClock()
    admission = Admission(LimitSettings(requests_per_s=1, requests_burst=3), clock)
    for session in "abc":  # sessions of one role are one principal
        with admission.of(caller("ann", session)):
            pass
    with pytest.raises(TooManyRequests, match=r"role/ann calls more often than 1 times a second") as told:
        admission.of(caller("ann")).__enter__()
    assert told.value.retry_after_s == 1
    with admission.of(caller("bob")):
        pass
    clock.now_s += told.value.retry_after_s
    with admission.of(caller("ann")):
        pass


def test_a_principal_has_only_so_many_requests_under_way() -> None:
    admission = Admission(LimitSettings(requests_at_once=2), ToldClock())
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(admission.of(caller("ann")))
        with pytest.raises(TooManyRequests, match="role/ann has 2 requests under way"):
            held.enter_context(admission.of(caller("ann")))
        held.enter_context(admission.of(caller("bob")))
    with admission.of(caller("ann")):
        pass


def test_an_address_in_debt_is_heard_under_keys_that_signed_rightly_from_there() -> None:
    clock = ToldClock()
    admission = Admission(LimitSettings(refusals_per_s=1, refusals_burst=2), clock)
    admission.verified("10.0.0.1", "GOOD")
    wrong = NotAuthenticated("no")
    assert [admission.not_authenticated("10.0.0.1", wrong) for _ in range(2)] == [wrong, wrong]
    assert isinstance(admission.not_authenticated("10.0.0.1", wrong), TooManyRequests)
    admission.check_source("10.0.0.1", "GOOD")
    admission.check_source("10.0.0.2", "OTHER")
    for unheard in ("OTHER", ""):
        with pytest.raises(TooManyRequests, match=r"without a valid signature came from 10\.0\.0\.1"):
            admission.check_source("10.0.0.1", unheard)
    clock.now_s += 1
    admission.check_source("10.0.0.1", "OTHER")


def codes(replies: list[Reply]) -> list[tuple[int, str]]:
    return [(reply.status, reply.code) for reply in replies]


async def test_a_flood_of_bad_signatures_is_answered_alike_whoever_it_claims_to_be(tmp_path: Path) -> None:
    limits = LimitSettings(refusals_per_s=1, refusals_burst=3)
    async with running(tmp_path, limits=limits) as cloud:
        assert (await ask(cloud.server, "GET", MESHES)).status == 200
        flood = [await ask(cloud.server, "GET", MESHES, signing=signing) for signing in (NONE, WRONG, UNKNOWN)]
        assert [status for status, _ in codes(flood)] == [403, 403, 403]
        more = [await ask(cloud.server, "GET", MESHES, signing=signing) for signing in (NONE, WRONG, UNKNOWN)]
        assert codes(more) == [(429, "TooManyRequestsException")] * 3
        assert len({reply.document["message"] for reply in more}) == 1
        assert {reply.headers["retry-after"] for reply in more} == {"1"}
        assert (await ask(cloud.server, "GET", MESHES)).status == 200, "who signs rightly from there goes on"


async def test_a_principal_above_its_rate_is_told_to_wait(tmp_path: Path) -> None:
    async with running(tmp_path, limits=LimitSettings(requests_per_s=1, requests_burst=2)) as cloud:
        replies = [await ask(cloud.server, "GET", MESHES) for _ in range(3)]
        assert [reply.status for reply in replies] == [200, 200, 429]
        assert (replies[2].code, replies[2].headers["retry-after"]) == ("TooManyRequestsException", "1")


async def test_a_principal_s_reads_wait_behind_no_more_than_its_share(tmp_path: Path) -> None:
    async with running(tmp_path, limits=LimitSettings(requests_at_once=1)) as cloud:
        held = True
        cloud.store.fault_of = lambda _txn: Fault.LOST if held else Fault.NONE
        write = asyncio.ensure_future(ask(cloud.server, "PUT", MESHES, {"meshName": "m"}))
        await asyncio.wait([write], timeout=0.2)
        assert (await ask(cloud.server, "GET", MESHES)).code == "TooManyRequestsException"
        held = False
        assert (await write).status == 200
        assert (await ask(cloud.server, "GET", MESHES)).status == 200


async def test_without_a_signature_no_body_is_read(tmp_path: Path) -> None:
    """A body that never comes would be waited for."""
    async with running(tmp_path) as cloud:
        reader, writer = await asyncio.open_connection("127.0.0.1", cloud.server.http.port)
        writer.write(f"PUT {MESHES} HTTP/1.1\r\nhost: x\r\ncontent-length: {BODY_SIZE_BYTES}\r\n\r\n".encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert head.startswith(b"HTTP/1.1 403")
        assert b"MissingAuthenticationTokenException" in head
        assert b"connection: close" in head
        writer.close()
