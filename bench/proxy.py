"""A proxy that only keeps time: a raw delta xDS client with a proxy's own certificate.

Stage: the last two hops of a write. Turns an ADS stream into `Arrival`s, each with the moment a response was there
and the moment its ACK was handed to the transport. It must never parse resources on the way: what Envoy does with
them is not measured.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from xds.wire import discovery_pb2 as wire

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
ROUTE = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
SERVER_NAME = "frontend.meshlog"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One response. Times from `time.perf_counter`; `names` are the resources that it carried."""

    type_url: str
    names: tuple[str, ...]
    arrived_s: float
    acked_s: float


@dataclass(frozen=True)
class Identity:
    """What `meshlog proxy bootstrap --out DIR` wrote: key and chain in one file, and the root that verifies
    frontends.
    """

    pair_pem: bytes
    authority_pem: bytes

    @classmethod
    def read(cls, directory: Path) -> Identity:
        return cls((directory / "identity.pem").read_bytes(), (directory / "authority.pem").read_bytes())

    def channel(self, address: str) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(self.authority_pem, self.pair_pem, self.pair_pem)
        return grpc.aio.secure_channel(address, credentials, options=[("grpc.ssl_target_name_override", SERVER_NAME)])


class TimingProxy:
    """Subscribes to all clusters and listeners and to `routes` by name, and ACKs everything. Use as an async
    context.
    """

    def __init__(self, identity: Identity, address: str, node_id: str, routes: Sequence[str]) -> None:
        self._channel = identity.channel(address)
        self._node_id = node_id
        self._routes = routes
        self._arrivals: asyncio.Queue[Arrival] = asyncio.Queue()
        self._call: Any = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> TimingProxy:
        self._call = self._channel.stream_stream(METHOD)()
        node = wire.Node(id=self._node_id, cluster=self._node_id)
        for type_url, names in ((CLUSTER, ["*"]), (LISTENER, ["*"]), (ROUTE, [*self._routes])):
            request = wire.DeltaDiscoveryRequest(node=node, type_url=type_url, resource_names_subscribe=names)
            await self._call.write(request.SerializeToString())
        self._reading = asyncio.ensure_future(self._read())
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        await self._channel.close()

    async def next(self, type_url: str, name: str, *, since_s: float, timeout_s: float) -> Arrival:
        """The next response with the resource `name` that arrived after `since_s`; others are passed over.
        TimeoutError.
        """
        async with asyncio.timeout(timeout_s):
            while True:
                arrival = await self._next()
                if arrival.type_url == type_url and name in arrival.names and arrival.arrived_s >= since_s:
                    return arrival

    async def _next(self) -> Arrival:
        """A dead stream is told at once, and not by a time-out."""
        assert self._reading is not None
        getting = asyncio.ensure_future(self._arrivals.get())
        done, _ = await asyncio.wait({getting, self._reading}, return_when=asyncio.FIRST_COMPLETED)
        if getting in done:
            return getting.result()
        getting.cancel()
        self._reading.result()
        raise ConnectionError("the frontend ended the stream")

    async def _read(self) -> None:
        while isinstance(packed := await self._call.read(), bytes):
            arrived_s = time.perf_counter()
            response = wire.DeltaDiscoveryResponse.FromString(packed)
            ack = wire.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
            await self._call.write(ack.SerializeToString())
            names = tuple(resource.name for resource in response.resources)
            self._arrivals.put_nowait(Arrival(response.type_url, names, arrived_s, time.perf_counter()))
