"""The main job: a mesh described with boto3, real requests through a real Envoy, weights, changes, and a rollback."""

from __future__ import annotations

import time
from functools import partial

from chaos.cluster import Cluster
from chaos.example import within_sampling_error
from chaos.traffic import Traffic, ask_many, quantiles
from tests.conditions import eventually
from tests.e2e import figures
from tests.e2e.conftest import Gateway

REQUESTS = 1_000
CHANGES = 20


def only_upstream(traffic: Traffic, name: str, since_s: float = float("-inf")) -> bool:
    """Whether the newest answers, all to requests due after `since_s`, come from `name`."""
    recent = traffic.recent(10)
    return len(recent) == 10 and all(sample.upstream == name and sample.at_s >= since_s for sample in recent)


def test_weights_hold_within_sampling_error(gateway: Gateway) -> None:
    gateway.canary.set_weights(gateway.client, 90, 10)
    report = ask_many("127.0.0.1", gateway.port, REQUESTS)
    assert not report.failed, report.explained(gateway.envoy.failures())
    assert within_sampling_error(report.counts()["v2"], REQUESTS, 0.10), report.counts()
    assert sum(report.counts().values()) == REQUESTS


def test_twenty_changes_are_each_seen_by_traffic(gateway: Gateway) -> None:
    gateway.canary.set_weights(gateway.client, 100, 0)
    seen_ms: list[float] = []
    settled_ms: list[float] = []
    with Traffic("127.0.0.1", gateway.port, rate_per_s=250.0) as traffic:
        eventually(lambda: only_upstream(traffic, "v1"), what="traffic to v1 alone")
        for change in range(CHANGES):
            new, old, weights = ("v2", "v1", (0, 100)) if change % 2 == 0 else ("v1", "v2", (100, 0))
            sent_s = time.monotonic()
            gateway.canary.set_weights(gateway.client, *weights)
            answered_s = time.monotonic()
            eventually(partial(only_upstream, traffic, new, sent_s), what=f"change {change} in traffic")
            samples = [sample for sample in traffic.snapshot() if sample.at_s >= sent_s]
            # A change may be in the traffic before the API's answer is at the client.
            first_new_s = min(sample.at_s for sample in samples if sample.upstream == new)
            last_old_s = max((sample.at_s for sample in samples if sample.upstream == old), default=answered_s)
            seen_ms.append((first_new_s - sent_s) * 1e3)
            settled_ms.append(max(0.0, (last_old_s - answered_s) * 1e3))
    report = traffic.stop()
    figures.report("change seen by traffic after the API call began, ms", **quantiles(seen_ms))
    figures.report("last request by the old weights after the API answer, ms", **quantiles(settled_ms))
    assert not report.failed, report.explained(gateway.envoy.failures())


def test_a_rollback_restores_the_weights_and_the_log_says_who_and_what(cluster: Cluster, gateway: Gateway) -> None:
    mesh = gateway.canary.mesh
    good = gateway.canary.set_weights(gateway.client, 100, 0)
    position = good["ResponseMetadata"]["HTTPHeaders"]["x-meshlog-position"]
    gateway.canary.set_weights(gateway.client, 0, 100)
    eventually(lambda: ask_many("127.0.0.1", gateway.port, 20).counts() == {"v2": 20}, what="the bad change")

    dry = cluster.run("rollback", "--mesh", mesh, "--to", position.rpartition(".")[2], "--dry-run")
    assert gateway.canary.route in dry
    assert ask_many("127.0.0.1", gateway.port, 20).counts() == {"v2": 20}, "a dry run must change nothing"

    cluster.run("rollback", "--mesh", mesh, "--to", position.rpartition(".")[2], "--yes")
    eventually(lambda: ask_many("127.0.0.1", gateway.port, 20).counts() == {"v1": 20}, what="the rollback")

    described = gateway.client.describe_route(
        meshName=mesh, virtualRouterName=gateway.canary.router, routeName=gateway.canary.route
    )["route"]
    assert described["spec"] == gateway.canary.route_spec(100, 0)
    assert described["metadata"]["uid"] == good["route"]["metadata"]["uid"]
    assert described["metadata"]["version"] > good["route"]["metadata"]["version"] + 1, "a version never repeats"

    events = cluster.log(mesh)
    assert [event["position"] for event in events] == sorted(event["position"] for event in events)
    assert all(event["actor"] and event["time"] and event["account"] for event in events)
    assert events[-2]["resource"].endswith(gateway.canary.route)
    assert "roll" in events[-1]["type"].lower()


def test_envoy_took_every_update(gateway: Gateway) -> None:
    """The second witness: nothing was rejected and nothing waits."""
    stats = gateway.envoy.stats("update_rejected|update_success|warming")
    assert any(name.endswith("update_success") and value for name, value in stats.items())
    assert not {name: value for name, value in stats.items() if value and not name.endswith("update_success")}
