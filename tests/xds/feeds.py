"""A `SnapshotFeed` in the test's own hands, certificates of a throw-away root, and a server that uses both."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from prometheus_client import CollectorRegistry

from identity.node_id import NodeId
from mesh.position import ORIGIN, Position
from projector.feed.port import Confirmation, NodeListener, NodeUpdate
from projector.snapshot import NodeSnapshot, ResourceSet
from runtime.clock import SystemClock, SystemEntropy
from runtime.settings import TlsFiles
from runtime.tls import one_sided_credentials, server_credentials
from tests.xds.transcripts import NODE
from xds.metrics import XdsMetrics
from xds.server import XdsServer, server_options

TRUST_DOMAIN = "mesh.test"
SERVER_NAME = "frontend.meshlog"


class FakeFeed:
    """Holds the newest snapshot of each node. `quorum` False: confirmations fail; `open_gate` cleared: they wait."""

    def __init__(self) -> None:
        self.ready = True
        self.quorum = True
        self.position = ORIGIN
        self.confirms = 0
        self._updates: dict[NodeId, NodeUpdate] = {}
        self._listeners: dict[int, tuple[NodeId, NodeListener]] = {}
        self._count = 0
        self.open_gate = asyncio.Event()
        self.open_gate.set()

    @property
    def watches(self) -> int:
        return len(self._listeners)

    def put(self, position: int, resources: ResourceSet | None, node: NodeId = NODE) -> None:
        """The node has these resources as of `position`; None: the mesh has no such node."""
        at = self.position = Position(1, position)
        known = None if resources is None else NodeSnapshot(node, at, resources)
        self._updates[node] = NodeUpdate(node, at, known)
        for watched, listener in list(self._listeners.values()):
            if watched == node:
                listener(self._updates[node])

    def watch(self, node: NodeId, listener: NodeListener) -> _Watching:
        self._count += 1
        self._listeners[self._count] = (node, listener)
        if node in self._updates:
            listener(self._updates[node])
        return _Watching(self._listeners, self._count)

    async def confirm(self, timeout_s: float) -> Confirmation:
        self.confirms += 1
        await self.open_gate.wait()
        await asyncio.sleep(0)
        return Confirmation(self.quorum, self.position)


@dataclass
class _Watching:
    listeners: dict[int, tuple[NodeId, NodeListener]]
    key: int

    def close(self) -> None:
        self.listeners.pop(self.key, None)


class Root:
    """A throw-away certificate authority."""

    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(name, self.key, None, None, authority=True)
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    def leaf(self, uris: Sequence[str] = (), dns: Sequence[str] = (), name: str = "leaf") -> tuple[bytes, bytes]:
        """(certificate chain PEM, key PEM)."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
        names += [x509.DNSName(host) for host in dns]
        certificate = self._sign(name, key, names, self.certificate, authority=False)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return certificate.public_bytes(serialization.Encoding.PEM), private

    def _sign(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        names: list[x509.GeneralName] | None,
        issuer: x509.Certificate | None,
        *,
        authority: bool,
    ) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())


class Certificates:
    """The frontend's files under `folder`, and certificates for proxies."""

    def __init__(self, folder: Path) -> None:
        self.servers, self.proxies = Root("roles"), Root("proxies")
        self.files = TlsFiles(certificate=folder / "tls.pem", key=folder / "tls.key", authority=folder / "proxies.pem")
        self.renew()

    def renew(self, name: str = "frontend") -> None:
        """Write a new certificate for the frontend."""
        certificate, key = self.servers.leaf(dns=[SERVER_NAME], name=name)
        self.files.key.write_bytes(key)
        self.files.certificate.write_bytes(certificate)
        self.files.authority.write_bytes(self.proxies.pem)

    def channel(
        self,
        port: int,
        node: NodeId | None = NODE,
        *,
        uris: Sequence[str] | None = None,
        root: Root | None = None,
        anonymous: bool = False,
    ) -> grpc.aio.Channel:
        """A channel of a proxy of `node` (or of one with these URI names, signed by `root`, or of none)."""
        names = uris if uris is not None else [node.spiffe_id(TRUST_DOMAIN)] if node else []
        chain, key = (root or self.proxies).leaf(uris=names)
        credentials = (
            grpc.ssl_channel_credentials(self.servers.pem)
            if anonymous
            else grpc.ssl_channel_credentials(self.servers.pem, key, chain)
        )
        options = [("grpc.ssl_target_name_override", SERVER_NAME), ("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options)


@dataclass
class Running:
    server: XdsServer
    feed: FakeFeed
    certificates: Certificates
    port: int
    registry: CollectorRegistry

    def count(self, name: str, **labels: str) -> float:
        """A metric's value, 0 if it was never touched."""
        return self.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def serving(folder: Path, feed: FakeFeed | None = None, **settings: Any) -> AsyncIterator[Running]:
    """A frontend on a free port with mutual TLS; with `signing`, on another one for proxies that sign."""
    feed = feed or FakeFeed()
    certificates = Certificates(folder)
    registry = CollectorRegistry()
    options = settings.pop("options", server_options())
    server = XdsServer(
        feed=feed,
        trust_domain=TRUST_DOMAIN,
        clock=SystemClock(),
        entropy=SystemEntropy(),
        metrics=XdsMetrics(registry),
        **settings,
    )
    signed = ("127.0.0.1:0", one_sided_credentials(certificates.files)) if server.signed is not None else None
    port = await server.start("127.0.0.1:0", server_credentials(certificates.files), options, signed=signed)
    try:
        yield Running(server, feed, certificates, port, registry)
    finally:
        await server.stop()
