"""Whatever is wrong with a call comes back in AWS's shape, names what is wrong, and leaves nothing in the log."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from runtime.limits import BODY_SIZE_BYTES
from tests.api.conftest import ACCOUNT, ADMIN, Cloud, Server, call, running
from tests.api.signing import Reply, Signing, ask
from tests.conditions import PATIENCE_S

NODES = "/v20190125/meshes/m/virtualNodes"
ROUTES = "/v20190125/meshes/m/virtualRouter/r/routes"
LISTENER = {"portMapping": {"port": 80, "protocol": "http"}}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server with a mesh and a router; afterwards the log must hold no more, and the server must still answer."""
    async with running(tmp_path) as cloud:
        client = cloud.server.client()
        await call(client, "create_mesh", meshName="m")
        await call(client, "create_virtual_router", meshName="m", virtualRouterName="r", spec={"listeners": [LISTENER]})
        before = await cloud.records()
        yield cloud.server
        assert await cloud.records() == before
        await call(client, "describe_mesh", meshName="m")


def assert_error(reply: Reply, status: int, code: str, *named: str) -> None:
    assert (reply.status, reply.code) == (status, code), reply
    assert reply.document["__type"] == code
    assert reply.headers["x-amzn-requestid"]
    assert parsedate_to_datetime(reply.headers["date"])
    assert reply.headers["content-type"] == "application/json"
    for word in named:
        assert word in reply.document["message"], reply.document
    assert "Traceback" not in reply.document["message"]


def node(**spec: Any) -> dict[str, Any]:
    return {"virtualNodeName": "n", "spec": spec}


def route(target: str) -> dict[str, Any]:
    action = {"weightedTargets": [{"virtualNode": target, "weight": 1}]}
    return {"routeName": "x", "spec": {"httpRoute": {"match": {"prefix": "/"}, "action": action}}}


DEEP = b'{"virtualNodeName":"n","spec":{"x":' + b"[" * 200 + b"]" * 200 + b"}}"
BAD: list[tuple[str, str, Any, int, str, list[str]]] = [
    ("unknown field", NODES, node(listenerz=[]), 400, "BadRequestException", ["spec.listenerz"]),
    ("unknown member", NODES, {**node(), "colour": "red"}, 400, "BadRequestException", ["colour"]),
    ("wrong type", NODES, node(listeners=[{"portMapping": {"port": "eighty", "protocol": "http"}}]), 400,
     "BadRequestException", ["spec.listeners[0].portMapping.port", "eighty"]),
    ("two problems", NODES, node(listeners=[{"portMapping": {"port": 0, "protocol": "smtp"}}]), 400,
     "BadRequestException", ["portMapping.port", "portMapping.protocol", "smtp"]),
    ("missing name", NODES, {"spec": {}}, 400, "BadRequestException", ["virtualNodeName"]),
    ("member of the URI", NODES, {**node(), "meshName": "other"}, 400, "BadRequestException", ["meshName"]),
    ("dangling target", ROUTES, route("nobody"), 404, "NotFoundException", ["nobody"]),
    ("missing mesh", "/v20190125/meshes/none/virtualNodes", node(), 404, "NotFoundException", ["none"]),
    ("taken name", "/v20190125/meshes", {"meshName": "m"}, 409, "ConflictException", ["m"]),
    ("bad token", NODES, {**node(), "clientToken": "no spaces, please"}, 400, "BadRequestException", ["clientToken"]),
    ("bad owner", NODES + "?meshOwner=12", node(), 400, "BadRequestException", ["meshOwner"]),
    ("other owner", NODES + "?meshOwner=999999999999", node(), 403, "ForbiddenException", ["999999999999"]),
    ("query twice", NODES + "?meshOwner=1&meshOwner=2", node(), 400, "BadRequestException", ["meshOwner"]),
    ("tag twice", NODES, {**node(), "tags": [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]}, 400,
     "BadRequestException", ["tags"]),
    ("no JSON", NODES, b"{", 400, "BadRequestException", ["line 1"]),
    ("no object", NODES, b"[]", 400, "BadRequestException", ["object"]),
    ("no UTF-8", NODES, b'{"a":"\xff"}', 400, "BadRequestException", ["UTF-8"]),
    ("name twice", NODES, b'{"spec":{},"spec":{}}', 400, "BadRequestException", ["spec"]),
    ("NaN", NODES, b'{"spec":NaN}', 400, "BadRequestException", ["NaN"]),
    ("infinite", NODES, b'{"spec":1e999}', 400, "BadRequestException", ["number"]),
    ("huge integer", NODES, b'{"spec":' + b"9" * 40 + b"}", 400, "BadRequestException", ["number"]),
    ("endless digits", NODES, b'{"spec":' + b"9" * 9000 + b"}", 400, "BadRequestException", ["digits"]),
    ("half a pair", NODES, b'{"virtualNodeName":"\\ud800","spec":{}}', 400, "BadRequestException", ["surrogate"]),
    ("deep", NODES, DEEP, 400, "BadRequestException", ["deeper"]),
    ("bottomless", NODES, b"[" * 500_000, 400, "BadRequestException", ["deeper"]),
    ("undeclared path", "/v20190125/meshs", {}, 404, "UnknownOperationException", ["/v20190125/meshs"]),
    ("undeclared deep path", NODES + "/n/x", {}, 404, "UnknownOperationException", []),
    ("new line in a path", "/v20190125/%0A", {}, 404, "UnknownOperationException", []),
    ("no UTF-8 in a path", "/v20190125/meshes/%FF/virtualNodes", node(), 400, "BadRequestException", ["meshName"]),
    ("big spec", NODES, node(logging={"accessLog": {"file": {"path": "/x", "format": {"json": [
        {"key": "k" * 100, "value": "v" * 100} for _ in range(800)]}}}}), 400, "BadRequestException", ["spec"]),
]  # fmt: skip


async def test_bad_input(server: Server) -> None:
    for _, target, body, status, code, named in BAD:
        assert_error(await ask(server, "PUT", target, body), status, code, *named)


async def test_a_bad_limit_is_named(server: Server) -> None:
    for limit in ("0", "101", "x", "1.5", "99999999999999999999", ""):
        assert_error(await ask(server, "GET", f"/v20190125/meshes?limit={limit}"), 400, "BadRequestException", "limit")


UNSIGNED = Signing(key=None)
REFUSED: list[tuple[str, Signing, str, str]] = [
    ("no credentials", UNSIGNED, "MissingAuthenticationTokenException", "SigV4"),
    ("wrong secret", Signing(key=(ADMIN.access_key_id, "guess")), "InvalidSignatureException", "signature"),
    ("unknown key", Signing(key=("AKIANOBODYKNOWSTHIS1", ADMIN.secret)), "InvalidSignatureException", "signature"),
    ("expired", Signing(shift_s=-600), "InvalidSignatureException", "Signature expired: "),
    ("from the future", Signing(shift_s=600), "InvalidSignatureException", "not yet current"),
    ("session token", Signing(session_token="FwoG"), "UnrecognizedClientException", "temporary credentials"),
    ("other service", Signing(service="s3"), "IncompleteSignatureException", "s3"),
]


async def test_bad_credentials(server: Server) -> None:
    for _, signing, code, named in REFUSED:
        # The body is bad too, and must not be looked at.
        assert_error(await ask(server, "PUT", "/v20190125/meshes", b"{", signing), 403, code, named)


async def test_the_size_is_looked_at_before_the_signature(server: Server) -> None:
    reply = await ask(server, "PUT", "/v20190125/meshes", b" " * (BODY_SIZE_BYTES + 1), UNSIGNED)
    assert_error(reply, 413, "RequestEntityTooLargeException", str(BODY_SIZE_BYTES))
    assert reply.headers["connection"] == "close"


async def test_a_body_of_the_greatest_size_is_read(server: Server) -> None:
    reply = await ask(server, "PUT", "/v20190125/meshes", b'{"meshName":' + b" " * (BODY_SIZE_BYTES - 15) + b'""}')
    assert_error(reply, 400, "BadRequestException", "meshName")


async def test_100_mib_are_refused_before_a_byte_of_them_is_read(server: Server) -> None:
    head = f"PUT {NODES} HTTP/1.1\r\nhost: x\r\ncontent-length: {100 * 2**20}\r\nexpect: 100-continue\r\n\r\n".encode()

    def exchange() -> bytes:
        with _connected(server) as connection:
            connection.sendall(head)
            return connection.recv(65536)

    assert (await asyncio.to_thread(exchange)).startswith(b"HTTP/1.1 413 ")


async def test_a_client_that_sends_100_mib_before_it_reads_gets_the_answer_too(server: Server) -> None:
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def exchange() -> bytes:
        chunk = bytes(2**20)
        with _connected(server) as connection:
            connection.sendall(f"PUT {NODES} HTTP/1.1\r\nhost: x\r\ncontent-length: {100 * 2**20}\r\n\r\n".encode())
            for _ in range(100):
                connection.sendall(chunk)
            answer = b""
            while received := connection.recv(65536):
                answer += received
            return answer

    assert (await asyncio.to_thread(exchange)).startswith(b"HTTP/1.1 413 ")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 40 * 1024


async def test_a_body_without_a_stated_size_is_cut_off_at_the_cap(server: Server) -> None:
    def exchange() -> tuple[int, bytes]:
        chunk = b"100000\r\n" + bytes(2**20) + b"\r\n"
        sent = 0
        with _connected(server) as connection:
            connection.sendall(f"PUT {NODES} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode())
            try:
                for _ in range(64):
                    connection.sendall(chunk)
                    sent += 1
            except OSError:
                return sent, b"cut"
            return sent, connection.recv(65536)

    sent_mib, _ = await asyncio.to_thread(exchange)
    assert sent_mib < 32


async def test_bytes_that_are_no_http_do_not_end_the_server(server: Server) -> None:
    def exchange() -> bytes:
        with _connected(server) as connection:
            connection.sendall(b"\x16\x03\x01 this is TLS\r\n\r\n")
            return connection.recv(65536)

    assert (await asyncio.to_thread(exchange)).startswith(b"HTTP/1.1 400 ")


async def test_no_bad_byte_of_a_good_request_makes_a_fault_of_ours(server: Server) -> None:
    """The body of a create with one byte changed: refused as 4xx or 200, never 500."""
    body = json.dumps({"virtualNodeName": "n", "spec": {"listeners": [{"portMapping": {"port": 0}}]}}).encode()
    for at in range(0, len(body), 3):
        changed = body[:at] + bytes([body[at] ^ 0x11]) + body[at + 1 :]
        assert (await ask(server, "PUT", NODES, changed)).status in (400, 404, 409), changed


async def test_an_error_of_a_missing_quorum_is_unavailable_and_says_when_to_come_back(tmp_path: Path) -> None:
    async with running(tmp_path, command_s=0.4, read_s=0.2, append_s=0.1) as cloud:
        cloud.store.reachable = False
        read = await ask(cloud.server, "GET", "/v20190125/meshes")
        assert_error(read, 503, "ServiceUnavailableException")
        assert read.headers["retry-after"] == "1"
        write = await ask(cloud.server, "PUT", "/v20190125/meshes", {"meshName": "m"})
        assert_error(write, 503, "ServiceUnavailableException", "same clientToken")


async def test_boto3_repeats_an_unknown_outcome_with_its_token_and_it_is_one_event(tmp_path: Path) -> None:
    async with running(tmp_path, command_s=0.3, append_s=0.1) as cloud:
        client = cloud.server.client(retries={"total_max_attempts": 6, "mode": "standard"})
        cloud.store.reachable = False
        creation = asyncio.ensure_future(call(client, "create_mesh", meshName="m"))
        await asyncio.wait([creation], timeout=0.5)
        assert not creation.done()
        cloud.store.reachable = True
        answer = await creation
        assert answer["ResponseMetadata"]["RetryAttempts"] >= 1
        assert [record.type for record in await cloud.records()] == ["ResourceCreated"]
        assert (await cloud.server.call("describe_mesh", meshName="m"))["mesh"] == answer["mesh"]


async def test_two_servers_and_one_token_over_http(pair: Cloud) -> None:
    clients = [server.client() for server in pair.servers]
    for race in range(15):
        arguments = {"meshName": f"m{race}", "clientToken": f"token-{race}"}
        left, right = await asyncio.gather(*(call(client, "create_mesh", **arguments) for client in clients))
        assert left["mesh"] == right["mesh"]
        headers = [answer["ResponseMetadata"]["HTTPHeaders"]["x-meshlog-position"] for answer in (left, right)]
        assert headers[0] == headers[1]
    assert len(await pair.records()) == 15
    assert (await pair.records())[0].account == ACCOUNT


def _connected(server: Server) -> socket.socket:
    parts = urlsplit(server.url)
    return socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=PATIENCE_S)


async def test_the_date_header_is_the_clock_that_judges_signatures(server: Server) -> None:
    reply = await ask(server, "GET", "/v20190125/meshes")
    assert abs(parsedate_to_datetime(reply.headers["date"]).timestamp() - time.time()) < PATIENCE_S
