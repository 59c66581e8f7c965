"""The audit: accepted and refused calls in CloudTrail's shape, bounded under a flood, and nobody's but an admin's."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from api.audit_sources import Item, Stretch, merge
from api.refusals import AuditMetrics, RefusedCalls
from api.trail import HIDDEN, NOT_RECORDED, Attempt, claimed_key
from eventlog.archive.memory import MemoryObjectStore
from eventlog.audit import open_segment, parse_segment
from eventlog.records import KeyClass
from eventlog.sealing import DataKey
from mesh.errors import Unavailable
from runtime.limits import AUDIT_QUEUE_MAX, AUDIT_SOURCE_BURST
from tests.api.conftest import ACCOUNT, ADMIN, REGION, Cloud, call
from tests.api.signing import Signing, ask
from tests.eventlog.logs import SeededEntropy, ToldClock
from tests.eventlog.test_audit import Keys

MESHLOG = Signing(service="meshlog")
KEY = DataKey("config-1", KeyClass.CONFIG, bytes(range(32)), 1)
WORD = "velociraptor"
CLOUD_TRAIL = {
    "eventVersion", "userIdentity", "eventTime", "eventSource", "eventName", "awsRegion", "sourceIPAddress",
    "userAgent", "errorCode", "errorMessage", "requestParameters", "responseElements", "requestID", "eventID",
    "readOnly", "eventType", "recipientAccountId", "managementEvent", "eventCategory",
}  # fmt: skip


async def audit(cloud: Cloud, **query: str) -> list[dict[str, Any]]:
    """Every page."""
    found: list[dict[str, Any]] = []
    after: str | None = None
    while True:
        asked = query | ({"after": after} if after else {})
        target = "/meshlog/v1/audit?" + "&".join(f"{name}={value.replace('+', '%2B')}" for name, value in asked.items())
        reply = await ask(cloud.server, "GET", target.rstrip("?"), b"", MESHLOG)
        assert reply.status == 200, reply
        found += reply.document["events"]
        after = reply.document["next"]
        if after is None:
            return found


@pytest.fixture
async def used(cloud: Cloud) -> Cloud:
    """Two accepted calls and five refused ones, in the order of the tests' names for them."""
    server = cloud.server
    client = server.client()
    await call(client, "create_mesh", meshName="m")
    await ask(server, "GET", "/v20190125/meshes/m", b"", Signing(key=(ADMIN.access_key_id, "wrong")))
    await ask(server, "GET", "/v20190125/meshes/m", b"", Signing(shift_s=-3600))
    await ask(server, "PUT", "/v20190125/meshes", {"meshName": "m", "spec": {"egressFilter": {"type": WORD}}})
    with pytest.raises(client.exceptions.ConflictException):
        await call(client, "create_mesh", meshName="m", tags=[{"key": "secret", "value": WORD}])
    await ask(server, "GET", f"/nowhere/{WORD}")
    spec = {"serviceDiscovery": {"dns": {"hostname": "n.example"}}}
    await call(client, "create_virtual_node", meshName="m", virtualNodeName="n", spec=spec)
    await server.refused.flush()
    return cloud


async def test_every_call_is_there_once_in_order_and_in_cloudtrails_shape(used: Cloud) -> None:
    events = await audit(used)
    assert [(event["eventName"], event["errorCode"]) for event in events] == [
        ("CreateAccessKey", None),
        ("CreateMesh", None),
        ("DescribeMesh", "InvalidSignatureException"),
        ("DescribeMesh", "InvalidSignatureException"),
        ("CreateMesh", "BadRequestException"),
        ("CreateMesh", "ConflictException"),
        ("UnknownOperation", "UnknownOperationException"),
        ("CreateVirtualNode", None),
    ]
    assert all(event.keys() >= CLOUD_TRAIL for event in events)
    assert {event["eventSource"] for event in events[1:]} == {"appmesh.amazonaws.com"}
    assert {event["awsRegion"] for event in events} == {REGION}
    assert [event["readOnly"] for event in events[1:4]] == [False, True, True]
    assert len({event["eventID"] for event in events}) == len(events)
    assert events == await audit(used), "an event keeps its id"


async def test_an_accepted_call_names_who_what_and_where(used: Cloud) -> None:
    node = (await audit(used))[-1]
    identity = node["userIdentity"]
    assert (identity["type"], identity["arn"], identity["accountId"]) == ("IAMUser", ADMIN.principal, ACCOUNT)
    assert identity["accessKeyId"] == ADMIN.access_key_id
    assert node["requestParameters"] == {"meshName": "m", "virtualNodeName": "n", "spec": HIDDEN}
    assert (node["responseElements"], node["recipientAccountId"]) == ({"position": "1.3"}, ACCOUNT)
    assert (node["sourceIPAddress"], node["errorMessage"]) == ("127.0.0.1", None)


async def test_a_refused_call_names_what_is_known_and_hides_the_rest(used: Cloud) -> None:
    forged, expired, bad, conflict, unknown = await audit(used, status="refused")
    assert forged["userIdentity"] == {
        "type": "Unknown", "principalId": None, "arn": None, "accountId": None, "accessKeyId": ADMIN.access_key_id,
    }  # fmt: skip
    assert forged["requestParameters"] == {"meshName": "m"}
    assert "Signature expired" in expired["errorMessage"]
    assert bad["requestParameters"] is None or WORD not in json.dumps(bad["requestParameters"])
    assert conflict["userIdentity"]["arn"] == ADMIN.principal
    assert conflict["requestParameters"]["meshName"] == "m"
    assert conflict["requestParameters"]["tags"] == HIDDEN
    assert unknown["requestParameters"] == {"method": "GET", "path": f"/nowhere/{WORD}"}


async def test_segments_hold_nothing_in_the_clear(used: Cloud) -> None:
    assert used.server.archive.objects
    assert not any(WORD.encode() in data for data in used.server.archive.objects.values())


async def test_filters(used: Cloud) -> None:
    everything = await audit(used)
    assert len(await audit(used, status="accepted")) == 3
    assert len(await audit(used, status="refused")) == 5
    assert [event["eventName"] for event in await audit(used, mesh="m", status="accepted")] == [
        "CreateMesh",
        "CreateVirtualNode",
    ]
    assert len(await audit(used, actor=ADMIN.principal)) == 5
    assert len(await audit(used, actor=ADMIN.access_key_id)) == 8
    assert await audit(used, source_ip="192.0.2.1") == []
    assert await audit(used, since="2999-01-01T00:00:00Z") == []
    assert await audit(used, until="2001-01-01T00:00:00+01:00") == []
    assert await audit(used, since="2001-01-01T00:00:00Z") == everything


@pytest.mark.parametrize("limit", ["1", "2", "3", "7"])
async def test_pages_of_any_size_give_the_same_trail(used: Cloud, limit: str) -> None:
    assert await audit(used, limit=limit) == await audit(used)


async def test_refused_calls_of_all_servers_are_one_trail(pair: Cloud) -> None:
    for number in range(6):
        server = pair.servers[number % 2]
        await ask(server, "GET", f"/nowhere/{number}")
        await server.refused.flush()
    paths = [event["requestParameters"]["path"] for event in await audit(pair, status="refused", limit="2")]
    assert paths == [f"/nowhere/{number}" for number in range(6)]


@pytest.mark.parametrize(
    "query", ["status=maybe", "since=yesterday", "since=2026-11-22T10:42:00", "limit=0", "after=x", "colour=red"]
)
async def test_a_bad_question_is_a_bad_request(cloud: Cloud, query: str) -> None:
    reply = await ask(cloud.server, "GET", f"/meshlog/v1/audit?{query}", b"", MESHLOG)
    assert (reply.status, reply.code) == (400, "BadRequestException")
    assert query.partition("=")[0] in reply.document["message"]


async def test_a_damaged_segment_is_no_answer_rather_than_a_wrong_one(used: Cloud) -> None:
    objects = used.server.archive.objects
    name, data = next(iter(objects.items()))
    objects[name] = data[:-1] + bytes([data[-1] ^ 1])
    reply = await ask(used.server, "GET", "/meshlog/v1/audit", b"", MESHLOG)
    assert reply.status == 503


def attempt(source_ip: str = "192.0.2.1", number: int = 0) -> Attempt:
    return Attempt(f"r{number}", 1_000_000 + number, source_ip, "GET", f"/nowhere/{number}")


class Archive(MemoryObjectStore):
    """An archive that can be down."""

    down = False

    async def put_new(self, name: str, data: bytes) -> bool:
        if self.down:
            raise Unavailable("the archive is down")
        return await super().put_new(name, data)


def recorder(archive: Archive, clock: ToldClock) -> tuple[RefusedCalls, CollectorRegistry]:
    registry = CollectorRegistry()

    async def keys() -> tuple[str, DataKey, None]:
        return "a-log", KEY, None

    metrics = AuditMetrics(registry)
    return RefusedCalls(archive, "api-z1", keys, clock, SeededEntropy(), region=REGION, metrics=metrics), registry


async def segments(archive: Archive) -> list[tuple[int, Mapping[str, int]]]:
    """Entries and counts of each segment."""
    opened = [open_segment(parse_segment(*each), Keys(KEY)) for each in archive.objects.items()]
    return [(len(refusals.entries), refusals.dropped) for refusals in opened]


async def test_a_flood_of_one_source_becomes_one_object_and_a_count() -> None:
    archive, clock = Archive(), ToldClock()
    calls, registry = recorder(archive, clock)
    for number in range(10_000):
        calls.refused(attempt(number=number), "InvalidSignatureException", "no")
    await calls.flush()
    await calls.flush()
    dropped = 10_000 - AUDIT_SOURCE_BURST
    assert await segments(archive) == [(AUDIT_SOURCE_BURST, {"InvalidSignatureException": dropped})]
    labels = {"code": "InvalidSignatureException"}
    assert registry.get_sample_value("meshlog_audit_refused_total", labels) == 10_000
    assert registry.get_sample_value("meshlog_audit_dropped_total", labels) == dropped


async def test_a_flood_of_many_sources_is_bounded_too() -> None:
    archive, clock = Archive(), ToldClock()
    calls, _ = recorder(archive, clock)
    for number in range(3 * AUDIT_QUEUE_MAX):
        calls.refused(attempt(f"2001:db8::{number:x}", number), "InvalidSignatureException", "x" * 100_000)
    await calls.flush()
    assert await segments(archive) == [(AUDIT_QUEUE_MAX, {"InvalidSignatureException": 2 * AUDIT_QUEUE_MAX})]
    assert len(next(iter(archive.objects.values()))) < 1_000_000


async def test_an_archive_that_is_down_delays_segments_and_loses_none() -> None:
    archive, clock = Archive(), ToldClock()
    calls, _ = recorder(archive, clock)
    archive.down = True
    calls.refused(attempt(number=1), "ConflictException", "no")
    for _ in range(3):
        with pytest.raises(Unavailable):
            await calls.flush()
    calls.refused(attempt(number=2), "ConflictException", "no")
    archive.down = False
    await calls.close()
    assert await segments(archive) == [(1, {}), (1, {})]


async def test_a_count_alone_is_told_as_an_event(cloud: Cloud) -> None:
    for number in range(AUDIT_SOURCE_BURST + 5):
        cloud.server.refused.refused(attempt(number=number), "ForbiddenException", "no")
    await cloud.server.refused.flush()
    last = (await audit(cloud, status="refused"))[-1]
    assert (last["eventName"], last["serviceEventDetails"]) == (NOT_RECORDED, {"refusals": {"ForbiddenException": 5}})


def test_a_claimed_key_is_what_the_header_names() -> None:
    header = "AWS4-HMAC-SHA256 Credential=AKIAX123/20261122/eu-north-1/appmesh/aws4_request, SignedHeaders=host, ..."
    assert claimed_key(header) == "AKIAX123"
    assert (claimed_key(""), claimed_key("Bearer abc"), claimed_key("Credential=../etc/passwd/")) == ("", "", "")


def test_merging_never_gives_what_a_source_may_still_come_before() -> None:
    """Two sources in random stretches and pages of random size: everything, once, in order."""
    chance = random.Random(7)  # noqa: S311 - a test's seed
    for _ in range(300):
        sources = [sorted(chance.sample(range(40), 12)) for _ in range(2)]
        cursors: list[Any] | None = [-1, -1]
        given: list[int] = []
        for _ in range(500):
            if cursors is None:
                break
            stretches = [
                _stretch(times, after, chance.randint(1, 6)) for times, after in zip(sources, cursors, strict=True)
            ]
            page, cursors = merge(stretches, cursors, chance.randint(1, 5))
            given += [item.time_us for item in page]
        assert given == sorted(sources[0] + sources[1])


def _stretch(times: list[int], after: int, looks_at: int) -> Stretch:
    rest = [time for time in times if time > after]
    seen = rest[:looks_at]
    return Stretch(
        [Item(time, time, {}) for time in seen],
        seen[-1] if seen else after,
        seen[-1] if len(rest) > len(seen) else float("inf"),
    )
