"""A role's way to a log, wired from its settings: connection, driver, keys, fold. It makes no first call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic

from cli.role_health import BUILD
from cluster.etcd.choice import EtcdMember
from cluster.etcd.connection import EtcdConnection
from cluster.etcd.connection import TlsFiles as EtcdTls
from cluster.etcd.together import ReadsTogether
from cluster.members import Member
from eventlog.archive.places import open_store, within
from eventlog.archive.store import ObjectStore
from eventlog.drivers.etcd import EtcdDriver
from eventlog.follower import Follower
from eventlog.keys.keyring import Keyring
from eventlog.keys.provider import KeyProvider
from eventlog.keys.rotation import holdings
from eventlog.keys.sources import open_sources
from eventlog.reads import HeadConfirmer
from eventlog.records import KeyClass
from eventlog.signing import known_signers
from mesh.events import LEVEL
from mesh.fold import MESH_FOLD, Fold, S
from mesh.registry.fold import REGISTRY_FOLD, REGISTRY_FOLDER
from mesh.registry.state import RegistryState
from mesh.state import State
from projector.beginning import from_checkpoints
from projector.replica import Replica
from projector.reproduction import Reproduction
from runtime.clock import Clock, Entropy
from runtime.settings import ApiSettings, KekSettings, LogSettings


@dataclass(frozen=True, slots=True)
class LogAccess(Generic[S]):
    """What a role has of one log: the connection, the driver over it, keys, and the fold."""

    connection: EtcdConnection
    driver: EtcdDriver
    providers: Mapping[KeyClass, KeyProvider]
    keyring: Keyring
    fold: Fold[S]
    replica: Replica[S]
    follower: Callable[[], Follower]
    reproduction: Reproduction[S]


def etcd_connection(settings: LogSettings, clock: Clock, entropy: Entropy) -> EtcdConnection:
    """The role's own connection, own zone first."""
    members = [EtcdMember(zone, address) for zone, address in settings.etcd_endpoints]
    files = settings.etcd_tls
    tls = EtcdTls(ca=files.authority, certificate=files.certificate, key=files.key)
    return EtcdConnection(members, settings.zone, tls, clock, entropy)


def key_providers(kek: KekSettings, entropy: Entropy) -> Mapping[KeyClass, KeyProvider]:
    """The classes of data key that this role is given."""
    providers = {KeyClass.CONFIG: open_sources(kek.config, KeyClass.CONFIG, entropy)}
    if kek.secrets is not None:
        providers[KeyClass.SECRETS] = open_sources(kek.secrets, KeyClass.SECRETS, entropy)
    return providers


def mesh_driver(connection: EtcdConnection, key_prefix: str, heads: ReadsTogether | None = None) -> EtcdDriver:
    """The log of the meshes."""
    return EtcdDriver(connection, key_prefix, heads=heads)


def registry_driver(connection: EtcdConnection, key_prefix: str, heads: ReadsTogether | None = None) -> EtcdDriver:
    """The registry's log, whose writes are fenced by the same duties."""
    return EtcdDriver(connection, f"{key_prefix}{REGISTRY_FOLDER}", duties_prefix=key_prefix, heads=heads)


def registry_archive(settings: ApiSettings) -> ObjectStore | None:
    """Where the registry's log is archived: beside that of the meshes, in a folder of its own."""
    return open_store(within(settings.archive, REGISTRY_FOLDER)) if settings.archive else None


def open_log(settings: LogSettings, clock: Clock, entropy: Entropy) -> LogAccess[State]:
    """The log of the meshes. Built without a first call: the replica waits for etcd by itself."""
    connection = etcd_connection(settings, clock, entropy)
    providers = key_providers(settings.kek, entropy)
    heads = ReadsTogether(connection)
    driver = mesh_driver(connection, settings.key_prefix, heads)
    return access_to(MESH_FOLD, driver, connection, providers, clock, entropy)


def open_registry(
    beside: LogAccess[State], settings: LogSettings, clock: Clock, entropy: Entropy
) -> LogAccess[RegistryState]:
    """The registry's log, over the same connection."""
    driver = registry_driver(beside.connection, settings.key_prefix, beside.driver.heads)
    return access_to(REGISTRY_FOLD, driver, beside.connection, beside.providers, clock, entropy)


def access_to(  # noqa: PLR0917 - what a log is made of
    fold: Fold[S],
    driver: EtcdDriver,
    connection: EtcdConnection,
    providers: Mapping[KeyClass, KeyProvider],
    clock: Clock,
    entropy: Entropy,
) -> LogAccess[S]:
    """A log's keys and fold, over its driver. Makes no call."""
    keyring = Keyring(driver, providers)

    def follower() -> Follower:
        return Follower(driver, keyring, clock, entropy)

    replica = Replica(fold, follower(), HeadConfirmer(driver), clock, from_checkpoints(fold, driver, keyring))
    reproduction = Reproduction(fold, driver, lambda: known_signers(keyring), clock)
    replica.subscribe(reproduction.folded)
    return LogAccess(connection, driver, providers, keyring, fold, replica, follower, reproduction)


def member_of(settings: LogSettings, access: LogAccess[State], registry: LogAccess[RegistryState]) -> Member:
    """This process as the others see it."""
    return Member(
        role=settings.role,
        id=settings.id,
        zone=settings.zone,
        address=settings.advertise,
        level=LEVEL,
        build=BUILD,
        peer=getattr(settings, "peer_advertise", None) or "",
        keks=holdings(access.providers),
        reproduced=f"{access.reproduction} {registry.reproduction}".strip(),
    )
