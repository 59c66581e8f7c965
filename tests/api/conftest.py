"""API servers on loopback over one memory store, and boto3 clients that call them from threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from api.app import create_app
from api.past import LogHistory, StoredCheckpoints
from api.ports import ApiPorts, AuditPorts, KeyPorts, Readiness, RegistryPorts, SignedIdentity, XdsEndpoint
from api.recent import RecentEvents
from api.refusals import RefusedCalls
from cli.genesis import AdminKey, create_cluster_log, create_registry_log
from eventlog.archive.memory import MemoryObjectStore
from eventlog.archive.reader import ArchiveReader
from eventlog.driver import WatchBatch
from eventlog.drivers.memory import MemoryDriver, MemoryStore
from eventlog.follower import Follower
from eventlog.keys.file import FileKeyProvider, create_key_file
from eventlog.keys.keyring import Keyring
from eventlog.keys.rotation import KeyRotation, holdings
from eventlog.reads import HeadConfirmer
from eventlog.records import KeyClass, Record
from eventlog.sealing import DataKey
from eventlog.timeline import Timeline
from eventlog.writer import LogWriter
from identity.node_id import NodeId
from mesh.errors import BadRequest
from mesh.events import LEVEL
from mesh.fold import MESH_FOLD
from mesh.registry.fold import REGISTRY_FOLD
from projector.replica import Replica
from runtime.clock import SystemClock, SystemEntropy
from runtime.http_connection import HttpBounds
from runtime.http_server import HttpServer
from runtime.limits import COMMAND_DEADLINE_S, READ_DEADLINE_S
from runtime.settings import LimitSettings, TlsFiles
from runtime.supervise import Supervisor
from runtime.tls import ServerCertificate
from tests.conditions import await_until

ACCOUNT = "123456789012"
ADMIN = AdminKey("AKIAMESHLOGTEST00001", "a secret+with/odd=characters", ACCOUNT)
REGION = "eu-north-1"
Providers = dict[KeyClass, FileKeyProvider]


class FakeSigner:
    """A proxy root that signs with a stamp: what the API does around it is what counts here."""

    def sign(self, node: NodeId, csr_pem: bytes, now_us: int) -> SignedIdentity:
        if b"REQUEST" not in csr_pem:
            raise BadRequest("csr_pem is not a PEM certificate signing request")
        leaf = f"certificate of {node}"
        return SignedIdentity(leaf, f"{leaf}\nchain", "the root", "0a1b", now_us + 3_600_000_000)


@dataclass
class Server:
    """One API server."""

    url: str
    http: HttpServer
    app: Any
    replica: Replica
    driver: MemoryDriver
    keyring: Keyring
    refused: RefusedCalls
    archive: MemoryObjectStore
    members: list[dict[str, Any]]
    """Live members beside this server, as it sees them."""
    ports: ApiPorts
    _plain: Any = None

    async def call(self, operation: str, **arguments: Any) -> Any:
        """A boto3 call from a thread, tried once."""
        self._plain = self._plain or self.client()
        return await call(self._plain, operation, **arguments)

    def client(self, service: str = "appmesh", **config: Any) -> Any:
        """A boto3 client for this server."""
        config.setdefault("retries", {"total_max_attempts": 1})
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=ADMIN.access_key_id,
            aws_secret_access_key=ADMIN.secret,
            config=Config(parameter_validation=False, max_pool_connections=20, **config),
        )


class MemoryHeartbeats:
    """Heartbeats in a dictionary, which the tests let run out."""

    def __init__(self) -> None:
        self.heard: dict[tuple[str, ...], int] = {}

    async def beat(self, names: Mapping[tuple[str, ...], int]) -> None:
        self.heard |= dict.fromkeys(names, SystemClock().now_us())

    async def kept(self) -> Mapping[tuple[str, ...], int]:
        return self.heard


class LateDriver(MemoryDriver):
    """Its server hears of new records late; what it asks for it is told at once."""

    late_s = 0.2

    async def watch(self, from_revision: int) -> AsyncGenerator[WatchBatch, None]:
        async with aclosing(super().watch(from_revision)) as batches:
            async for batch in batches:
                await asyncio.sleep(self.late_s)
                yield batch


@dataclass
class Cloud:
    """Some API servers over one store."""

    store: MemoryStore
    servers: Sequence[Server]

    @property
    def server(self) -> Server:
        return self.servers[0]

    async def records(self) -> list[Record]:
        """Every record of the log but the admin key, opened."""
        follower = Follower(self.server.driver, self.server.keyring, SystemClock(), SystemEntropy())
        found: list[Record] = []
        async for batch in follower.follow():
            found += batch.records
            if batch.caught_up:
                break
        return found[1:]


async def call(client: Any, operation: str, **arguments: Any) -> Any:
    """One call of a client, off the loop that the servers run in."""
    return await asyncio.to_thread(getattr(client, operation), **arguments)


@asynccontextmanager
async def running(
    directory: Path,
    servers: int = 1,
    tls: TlsFiles | None = None,
    limits: LimitSettings | None = None,
    bounds: HttpBounds | None = None,
    *,
    late: bool = False,
    **deadlines: float,
) -> AsyncIterator[Cloud]:
    """A cloud of that many servers, ready. `deadlines`: command_s, read_s, append_s. `late`: all but the first."""
    store, archive, instances = MemoryStore(), MemoryObjectStore(), MemoryStore()
    providers = await create_log(store, directory)
    await create_registry_log(MemoryDriver(instances), providers, None, SystemClock(), SystemEntropy())
    options: Any = {"tls": tls, "deadlines": deadlines, "limits": limits, "bounds": bounds}
    async with AsyncExitStack() as stack:
        started = []
        for number in range(servers):
            driver = LateDriver(store) if late and number else MemoryDriver(store)
            stores = (driver, archive, MemoryDriver(instances))
            server = _server(stores, providers, f"api-{number}", **options)
            started.append(await stack.enter_async_context(server))
        yield Cloud(store, started)


async def create_log(store: MemoryStore, directory: Path) -> Providers:
    """A new log with the admin's key in it; gives the providers of its key-encryption keys."""
    entropy = SystemEntropy()
    providers = {key_class: FileKeyProvider(directory / key_class, key_class, entropy) for key_class in KeyClass}
    for key_class in KeyClass:
        if not (directory / key_class).exists():
            create_key_file(directory / key_class, key_class, entropy)
    await create_cluster_log(MemoryDriver(store), providers, ADMIN, SystemClock(), entropy)
    return providers


async def open_keyring(driver: MemoryDriver, providers: Providers) -> Keyring:
    keyring = Keyring(driver, providers)
    head = await driver.read_head()
    assert head is not None
    await keyring.load(head.head.log_id)
    return keyring


@asynccontextmanager
async def _server(
    stores: tuple[MemoryDriver, MemoryObjectStore, MemoryDriver],
    providers: Providers,
    server_id: str,
    *,
    tls: TlsFiles | None,
    deadlines: dict[str, float],
    limits: LimitSettings | None,
    bounds: HttpBounds | None,
) -> AsyncIterator[Server]:
    clock, entropy = SystemClock(), SystemEntropy()
    driver, archive, beside = stores
    keyring = await open_keyring(driver, providers)
    registry_keys = await open_keyring(beside, providers)
    registry = Replica(REGISTRY_FOLD, Follower(beside, registry_keys, clock, entropy), HeadConfirmer(beside), clock)

    others: list[dict[str, Any]] = []

    async def members() -> Sequence[dict[str, Any]]:
        await driver.read_head()  # NoQuorum where the store is cut off
        return [{"role": "api", "id": server_id, "zone": "a", "level": LEVEL, "keks": holdings(providers)}, *others]

    replica = Replica(MESH_FOLD, Follower(driver, keyring, clock, entropy), HeadConfirmer(driver), clock)
    recent = RecentEvents()
    replica.subscribe(recent.folded)

    async def audit_keys() -> tuple[str, DataKey, None]:
        log_id = replica.head_ref.head.log_id
        return log_id, (await keyring.sealing_keys(log_id, KeyClass.CONFIG))[0], None

    refused = RefusedCalls(archive, server_id, audit_keys, clock, entropy, region=REGION)
    reader = ArchiveReader(archive)
    ports = ApiPorts(
        replica=replica,
        writer=LogWriter(driver, keyring, clock, entropy, deadline_s=deadlines.get("append_s", 0.5)),
        history=LogHistory(Timeline(driver, reader), keyring, reader),
        checkpoints=StoredCheckpoints(driver, keyring, reader),
        signer=FakeSigner(),
        xds_endpoints=lambda: [XdsEndpoint("a", "127.0.0.1:18000"), XdsEndpoint("b", "127.0.0.1:18001")],
        clock=clock,
        entropy=entropy,
        region=REGION,
        zone="a",
        server_id=server_id,
        members=members,
        registry=RegistryPorts(
            registry,
            LogWriter(beside, registry_keys, clock, entropy),
            heartbeats=MemoryHeartbeats(),
            history=LogHistory(Timeline(beside, None), registry_keys, None),
        ),
        keys=KeyPorts(KeyRotation(driver, keyring, providers, clock, entropy), keyring),
        recent=recent,
        audit=AuditPorts(refused, archive, keyring),
        command_deadline_s=deadlines.get("command_s", COMMAND_DEADLINE_S),
        read_deadline_s=deadlines.get("read_s", READ_DEADLINE_S),
        limits=limits,
        readiness=lambda: Readiness(replica.ready and replica.halted is None, replica.halted or ""),
    )
    app = create_app(ports)
    secured = ServerCertificate(tls).context if tls else None
    http = HttpServer(app, ("127.0.0.1", 0), clock=clock, entropy=entropy, tls=secured, bounds=bounds)
    async with Supervisor() as supervisor:
        supervisor.start(replica.run(), "replica")
        supervisor.start(registry.run(), "registry")
        serving = supervisor.start(http.serve(), "http")
        await await_until(lambda: http.started and replica.ready and registry.ready, what="the server is ready")
        scheme = "https" if tls else "http"
        url = f"{scheme}://127.0.0.1:{http.port}"
        yield Server(url, http, app, replica, driver, keyring, refused, archive, others, ports)
        http.should_exit = True
        await serving


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    async with running(tmp_path) as cloud:
        yield cloud


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Cloud]:
    """Two servers over one store."""
    async with running(tmp_path, servers=2) as cloud:
        yield cloud
