"""Real Envoys against the frontend: a bootstrap with mutual TLS and ADS in either protocol, resources made with Envoy's
own API, an upstream that says its name, and a client that asks without pause."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import betterproto2
from envoy_data_plane.envoy.config.cluster.v3 import (
    Cluster,
    ClusterDiscoveryType,
    ClusterEdsClusterConfig,
    ClusterLbPolicy,
)
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    AggregatedConfigSource,
    ApiVersion,
    ConfigSource,
    SocketAddress,
)
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.config.route.v3 import Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpFilter,
    Rds,
)
from envoy_data_plane.google.protobuf import Any as AnyMessage

from chaos.envoy import Envoy
from projector.snapshot import ResourceSet, XdsResource, xds_resource
from runtime.ports import free_port
from tests.xds.feeds import SERVER_NAME, TRUST_DOMAIN, Certificates
from tests.xds.transcripts import NODE, NODE_TEXT
from xds.view import CLUSTER, ENDPOINT, LISTENER, ROUTE

ADS_SOURCE = ConfigSource(ads=AggregatedConfigSource(), resource_api_version=ApiVersion.V3)


def _address(port: int) -> Address:
    return Address(socket_address=SocketAddress(address="127.0.0.1", port_value=port))


def _made(type_url: str, name: str, message: betterproto2.Message) -> XdsResource:
    return xds_resource(type_url, name, bytes(message))


def endpoints(name: str, port: int) -> XdsResource:
    endpoint = LbEndpoint(endpoint=Endpoint(address=_address(port)))
    message = ClusterLoadAssignment(cluster_name=name, endpoints=[LocalityLbEndpoints(lb_endpoints=[endpoint])])
    return _made(ENDPOINT, name, message)


def cluster(name: str, timeout_ms: int = 1000, *, bad: bool = False) -> XdsResource:
    """A cluster whose endpoints come over ADS; `bad`: one that Envoy refuses."""
    message = Cluster(
        name=name,
        type=ClusterDiscoveryType.EDS,
        eds_cluster_config=ClusterEdsClusterConfig(eds_config=ADS_SOURCE),
        connect_timeout=timedelta(milliseconds=timeout_ms),
        lb_policy=ClusterLbPolicy.CLUSTER_PROVIDED if bad else ClusterLbPolicy.ROUND_ROBIN,
    )
    return _made(CLUSTER, name, message)


def route(name: str, to_cluster: str) -> XdsResource:
    action = Route(match=RouteMatch(prefix="/"), route=RouteAction(cluster=to_cluster))
    host = VirtualHost(name="all", domains=["*"], routes=[action])
    return _made(ROUTE, name, RouteConfiguration(name=name, virtual_hosts=[host]))


def listener(name: str, port: int, route_name: str, stat_prefix: str = "test") -> XdsResource:
    manager = HttpConnectionManager(
        stat_prefix=stat_prefix,
        rds=Rds(config_source=ADS_SOURCE, route_config_name=route_name),
        http_filters=[HttpFilter(name="envoy.filters.http.router", typed_config=AnyMessage.pack(Router()))],
    )
    chain = FilterChain(
        filters=[Filter(name="envoy.filters.network.http_connection_manager", typed_config=AnyMessage.pack(manager))]
    )
    return _made(LISTENER, name, Listener(name=name, address=_address(port), filter_chains=[chain]))


def resource_set(resources: Iterable[XdsResource]) -> ResourceSet:
    return {(made.type_url, made.name): made for made in resources}


def bootstrap(mode: str, port: int, admin_port: int, certificates: Certificates, folder: Path) -> dict[str, Any]:
    """ADS over mutual TLS from 127.0.0.1:`port`."""
    chain, key = certificates.proxies.leaf(uris=[NODE.spiffe_id(TRUST_DOMAIN)])
    files = {"chain": chain, "key": key, "root": certificates.servers.pem}
    for name, pem in files.items():
        (folder / f"{name}.pem").write_bytes(pem)
    tls = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": SERVER_NAME,
        "common_tls_context": {
            "tls_certificates": [
                {
                    "certificate_chain": {"filename": str(folder / "chain.pem")},
                    "private_key": {"filename": str(folder / "key.pem")},
                }
            ],
            "validation_context": {
                "trusted_ca": {"filename": str(folder / "root.pem")},
                "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": SERVER_NAME}}],
            },
        },
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    frontend = {
        "name": "xds",
        "type": "STATIC",
        "connect_timeout": "1s",
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
        "typed_extension_protocol_options": {
            options: {
                "@type": f"type.googleapis.com/{options}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {
            "cluster_name": "xds",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    source = {"ads": {}, "resource_api_version": "V3"}
    service = {
        "envoy_grpc": {"cluster_name": "xds"},
    }
    return {
        "node": {"id": NODE_TEXT, "cluster": "test"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin_port}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC" if mode == "delta" else "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [service],
                "set_node_on_first_message_only": True,
            },
            "cds_config": source,
            "lds_config": source,
        },
        "static_resources": {"clusters": [frontend]},
    }


@asynccontextmanager
async def envoy(mode: str, port: int, certificates: Certificates, folder: Path) -> AsyncIterator[Envoy]:
    """An Envoy that dials 127.0.0.1:`port`."""
    folder.mkdir()  # noqa: ASYNC240
    admin_port = free_port()
    path = folder / "envoy.json"
    path.write_text(json.dumps(bootstrap(mode, port, admin_port, certificates, folder)))
    # A prefix that does nothing: these Envoys have no listener on the port that others must not share.
    running = Envoy(path, admin_port=admin_port, log=folder / "envoy.log", prefix=("env",))
    try:
        yield running
    finally:
        await asyncio.to_thread(running.stop)


@asynccontextmanager
async def upstream(name: str) -> AsyncIterator[int]:
    """An HTTP server that answers everything with `name`; its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(name)}\r\n\r\n{name}".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


class Traffic:
    """Asks 127.0.0.1:`port` without pause over one connection at a time; counts what it is told."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answers: Counter[str] = Counter()

    @property
    def failures(self) -> dict[str, int]:
        return {answer: count for answer, count in self.answers.items() if not answer.startswith("200 ")}

    async def run(self) -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                while True:
                    self.answers[await self._ask(reader, writer)] += 1
            except (OSError, asyncio.IncompleteReadError) as error:
                self.answers[type(error).__name__] += 1
                await asyncio.sleep(0.01)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        writer.write(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        size = next(int(line.split(":")[1]) for line in head.splitlines() if line.startswith("content-length"))
        body = (await reader.readexactly(size)).decode()
        return f"{head.split()[1]} {body}"


@asynccontextmanager
async def traffic(port: int) -> AsyncIterator[Traffic]:
    """Traffic while the context is open."""
    load = Traffic(port)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(load.run())
        try:
            yield load
        finally:
            task.cancel()
