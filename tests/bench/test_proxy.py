"""The timing proxy against a stand-in frontend: it subscribes as Envoy does, ACKs everything, and tells a dead
stream.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from bench.proxy import CLUSTER, METHOD, ROUTE, TimingProxy
from tests.conditions import PATIENCE_S, await_until
from xds.wire import discovery_pb2 as wire


class Plain:
    """An identity whose channel has no TLS."""

    def channel(self, address: str) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(address)


class StandIn(grpc.GenericRpcHandler):
    """Sends `script` after the first three requests, keeps every request, and ends when told to."""

    def __init__(self, script: list[wire.DeltaDiscoveryResponse], *, ends: bool = False) -> None:
        self.script = script
        self.ends = ends
        self.requests: list[wire.DeltaDiscoveryRequest] = []

    def service(self, details: Any) -> Any:
        return grpc.stream_stream_rpc_method_handler(self._serve) if details.method == METHOD else None

    async def _serve(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for packed in requests:
            self.requests.append(wire.DeltaDiscoveryRequest.FromString(packed))
            if len(self.requests) == 3:
                for response in self.script:
                    yield response.SerializeToString()
                if self.ends:
                    return


def response(type_url: str, name: str, nonce: str) -> wire.DeltaDiscoveryResponse:
    return wire.DeltaDiscoveryResponse(
        type_url=type_url, nonce=nonce, resources=[wire.Resource(name=name, version="v")]
    )


@pytest.fixture
async def serve() -> AsyncIterator[Any]:
    servers: list[grpc.aio.Server] = []

    async def start(stand_in: StandIn) -> TimingProxy:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((stand_in,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        servers.append(server)
        return TimingProxy(Plain(), f"127.0.0.1:{port}", "mesh/m/virtualGateway/g", ["r"])  # type: ignore[arg-type]

    yield start
    for server in servers:
        await server.stop(None)


async def test_it_acks_each_response_and_returns_the_one_asked_for(serve: Any) -> None:
    stand_in = StandIn([response(CLUSTER, "c", "1"), response(ROUTE, "other", "2"), response(ROUTE, "r", "3")])
    async with await serve(stand_in) as proxy:
        arrival = await proxy.next(ROUTE, "r", since_s=0.0, timeout_s=PATIENCE_S)
        assert arrival.names == ("r",)
        assert arrival.acked_s >= arrival.arrived_s
        await await_until(lambda: len(stand_in.requests) >= 6, what="three ACKs")
    subscribed = stand_in.requests[:3]
    assert subscribed[0].node.id == "mesh/m/virtualGateway/g"
    assert [list(request.resource_names_subscribe) for request in subscribed] == [["*"], ["*"], ["r"]]
    assert [request.response_nonce for request in stand_in.requests[3:]] == ["1", "2", "3"]


async def test_a_stream_that_ends_is_told_at_once(serve: Any) -> None:
    async with await serve(StandIn([], ends=True)) as proxy:
        with pytest.raises(ConnectionError):
            await proxy.next(ROUTE, "r", since_s=0.0, timeout_s=PATIENCE_S)
