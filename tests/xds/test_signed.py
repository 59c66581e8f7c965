"""Proxies that sign: what a frontend passes up, what it makes of the answer, and what it does when nobody answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from identity.proxy_wire import Granted, Presented, Refused
from mesh.errors import Unavailable
from runtime.clock import SystemClock
from runtime.limits import UNVERIFIED_SOURCE_BURST
from tests.conditions import PATIENCE_S, await_until
from tests.xds.feeds import Running, serving
from tests.xds.test_server import delta, first, read, sotw
from tests.xds.transcripts import LONG, NODE, NODE_TEXT, snapshot
from xds.server import METHOD_DELTA, METHOD_SOTW, server_options
from xds.signed import SignedStreams, Signing, address_of, names_signed_for, signed_headers
from xds.wire.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest

WORLD = "cds A=1 B=1 | lds L=1"
IDLE = "grpc.max_connection_idle_ms"
SIGNED = (
    ("authorization", "AWS4-HMAC-SHA256 Credential=x"),
    ("x-amz-date", "20261122T130500Z"),
    ("x-amz-content-sha256", "e3b0"),
)


class FakeGate:
    """API servers in the test's hands."""

    def __init__(self) -> None:
        self.verdict: Granted | Refused | Unavailable = Granted(NODE, "arn:aws:iam::1:user/proxy", b"grant")
        self.fallen: dict[bytes, Refused] = {}
        self.away = False
        self.asked: list[Presented] = []
        self.portions: list[Sequence[bytes]] = []

    async def check(self, presented: Presented) -> Granted | Refused:
        self.asked.append(presented)
        if isinstance(self.verdict, Unavailable):
            raise self.verdict
        return self.verdict

    async def standing(self, grants: Sequence[bytes]) -> Mapping[int, Refused]:
        self.portions.append(grants)
        if self.away:
            raise Unavailable("no API server answers")
        return {place: self.fallen[grant] for place, grant in enumerate(grants) if grant in self.fallen}


@pytest.fixture
def gate() -> FakeGate:
    return FakeGate()


@pytest.fixture
async def running(tmp_path: Path, gate: FakeGate) -> AsyncIterator[Running]:
    async with serving(tmp_path, signing=Signing(gate, ("frontend.meshlog",))) as frontend:
        frontend.feed.put(10, snapshot(10, WORLD).resources)
        yield frontend


@pytest.fixture
async def channel(running: Running) -> AsyncIterator[grpc.aio.Channel]:
    """To the port for those that sign, without a certificate."""
    async with running.certificates.channel(running.server.signed_port, anonymous=True) as channel:
        yield channel


async def settled(call: Any) -> None:
    """The stream has its first answer, and has accepted it."""
    await call.write(first("cds"))
    response = await read(call)
    await call.write(
        DiscoveryRequest(type_url=LONG["cds"], version_info=response.version_info, response_nonce=response.nonce)
    )


async def ended(call: Any) -> tuple[grpc.StatusCode, str]:
    async with asyncio.timeout(PATIENCE_S):
        return await call.code(), await call.details()


async def test_what_was_signed_is_passed_up_and_the_node_that_comes_back_is_served(
    running: Running, channel: grpc.aio.Channel, gate: FakeGate
) -> None:
    call = sotw(channel, metadata=(*SIGNED, ("x-other", "kept"), ("cookie-bin", b"1")))
    await call.write(first("cds", "arn:aws:appmesh:r:123456789012:mesh/m/virtualNode/whatever"))
    # The gate knows the node by another spelling: what counts is its answer, and then node.id must fit that.
    code, _ = await ended(call)
    assert code is grpc.StatusCode.PERMISSION_DENIED
    call = sotw(channel, metadata=SIGNED)
    await call.write(first("cds"))
    assert [item.value for item in (await read(call)).resources] == [b"A=1", b"B=1"]
    asked = gate.asked[-1]
    assert (asked.node, asked.method, asked.hosts) == (NODE_TEXT, METHOD_SOTW, ("frontend.meshlog",))
    assert set(asked.headers) == set(SIGNED)
    assert asked.source_ip == "127.0.0.1"
    assert [(proxy.node, proxy.mode) for proxy in running.server.proxies] == [(NODE, "sotw")]


async def test_delta_streams_sign_as_well(channel: grpc.aio.Channel, gate: FakeGate) -> None:
    call = delta(channel, metadata=SIGNED)
    request = DeltaDiscoveryRequest(type_url=LONG["cds"])
    request.node.id = NODE_TEXT
    await call.write(request)
    assert [item.resource.value for item in (await read(call)).resources] == [b"A=1", b"B=1"]
    assert gate.asked[-1].method == METHOD_DELTA


@pytest.mark.parametrize(
    ("verdict", "code"),
    [
        (Refused(16, "the signature is wrong"), grpc.StatusCode.UNAUTHENTICATED),
        (Refused(7, "not authorized to perform: appmesh:StreamAggregatedResources"), grpc.StatusCode.PERMISSION_DENIED),
        (Refused(3, "names no node"), grpc.StatusCode.INVALID_ARGUMENT),
        (Refused(99, "of a newer build"), grpc.StatusCode.UNAUTHENTICATED),
        (Unavailable("no API server answers"), grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_a_refusal_is_the_streams_end(
    running: Running, channel: grpc.aio.Channel, gate: FakeGate, verdict: Any, code: grpc.StatusCode
) -> None:
    gate.verdict = verdict
    call = sotw(channel, metadata=SIGNED)
    await call.write(first("cds"))
    assert await ended(call) == (code, verdict.message)
    assert len(running.server.proxies) == 0
    assert running.feed.watches == 0


async def test_an_address_with_many_wrong_credentials_waits_and_right_ones_are_not_counted(
    running: Running, channel: grpc.aio.Channel, gate: FakeGate
) -> None:
    async def connect() -> grpc.StatusCode:
        call = sotw(channel, metadata=SIGNED)
        await call.write(first("cds"))
        try:
            await read(call)
        except grpc.aio.AioRpcError as error:
            return error.code()
        call.cancel()
        return grpc.StatusCode.OK

    for _ in range(UNVERIFIED_SOURCE_BURST + 5):
        assert await connect() is grpc.StatusCode.OK
    gate.verdict = Refused(16, "wrong")
    codes = [await connect() for _ in range(UNVERIFIED_SOURCE_BURST + 5)]
    assert codes[:UNVERIFIED_SOURCE_BURST] == [grpc.StatusCode.UNAUTHENTICATED] * UNVERIFIED_SOURCE_BURST
    assert codes[-1] is grpc.StatusCode.RESOURCE_EXHAUSTED
    asked = len(gate.asked)
    await connect()
    assert len(gate.asked) == asked


async def test_without_credentials_nobody_is_asked(channel: grpc.aio.Channel, gate: FakeGate) -> None:
    for metadata in ((), (("x-amz-date", "20261122T130500Z"),)):
        code, details = await ended(sotw(channel, metadata=metadata))
        assert code is grpc.StatusCode.UNAUTHENTICATED
        assert "sign it" in details
    assert gate.asked == []


async def test_a_certificate_counts_where_there_is_one(running: Running, gate: FakeGate) -> None:
    async with running.certificates.channel(running.port) as channel:
        call = sotw(channel, metadata=SIGNED)
        await call.write(first("cds"))
        assert await read(call)
    assert gate.asked == []


async def test_a_frontend_that_takes_no_signatures_says_what_it_takes(tmp_path: Path) -> None:
    async with serving(tmp_path) as frontend, frontend.certificates.channel(frontend.port, uris=[]) as channel:
        code, details = await ended(sotw(channel, metadata=SIGNED))
        assert code is grpc.StatusCode.UNAUTHENTICATED
        assert "certificate names no node" in details


async def test_a_revocation_reaches_the_open_stream(
    running: Running, channel: grpc.aio.Channel, gate: FakeGate
) -> None:
    call = sotw(channel, metadata=SIGNED)
    await settled(call)
    assert running.server.signed is not None
    await running.server.signed.ask()
    running.feed.put(11, snapshot(11, "cds A=2 B=1").resources)
    assert await read(call)  # it stands
    gate.fallen[b"grant"] = Refused(7, "not any more")
    await running.server.signed.ask()
    assert await ended(call) == (grpc.StatusCode.PERMISSION_DENIED, "not any more")
    await await_until(lambda: len(running.server.proxies) == 0)
    assert len(running.server.signed) == 0


async def test_when_nobody_can_say_the_stream_goes_on(
    running: Running, channel: grpc.aio.Channel, gate: FakeGate
) -> None:
    call = sotw(channel, metadata=SIGNED)
    await settled(call)
    gate.away = True
    assert running.server.signed is not None
    with pytest.raises(Unavailable):
        await running.server.signed.ask()
    running.feed.put(11, snapshot(11, "cds A=2 B=1").resources)
    assert await read(call)


async def test_many_grants_are_asked_after_in_portions_and_each_once(gate: FakeGate) -> None:
    streams = SignedStreams(gate, SystemClock())
    closed: list[str] = []
    gate.fallen[b"2500"] = Refused(16, "over")
    with ExitStack() as stack:
        for number in range(3_000):
            for _ in range(2):
                stack.enter_context(streams.present(str(number).encode(), lambda _, why: closed.append(why)))
        await streams.ask()
    assert [len(portion) for portion in gate.portions] == [2_000, 1_000]
    assert closed == ["over", "over"]
    assert len(streams) == 0


async def test_who_opens_no_stream_is_not_kept(tmp_path: Path, gate: FakeGate) -> None:
    options = [*(pair for pair in server_options() if pair[0] != IDLE), (IDLE, 200)]
    async with serving(tmp_path, signing=Signing(gate, ("frontend.meshlog",)), options=options) as frontend:
        async with frontend.certificates.channel(frontend.server.signed_port, anonymous=True) as channel:
            await channel.channel_ready()
            async with asyncio.timeout(PATIENCE_S):
                await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
    assert dict(server_options())[IDLE] > 1000


def test_names_and_addresses() -> None:
    assert names_signed_for(["frontend.meshlog", "10.0.0.1", "::1"], [7419], ["xds.example:443"]) == (
        "xds.example:443",
        "frontend.meshlog:7419", "10.0.0.1:7419", "[::1]:7419",
        "frontend.meshlog", "10.0.0.1", "[::1]",
    )  # fmt: skip
    assert address_of("ipv4:10.0.0.1:5") == "10.0.0.1"
    assert address_of("ipv6:%5B2001:db8::1%5D:5") == "2001:db8::1"
    assert address_of("ipv6:[fe80::1%25eth0]:5") == "fe80::1"
    assert address_of("unix:/tmp/x") == ""


def test_what_a_signature_covers_is_passed_up_with_what_grpc_hides() -> None:
    assert signed_headers([("x-amz-date", "now")]) == ()
    authorization = "AWS4-HMAC-SHA256 Credential=k, SignedHeaders=content-type;host;te;x-mine, Signature=0"
    metadata = [("authorization", authorization), ("x-mine", "1"), ("x-other", "2"), ("x-amz-date", "now")]
    assert signed_headers(metadata) == (
        ("authorization", authorization), ("x-mine", "1"), ("x-amz-date", "now"),
        ("content-type", "application/grpc"), ("te", "trailers"),
    )  # fmt: skip
