"""The API bench: callers make real calls, and what is told of their rounds belongs together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.api import MESH, NODE, compared, load, prepare, raw, told, turns
from bench.write_to_ack import api_client
from tests.api.conftest import ADMIN, REGION
from tests.clients.servers import api_server


def test_callers_describe_and_create_over_http(tmp_path: Path) -> None:
    with api_server(tmp_path) as cloud:
        environment = {
            "AWS_ENDPOINT_URL_APP_MESH": cloud.server.url,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": ADMIN.access_key_id,
            "AWS_SECRET_ACCESS_KEY": ADMIN.secret,
        }
        client = api_client(environment)
        prepare(client)
        with load(environment) as process:
            described = process.round("describe", [cloud.server.url], 2, 0.2)
            created = process.round("create", [cloud.server.url], 3, 0.2)
            refused = process.round("describe", [f"{cloud.server.url}/nowhere"], 1, 0.1)
        pages = client.get_paginator("list_virtual_nodes").paginate(meshName=MESH)
        names = {node["virtualNodeName"] for page in pages for node in page["virtualNodes"]}
    assert described["n"] > 0
    assert not described["failed"]
    assert len(names - {NODE}) == created["n"] > 0
    assert refused["n"] == 0
    assert set(refused["failed"]) == {"404 UnknownOperationException"}


def test_a_round_is_told_in_calls_a_second_and_quantiles() -> None:
    answer = {"latencies_us": [1000, 2000, 9000], "took_s": 1.5, "cpu_s": 0.3, "errors": {"503 X": 2}}
    assert told(answer) == {
        "calls_per_s": 2.0, "n": 3, "p50_ms": 2.0, "p99_ms": 9.0, "max_ms": 9.0, "client_cpu_share": 0.2,
        "failed": {"503 X": 2},
    }  # fmt: skip


def a_round(calls_per_s: float, p99_ms: float, **failed: int) -> dict[str, Any]:
    return {"calls_per_s": calls_per_s, "n": 1, "p50_ms": 1.0, "p99_ms": p99_ms, "max_ms": 1.0, "failed": failed}


def test_medians_are_compared_and_every_failure_counts() -> None:
    ours = [a_round(10, 4), a_round(90, 9, Conflict=1), a_round(50, 6)]
    line = compared("create", 16, "raw_etcd", ours, [a_round(100, 3)] * 3)
    assert (line["call"], line["callers"], line["throughput_ratio"], line["p99_ratio"]) == ("create", 16, 0.5, 2.0)
    assert (line["meshlog"]["calls_per_s"], line["meshlog"]["p99_ms"], line["meshlog"]["failed"]) == (50, 6, 1)


def test_raw_appends_are_told_in_the_same_words() -> None:
    answer = {"events_per_s": 5.0, "n": 9, "p50_ms": 1, "p99_ms": 2, "max_ms": 3, "event_bytes": 500, "lost_races": 7}
    assert raw(answer) == {
        "calls_per_s": 5.0, "n": 9, "p50_ms": 1, "p99_ms": 2, "max_ms": 3, "event_bytes": 500, "failed": {},
    }  # fmt: skip


def test_rounds_take_turns() -> None:
    order: list[str] = []

    def one(name: str) -> Any:
        def run(callers: int) -> dict[str, Any]:
            order.append(f"{name}{callers}")
            return {}

        return run

    turns(2, 16, one("ours"), one("theirs"))
    assert order == ["ours16", "theirs16", "ours16", "theirs16"]
