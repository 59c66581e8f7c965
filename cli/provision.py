"""The files of a cluster: trust roots, key-encryption keys, the admin key, each process's settings and certificates.

A plan (zones, hosts, ports) becomes a directory. Run again on the same directory it keeps every root and key, and makes
new only what is missing or soon to expire. It starts nothing and opens no connection.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cli.credentials import AdminCredentials, create_credentials, load_credentials, save_credentials
from cli.layout import ClusterFile, Layout, ProcessEntry, tls_files
from cluster import pki
from mesh.errors import SettingsError
from runtime.clock import Clock, Entropy
from runtime.files import PRIVATE, PUBLIC, write_atomic
from runtime.key_sources import KeySources, key_files
from runtime.settings import (
    DEFAULT_KEY_PREFIX,
    DEFAULT_TRUST_DOMAIN,
    ApiSettings,
    AuthorityFiles,
    EtcdMemberSettings,
    EtcdPeer,
    FrontendSettings,
    KekSettings,
    ProcessSettings,
    ProjectorSettings,
    TlsFiles,
    split_address,
)
from runtime.settings_file import dump, load, relative_to

_ZONE = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_ACCOUNT = re.compile(r"\d{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Where one process is bound and where others find it. Ports are told apart by what is spoken."""

    listen_host: str
    host: str
    port: int
    health_port: int
    peer_port: int = 0
    """Among its own kind: etcd members and API servers only."""

    def bound(self, port: int) -> str:
        return _address(self.listen_host, port)

    def told(self, port: int) -> str:
        return _address(self.host, port)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to make. `listeners` by (zone, role); `zones` in order."""

    account_id: str
    region: str
    zones: tuple[str, ...]
    listeners: Mapping[tuple[str, str], Listener]
    local: bool
    trust_domain: str = DEFAULT_TRUST_DOMAIN
    key_prefix: str = DEFAULT_KEY_PREFIX
    etcd_binary: Path | None = None
    allow_first_look: bool = False
    cluster_token: str = ""
    """Sets one etcd cluster apart from others. Empty: named after the account; a restore names another one."""

    archive: str | None = None
    """Where the log is archived. None: in the cluster's directory if all of it runs on this machine, else nowhere."""
    https: bool = False
    """The API speaks HTTPS, by certificates of a root of its own."""
    https_names: tuple[str, ...] = ()
    """Further DNS names or addresses that callers reach it by: a load balancer's, or the one that AWS used."""
    keks: Mapping[str, KeySources] = field(default_factory=dict)
    """Providers of key-encryption keys by class, where they are not key files."""

    def check(self) -> None:
        """SettingsError naming what is wrong with it."""
        if not _ACCOUNT.fullmatch(self.account_id):
            raise SettingsError(f"account id '{self.account_id}' is not twelve digits; write for example 123456789012")
        for zone in self.zones:
            if not _ZONE.fullmatch(zone):
                raise SettingsError(f"zone '{zone}' is not a DNS label: use lower-case letters, digits and '-'")
        if len(set(self.zones)) != len(self.zones) or not self.zones:
            raise SettingsError("a cluster needs at least one zone, each named once")

    def host(self, zone: str, role: str) -> str:
        return self.listeners[zone, role].host


def plan_of(cluster: ClusterFile, etcd: Mapping[str, EtcdMemberSettings]) -> Plan:
    """The plan that `cluster` was made by, so that missing files can be made again with the same addresses.

    `etcd`: the members' settings by zone. Only for a local cluster, where a process is bound where others find it.
    """
    listeners = {}
    for process in cluster.processes:
        host, port = split_address(process.address)
        member = etcd[process.zone]
        listeners[process.zone, process.role] = Listener(
            listen_host=split_address(member.listen)[0],
            host=host,
            port=port,
            health_port=split_address(process.health)[1],
            peer_port=split_address(member.peer_listen)[1] if process.role == "etcd" else 0,
        )
    first = next(iter(etcd.values()))
    return Plan(
        account_id=cluster.account_id,
        region=cluster.region,
        zones=cluster.zones,
        listeners=listeners,
        local=cluster.local,
        trust_domain=cluster.trust_domain,
        key_prefix=cluster.key_prefix,
        etcd_binary=first.binary,
        allow_first_look=first.allow_first_look,
        https=any(process.scheme == "https" for process in cluster.of_role("api")),
        cluster_token="" if first.cluster_token == _token_of(cluster.account_id) else first.cluster_token,
    )


class Provisioner:
    """Writes one cluster's directory."""

    def __init__(self, layout: Layout, plan: Plan, clock: Clock, entropy: Entropy) -> None:
        plan.check()
        self._layout = layout
        self._plan = plan
        self._clock = clock
        self._entropy = entropy
        self._roots: dict[str, pki.Authority] = {}

    def write(self) -> tuple[ClusterFile, AdminCredentials]:
        """Make what is missing, `cluster.json` last: a directory without it is not a cluster yet."""
        layout, plan = self._layout, self._plan
        layout.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        (layout.root / "logs").mkdir(exist_ok=True, mode=0o700)
        for root in (*pki.ROOTS, pki.HTTP_ROOT) if plan.https else pki.ROOTS:
            self._roots[root] = self._root(root)
        admin = self._admin_key()
        self._key_encryption_keys()
        self._leaf(pki.ETCD_ROOT, pki.etcd_user_leaf("root"), layout.admin_etcd_tls)
        cluster = self._cluster()
        for zone in plan.zones:
            for settings in (self._etcd(zone), self._api(zone, cluster), self._projector(zone, cluster)):
                self._write_settings(zone, settings)
            self._write_settings(zone, self._frontend(zone, cluster))
        layout.save(cluster)
        return cluster, admin

    def _root(self, root: str) -> pki.Authority:
        files = self._layout.authority(root)
        if not files.certificate.exists():
            pki.save_authority(pki.create_authority(root, self._clock.now_us(), self._entropy), files)
        return pki.load_authority(files)

    def _admin_key(self) -> AdminCredentials:
        path = self._layout.credentials_file
        if not path.exists():
            save_credentials(path, create_credentials(self._plan.account_id, self._plan.region, self._entropy))
        return load_credentials(path)

    def _key_encryption_keys(self) -> None:
        from eventlog.keys.file import create_key_file  # noqa: PLC0415
        from eventlog.records import KeyClass  # noqa: PLC0415

        for key_class in (KeyClass.CONFIG, KeyClass.SECRETS):
            path = self._layout.key_file(key_class.value)
            path.parent.mkdir(exist_ok=True, mode=0o700)
            # Drawn with the cluster and never again: a lost key comes back from a copy, and another one opens nothing.
            if not path.exists() and not self._layout.cluster_file.exists() and key_class not in self._plan.keks:
                create_key_file(path, key_class, self._entropy)

    def _leaf(self, root: str, leaf: pki.Leaf, files: TlsFiles) -> TlsFiles:
        authority = self._roots[root]
        now_us = self._clock.now_us()
        whole = all(path.exists() for path in (files.certificate, files.key, files.authority))
        # After a restore, etcd's root is another one, and what the old one signed opens nothing.
        ours = whole and files.authority.read_bytes() == authority.certificate_pem
        if not ours or pki.needs_renewal(files.certificate.read_bytes(), now_us):
            pki.save_issued(pki.issue(authority, leaf, now_us, self._entropy), authority, files)
        return files

    def _role_tls(self, zone: str, role: str) -> TlsFiles:
        leaf = pki.role_leaf(role, self._plan.trust_domain, [self._plan.host(zone, role)])
        return self._leaf(pki.ROLES_ROOT, leaf, tls_files(self._layout.role(zone, role), "role"))

    def _http_tls(self, zone: str) -> TlsFiles | None:
        if not self._plan.https:
            return None
        leaf = pki.http_leaf([self._plan.host(zone, "api"), *self._https_names(zone)])
        return self._leaf(pki.HTTP_ROOT, leaf, tls_files(self._layout.role(zone, "api"), "http"))

    def _https_names(self, zone: str) -> tuple[str, ...]:
        """Those of the plan; of a cluster that is there, those of the certificate that may have to be renewed."""
        before = tls_files(self._layout.role(zone, "api"), "http").certificate
        return self._plan.https_names or (pki.hosts_of(before.read_bytes()) if before.exists() else ())

    def _etcd_user_tls(self, zone: str, role: str) -> TlsFiles:
        leaf = pki.etcd_user_leaf(role)
        return self._leaf(pki.ETCD_ROOT, leaf, tls_files(self._layout.role(zone, role), "etcd-client"))

    def _maintenance_tls(self, zone: str) -> TlsFiles:
        leaf = pki.etcd_user_leaf("maintenance")
        return self._leaf(pki.ETCD_ROOT, leaf, tls_files(self._layout.role(zone, "api"), "etcd-maintenance"))

    def _kek(self, zone: str, role: str, key_class: str) -> KeySources:
        """What the role has of a class: the provider that was asked for, or its own copy of the key file."""
        if key_class in self._plan.keks:
            return self._plan.keks[key_class]
        source, copy = self._layout.key_file(key_class), self._layout.role(zone, role) / f"{key_class}.kek"
        # Only what is missing: a copy may have keys that the operator's file does not have.
        if source.exists() and not copy.exists():
            write_atomic(copy, source.read_bytes(), PRIVATE)
        return key_files(copy)

    def _common(self, zone: str, role: str) -> dict[str, object]:
        listener, directory = self._plan.listeners[zone, role], self._layout.role(zone, role)
        return {
            "id": process_id(role, zone),
            "zone": zone,
            "data_dir": directory / "state",
            "listen": listener.bound(listener.port),
            "advertise": listener.told(listener.port),
            "health": listener.bound(listener.health_port),
            "pid_file": directory / "pid",
        }

    def _log_common(self, zone: str, role: str, cluster: ClusterFile) -> dict[str, object]:
        plan = self._plan
        return self._common(zone, role) | {
            "trust_domain": plan.trust_domain,
            "account_id": plan.account_id,
            "region": plan.region,
            "key_prefix": plan.key_prefix,
            "etcd_endpoints": cluster.endpoints("etcd"),
            "etcd_tls": self._etcd_user_tls(zone, role),
            "role_tls": self._role_tls(zone, role),
            "kek": KekSettings(
                config=self._kek(zone, role, "config"),
                secrets=self._kek(zone, role, "secrets") if role == "api" else None,
            ),
        }

    def _etcd(self, zone: str) -> EtcdMemberSettings:
        plan, role, member = self._plan, "etcd", process_id("etcd", zone)
        listener, directory = plan.listeners[zone, role], self._layout.role(zone, role)
        peers = ((peer_zone, plan.listeners[peer_zone, role]) for peer_zone in plan.zones)
        hosts = [listener.host]
        client = self._leaf(pki.ETCD_ROOT, pki.etcd_member_leaf(member, hosts), tls_files(directory, "client"))
        peer = self._leaf(pki.ETCD_ROOT, pki.etcd_peer_leaf(member, hosts), tls_files(directory, "peer"))
        path = self._layout.config(zone, role)
        before = load(EtcdMemberSettings, path, {}) if path.exists() else None
        token = plan.cluster_token or _token_of(plan.account_id)
        kept = {name: getattr(before, name) for name in _OPERATORS_OWN} if before is not None else {}
        if before is not None and before.cluster_token == token:
            kept["initial_state"] = before.initial_state  # of a member that was replaced
        common = self._common(zone, role) | kept
        return EtcdMemberSettings(
            **common,  # type: ignore[arg-type]
            peer_listen=listener.bound(listener.peer_port),
            peer_advertise=listener.told(listener.peer_port),
            members=tuple(EtcdPeer(process_id(role, name), other.told(other.peer_port)) for name, other in peers),
            cluster_token=token,
            client_tls=client,
            peer_tls=peer,
            binary=plan.etcd_binary,
            allow_first_look=plan.allow_first_look,
        )

    def _api(self, zone: str, cluster: ClusterFile) -> ApiSettings:
        directory, listener = self._layout.role(zone, "api"), self._plan.listeners[zone, "api"]
        proxies = AuthorityFiles(certificate=directory / "proxies-ca.crt", key=directory / "proxies-ca.key")
        pki.save_authority(self._roots[pki.PROXIES_ROOT], proxies)
        return ApiSettings(
            **self._log_common(zone, "api", cluster),  # type: ignore[arg-type]
            proxy_authority=proxies,
            frontends=cluster.endpoints("frontend"),
            http_tls=self._http_tls(zone),
            maintenance_tls=self._maintenance_tls(zone),
            archive=self._plan.archive or (self._layout.archive.as_uri() if self._plan.local else None),
            peer_listen=listener.bound(listener.peer_port) if listener.peer_port else None,
            peer_advertise=listener.told(listener.peer_port) if listener.peer_port else None,
        )

    def _projector(self, zone: str, cluster: ClusterFile) -> ProjectorSettings:
        common = self._log_common(zone, "projector", cluster)
        return ProjectorSettings(**common, projectors=cluster.endpoints("projector"))  # type: ignore[arg-type]

    def _frontend(self, zone: str, cluster: ClusterFile) -> FrontendSettings:
        proxies = self._layout.role(zone, "frontend") / "proxies-ca.crt"
        write_atomic(proxies, self._roots[pki.PROXIES_ROOT].certificate_pem, PUBLIC)
        return FrontendSettings(
            **self._common(zone, "frontend"),  # type: ignore[arg-type]
            trust_domain=self._plan.trust_domain,
            account_id=self._plan.account_id,
            role_tls=self._role_tls(zone, "frontend"),
            proxy_authority_certificate=proxies,
            projectors=cluster.endpoints("projector"),
        )

    def _write_settings(self, zone: str, settings: ProcessSettings) -> None:
        path = self._layout.config(zone, settings.role)
        if path.exists() and settings.role != "etcd":
            # An operator may have changed it; etcd's names the binary, which may be another one now.
            for names in _SINCE_ADDED:
                _fill_in(path, settings, names)
            return
        write_atomic(path, dump(relative_to(settings, path.parent)).encode(), PUBLIC)

    def _cluster(self) -> ClusterFile:
        plan = self._plan
        processes = []
        for (zone, role), listener in plan.listeners.items():
            entry = ProcessEntry(
                role=role,
                zone=zone,
                id=process_id(role, zone),
                config=str(self._layout.config(zone, role).relative_to(self._layout.root)),
                address=listener.told(listener.port),
                health=listener.told(listener.health_port),
                scheme=("https" if plan.https else "http") if role == "api" else "",
            )
            processes.append(entry)
        return ClusterFile(
            account_id=plan.account_id,
            region=plan.region,
            trust_domain=plan.trust_domain,
            key_prefix=plan.key_prefix,
            zones=plan.zones,
            local=plan.local,
            processes=tuple(processes),
        )


def _token_of(account_id: str) -> str:
    return f"meshlog-{account_id}"


_OPERATORS_OWN = ("quota_bytes", "heartbeat_ms", "election_ms", "log_level")
"""Of an etcd member's settings: what is kept as it is in the file, when the rest is written anew."""

_SINCE_ADDED = ("peer_listen", "peer_advertise"), ("archive",)
"""Settings that directories made by earlier builds lack, those together that mean nothing alone."""


def _fill_in(path: Path, settings: ProcessSettings, names: Sequence[str]) -> None:
    """Add those settings, if the file has none of them; nothing else in it is touched."""
    text = path.read_text(encoding="utf-8")
    wanted = {name: value for name in names if (value := getattr(settings, name, None)) is not None}
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in wanted.items()]
    if lines and not wanted.keys() & tomllib.loads(text).keys():
        write_atomic(path, ("".join(lines) + text).encode(), PUBLIC)  # before any table


def process_id(role: str, zone: str) -> str:
    """The name of a process within its cluster, `api-z1`."""
    return f"{role}-{zone}"


def with_etcd(plan: Plan, binary: Path, *, allow_first_look: bool) -> Plan:
    """The same plan on another etcd."""
    return dataclasses.replace(plan, etcd_binary=binary, allow_first_look=allow_first_look)


def with_peer_ports(plan: Plan, ports: Iterable[int]) -> Plan:
    """The same plan with peer ports for API servers that have none; those that have one in their settings keep it."""
    spare = iter(ports)
    listeners = {
        (zone, role): dataclasses.replace(listener, peer_port=next(spare)) if role == "api" else listener
        for (zone, role), listener in plan.listeners.items()
    }
    return dataclasses.replace(plan, listeners=listeners)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
