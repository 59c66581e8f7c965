"""An ADS server in a process of its own, as small as can be: TLS with client certificates, streams that stay open.

`python ads_server.py NAME PORT DIR [busy]` prints one JSON line for each stream and first message:
{"server", "event": "listening"|"stream"|"message", "method", "node", "peer"}. `busy` makes it hold the interpreter for
two seconds after its first message, as a frontend under load would.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio

METHODS = ("DeltaAggregatedResources", "StreamAggregatedResources")


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


def handler(server: str, method: str, busy: bool) -> grpc.RpcMethodHandler[bytes, bytes]:
    async def stream(
        requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> AsyncIterator[bytes]:
        uris = [value.decode() for value in context.auth_context().get("x509_subject_alternative_name", [])]
        say(server=server, event="stream", method=method, peer=uris)
        async for message in requests:
            say(server=server, event="message", method=method, node=node_id(message))
            if busy:
                until = time.monotonic() + 2.0
                while time.monotonic() < until:
                    pass
                say(server=server, event="idle")
            break
        await asyncio.Event().wait()
        yield b""

    return grpc.stream_stream_rpc_method_handler(stream)


def node_id(message: bytes) -> str:
    """The first text after the tag of `Node.id`: enough for a test, no protobuf needed."""
    start = message.find(b"\x0a")
    return message[start : start + 200].decode("latin-1")


async def serve(name: str, port: int, directory: Path, busy: bool) -> None:
    server = grpc.aio.server(options=[("grpc.http2.max_ping_strikes", 0)])
    handlers = {method: handler(name, method, busy) for method in METHODS}
    service = "envoy.service.discovery.v3.AggregatedDiscoveryService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    credentials = grpc.ssl_server_credentials(
        [((directory / "tls.key").read_bytes(), (directory / "tls.crt").read_bytes())],
        root_certificates=(directory / "clients.crt").read_bytes(),
        require_client_auth=True,
    )
    server.add_secure_port(f"127.0.0.1:{port}", credentials)
    await server.start()
    say(server=name, event="listening")
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), "busy" in sys.argv[4:]))
