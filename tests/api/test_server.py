"""The HTTP server: TLS, what its responses give away, and that calls in flight are answered before it ends."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from cluster import pki
from eventlog.drivers.memory import Fault
from runtime.clock import SystemClock, SystemEntropy
from runtime.http_connection import HttpBounds, WholeAnswers
from runtime.http_server import HttpServer
from runtime.limits import HTTP_HEADERS_BYTES
from runtime.settings import TlsFiles
from tests.api.conftest import ADMIN, REGION, Cloud, call, running
from tests.api.signing import ask
from tests.conditions import await_until


@pytest.fixture
def tls(tmp_path: Path) -> TlsFiles:
    now_us, entropy = SystemClock().now_us(), SystemEntropy()
    authority = pki.create_authority("test", now_us, entropy)
    files = TlsFiles(certificate=tmp_path / "tls.crt", key=tmp_path / "tls.key", authority=tmp_path / "ca.crt")
    leaf = pki.role_leaf("api", "meshlog.local", ["127.0.0.1"])
    pki.save_issued(pki.issue(authority, leaf, now_us, entropy), authority, files)
    return files


async def test_tls_when_it_is_given(tmp_path: Path, tls: TlsFiles) -> None:
    async with running(tmp_path, tls=tls) as cloud:
        client = boto3.client(
            "appmesh",
            endpoint_url=cloud.server.url,
            region_name=REGION,
            aws_access_key_id=ADMIN.access_key_id,
            aws_secret_access_key=ADMIN.secret,
            verify=str(tls.authority),
            config=Config(retries={"total_max_attempts": 1}),
        )
        assert (await call(client, "create_mesh", meshName="m"))["mesh"]["meshName"] == "m"
        context = cloud.server.http.tls
        assert context is not None
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2


async def test_responses_do_not_tell_what_serves_them(cloud: Cloud) -> None:
    reply = await ask(cloud.server, "GET", "/v20190125/meshes")
    assert sorted(reply.headers) == ["content-length", "content-type", "date", "x-amzn-requestid", "x-meshlog-position"]


async def test_what_is_written_in_one_turn_is_one_piece() -> None:
    """Of a killed server nothing arrives or the whole answer: a head without its body is a success without fields."""
    sent: list[bytes] = []

    class Kernel(asyncio.Transport):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            sent.append(bytes(data))

        def is_closing(self) -> bool:
            return b"closed" in sent

        def close(self) -> None:
            sent.append(b"closed")

    transport = WholeAnswers(Kernel(), asyncio.get_running_loop())
    transport.write(b"head ")
    transport.write(b"body")
    assert sent == []
    await asyncio.sleep(0)
    assert sent == [b"head body"]
    transport.write(b"last")
    transport.close()
    transport.close()
    await asyncio.sleep(0)
    assert sent == [b"head body", b"last", b"closed"]


async def test_an_answer_is_one_piece(cloud: Cloud) -> None:
    sizes: list[int] = []
    reader, writer = await asyncio.open_connection("127.0.0.1", cloud.server.http.port)
    writer.write(b"GET /v20190125/meshes HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    while piece := await reader.read(65536):
        sizes.append(len(piece))
    writer.close()
    assert len(sizes) == 1


async def test_headers_have_a_bound(cloud: Cloud) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", cloud.server.http.port)
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nx-bomb: " + b"x" * (2 * HTTP_HEADERS_BYTES))
    assert (await reader.read(64)).startswith(b"HTTP/1.1 400")
    writer.close()


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01 not HTTP\r\n\r\n", b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n"]
)
async def test_what_is_not_http_gets_aws_s_error_shape_too(cloud: Cloud, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", cloud.server.http.port)
    writer.write(sent)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert b"x-amzn-errortype: BadRequestException" in head.lower().replace(
        b"badrequestexception", b"BadRequestException"
    )
    assert json.loads(body)["__type"] == "BadRequestException"
    writer.close()


async def test_half_a_request_head_does_not_hold_a_connection_for_ever(cloud: Cloud) -> None:
    app: Any = cloud.server.http.config.app
    quick = HttpServer(
        app, ("127.0.0.1", 0), clock=SystemClock(), entropy=SystemEntropy(), bounds=HttpBounds(head_s=0.1)
    )
    serving = asyncio.ensure_future(quick.serve())
    await await_until(lambda: quick.started)
    for sent in (b"", b"GET /v20190125/meshes HTTP/1.1\r\nhost: x\r\nx-slow: 1"):
        reader, writer = await asyncio.open_connection("127.0.0.1", quick.port)
        writer.write(sent)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
    quick.should_exit = True
    await serving


async def test_a_write_in_flight_is_answered_before_the_server_ends(tmp_path: Path) -> None:
    async with running(tmp_path) as cloud:
        held = True
        cloud.store.fault_of = lambda _txn: Fault.LOST if held else Fault.NONE
        creation = asyncio.ensure_future(cloud.server.call("create_mesh", meshName="m"))
        await asyncio.wait([creation], timeout=0.3)
        cloud.server.http.should_exit = True
        await asyncio.wait([creation], timeout=0.3)
        assert not creation.done()
        held = False
        assert (await creation)["mesh"]["meshName"] == "m"


async def test_a_write_that_outlasts_the_server_is_told_that_nobody_knows(tmp_path: Path) -> None:
    async with running(tmp_path, bounds=HttpBounds(drain_s=0.1), append_s=20) as cloud:
        cloud.store.fault_of = lambda _txn: Fault.LOST
        write = asyncio.ensure_future(ask(cloud.server, "PUT", "/v20190125/meshes", {"meshName": "m"}))
        await asyncio.wait([write], timeout=0.3)
        cloud.server.http.should_exit = True
        reply = await write
        assert (reply.status, reply.code) == (503, "ServiceUnavailableException")
        assert "Whether it was carried out is not known" in reply.document["message"]
        assert reply.headers["connection"] == "close"


async def test_another_server_takes_over_what_one_has_left_unknown(pair: Cloud) -> None:
    """One server sends and never hears; the caller goes to the other with its token."""
    left, right = pair.servers
    lost = iter([Fault.LANDED] * 1000)
    pair.store.fault_of = lambda _txn: next(lost)
    first = asyncio.ensure_future(left.call("create_mesh", meshName="m", clientToken="t"))
    second = await right.call("create_mesh", meshName="m", clientToken="t")
    assert (await first)["mesh"] == second["mesh"]
    assert len(await pair.records()) == 1
