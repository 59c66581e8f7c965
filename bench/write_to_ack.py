"""Write to ACK: how long until a change of one route, sent by an App Mesh client, is acknowledged by one proxy.

    python -m bench.write_to_ack [--changes N] [--data-dir D] [--zones 3]

One change at a time; client, proxy and observers share the machine (and its cores) with the cluster. All moments are
taken in this process: the call's start and answer, the frame in a watch of etcd, the snapshot in a subscription of
the feed, the xDS response and its ACK. The yardstick is a Txn of the same shape (two compares, two puts, as many
bytes) sent straight to etcd.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import math
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
from botocore.config import Config
from botocore.session import Session

from bench import figures
from bench.cluster import MeasuredCluster, measured_cluster
from bench.log_observer import LogObserver, etcd_connection, raw_txns
from bench.proxy import ROUTE, Identity, TimingProxy
from identity.node_id import NodeId
from projector.feed.client import FeedClient, secure_channels
from projector.feed.port import NodeUpdate
from runtime.clock import SystemClock, SystemEntropy
from runtime.logging import configure_logging
from runtime.supervise import Supervisor

MESH, GATEWAY, ROUTER, SERVICE = "bench", "front", "web", "web.example.internal"
GATEWAY_PORT = 18_000
EGRESS_ROUTES = "rds_egress_http_15001"
HOP_TIMEOUT_S = 10.0
WARM_UP = 10


@dataclass(frozen=True, slots=True)
class Change:
    """The moments of one change, from `time.perf_counter`. `stamped_s` is the record's own time: the wall clock of
    the API server, which is this machine's, when it made the record.
    """

    position: int
    sent_s: float
    stamped_s: float
    answered_s: float
    committed_s: float
    fed_s: float
    arrived_s: float
    acked_s: float


HOPS = {
    "api_decide": ("call sent -> its record stamped: HTTP, signature, model, decide", "sent_s", "stamped_s"),
    "append": ("record stamped -> its frame seen in a watch of etcd: seal, Txn, watch", "stamped_s", "committed_s"),
    "api_out": ("frame seen in etcd -> answer at the client: fold, answer", "committed_s", "answered_s"),
    "feed": (
        "frame seen in etcd -> snapshot at a feed subscriber: follow, open, fold, compile",
        "committed_s",
        "fed_s",
    ),
    "xds_push": ("snapshot at a feed subscriber -> response at the proxy: frontend, gRPC", "fed_s", "arrived_s"),
    "ack": ("response at the proxy -> its ACK given to the transport", "arrived_s", "acked_s"),
    "api_call": ("call sent -> answer at the client", "sent_s", "answered_s"),
    "write_to_ack": ("call sent -> ACK by the proxy", "sent_s", "acked_s"),
}


def api_client(environment: dict[str, str]) -> Any:
    return Session().create_client(
        "appmesh",
        endpoint_url=environment["AWS_ENDPOINT_URL_APP_MESH"],
        region_name=environment["AWS_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        config=Config(retries={"total_max_attempts": 1, "mode": "standard"}),
    )


def route_spec(weight: int) -> dict[str, Any]:
    targets = [{"virtualNode": "one", "weight": 100 - weight}, {"virtualNode": "two", "weight": weight}]
    return {"httpRoute": {"match": {"prefix": "/"}, "action": {"weightedTargets": targets}}}


def create_mesh(client: Any) -> str:
    """A gateway in front of two nodes; returns the account."""
    account: str = client.create_mesh(meshName=MESH)["mesh"]["metadata"]["meshOwner"]
    for name, port in (("one", 18_001), ("two", 18_002)):
        listener = {"portMapping": {"port": port, "protocol": "http"}}
        spec = {"listeners": [listener], "serviceDiscovery": {"dns": {"hostname": "localhost"}}}
        client.create_virtual_node(meshName=MESH, virtualNodeName=name, spec=spec)
    listeners = [{"portMapping": {"port": 80, "protocol": "http"}}]
    client.create_virtual_router(meshName=MESH, virtualRouterName=ROUTER, spec={"listeners": listeners})
    client.create_route(meshName=MESH, virtualRouterName=ROUTER, routeName="route", spec=route_spec(0))
    provider = {"virtualRouter": {"virtualRouterName": ROUTER}}
    client.create_virtual_service(meshName=MESH, virtualServiceName=SERVICE, spec={"provider": provider})
    listeners = [{"portMapping": {"port": GATEWAY_PORT, "protocol": "http"}}]
    client.create_virtual_gateway(meshName=MESH, virtualGatewayName=GATEWAY, spec={"listeners": listeners})
    target = {"target": {"virtualService": {"virtualServiceName": SERVICE}}}
    spec = {"httpRoute": {"match": {"prefix": "/"}, "action": target}}
    client.create_gateway_route(meshName=MESH, virtualGatewayName=GATEWAY, gatewayRouteName="all", spec=spec)
    return account


class FeedObserver:
    """When the feed brought a node's snapshot of each position."""

    def __init__(self) -> None:
        self._seen: dict[int, float] = {}
        self._changed = asyncio.Event()

    def heard(self, update: NodeUpdate) -> None:
        self._seen.setdefault(update.position.position, time.perf_counter())
        self._changed.set()

    async def at(self, position: int) -> float:
        async with asyncio.timeout(HOP_TIMEOUT_S):
            while not (reached := [seen for seen in self._seen if seen >= position]):
                self._changed.clear()
                await self._changed.wait()
        return self._seen[min(reached)]


@asynccontextmanager
async def feed_observer(cluster: MeasuredCluster, node: NodeId) -> AsyncIterator[FeedObserver]:
    """A subscription like a frontend's own, at the projector of the first zone."""
    (zone, address), *_ = cluster.addresses("projector")
    files = cluster.data_dir / "zones" / zone / "frontend"
    credentials = grpc.ssl_channel_credentials(
        *((files / name).read_bytes() for name in ("role-ca.crt", "role.key", "role.crt"))
    )
    feed = FeedClient(
        zone=zone,
        projectors=[(zone, address)],
        channels=secure_channels(lambda: credentials),
        clock=SystemClock(),
        entropy=SystemEntropy(),
        frontend_id="bench",
        frontend_address="127.0.0.1:0",
    )
    observer = FeedObserver()
    async with Supervisor() as tasks:
        tasks.start(feed.run(), "feed")
        feed.watch(node, observer.heard)
        while not (await feed.confirm(HOP_TIMEOUT_S)).ok:
            pass
        yield observer


async def one_change(client: Any, weight: int, proxy: TimingProxy, log: LogObserver, feed: FeedObserver) -> Change:
    sent_s = time.perf_counter()
    answer = await asyncio.to_thread(
        client.update_route, meshName=MESH, virtualRouterName=ROUTER, routeName="route", spec=route_spec(weight)
    )
    answered_s = time.perf_counter()
    position = int(answer["ResponseMetadata"]["HTTPHeaders"]["x-meshlog-position"].rpartition(".")[2])
    arrival = await proxy.next(ROUTE, EGRESS_ROUTES, since_s=sent_s, timeout_s=HOP_TIMEOUT_S)
    committed_s, fed_s = await log.at(position), await feed.at(position)
    return Change(position, sent_s, math.nan, answered_s, committed_s, fed_s, arrival.arrived_s, arrival.acked_s)


def stamped(changes: Sequence[Change], log_text: str) -> list[Change]:
    """The changes with their records' own times, from `meshlog log -o json`; those are wall-clock times."""
    wall_ahead_s = time.time() - time.perf_counter()
    times = {event["position"]: datetime.datetime.fromisoformat(event["time"]) for event in json.loads(log_text)}
    return [replace(change, stamped_s=times[change.position].timestamp() - wall_ahead_s) for change in changes]


async def measure(cluster: MeasuredCluster, changes: int) -> None:
    environment = cluster.environment()
    client = api_client(environment)
    account = await asyncio.to_thread(create_mesh, client)
    node = NodeId(account, MESH, "virtualGateway", GATEWAY)
    node_path = f"mesh/{MESH}/virtualGateway/{GATEWAY}"
    identity_dir = cluster.data_dir / "bench-proxy"
    await asyncio.to_thread(cluster.run, "proxy", "bootstrap", "--node", node_path, "--out", str(identity_dir))
    (_, frontend), *_ = cluster.addresses("frontend")
    routes = [EGRESS_ROUTES, f"rds_ingress_http_{GATEWAY_PORT}"]
    identity = Identity.read(identity_dir)
    async with (
        etcd_connection(cluster) as connection,
        LogObserver(connection) as log,
        feed_observer(cluster, node) as feed,
        TimingProxy(identity, frontend, node_path, routes) as proxy,
    ):
        await proxy.next(ROUTE, EGRESS_ROUTES, since_s=0.0, timeout_s=HOP_TIMEOUT_S)
        measured = [await one_change(client, 1 + number % 99, proxy, log, feed) for number in range(WARM_UP + changes)]
        yardstick = await raw_txns(connection, changes, frame_bytes=log.frame_bytes, head_bytes=log.head_bytes)
    measured = stamped(measured[WARM_UP:], await asyncio.to_thread(cluster.run, "log", "--mesh", MESH, "-o", "json"))
    say(figures.host(zones=len(cluster.addresses("frontend")), frame_bytes=log.frame_bytes, head_bytes=log.head_bytes))
    for name, (what, start, end) in HOPS.items():
        say(figures.line(name, what, [getattr(change, end) - getattr(change, start) for change in measured]))
    say(figures.line("yardstick_etcd_txn", "a Txn of the same shape and size sent straight to etcd", yardstick))


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.write_to_ack", description=__doc__)
    parser.add_argument("--changes", type=int, default=1_000)
    parser.add_argument("--zones", type=int, default=3)
    parser.add_argument("--data-dir", type=Path, default=None, help="a running cluster without a mesh named `bench`")
    chosen = parser.parse_args(arguments)
    # Standard output is for figures alone.
    configure_logging("bench", "", "warning")
    with measured_cluster(chosen.data_dir, chosen.zones) as cluster:
        asyncio.run(measure(cluster, chosen.changes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
