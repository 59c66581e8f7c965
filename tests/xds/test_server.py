"""The frontend on the network: real gRPC, real TLS, a feed in the test's hands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509

from identity.node_id import NodeId
from mesh.position import Position
from runtime.clock import SystemClock
from tests.conditions import PATIENCE_S, await_until
from tests.xds.feeds import TRUST_DOMAIN, FakeFeed, Root, Running, serving
from tests.xds.transcripts import LONG, NODE, NODE_TEXT, snapshot
from xds.admission import Admission
from xds.server import METHOD_DELTA, METHOD_SOTW, METHODS, server_options
from xds.wire.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)

WORLD = "cds A=1 B=1 | lds L=1"
FETCH = "/envoy.service.cluster.v3.ClusterDiscoveryService/FetchClusters"
OTHER = NodeId(NODE.account, NODE.mesh, NODE.kind, "other")


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(tmp_path) as frontend:
        frontend.feed.put(10, snapshot(10, WORLD).resources)
        yield frontend


def sotw(channel: grpc.aio.Channel, metadata: Any = ()) -> Any:
    return channel.stream_stream(
        METHOD_SOTW,
        request_serializer=DiscoveryRequest.SerializeToString,
        response_deserializer=DiscoveryResponse.FromString,
    )(metadata=metadata)


def delta(channel: grpc.aio.Channel, metadata: Any = ()) -> Any:
    return channel.stream_stream(
        METHOD_DELTA,
        request_serializer=DeltaDiscoveryRequest.SerializeToString,
        response_deserializer=DeltaDiscoveryResponse.FromString,
    )(metadata=metadata)


def first(kind: str, node: str = NODE_TEXT) -> DiscoveryRequest:
    request = DiscoveryRequest(type_url=LONG[kind])
    request.node.id = node
    return request


async def read(call: Any) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        return await call.read()


async def test_both_protocols_give_the_same_bytes(running: Running) -> None:
    async with running.certificates.channel(running.port) as channel:
        whole, increments = sotw(channel), delta(channel)
        await whole.write(first("cds"))
        request = DeltaDiscoveryRequest(type_url=LONG["cds"])
        request.node.id = NODE_TEXT
        await increments.write(request)
        one, other = await read(whole), await read(increments)
        assert [item.value for item in one.resources] == [b"A=1", b"B=1"]
        assert [item.resource.value for item in other.resources] == [b"A=1", b"B=1"]


async def test_a_change_is_pushed_and_status_metrics_and_table_follow(running: Running) -> None:
    async with running.certificates.channel(running.port) as channel:
        call = sotw(channel)
        await call.write(first("cds"))
        response = await read(call)
        await call.write(
            DiscoveryRequest(type_url=LONG["cds"], version_info=response.version_info, response_nonce=response.nonce)
        )
        (proxy,) = running.server.proxies
        await await_until(lambda: proxy.settled == Position(1, 10))
        assert (proxy.node, proxy.mode, proxy.acked) == (NODE, "sotw", {"cds": Position(1, 10)})
        running.feed.put(11, snapshot(11, "cds A=2 B=1").resources)
        response = await read(call)
        assert [item.value for item in response.resources] == [b"A=2", b"B=1"]
        refusal = DiscoveryRequest(type_url=LONG["cds"], response_nonce=response.nonce)
        refusal.error_detail.message = "A is bad"
        await call.write(refusal)
        await await_until(lambda: proxy.refusal is not None)
        assert proxy.refusal is not None
        assert (proxy.refusal.type, proxy.refusal.names, proxy.refusal.position) == ("cds", ("A",), Position(1, 11))
        assert running.count("meshlog_xds_pushes_total", mode="sotw", type="cds") == 2
        assert running.count("meshlog_xds_acks_total", mode="sotw", type="cds") == 1
        assert running.count("meshlog_xds_nacks_total", mode="sotw", type="cds") == 1
        assert running.count("meshlog_xds_streams", mode="sotw") == 1
        call.cancel()
        await await_until(lambda: len(running.server.proxies) == 0)
    assert running.count("meshlog_xds_streams", mode="sotw") == 0
    assert running.feed.watches == 0


# --- who may call


@pytest.mark.parametrize(
    "method", [*METHODS, "/envoy.service.cluster.v3.ClusterDiscoveryService/FetchClusters", "/x/y"]
)
@pytest.mark.parametrize(
    "uris",
    [
        [],
        ["spiffe://elsewhere/123456789012/mesh/m/virtualNode/n"],
        [f"spiffe://{TRUST_DOMAIN}/role/api"],
        [f"spiffe://{TRUST_DOMAIN}/123456789012/mesh/m/route/n"],
        [NODE.spiffe_id(TRUST_DOMAIN), OTHER.spiffe_id(TRUST_DOMAIN)],
    ],
)
async def test_no_method_answers_a_certificate_that_names_no_node(
    running: Running, method: str, uris: list[str]
) -> None:
    async with running.certificates.channel(running.port, uris=uris) as channel:
        call: Any = channel.stream_stream(method)()
        assert await call.code() == grpc.StatusCode.UNAUTHENTICATED
        assert f"spiffe://{TRUST_DOMAIN}/<account>" in await call.details()
    assert running.feed.confirms == 0


@pytest.mark.parametrize("method", [*METHODS, "/x/y"])
async def test_no_method_answers_without_a_certificate_of_the_proxies_root(running: Running, method: str) -> None:
    for channel in (
        running.certificates.channel(running.port, anonymous=True),
        running.certificates.channel(running.port, root=Root("another")),
        running.certificates.channel(running.port, root=running.certificates.servers),
    ):
        async with channel:
            call: Any = channel.stream_stream(method)()
            assert await call.code() == grpc.StatusCode.UNAVAILABLE


async def test_other_methods_are_unimplemented_for_those_who_may_call(running: Running) -> None:
    async with running.certificates.channel(running.port) as channel:
        for method in (
            "/envoy.service.cluster.v3.ClusterDiscoveryService/FetchClusters",
            "/grpc.health.v1.Health/Check",
        ):
            unary: Any = channel.unary_unary(method)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await unary(b"")
            assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_a_proxy_gets_nothing_of_another_node(running: Running) -> None:
    async with running.certificates.channel(running.port, OTHER) as channel:
        call = sotw(channel)
        await call.write(first("cds"))
        assert await call.code() == grpc.StatusCode.PERMISSION_DENIED
        assert "mesh/m/virtualNode/n" in await call.details()


async def test_an_unknown_node_is_told_so(running: Running) -> None:
    running.feed.put(12, None, OTHER)
    async with running.certificates.channel(running.port, OTHER) as channel:
        call = sotw(channel)
        await call.write(first("cds", "mesh/m/virtualNode/other"))
        assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "virtualNode 'other' does not exist in mesh 'm'" in await call.details()


async def test_garbage_is_refused_and_the_frontend_goes_on(running: Running) -> None:
    async with running.certificates.channel(running.port) as channel:
        for method in METHODS:
            call: Any = channel.stream_stream(method)()
            await call.write(b"\xff\xff\xff\xff")
            assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT
        call = channel.stream_stream(METHOD_SOTW)()
        await call.write(b"\0" * (17 * 1024 * 1024))
        assert await call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        call = sotw(channel)
        await call.write(first("cds"))
        assert len((await read(call)).resources) == 2


async def test_a_reconnecting_proxy_may_list_all_that_it_holds(running: Running) -> None:
    async with running.certificates.channel(running.port) as channel:
        call = delta(channel)
        request = DeltaDiscoveryRequest(type_url=LONG["cds"])
        request.node.id = NODE_TEXT
        for number in range(100_000):
            request.initial_resource_versions[f"{number:0100d}"] = "v" * 32
        assert request.ByteSize() > 13 * 1024 * 1024
        await call.write(request)
        response = await read(call)
        assert [item.name for item in response.resources] == ["A", "B"]
        assert not response.removed_resources  # not before it has asked for listeners and routes


# --- when it may be answered


async def test_a_frontend_without_a_projector_refuses_streams(running: Running) -> None:
    running.feed.ready = False
    async with running.certificates.channel(running.port) as channel:
        assert await sotw(channel).code() == grpc.StatusCode.UNAVAILABLE


async def test_nothing_is_sent_before_a_head_is_confirmed(running: Running) -> None:
    running.feed.open_gate.clear()
    async with running.certificates.channel(running.port) as channel:
        call = sotw(channel)
        await call.write(first("cds"))
        await await_until(lambda: running.feed.confirms == 1)
        assert running.count("meshlog_xds_pushes_total", mode="sotw", type="cds") == 0
        running.feed.open_gate.set()
        assert len((await read(call)).resources) == 2


async def test_without_quorum_only_an_empty_proxy_is_answered_and_the_other_when_it_is_back(running: Running) -> None:
    running.feed.quorum = False
    async with running.certificates.channel(running.port) as channel:
        empty, holding = sotw(channel), sotw(channel)
        request = first("cds")
        request.version_info = "something else"
        await holding.write(request)
        await empty.write(first("cds"))
        assert len((await read(empty)).resources) == 2
        attempts = running.feed.confirms
        await await_until(lambda: running.feed.confirms > attempts + 1, what="more attempts")
        assert running.count("meshlog_xds_pushes_total", mode="sotw", type="cds") == 1
        running.feed.quorum = True
        assert len((await read(holding)).resources) == 2


async def test_too_many_streams_are_told_to_back_off(tmp_path: Path) -> None:
    admission = Admission(SystemClock(), streams_max=1, per_s=0.0, burst=2)
    async with serving(tmp_path, admission=admission) as frontend:
        frontend.feed.put(10, snapshot(10, WORLD).resources)
        async with frontend.certificates.channel(frontend.port) as channel:
            call = sotw(channel)
            await call.write(first("cds"))
            await read(call)
            assert await sotw(channel).code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            call.cancel()
            await await_until(lambda: len(frontend.server.proxies) == 0)
            call = sotw(channel)
            await call.write(first("cds"))
            await read(call)
            call.cancel()
            await await_until(lambda: len(frontend.server.proxies) == 0)
            refused = sotw(channel)
            assert await refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "too many proxies connect at once" in await refused.details()


async def test_a_proxy_that_takes_no_bytes_is_cut_off_and_others_are_served(tmp_path: Path) -> None:
    async with serving(tmp_path, send_timeout_s=0.5) as frontend:
        large = "x" * (1 << 20)
        clusters = " ".join(f"C{number}={large}" for number in range(16))
        frontend.feed.put(10, snapshot(10, f"cds {clusters} | lds L=1").resources)
        certificates, port = frontend.certificates, frontend.port
        async with certificates.channel(port) as stuck, certificates.channel(port) as well:
            call, other = sotw(stuck), sotw(well)
            await call.write(first("cds"))  # and never reads: HTTP/2's window fills
            await await_until(lambda: len(frontend.server.proxies) == 1)
            await other.write(first("lds"))
            assert [item.value for item in (await read(other)).resources] == [b"L=1"]
            await await_until(lambda: [proxy.mode for proxy in frontend.server.proxies] == ["sotw"])
            await other.done_writing()
            assert await other.code() == grpc.StatusCode.OK
        assert frontend.count("meshlog_xds_streams_closed_total", mode="sotw", code="DEADLINE_EXCEEDED") == 1


async def test_a_connection_comes_to_its_age_and_the_proxy_may_dial_again(tmp_path: Path) -> None:
    options = server_options(connection_age_s=0.5, connection_age_grace_s=0.5)
    async with serving(tmp_path, options=options) as frontend:
        frontend.feed.put(10, snapshot(10, WORLD).resources)
        async with frontend.certificates.channel(frontend.port) as channel:
            for _ in range(2):
                call = sotw(channel)
                await call.write(first("cds"))
                assert len((await read(call)).resources) == 2
                async with asyncio.timeout(PATIENCE_S):
                    assert await call.code() == grpc.StatusCode.UNAVAILABLE
        await await_until(lambda: len(frontend.server.proxies) == 0)
        assert frontend.feed.watches == 0


async def test_a_renewed_certificate_is_used_without_a_restart(running: Running) -> None:
    async def served_name() -> str:
        import ssl

        context = ssl.create_default_context(cadata=running.certificates.servers.pem.decode())
        context.check_hostname = False
        context.set_alpn_protocols(["h2"])
        chain, key = running.certificates.proxies.leaf(uris=[NODE.spiffe_id(TRUST_DOMAIN)])
        folder = running.certificates.files.key.parent
        (folder / "client.pem").write_bytes(chain + key)
        context.load_cert_chain(folder / "client.pem")
        _, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=context)
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return x509.load_der_x509_certificate(certificate).subject.rfc4514_string()

    assert await served_name() == "CN=frontend"
    running.certificates.renew("renewed")
    assert await served_name() == "CN=renewed"
    running.certificates.files.certificate.unlink()
    assert await served_name() == "CN=renewed"


async def test_stopping_ends_the_streams_and_leaves_nothing_behind(running: Running) -> None:
    async with running.certificates.channel(running.port) as channel:
        calls = [sotw(channel) for _ in range(3)]
        for call in calls:
            await call.write(first("cds"))
            await read(call)
        await running.server.stop(0.1)
        for call in calls:
            assert await call.code() != grpc.StatusCode.OK
    await await_until(lambda: len(running.server.proxies) == 0)
    assert running.feed.watches == 0
    mine = [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("xds-")]
    assert mine == []


async def test_a_proxy_that_leaves_in_order_is_no_failure(running: Running) -> None:
    async with running.certificates.channel(running.port) as channel:
        call = sotw(channel)
        await call.write(first("cds"))
        await read(call)
        await call.done_writing()
        assert await call.code() == grpc.StatusCode.OK
    assert running.count("meshlog_xds_streams_closed_total", mode="sotw", code="OK") == 1


async def test_a_feed_in_hand_ends_watches_when_closed() -> None:
    feed = FakeFeed()
    seen: list[int] = []
    watch = feed.watch(NODE, lambda update: seen.append(update.position.position))
    feed.put(1, {})
    watch.close()
    feed.put(2, {})
    assert seen == [1]
