"""The health port: status codes that machines read, reasons that people read, and bounds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry, Counter

from runtime.health import HealthServer
from runtime.limits import HEALTH_CONNECTIONS_MAX, HEALTH_REQUEST_BYTES_MAX


@dataclass
class Role:
    """A role whose health the test decides."""

    reasons: dict[str, str] = field(default_factory=dict)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    port: int = 0

    async def raw(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()

    async def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        answer = await self.raw(f"{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), body.decode()


@pytest.fixture
async def role() -> AsyncIterator[Role]:
    role = Role()
    server = HealthServer(
        checks={"log": lambda: role.reasons.get("log"), "feed": lambda: role.reasons.get("feed")},
        status=lambda: {"role": "projector", "position": "1.5"},
        registry=role.registry,
    )
    role.port = await server.start("127.0.0.1", 0)
    yield role
    await server.stop()


async def test_ready_when_every_check_passes_and_why_not_when_one_fails(role: Role) -> None:
    assert await role.get("/readyz") == (200, "feed: ok\nlog: ok\n")
    role.reasons["log"] = "the fold stopped after 1.5"
    assert await role.get("/readyz?verbose") == (503, "log: the fold stopped after 1.5\nfeed: ok\n")


async def test_live_whatever_the_checks_say(role: Role) -> None:
    role.reasons["log"] = "down"
    assert await role.get("/livez") == (200, "ok\n")


async def test_status_is_json_and_metrics_are_prometheus_text(role: Role) -> None:
    status, body = await role.get("/status")
    assert (status, json.loads(body)) == (200, {"role": "projector", "position": "1.5"})
    Counter("meshlog_test", "A counter.", registry=role.registry).inc(3)
    status, body = await role.get("/metrics")
    assert status == 200
    assert "meshlog_test_total 3.0" in body


async def test_anything_else_is_refused(role: Role) -> None:
    assert (await role.get("/"))[0] == 404
    assert (await role.get("/readyz", method="POST"))[0] == 405
    assert await role.get("/livez", method="HEAD") == (200, "")


async def test_a_request_that_is_too_large_or_never_ends_gets_nothing(role: Role) -> None:
    assert await role.raw(b"GET /livez HTTP/1.1\r\n" + b"x: y\r\n" * HEALTH_REQUEST_BYTES_MAX) == b""
    assert await role.raw(b"\x16\x03\x01\r\n\r\n") != b""
    assert (await role.get("/livez"))[0] == 200


async def test_connections_are_bounded_and_those_that_idle_are_closed(role: Role) -> None:
    idle = [await asyncio.open_connection("127.0.0.1", role.port) for _ in range(HEALTH_CONNECTIONS_MAX)]
    assert await role.raw(b"GET /livez HTTP/1.1\r\n\r\n") == b""
    for _, writer in idle:
        writer.close()
        await writer.wait_closed()
    deadline = asyncio.get_running_loop().time() + 60.0
    while (answer := await role.raw(b"GET /livez HTTP/1.1\r\n\r\n")) == b"":
        assert asyncio.get_running_loop().time() < deadline
    assert answer.startswith(b"HTTP/1.1 200 ")
