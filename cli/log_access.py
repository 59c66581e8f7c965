"""A role's way to the log, wired from its settings: connection, driver, keys, fold. It makes no first call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cli.role_health import BUILD
from cluster.etcd.choice import EtcdMember
from cluster.etcd.connection import EtcdConnection
from cluster.etcd.connection import TlsFiles as EtcdTls
from cluster.members import Member
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
from mesh.fold import MESH_FOLD
from projector.beginning import from_checkpoints
from projector.replica import Replica
from projector.reproduction import Reproduction
from runtime.clock import Clock, Entropy
from runtime.settings import KekSettings, LogSettings


@dataclass(frozen=True, slots=True)
class LogAccess:
    """What a role that reaches the log has: the connection, the driver over it, and the fold."""

    connection: EtcdConnection
    driver: EtcdDriver
    providers: Mapping[KeyClass, KeyProvider]
    keyring: Keyring
    replica: Replica
    follower: Callable[[], Follower]
    reproduction: Reproduction


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


def open_log(settings: LogSettings, clock: Clock, entropy: Entropy) -> LogAccess:
    """Build, without a first call: the replica waits for etcd by itself."""
    connection = etcd_connection(settings, clock, entropy)
    driver = EtcdDriver(connection, settings.key_prefix)
    providers = key_providers(settings.kek, entropy)
    keyring = Keyring(driver, providers)

    def follower() -> Follower:
        return Follower(driver, keyring, clock, entropy)

    replica = Replica(MESH_FOLD, follower(), HeadConfirmer(driver), clock, from_checkpoints(MESH_FOLD, driver, keyring))
    reproduction = Reproduction(MESH_FOLD, driver, lambda: known_signers(keyring), clock)
    replica.subscribe(reproduction.folded)
    return LogAccess(connection, driver, providers, keyring, replica, follower, reproduction)


def member_of(settings: LogSettings, access: LogAccess) -> Member:
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
        reproduced=str(access.reproduction),
    )
