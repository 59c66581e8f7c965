"""What one process needs to know: one class for each role, read once at its start (`runtime.settings_file`).

Nothing here opens what a path names or holds a secret: only where it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, NamedTuple

from mesh.errors import SettingsError
from runtime.key_sources import KeySources
from runtime.limits import (
    CERTIFICATES_LOOK_S,
    CHECKPOINT_EVENTS,
    CHECKPOINT_EVERY_S,
    CLOUD_MAP_POLL_S,
    COMPACT_KEEP_S,
    DRILL_EVERY_S,
    ETCD_QUOTA_BYTES,
    HTTP_CONNECTIONS_MAX,
    HTTP_SOURCE_CONNECTIONS_MAX,
    PRINCIPAL_REQUESTS_AT_ONCE,
    PRINCIPAL_REQUESTS_BURST,
    PRINCIPAL_REQUESTS_PER_S,
    PROXIES_PER_NODE,
    REGISTRY_TRIM_KEEP_EVENTS,
    SOURCE_REFUSALS_BURST,
    SOURCE_REFUSALS_PER_S,
    TRIM_KEEP_EVENTS,
    TRUST_SPREAD_S,
)

DEFAULT_KEY_PREFIX = "/meshlog/"
DEFAULT_TRUST_DOMAIN = "meshlog.local"
DEFAULT_REGION = "us-east-1"
DEFAULT_RETENTION_DAYS = 30
DEFAULT_REGISTRY_RETENTION_DAYS = 7


class Endpoint(NamedTuple):
    """Where a peer is reached, and the zone it stands in. `address` is `host:port`."""

    zone: str
    address: str


class EtcdPeer(NamedTuple):
    """An etcd member as the other members know it: its name and its peer `host:port`."""

    name: str
    address: str


Endpoints = tuple[Endpoint, ...]
EtcdPeers = tuple[EtcdPeer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files: our own chain and key, and the root by which the other side is verified."""

    certificate: Path
    key: Path
    authority: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityFiles:
    """PEM files of a root that signs: only what issues certificates has the key."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class KekSettings:
    """Key-encryption keys, for each class of data key. None: this process cannot open that class.

    The first source wraps, all unwrap. What a source may be is in runtime.key_sources; a variable has them separated by
    commas.
    """

    config: KeySources
    secrets: KeySources | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """What every process has. Addresses are `host:port`; `listen` is bound, `advertise` is told to others."""

    role: ClassVar[str] = ""

    id: str
    zone: str
    data_dir: Path
    listen: str
    advertise: str
    health: str
    """Plain HTTP: /livez, /readyz, /status (for etcd: its metrics listener, /health)."""
    pid_file: Path
    log_level: str = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings(ProcessSettings):
    """What a role that reaches the log has beside it."""

    trust_domain: str = DEFAULT_TRUST_DOMAIN
    account_id: str
    region: str = DEFAULT_REGION
    key_prefix: str = DEFAULT_KEY_PREFIX
    etcd_endpoints: Endpoints
    """The client addresses of all etcd members."""
    etcd_tls: TlsFiles
    """Client certificate whose CN is the etcd user of this role."""
    role_tls: TlsFiles
    """Certificate `spiffe://<trust-domain>/role/<role>` under the roles' root; serves and dials."""
    kek: KekSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class DutySettings:
    """How often the duties of API servers do their work. The defaults suit any cluster; tests take small numbers."""

    checkpoint_events: int = CHECKPOINT_EVENTS
    """A checkpoint after so many events."""
    checkpoint_every_s: int = CHECKPOINT_EVERY_S
    """And after so long, if there was an event."""
    keep_events: int = TRIM_KEEP_EVENTS
    """So many newest events stay in etcd, even if the archive has them."""
    registry_keep_events: int = REGISTRY_TRIM_KEEP_EVENTS
    """The same of the registry's log."""
    keep_revisions_s: int = COMPACT_KEEP_S
    """etcd's own history is kept for so long, for watches to resume."""
    drill_every_s: int = DRILL_EVERY_S
    """The archive is folded from nothing, and compared with the log, so often."""
    certificates_every_s: int = CERTIFICATES_LOOK_S
    """Certificates of proxies are looked at, and renewed where it is time, so often."""
    trust_spread_s: int = TRUST_SPREAD_S
    """While an authority is rotated, every proxy is given so long to hear of a step before the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudMapSettings:
    """AWS Cloud Map as a source of instances. AWS credentials come from where AWS's SDKs look for them."""

    region: str
    """AWS's region, whose Cloud Map is asked."""
    namespaces: str = ""
    """Only these, separated by commas. Empty: all that virtual nodes name and that are not registered here."""
    every_s: int = CLOUD_MAP_POLL_S
    """Each service is asked about so often."""
    endpoint: str = ""
    """Another server that speaks the Cloud Map API, as a URL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """What one API server takes of its callers, each number at least 1. Above it they are told to wait (429)."""

    requests_per_s: int = PRINCIPAL_REQUESTS_PER_S
    """Of one principal, sustained."""
    requests_burst: int = PRINCIPAL_REQUESTS_BURST
    """Of one principal, at once after a while of silence."""
    requests_at_once: int = PRINCIPAL_REQUESTS_AT_ONCE
    """Of one principal, under way at the same time."""
    refusals_per_s: int = SOURCE_REFUSALS_PER_S
    """Calls without a valid signature from one address (IPv6: one /64)."""
    refusals_burst: int = SOURCE_REFUSALS_BURST
    connections: int = HTTP_CONNECTIONS_MAX
    """Open connections in all."""
    connections_per_source: int = HTTP_SOURCE_CONNECTIONS_MAX
    """And from one address: a load balancer is one."""

    def __post_init__(self) -> None:
        for each in fields(self):
            if getattr(self, each.name) < 1:
                raise SettingsError(f"limits.{each.name} must be at least 1: leave it out for its default")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings(LogSettings):
    """`meshlog serve api`. `listen` speaks plain HTTP unless `http_tls` is given."""

    role: ClassVar[str] = "api"

    proxy_authority: AuthorityFiles
    """The proxies' root, with its key: signs what a proxy asks for."""
    frontends: Endpoints
    """xDS addresses that a new proxy is told, all zones."""
    http_tls: TlsFiles | None = None
    peer_listen: str | None = None
    """Where other API servers hand over batches: mTLS under the roles' root. Without it, and `peer_advertise`, they do
    not."""
    peer_advertise: str | None = None
    archive: str | None = None
    """Where the log is archived: file:///path or s3://bucket/prefix?endpoint=…, the same for every API server. Without
    it nothing is trimmed, and a lost cluster is lost."""
    archive_retention_days: int = DEFAULT_RETENTION_DAYS
    """How far back any moment can be restored; 0 keeps everything."""
    registry_retention_days: int = DEFAULT_REGISTRY_RETENTION_DAYS
    """The same of the registry, which is never rolled back: who looks back, looks for who was there. 0 keeps all."""
    maintenance_tls: TlsFiles | None = None
    """Client certificate of etcd's user `maintenance`. Not set: `etcd-maintenance.crt` and `.key` beside `etcd_tls`."""
    quota_bytes: int = ETCD_QUOTA_BYTES
    """The etcd members' quota, for a release that does not tell it (etcd before 3.6)."""
    duties: DutySettings | None = None
    cloud_map: CloudMapSettings | None = None
    """Without it nothing is copied from AWS Cloud Map."""
    limits: LimitSettings | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectorSettings(LogSettings):
    """`meshlog serve projector`. `listen` is the feed: mTLS under the roles' root."""

    role: ClassVar[str] = "projector"

    projectors: Endpoints
    """Feed addresses of all projectors, told to frontends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontendSettings(ProcessSettings):
    """`meshlog serve frontend`. No etcd, no keys of the log: only peers."""

    role: ClassVar[str] = "frontend"

    trust_domain: str = DEFAULT_TRUST_DOMAIN
    account_id: str
    role_tls: TlsFiles
    """Serves xDS (name `frontend.meshlog`) and dials projectors, both under the roles' root."""
    proxy_authority_certificate: Path
    """The proxies' root, without its key: verifies the Envoys' certificates."""
    projectors: Endpoints
    """Feed addresses of all projectors, any order."""
    proxies_per_node: int = PROXIES_PER_NODE
    """Above it, the status says which node has more proxies here."""
    signed_listen: str | None = None
    """Where proxies without a certificate connect, which sign (SigV4 in gRPC metadata) as the stock App Mesh image
    does: TLS, `apis` set. Without it there are none."""
    signed_advertise: str | None = None
    signed_tls: TlsFiles | None = None
    """What such proxies see, of a root that their CA bundle has; not set: `role_tls`."""
    signed_names: str | None = None
    """`host` or `host:port`, separated by commas, by which they dial, where that is neither a name of the certificate
    with one of the ports above, nor such a name at port 443: a load balancer's."""
    apis: Endpoints | None = None
    """Peer addresses (`peer_advertise`) of all API servers, which verify those signatures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdMemberSettings(ProcessSettings):
    """`meshlog serve etcd`: turned into etcd's own arguments by cluster.etcd.server."""

    role: ClassVar[str] = "etcd"

    peer_listen: str
    peer_advertise: str
    members: EtcdPeers
    """Every member of the cluster at its start, this one (under its `id`) among them."""
    cluster_token: str
    client_tls: TlsFiles
    peer_tls: TlsFiles
    binary: Path | None = None
    """The etcd that made the data: another release must not open it by accident. MESHLOG_ETCD overrides."""
    initial_state: str = "new"
    heartbeat_ms: int = 100
    election_ms: int = 1000
    quota_bytes: int = ETCD_QUOTA_BYTES
    allow_first_look: bool = False
    """Accept etcd 3.5.0 to 3.5.2, which can corrupt data when killed under load. Only `up` and `demo` write this."""


ROLES: Mapping[str, type[ProcessSettings]] = {
    kind.role: kind for kind in (EtcdMemberSettings, ApiSettings, ProjectorSettings, FrontendSettings)
}


def split_address(address: str, what: str = "address") -> tuple[str, int]:
    """`host:port` (or `[v6]:port`) as its two parts; SettingsError otherwise."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isascii() and port.isdigit()) or not 0 <= int(port) <= 65535:
        raise SettingsError(f"{what} '{address}' is not host:port; write for example 127.0.0.1:7411")
    return host, int(port)
