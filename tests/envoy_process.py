"""Real Envoys for tests: started from a bootstrap dict, or fed a compiled snapshot by an ADS server of forty lines.

Two Envoys (or one Envoy and a developer's) share port 15001 of one network namespace without a word, so every Envoy
that takes traffic runs in a `tests.netns.Namespace`: pass its `prefix`, and `expose` and `carry` the ports it needs.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc

from chaos.envoy import Envoy, find_envoy
from projector.snapshot import TYPES, NodeSnapshot
from runtime.ports import free_port
from tests.conditions import eventually
from tests.netns import Namespace
from xds.view import FULL_SET_TYPES
from xds.wire import discovery_pb2 as wire

__all__ = ("AdsServer", "Envoy", "ads_bootstrap", "find_envoy", "free_port", "run_ads_envoy", "start_envoy")

ADS_METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"


def start_envoy(bootstrap: dict[str, Any], folder: Path, admin_port: int, prefix: Sequence[str] = ()) -> Envoy:
    """Write `bootstrap` to `folder` and run it. `admin_port` is where this process reaches the admin port.

    Outside a namespace the bootstrap must have no listener on a port that others use too.
    """
    path = folder / "envoy.json"
    path.write_text(json.dumps(bootstrap))
    return Envoy(path, admin_port=admin_port, log=folder / "envoy.log", prefix=prefix)


def ads_bootstrap(ads_port: int, admin_port: int, node: str) -> dict[str, Any]:
    """LDS and CDS over ADS (SotW, no TLS) from 127.0.0.1:`ads_port`."""
    source = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
    http2: dict[str, Any] = {"explicit_http_config": {"http2_protocol_options": {}}}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": ads_port}}
    ads_cluster = {
        "name": "ads",
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                **http2,
            }
        },
        "load_assignment": {
            "cluster_name": "ads",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    return {
        "node": {"id": node, "cluster": node},
        # As in the bootstraps of App Mesh's image and of ours.
        "layered_runtime": {"layers": [{"name": "static", "static_layer": {"re2.max_program_size.error_level": 1000}}]},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin_port}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "ads"}}],
            },
            "cds_config": source,
            "lds_config": source,
        },
        "static_resources": {"clusters": [ads_cluster]},
    }


class AdsServer:
    """Serves one snapshot over SotW, exactly the bytes it holds. `refused` collects what Envoys said no to."""

    def __init__(self, snapshot: NodeSnapshot) -> None:
        self.refused: list[str] = []
        self.acked: dict[str, str] = {}
        self._snapshot = snapshot
        self._version = 0
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
        handler = grpc.stream_stream_rpc_method_handler(
            self._stream,
            request_deserializer=wire.DiscoveryRequest.FromString,
            response_serializer=wire.DiscoveryResponse.SerializeToString,
        )
        service, method = ADS_METHOD.strip("/").split("/")
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def serve(self, snapshot: NodeSnapshot) -> None:
        """Replace the snapshot and push it."""
        self._snapshot = snapshot
        self._version += 1

    def settled(self) -> bool:
        """Whether every type of the snapshot was acknowledged at the newest version."""
        wanted = FULL_SET_TYPES | {type_url for type_url, _ in self._snapshot.resources}
        return all(self.acked.get(type_url) == str(self._version) for type_url in wanted)

    def stop(self) -> None:
        self._server.stop(None).wait()

    def _stream(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        inbox: queue.Queue[Any] = queue.Queue()

        def read() -> None:
            try:
                for request in requests:
                    inbox.put(request)
            except grpc.RpcError:
                pass
            inbox.put(None)

        threading.Thread(target=read, daemon=True).start()
        wanted: dict[str, tuple[str, ...]] = {}
        sent: dict[str, int] = {}
        while context.is_active():
            try:
                request = inbox.get(timeout=0.02)
            except queue.Empty:
                request = ...
            if request is None:
                return
            fresh: set[str] = set()
            if request is not ...:
                self._note(request)
                names = tuple(request.resource_names)
                if wanted.get(request.type_url) != names:
                    wanted[request.type_url] = names
                    fresh.add(request.type_url)
            for type_url in TYPES:
                if type_url in wanted and (type_url in fresh or sent.get(type_url) != self._version):
                    sent[type_url] = self._version
                    yield self._response(type_url, wanted[type_url])

    def _note(self, request: Any) -> None:
        if request.HasField("error_detail"):
            self.refused.append(request.error_detail.message)
        elif request.response_nonce:
            self.acked[request.type_url] = request.version_info

    def _response(self, type_url: str, names: tuple[str, ...]) -> Any:
        found = [
            wire.Any(type_url=type_url, value=resource.body)
            for name, resource in self._snapshot.of_type(type_url).items()
            if name in names or (not names and type_url in FULL_SET_TYPES)
        ]
        version = str(self._version)
        return wire.DiscoveryResponse(version_info=version, resources=found, type_url=type_url, nonce=version)


def run_ads_envoy(
    namespace: Namespace,
    snapshot: NodeSnapshot,
    folder: Path,
    clusters: Sequence[dict[str, Any]] = (),
    **parts: dict[str, Any],
) -> tuple[Envoy, AdsServer]:
    """An Envoy inside `namespace` that has taken `snapshot`: live, every type acknowledged or refused.

    `clusters` and `parts` (by member) are its own, as of its bootstrap.
    """
    server = AdsServer(snapshot)
    namespace.carry(server.port)
    inside_port = free_port()
    admin_port = namespace.expose(inside_port)
    bootstrap = ads_bootstrap(server.port, inside_port, str(snapshot.node))
    bootstrap["static_resources"]["clusters"] += clusters
    bootstrap |= parts
    envoy = start_envoy(bootstrap, folder, admin_port, namespace.prefix)
    try:
        envoy.wait_live()
        eventually(lambda: server.refused or server.settled(), what="the Envoy's answer to its configuration")
    except BaseException:
        envoy.stop()
        server.stop()
        raise
    return envoy, server
